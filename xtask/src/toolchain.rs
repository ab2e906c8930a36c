//! What rustc needs beyond itself to build for the kernel: the source of `core`, which is
//! not shipped ready-made for BPF, and bpf-linker.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use testbed::cache::{self, lock};
use testbed::workspace::{cargo, output, root, run, say, short};

/// The version of bpf-linker. It reads what rustc writes, so its LLVM has to be rustc's:
/// raise this together with [`LLVM`] and the channel in `rust-toolchain.toml`.
const BPF_LINKER: &str = "0.10.3";

/// The LLVM that [`BPF_LINKER`] is made for.
const LLVM: u32 = 22;

/// Path of a bpf-linker to use instead of the one that is installed on demand.
const OVERRIDE: &str = "BPF_LINKER";

/// The tools, ready to use.
#[derive(Debug)]
pub struct Tools {
    /// Path of bpf-linker.
    pub linker: PathBuf,
    /// The directory with rustc's own LLVM, which bpf-linker loads.
    pub llvm: PathBuf,
}

/// Finds the tools, and installs what is missing.
///
/// # Errors
///
/// When the toolchain does not fit or something cannot be installed; each with the remedy.
pub fn ensure() -> Result<Tools> {
    let sysroot = sysroot()?;
    check_llvm(&output(rustc().arg("-vV"))?)?;
    ensure_rust_src(&sysroot)?;
    Ok(Tools {
        linker: ensure_bpf_linker()?,
        llvm: sysroot.join("lib"),
    })
}

/// The directory of the compiler that cargo will use in the workspace.
///
/// # Errors
///
/// When there is no compiler.
pub fn sysroot() -> Result<PathBuf> {
    let path = output(rustc().args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(path.trim()))
}

/// Flags that keep the directories of whoever builds a program out of it, where panics, logs and
/// debug information name source files: then everyone who builds it gets the same.
///
/// # Errors
///
/// When it is not known where cargo keeps its packages.
pub fn without_directories() -> Result<Vec<String>> {
    let packages = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let library = sysroot()?.join("lib/rustlib/src/rust");
    // Of several that fit, the last one counts, so that it may lie in one before it.
    let places = [
        (packages, "/cargo"),
        (library, "/rust"),
        (root().to_owned(), "/splitter"),
    ];
    Ok(places
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .into())
}

/// Adds what is needed to compile for a target to the toolchain, if it is not there.
///
/// # Errors
///
/// When it cannot be added.
pub fn ensure_target(target: &str) -> Result<()> {
    let sysroot = sysroot()?;
    let library = sysroot.join("lib/rustlib").join(target).join("lib");
    ensure_component(&sysroot, target, &library, &["target", "add", target])
}

/// The compiler that cargo will use in the workspace.
fn rustc() -> Command {
    let mut command = Command::new("rustc");
    command.current_dir(root());
    command
}

fn check_llvm(version: &str) -> Result<()> {
    let field = |name: &str| {
        let value = version.lines().find_map(|line| line.strip_prefix(name));
        value.map_or("unknown", str::trim)
    };
    let llvm = field("LLVM version:");
    if llvm.split('.').next().and_then(|major| major.parse().ok()) != Some(LLVM) {
        bail!(
            "rustc {} has LLVM {llvm}, and bpf-linker {BPF_LINKER} reads LLVM {LLVM}: use the \
             toolchain of rust-toolchain.toml (is RUSTUP_TOOLCHAIN set, or `+toolchain` given?), \
             or raise both versions in xtask/src/toolchain.rs",
            field("release:"),
        );
    }
    Ok(())
}

fn ensure_rust_src(sysroot: &Path) -> Result<()> {
    let library = sysroot.join("lib/rustlib/src/rust/library");
    let manifest = library.join("core/Cargo.toml");
    ensure_component(
        sysroot,
        "rust-src",
        &manifest,
        &["component", "add", "rust-src"],
    )
}

