//! What a command of xtask needs from the distribution, and how to get it: as root on a machine
//! with apt, missing packages are installed; elsewhere everything that is missing is named at
//! once.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::lab::sys;
use crate::workspace::{run, say};

/// Something that a Debian package brings: a program on the `PATH`, or a C library's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    kind: Kind,
    name: &'static str,
    purpose: &'static str,
    packages: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Program,
    Library,
}

/// The lab's networks are made with it.
pub const IP: Requirement = Requirement::program("ip", "to make network namespaces", &["iproute2"]);

/// Asks name servers, as people do.
pub const DIG: Requirement =
    Requirement::program("dig", "to ask name servers", &["bind9-dnsutils"]);

/// Asks servers for pages, as people do.
pub const CURL: Requirement = Requirement::program("curl", "to ask servers for pages", &["curl"]);

/// Programs that distributions put where only root's shell looks by default.
const ROOTS_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

impl Requirement {
    /// A program by its name, what it is needed for, and its Debian packages.
    #[must_use]
    pub const fn program(
        name: &'static str,
        purpose: &'static str,
        packages: &'static [&'static str],
    ) -> Self {
        Self {
            kind: Kind::Program,
            name,
            purpose,
            packages,
        }
    }

    /// The headers of a C library by the name that pkg-config knows, what they are needed for,
    /// and their Debian packages.
    #[must_use]
    pub const fn library(
        name: &'static str,
        purpose: &'static str,
        packages: &'static [&'static str],
    ) -> Self {
        Self {
            kind: Kind::Library,
            name,
            purpose,
            packages,
        }
    }

    /// Whether this machine has it.
    #[must_use]
    pub fn is_met(&self) -> bool {
        match self.kind {
            Kind::Program => find(self.name).is_some(),
            Kind::Library => Command::new("pkg-config")
                .args(["--exists", self.name])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }

    /// What is missing and what for.
    fn describe(&self) -> String {
        let headers = match self.kind {
            Kind::Program => "",
            Kind::Library => "the headers of ",
        };
        format!("{headers}`{}` ({})", self.name, self.purpose)
    }
}

/// The path of a program that is on the `PATH`, or where root's would have it.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    search_directories()
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// The `PATH` for commands that use what [`ensure`] has found or installed.
#[must_use]
pub fn search_path() -> OsString {
    env::join_paths(search_directories())
        .unwrap_or_else(|_| env::var_os("PATH").unwrap_or_default())
}

fn search_directories() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = env::split_paths(&path).collect();
    let roots = ROOTS_DIRECTORIES.map(PathBuf::from);
    let missing: Vec<PathBuf> = roots
        .into_iter()
        .filter(|directory| !directories.contains(directory))
        .collect();
    directories.into_iter().chain(missing)
}

/// Those of `requirements` that this machine does not have.
#[must_use]
pub fn missing(requirements: &[Requirement]) -> Vec<Requirement> {
    let missing = requirements.iter().filter(|it| !it.is_met());
    missing.copied().collect()
}

/// Sees to it that this machine has everything that is required: as root, where there is apt, by
/// installing it.
///
/// # Errors
///
/// Elsewhere, names everything that is missing, with the command that installs it; also when apt
/// fails.
pub fn ensure(requirements: &[Requirement]) -> Result<()> {
    let missing = missing(requirements);
    if missing.is_empty() {
        return Ok(());
    }
    if !can_install() {
        bail!("{}", advice(&missing));
    }
    install(&missing)?;
    let still = self::missing(&missing);
    if !still.is_empty() {
        bail!("apt-get succeeded, and yet: {}", advice(&still));
    }
    Ok(())
}

/// Tries to get what is only of help; says so in one line where it cannot be had.
pub fn try_ensure(requirement: &Requirement, without: &str) {
    if let Err(error) = ensure(&[*requirement]) {
        say(format_args!("{without}: {error:#}"));
    }
}

/// What is missing, and the command that installs it.
#[must_use]
pub fn advice(missing: &[Requirement]) -> String {
    let names: Vec<_> = missing.iter().map(Requirement::describe).collect();
    format!(
        "not installed: {}; run `apt-get install {}` (or your distribution's equivalent)",
        names.join(", "),
        packages(missing).join(" ")
    )
}

/// Whether this process may install packages, and knows how.
#[must_use]
pub fn can_install() -> bool {
    sys::is_root() && Path::new("/usr/bin/apt-get").exists()
}

fn install(missing: &[Requirement]) -> Result<()> {
    let packages = packages(missing);
    say(format_args!(
        "installing {} with apt-get",
        packages.join(", ")
    ));
    let apt = || {
        let mut apt = Command::new("/usr/bin/apt-get");
        apt.stdin(Stdio::null())
            // Some packages' scripts call what only root's path has.
            .env("PATH", search_path())
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Another apt may be at work, on machines that have just started above all.
            .args(["-qq", "-o", "DPkg::Lock::Timeout=300"]);
        apt
    };
    let advice = || advice(missing);
    // A fresh machine has no lists of packages, an old one has lists of versions that are gone.
    run(apt().arg("update")).with_context(advice)?;
    run(apt()
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&packages)
        // Its progress is of no interest unless it fails, and then standard error tells.
        .stdout(Stdio::null()))
    .with_context(advice)
}

fn packages(missing: &[Requirement]) -> Vec<&'static str> {
    let packages: BTreeSet<_> = missing.iter().flat_map(|it| it.packages).copied().collect();
    packages.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: Requirement = Requirement::program("sh", "to run scripts", &["dash"]);
    const NONE: Requirement = Requirement::program(
        "no-such-program",
        "to show what is missing",
        &["one", "two"],
    );
    const LIBRARY: Requirement =
        Requirement::library("no-such-library", "to compile something", &["two", "three"]);

    #[test]
    fn what_is_there_is_not_missing() {
        assert!(SHELL.is_met());
        assert_eq!(missing(&[SHELL, NONE, LIBRARY]), [NONE, LIBRARY]);
        ensure(&[SHELL]).unwrap();
    }

    #[test]
    fn advice_names_everything_that_is_missing_and_each_package_once() {
        assert_eq!(
            advice(&[NONE, LIBRARY]),
            "not installed: `no-such-program` (to show what is missing), the headers of \
             `no-such-library` (to compile something); run `apt-get install one three two` (or \
             your distribution's equivalent)"
        );
    }

    #[test]
    fn programs_for_root_are_found_whatever_the_path() {
        let path = search_path();
        let directories: Vec<PathBuf> = env::split_paths(&path).collect();
        for directory in ROOTS_DIRECTORIES {
            let times = directories.iter().filter(|it| it.as_os_str() == directory);
            assert!(times.count() >= 1, "{directory} in {path:?}");
        }
    }
}
