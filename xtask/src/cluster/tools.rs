//! The programs of a cluster, built from pinned Go modules (`xtask/tools/*/go.mod`) into the cache
//! directory, once.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::modules::{HELM, MODULES, Module};
use crate::{
    preflight::{self, Program},
    tools::{cache_directory, lock},
    workspace::{output, say, short},
};

/// The oldest Go that the modules can be built with.
const GO: (u32, u32) = (1, 26);

/// Programs that are not built but come with the system.
const SYSTEM: [Program; 6] = [
    preflight::IP,
    Program::new("nft", "by kube-proxy", "nftables"),
    Program::new(
        "iptables",
        "by kube-proxy and the network plugins",
        "iptables",
    ),
    Program::new("conntrack", "by kube-proxy", "conntrack"),
    Program::new("nsenter", "to run commands in a node", "util-linux"),
    Program::new("tar", "to make container images", "tar"),
];

/// The programs of a cluster, ready to use.
#[derive(Clone, Debug)]
pub struct Tools {
    directories: Vec<PathBuf>,
}

impl Tools {
    /// What lies in these directories.
    pub(super) fn in_directories(directories: Vec<PathBuf>) -> Self {
        Self { directories }
    }

    /// The path of the program called `name`.
    ///
    /// # Errors
    ///
    /// When there is no such program.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        self.directories
            .iter()
            .map(|directory| directory.join(name))
            .find(|path| path.is_file())
            .with_context(|| format!("{name} is none of the cluster's programs"))
    }

    /// The directories that the programs lie in.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }
}

/// What has to be installed before a cluster can be made; its own programs are built.
#[must_use]
pub fn needed() -> &'static [Program] {
    &SYSTEM
}

/// Finds the programs of a cluster, and builds what is missing: some eight minutes on two
/// processors, once for each change of versions.
///
/// # Errors
///
/// When the machine lacks something that cannot be built, or a build fails; with the remedy.
pub fn ensure() -> Result<Tools> {
    preflight::find_programs(&SYSTEM)?;
    ensure_modules(&MODULES)
}

/// The path of Helm, which is built when it is asked for the first time.
///
/// # Errors
///
/// As for [`ensure()`].
pub fn helm() -> Result<PathBuf> {
    ensure_modules(&[HELM])?.program("helm")
}

fn ensure_modules(modules: &[Module]) -> Result<Tools> {
    let cache = cache_directory().join("cluster");
    let directories = modules
        .iter()
        .map(|module| Ok(cache.join(module.key()?).join("bin")))
        .collect::<Result<Vec<_>>>()?;
    let missing = || {
        let pairs = modules.iter().zip(&directories);
        pairs
            .flat_map(|(module, directory)| {
                let programs = module.programs.iter();
                programs.map(move |program| (module, program, directory))
            })
            .filter(|(_, program, directory)| !directory.join(program.name).is_file())
            .collect::<Vec<_>>()
    };
    if !missing().is_empty() {
        fs::create_dir_all(&cache).with_context(|| {
            format!(
                "cannot create {}; name another place for tools with XDG_CACHE_HOME",
                cache.display()
            )
        })?;
        let _one_at_a_time = lock(&cache.join("lock"), "building the cluster's programs")?;
        let missing = missing();
        if !missing.is_empty() {
            let go = find_go()?;
            if missing.iter().any(|(_, program, _)| program.cgo) {
                find_libseccomp()?;
            }
            say(format_args!(
                "building {} programs of the cluster into {}, once",
                missing.len(),
                short(&cache)
            ));
            for (number, (module, program, directory)) in missing.iter().enumerate() {
                say(format_args!(
                    "building {} ({} of {}), takes up to {}",
                    program.name,
                    number + 1,
                    missing.len(),
                    program.patience
                ));
                module.build(&go, program, directory)?;
            }
        }
    }
    Ok(Tools { directories })
}

/// Go from the `PATH`, or from where its own archive is unpacked to.
fn find_go() -> Result<PathBuf> {
    let candidates = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")];
    let mut found = None;
    for go in candidates {
        let version = Command::new(&go)
            .args(["env", "GOVERSION"])
            .env("GOTOOLCHAIN", "local")
            .stderr(Stdio::null())
            .output();
        if let Ok(version) = version {
            let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
            if is_new_enough(&version) {
                return Ok(go);
            }
            found = Some(version);
        }
    }
    let (major, minor) = GO;
    bail!(
        "Go {major}.{minor} or newer is needed to build a cluster's programs, and {}: unpack one \
         from https://go.dev/dl/ to /usr/local/go",
        found.map_or("none is installed".to_owned(), |version| format!(
            "this is {version}"
        ))
    )
}

/// Reads what `go env GOVERSION` prints, such as `go1.26.8`.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version
        .trim_start_matches("go")
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= GO,
        _ => false,
    }
}

/// runc is written in C in part, and without libseccomp it starts no pod.
fn find_libseccomp() -> Result<()> {
    let found = Command::new("pkg-config")
        .args(["--exists", "libseccomp"])
        .status()
        .is_ok_and(|status| status.success());
    let compiler = env::var_os("CC").unwrap_or_else(|| "gcc".into());
    let compiles = output(Command::new(compiler).arg("--version")).is_ok();
    ensure!(
        found && compiles,
        "runc is built with a C compiler and the headers of libseccomp: run `apt-get install gcc \
         libc6-dev pkg-config libseccomp-dev` (or your distribution's equal)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        assert!(is_new_enough("go1.26.8"));
        assert!(is_new_enough("go1.30"));
        assert!(is_new_enough("go1.27rc1"));
        assert!(!is_new_enough("go1.9.7"));
        assert!(!is_new_enough("devel"));
    }
}
