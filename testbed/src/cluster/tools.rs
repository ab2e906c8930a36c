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

/// How much of a cluster is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The API server with its store, and kubectl.
    ApiServer,
    /// Nodes too: all of it.
    Nodes,
}

impl Part {
    /// What a cluster with so many nodes is made of.
    #[must_use]
    pub const fn of_nodes(count: usize) -> Self {
        match count {
            0 => Self::ApiServer,
            _ => Self::Nodes,
        }
    }

    fn has(self, program: &str) -> bool {
        self == Self::Nodes || API_SERVER.contains(&program)
    }

    fn system(self) -> &'static [Requirement] {
        match self {
            Self::ApiServer => &[packages::IP],
            Self::Nodes => &SYSTEM,
        }
    }
}

/// The programs that an API server takes.
const API_SERVER: [&str; 4] = ["etcd", "kube-apiserver", "kubectl", "make-key"];

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
pub fn requirements(part: Part) -> Result<Vec<Requirement>> {
    let missing = missing(&MODULES, part)?;
    Ok([part.system(), &to_build(&missing)].concat())
}

/// Finds the programs of a cluster, and builds what is missing: some eight minutes on two
/// processors for all of it, once for each change of versions.
///
/// # Errors
///
/// When the machine lacks something that cannot be installed, or a build fails; with the remedy.
pub fn ensure(part: Part) -> Result<Tools> {
    packages::ensure(&requirements(part)?)?;
    ensure_modules(&MODULES, part)
}

/// The path of Helm, which is built when it is asked for the first time.
///
/// # Errors
///
/// As for [`ensure()`].
pub fn helm() -> Result<PathBuf> {
    packages::ensure(&to_build(&missing(&[HELM], Part::Nodes)?))?;
    ensure_modules(&[HELM], Part::Nodes)?.program("helm")
}

/// What it takes to build programs.
fn to_build(missing: &[Missing<'_>]) -> Vec<Requirement> {
    let mut requirements = Vec::new();
    if missing.iter().any(|missing| missing.program.cgo) {
        requirements.extend(FOR_C);
    }
    if !missing.is_empty() {
        requirements.extend(go::requirement());
    }
    requirements
}

/// A program that is to be built, and where to.
struct Missing<'a> {
    module: &'a Module,
    program: &'a Source,
    directory: PathBuf,
}

/// The programs of some modules that a part of a cluster takes and that are not built yet.
fn missing(modules: &[Module], part: Part) -> Result<Vec<Missing<'_>>> {
    let mut missing = Vec::new();
    for module in modules {
        let directory = directory(module)?;
        for program in module.programs {
            if part.has(program.name) && !directory.join(program.name).is_file() {
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

fn ensure_modules(modules: &[Module], part: Part) -> Result<Tools> {
    if !missing(modules, part)?.is_empty() {
        let cache = cache();
        fs::create_dir_all(&cache).with_context(|| {
            format!(
                "cannot create {}; name another place for tools with XDG_CACHE_HOME",
                cache.display()
            )
        })?;
        let _one_at_a_time = lock(&cache.join("lock"), "building the cluster's programs")?;
        build(&missing(modules, part)?)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_takes_programs_that_there_are() {
        let programs: Vec<_> = MODULES.iter().flat_map(|it| it.programs).collect();
        for name in API_SERVER {
            assert!(programs.iter().any(|it| it.name == name), "{name}");
        }
        let of_nodes = |name: &&str| Part::Nodes.has(name) && !Part::ApiServer.has(name);
        assert!(["kubelet", "runc", "coredns"].iter().all(of_nodes));
    }
}
