//! What has to be clean before a change is merged, tests apart.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use testbed::workspace::{cargo, run, say};

use crate::build_ebpf::{PACKAGE, cargo_for_bpf};
use crate::{deny, imports, toolchain};

/// Runs every check, also when one before it has failed.
///
/// # Errors
///
/// Says which checks failed; each has printed why.
pub fn check() -> Result<()> {
    let tools = toolchain::ensure()?;
    let bpf = |task| cargo_for_bpf(task, &tools);
    let checks: [(_, &dyn Fn() -> Result<()>); 7] = [
        ("formatting", &|| {
            run(cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt`")
        }),
        ("imports", &imports::check),
        ("clippy", &|| {
            run(cargo()
                .args(["clippy", "--workspace", "--all-targets"])
                .args(["--", "-D", "warnings"]))
        }),
        ("clippy for the kernel programs", &|| {
            run(bpf("clippy")?.args(["--", "-D", "warnings"]))
        }),
        ("documentation", &|| {
            // On the host the kernel programs are empty, and links into them lead nowhere.
            run(cargo()
                .args(["doc", "--workspace", "--exclude", PACKAGE, "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings"))
        }),
        ("documentation of the kernel programs", &|| {
            run(bpf("doc")?
                .arg("--no-deps")
                .env("RUSTDOCFLAGS", "-D warnings"))
        }),
        ("dependencies", &deny::check),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        say(format_args!("checking {name}"));
        let started = Instant::now();
        let result = check();
        let seconds = started.elapsed().as_secs_f32();
        match result {
            Ok(()) => say(format_args!("checking {name}: ok ({seconds:.1} s)")),
            Err(error) => {
                say(format_args!("checking {name}: {error:#} ({seconds:.1} s)"));
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("not clean: {}", failed.join(", "));
    }
    Ok(())
}
