//! Compiling programs that need no file beside themselves: no C library, no loader.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use testbed::packages::Requirement;
use testbed::workspace::{build_program, cargo, say};

use super::Platform;
use crate::toolchain;

/// The profile in the workspace's `Cargo.toml`.
const PROFILE: &str = "dist";

/// TLS has parts in C and assembly. This machine's compiler does for programs of its own
/// architecture: the parts need no C library, so it matters not that it is made for another.
const CC: &str = "cc";

/// Compiles for any architecture.
const CLANG: &str = "clang";

/// Where a program comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// The package.
    pub(crate) package: &'static str,
    /// The program in it.
    pub(crate) binary: &'static str,
}

/// What has to be installed to compile for these platforms.
pub(crate) fn requirements(platforms: &[Platform]) -> Vec<Requirement> {
    let mut requirements = vec![
        Requirement::program(
            CC,
            "to compile the cryptography of images for this machine's architecture",
            &["gcc", "libc6-dev"],
        ),
        Requirement::program("ar", "to archive what is compiled", &["binutils"]),
    ];
    if platforms.iter().any(|platform| !platform.is_host()) {
        requirements.push(Requirement::program(
            CLANG,
            "to compile the cryptography of images for the other architecture; not needed for \
             this machine's alone, see --platform",
            &["clang"],
        ));
    }
    requirements
}

/// Compiles a program for a platform and returns its path.
pub(crate) fn build(source: &Source, platform: Platform) -> Result<PathBuf> {
    let mut build = cargo_for(platform, "build")?;
    say(format_args!("building {} for {platform}", source.binary));
    build
        .args(["--quiet", "--locked", "--profile", PROFILE])
        .args(["--package", source.package, "--bin", source.binary]);
    build_program(&mut build, source.binary)
}

/// A cargo command whose programs are static ones for a platform.
pub(crate) fn cargo_for(platform: Platform, subcommand: &str) -> Result<Command> {
    let target = platform.target();
    toolchain::ensure_target(target)?;
    let mut flags = toolchain::without_directories()?;
    flags.push("-Ctarget-feature=+crt-static".to_owned());
    let compiler = if platform.is_host() { CC } else { CLANG };
    let mut command = cargo();
    command
        .args([subcommand, "--target", target])
        // Ships with rustc and links for every architecture; start files and C library come with
        // the target.
        .env(variable("CARGO_TARGET_", target, "_LINKER"), "rust-lld")
        .env(format!("CC_{}", underscored(target)), compiler)
        // What some distributions add by default calls into their own C library.
        .env(
            format!("CFLAGS_{}", underscored(target)),
            "-U_FORTIFY_SOURCE -fno-stack-protector",
        )
        .env(format!("AR_{}", underscored(target)), "ar")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS");
    Ok(command)
}

fn underscored(target: &str) -> String {
    target.replace('-', "_")
}

/// A variable by which cargo is told about a target.
fn variable(before: &str, target: &str, after: &str) -> OsString {
    format!("{before}{}{after}", underscored(target).to_uppercase()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_compiler_is_needed_for_another_architecture_alone() {
        let count = |platforms| requirements(platforms).len();
        assert_eq!(count(&Platform::ALL), count(&[Platform::host()]) + 1);
    }
}
