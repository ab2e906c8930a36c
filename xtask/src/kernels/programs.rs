//! What runs in the virtual machines: the test programs as `cargo test` builds them, the agent and
//! the first process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
use testbed::packages;
use testbed::workspace::{build_program, cargo, run, say};

use super::download::Store;
use super::initramfs::Initramfs;
use super::list::{self, COMMANDS};
use super::unpack::{self, Content};
use crate::build_ebpf;
use crate::image::Platform;
use crate::image::program::{self, Source};
use crate::toolchain;

const PACKAGE: &str = "splitter-agent";

/// The programs for one platform, and what they need beside them.
#[derive(Debug)]
pub(super) struct Programs {
    /// The initial file system, to which the modules and the plan are still to be added.
    pub(super) initramfs: Initramfs,
    /// The path of the agent in it.
    pub(super) agent: String,
    /// The test programs in it: name and path.
    pub(super) tests: Vec<(String, String)>,
    /// The names of the kernel programs.
    pub(super) kernel_programs: Vec<String>,
}

/// Builds everything for a platform.
pub(super) fn build(platform: Platform, tests: &[&str], store: &mut Store) -> Result<Programs> {
    let object = build_ebpf::build()?;
    let init = program::build(
        &Source {
            package: "guest",
            binary: "guest",
        },
        platform,
    )?;
    say(format_args!("building the tests for {platform}"));
    let find = |name: &str| build_program(&mut test_command(platform, tests)?, name);
    let agent = find(PACKAGE)?;
    let mut programs = Vec::new();
    for name in tests {
        programs.push(((*name).to_owned(), find(name)?));
    }

    let mut initramfs = Initramfs::new();
    initramfs.file("/init", 0o755, &unpack::read(&init)?);
    for directory in ["/proc", "/sys", "/run", "/tmp", "/root"] {
        initramfs.directory(directory);
    }
    // What is bound over, and what the C library looks for.
    initramfs.file("/etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n");
    initramfs.file("/etc/nsswitch.conf", 0o644, b"hosts: files\n");
    initramfs.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    initramfs.file("/etc/group", 0o644, b"root:x:0:\n");
    match list::commands(platform).filter(|_| !platform.is_host()) {
        Some(packages) => add_packages(&mut initramfs, packages, store)?,
        None => add_own_commands(&mut initramfs)?,
    }
    let scratch = tempfile::tempdir().context("no temporary directory")?;
    for program in programs.iter().map(|(_, path)| path).chain([&agent]) {
        for path in unpack::with_libraries(program)? {
            let content = match path == *program {
                true => without_debug_information(program, scratch.path())?,
                false => unpack::read(&path)?,
            };
            initramfs.file(&path, 0o755, &content);
        }
    }
    let text = |path: &Path| path.display().to_string();
    Ok(Programs {
        initramfs,
        agent: text(&agent),
        tests: programs
            .iter()
            .map(|(name, path)| (name.clone(), text(path)))
            .collect(),
        kernel_programs: kernel_programs(&object)?,
    })
}

/// For this machine those that `cargo test` runs; for others static ones.
fn test_command(platform: Platform, tests: &[&str]) -> Result<Command> {
    let mut command = match platform.is_host() {
        true => {
            let mut command = cargo();
            command.arg("test");
            command
        }
        false => program::cargo_for(platform, "test")?,
    };
    command.args(["--quiet", "--no-run", "--package", PACKAGE]);
    command.args(tests.iter().map(|name| format!("--test={name}")));
    Ok(command)
}

/// This machine's own commands, with their libraries.
fn add_own_commands(initramfs: &mut Initramfs) -> Result<()> {
    for name in COMMANDS {
        let path = packages::find(name).with_context(|| format!("no command `{name}`"))?;
        for path in unpack::with_libraries(&path)? {
            initramfs.file(&path, 0o755, &unpack::read(&path)?);
        }
        // Wherever it is on this machine.
        initramfs.link(format!("/usr/bin/{name}"), &path);
        initramfs.link(format!("/bin/{name}"), &path);
    }
    Ok(())
}

/// Commands from packages, with the libraries of all of them.
fn add_packages(
    initramfs: &mut Initramfs,
    packages: &[list::Package],
    store: &mut Store,
) -> Result<()> {
    let is_wanted = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let is_library = |name: &str| name.ends_with(".so") || name.contains(".so.");
        let is_of_gconv = path.components().any(|part| part.as_os_str() == "gconv");
        name.is_some_and(|name| {
            COMMANDS.contains(&name) || name == "dash" || is_library(name) && !is_of_gconv
        })
    };
    for package in packages {
        for (path, content) in unpack::files(&store.get(package)?, is_wanted)? {
            match content {
                Content::File(mode, content) => initramfs.file(&path, mode, &content),
                Content::Link(target) => initramfs.link(&path, &target),
            }
        }
    }
    initramfs.link("/bin/sh", "dash");
    Ok(())
}

/// A program as it is loaded. What only debuggers read is most of a test program, and would have to
/// fit into the memory of the virtual machine.
fn without_debug_information(program: &Path, scratch: &Path) -> Result<Vec<u8>> {
    let Some(objcopy) = objcopy()? else {
        return unpack::read(program);
    };
    let stripped = scratch.join("stripped");
    run(Command::new(objcopy)
        // rustup sets it for what it starts, but not for what that starts.
        .env("LD_LIBRARY_PATH", toolchain::sysroot()?.join("lib"))
        .arg("--strip-all")
        .arg(program)
        .arg(&stripped))?;
    unpack::read(&stripped)
}

/// rustc's own; it knows every platform.
fn objcopy() -> Result<Option<PathBuf>> {
    let targets = toolchain::sysroot()?.join("lib/rustlib");
    let entries = fs::read_dir(&targets);
    let entries = entries.with_context(|| format!("cannot list {}", targets.display()))?;
    let mut paths = entries
        .flatten()
        .map(|entry| entry.path().join("bin/rust-objcopy"));
    Ok(paths.find(|path| path.is_file()))
}

/// The functions of an object outside `.text`, which holds what they share.
fn kernel_programs(object: &Path) -> Result<Vec<String>> {
    let content = unpack::read(object)?;
    let file = object::File::parse(&*content).context("the kernel programs are no ELF file")?;
    let mut names = Vec::new();
    for symbol in file.symbols() {
        let section = symbol
            .section_index()
            .and_then(|it| file.section_by_index(it).ok());
        let is_program = section.is_some_and(|section| section.name() != Ok(".text"));
        if symbol.kind() == SymbolKind::Text && symbol.is_global() && is_program {
            names.push(symbol.name()?.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
