//! Builds the agent with the kernel programs in it.

use std::path::PathBuf;

use anyhow::Result;
use testbed::workspace::{build_program, cargo, say, short};

use crate::build_ebpf;

const PACKAGE: &str = "splitter-agent";

/// Builds the kernel programs, then the agent in release, and returns the agent's path.
///
/// # Errors
///
/// When one of them does not compile.
pub fn build() -> Result<PathBuf> {
    build_ebpf::build()?;
    say("building the agent");
    let mut build = cargo();
    build.args(["build", "--release", "--package", PACKAGE]);
    let agent = build_program(&mut build, PACKAGE)?;
    say(format_args!("{} is ready", short(&agent)));
    Ok(agent)
}