/// Has rustup add a part of the toolchain, unless the file that tells of it is there.
fn ensure_component(sysroot: &Path, name: &str, file: &Path, add: &[&str]) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let Some(toolchain) = rustup_toolchain(sysroot) else {
        bail!(
            "{name} is not part of this Rust ({} is missing): install your distribution's package \
             for it, or Rust by rustup",
            file.display()
        );
    };
    say(format_args!("adding {name} to the toolchain {toolchain}"));
    let add = [add, &["--toolchain", &toolchain]].concat();
    run(Command::new("rustup").args(&add)).with_context(|| {
        format!(
            "{name} is needed; `rustup {}` adds it when online",
            add.join(" ")
        )
    })?;
    if !file.exists() {
        bail!("rustup added {name}, yet {} is not there", file.display());
    }
    Ok(())
}

/// The name by which rustup knows the toolchain, when it is one of rustup's.
fn rustup_toolchain(sysroot: &Path) -> Option<String> {
    let parent = sysroot.parent()?.file_name()?;
    (parent == "toolchains").then(|| sysroot.file_name()?.to_str().map(str::to_owned))?
}

fn ensure_bpf_linker() -> Result<PathBuf> {
    if let Some(linker) = env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        let linker = root().join(linker);
        if !linker.is_file() {
            bail!("{OVERRIDE} names {}, which is not a file", linker.display());
        }
        return Ok(linker);
    }
    let cache = cache::directory();
    let directory = cache.join(format!("bpf-linker-{BPF_LINKER}-llvm{LLVM}"));
    let linker = directory.join("bin/bpf-linker");
    if linker.is_file() {
        return Ok(linker);
    }
    fs::create_dir_all(&cache).with_context(|| {
        format!(
            "cannot create {}; name another place for tools with XDG_CACHE_HOME",
            cache.display()
        )
    })?;
    let _one_at_a_time = lock(&cache.join("bpf-linker.lock"), "installing bpf-linker")?;
    if !linker.is_file() {
        install_bpf_linker(&directory)?;
    }
    Ok(linker)
}

/// Builds into a directory of its own and renames it, so that a half-built one is never used.
fn install_bpf_linker(directory: &Path) -> Result<()> {
    say(format_args!(
        "installing bpf-linker {BPF_LINKER} into {} (about a minute)",
        short(directory)
    ));
    let staging = directory.with_extension("partial");
    let clear = || match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", staging.display()))
        }
        _ => Ok(()),
    };
    clear()?;
    let mut install = cargo();
    install
        .args(["install", "bpf-linker", "--version", BPF_LINKER])
        .args(["--locked", "--quiet", "--no-track", "--root"])
        .arg(&staging)
        .arg("--target-dir")
        .arg(staging.join("target"));
    // What a user sets for the workspace is not meant for a tool.
    for variable in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
    ] {
        install.env_remove(variable);
    }
    run(&mut install).with_context(|| {
        format!(
            "bpf-linker {BPF_LINKER} cannot be installed; with a C compiler and access to \
             the package registry it can, or set {OVERRIDE} to the path of one made for LLVM {LLVM}"
        )
    })?;
    fs::remove_dir_all(staging.join("target")).context("cannot clear up after the installation")?;
    fs::rename(&staging, directory)
        .with_context(|| format!("cannot move bpf-linker to {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_rustc_has_to_be_the_linkers() {
        let version = |llvm: &str| format!("rustc 1.95.0\nrelease: 1.95.0\nLLVM version: {llvm}\n");
        check_llvm(&version("22.1.2")).unwrap();
        let error = check_llvm(&version("21.1.8")).unwrap_err().to_string();
        assert!(error.starts_with("rustc 1.95.0 has LLVM 21.1.8"), "{error}");
        assert!(error.contains("rust-toolchain.toml"), "{error}");
        check_llvm("rustc 1.95.0\n").unwrap_err();
    }

    #[test]
    fn a_toolchain_of_rustup_is_known_by_its_directory() {
        let rustups = Path::new("/home/me/.rustup/toolchains/stable-x86_64-unknown-linux-gnu");
        let name = rustup_toolchain(rustups);
        assert_eq!(name.as_deref(), Some("stable-x86_64-unknown-linux-gnu"));
        assert_eq!(rustup_toolchain(Path::new("/usr")), None);
    }
}
