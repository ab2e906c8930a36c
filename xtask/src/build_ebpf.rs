//! Builds the kernel programs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use testbed::workspace::{build_program, cargo, replace_file, root, say, target_directory};

use crate::btf_text;
use crate::sources::{self, OBJECT, STAMP};
use crate::toolchain::{self, Tools};

/// The package with the kernel programs.
pub const PACKAGE: &str = "splitter-ebpf";
const TARGET: &str = "bpfel-unknown-none";

/// The third version of the instruction set (kernel 5.12) has the atomic add that returns
/// what was there before.
const CPU: &str = "v3";

/// Builds the kernel programs and returns the path of the object.
///
/// # Errors
///
/// When a tool is missing and cannot be installed, or the programs do not compile.
pub fn build() -> Result<PathBuf> {
    let tools = toolchain::ensure()?;
    let started = Instant::now();
    say("building the kernel programs");
    // Taken before the build: what changes during it has to count as not built.
    let stamp = sources::fingerprint(root()).context("cannot read the kernel programs' source")?;
    let mut build = cargo_for_bpf("build", &tools)?;
    let linked = build_program(build.arg("--quiet"), PACKAGE)?;
    let mut elf = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    btf_text::mark_in_object(&mut elf)
        .with_context(|| format!("cannot use {}", linked.display()))?;
    let object = root().join(OBJECT);
    let changed = replace_file(&object, &elf)?;
    replace_file(&root().join(STAMP), stamp.as_bytes())?;
    say(format_args!(
        "{OBJECT} is {} ({} KiB, {:.1} s)",
        if changed { "new" } else { "up to date" },
        elf.len().div_ceil(1024),
        started.elapsed().as_secs_f32(),
    ));
    Ok(object)
}

/// A cargo command for the kernel programs and their target.
///
/// Two things here are unstable in Rust: building `core`, and the intrinsics that the
/// programs need for atomic additions. `RUSTC_BOOTSTRAP` lets the stable compiler do both; it is
/// set for this one command, so everything that runs in userspace is plain stable Rust.
///
/// # Errors
///
/// When cargo does not tell its directories.
pub fn cargo_for_bpf(subcommand: &str, tools: &Tools) -> Result<Command> {
    let mut flags = toolchain::without_directories()?;
    flags.extend([
        "-Cdebuginfo=2".into(), // BTF is made from it
        "-Clink-arg=--btf".into(),
        format!("-Ctarget-cpu={CPU}"),
        format!("-Clinker={}", tools.linker.display()),
    ]);
    let mut command = cargo();
    command
        .args([subcommand, "--package", PACKAGE, "--bins", "--release"])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(target_directory()?.join("ebpf"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // bpf-linker takes the first LLVM that it finds here.
        .env("LD_LIBRARY_PATH", &tools.llvm);
    for variable in ["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
    Ok(command)
}
