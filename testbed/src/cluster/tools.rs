//! The programs of a cluster, built from pinned Go modules (`testbed/tools/*/go.mod`) into the cache
//! directory, once.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::go;
use super::modules::{HELM, MODULES, Module, Source};
use crate::cache::{self, lock};
use crate::packages::{self, Requirement};
use crate::workspace::{say, short};

/// What is not built but comes with the system.
const SYSTEM: [Requirement; 6] = [
    packages::IP,
    Requirement::program("nft", "for kube-proxy", &["nftables"]),
    Requirement::program(
        "iptables",
        "for kube-proxy and the network plugins",
        &["iptables"],
    ),
    Requirement::program("conntrack", "for kube-proxy", &["conntrack"]),
    Requirement::program("nsenter", "to run commands in a node", &["util-linux"]),
    Requirement::program("tar", "to make container images", &["tar"]),
];

/// What runc is built with: it is written in C in part, and without libseccomp it starts no pod.
const FOR_C: [Requirement; 3] = [
    Requirement::program("cc", "to build runc", &["gcc", "libc6-dev"]),
    Requirement::program("pkg-config", "to build runc", &["pkg-config"]),
    Requirement::library("libseccomp", "to build runc", &["libseccomp-dev"]),
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

/// What has to be installed before [`ensure()`] can succeed.
///
/// # Errors
///
/// When a module's sums cannot be read.
pub fn requirements() -> Result<Vec<Requirement>> {
    Ok([&SYSTEM[..], &to_build(&MODULES)?].concat())
}

/// Finds the programs of a cluster, and builds what is missing: some eight minutes on two
/// processors, once for each change of versions.
///
/// # Errors
///
/// When the machine lacks something that cannot be installed, or a build fails; with the remedy.
pub fn ensure() -> Result<Tools> {
    packages::ensure(&requirements()?)?;
    ensure_modules(&MODULES)
}

/// The path of Helm, which is built when it is asked for the first time.
///
/// # Errors
///
/// As for [`ensure()`].
pub fn helm() -> Result<PathBuf> {
    packages::ensure(&to_build(&[HELM])?)?;
    ensure_modules(&[HELM])?.program("helm")
}

/// What it takes to build those programs of some modules that are not built yet.
fn to_build(modules: &[Module]) -> Result<Vec<Requirement>> {
    let mut requirements = Vec::new();
    let missing = missing(modules)?;
    if missing.iter().any(|missing| missing.program.cgo) {
        requirements.extend(FOR_C);
    }
    if !missing.is_empty() {
        requirements.extend(go::requirement());
    }
    Ok(requirements)
}

/// A program that is to be built, and where to.
struct Missing<'a> {
    module: &'a Module,
    program: &'a Source,
    directory: PathBuf,
}

/// The programs of some modules that are not built yet.
fn missing(modules: &[Module]) -> Result<Vec<Missing<'_>>> {
    let mut missing = Vec::new();
    for module in modules {
        let directory = directory(module)?;
        for program in module.programs {
            if !directory.join(program.name).is_file() {
                missing.push(Missing {
                    module,
                    program,
                    directory: directory.clone(),
                });
            }
        }
    }
    Ok(missing)
}

/// Where the programs of a module are built to.
fn directory(module: &Module) -> Result<PathBuf> {
    Ok(cache().join(module.key()?).join("bin"))
}

fn cache() -> PathBuf {
    cache::directory().join("cluster")
}

fn ensure_modules(modules: &[Module]) -> Result<Tools> {
    if !missing(modules)?.is_empty() {
        let cache = cache();
        fs::create_dir_all(&cache).with_context(|| {
            format!(
                "cannot create {}; name another place for tools with XDG_CACHE_HOME",
                cache.display()
            )
        })?;
        let _one_at_a_time = lock(&cache.join("lock"), "building the cluster's programs")?;
        build(&missing(modules)?)?;
    }
    let directories = modules.iter().map(directory);
    Ok(Tools {
        directories: directories.collect::<Result<_>>()?,
    })
}

fn build(missing: &[Missing<'_>]) -> Result<()> {
    if missing.is_empty() {
        // Someone else has built them meanwhile.
        return Ok(());
    }
    let go = go::ensure()?;
    say(format_args!(
        "building {} programs of the cluster into {}, once",
        missing.len(),
        short(&cache())
    ));
    for (
        number,
        Missing {
            module,
            program,
            directory,
        },
    ) in missing.iter().enumerate()
    {
        say(format_args!(
            "building {} ({} of {}), takes up to {}",
            program.name,
            number + 1,
            missing.len(),
            program.patience
        ));
        module.build(&go, program, directory)?;
    }
    Ok(())
}
