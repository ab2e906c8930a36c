//! Runs every test of the workspace: the pure ones, and those that load the kernel programs and
//! open real connections.

use std::ffi::OsStr;

use anyhow::Result;
use testbed::packages::{self, Requirement};
use testbed::workspace::{cargo, run, say};
use testbed::{cluster, preflight};

use crate::build_ebpf;
use crate::image::{self, Kind};

/// Some tests look at the maps with it as people do; not every distribution has it.
const BPFTOOL: Requirement =
    Requirement::program("bpftool", "to look at maps in tests", &["bpftool"]);

/// Checks the machine, builds the kernel programs and runs `cargo test` with these arguments for
/// it and for the test programs; for the whole workspace, unless they name a package.
///
/// # Errors
///
/// When the machine lacks something, the programs do not compile or a test fails.
pub fn test(cargo_arguments: &[String], arguments: &[String]) -> Result<()> {
    let is_whole = !names_a_package(cargo_arguments);
    preflight::check("test", &requirements(is_whole)?)?;
    if is_whole {
        packages::try_ensure(&BPFTOOL, "what it takes bpftool to see is not tested");
    }
    build_ebpf::build()?;
    let mut test = cargo();
    test.arg("test").env("PATH", packages::search_path());
    if is_whole {
        // Where a test has these built, nobody sees why it takes so long.
        cluster::tools::ensure()?;
        cluster::tools::helm()?;
        for kind in [Kind::Agent, Kind::Examples] {
            image::build(&image::Options::for_this_machine(kind))?;
        }
        test.arg("--workspace");
    }
    test.args(cargo_arguments);
    if !arguments.is_empty() {
        test.arg("--").args(arguments);
    }
    let line: Vec<_> = test.get_args().map(OsStr::to_string_lossy).collect();
    say(format_args!("running cargo {}", line.join(" ")));
    run(&mut test)
}

/// What all tests need; those of a single package build and ask for the rest as they need it.
fn requirements(is_whole: bool) -> Result<Vec<Requirement>> {
    if !is_whole {
        return Ok(vec![packages::IP]);
    }
    let mut requirements = cluster::tools::requirements()?;
    requirements.extend(image::requirements_for_this_machine());
    requirements.push(packages::CURL);
    Ok(requirements)
}

fn names_a_package(cargo_arguments: &[String]) -> bool {
    cargo_arguments.iter().any(|argument| {
        argument.starts_with("-p") || argument == "--package" || argument.starts_with("--package=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_replaces_the_workspace() {
        let names = |line: &str| {
            let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            names_a_package(&arguments)
        };
        assert!(names("-p splitter-agent"));
        assert!(names("--test attach --package=splitter-agent"));
        assert!(!names("--test attach"));
        assert!(!names(""));
    }
}
