//! Where the workspace is, and how cargo is called in it.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// Says in one line what is being done.
pub fn say(message: impl Display) {
    eprintln!("xtask: {message}");
}

/// The root of the workspace.
#[must_use]
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// `cargo`, to be run at the root of the workspace whatever the current directory is.
///
/// `cargo run` describes the package it runs in the environment; build scripts of the
/// next cargo would take that for their own, so it is taken out. `RUSTUP_TOOLCHAIN` stays:
/// whoever picked a toolchain for `cargo xtask` picked it for everything that it starts.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        if is_about_the_running_package(&name) {
            command.env_remove(&name);
        }
    }
    command
}

fn is_about_the_running_package(variable: &OsString) -> bool {
    variable.to_str().is_some_and(|name| {
        name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || name.starts_with("CARGO_BIN_")
            || name == "CARGO_CRATE_NAME"
            || name == "CARGO_PRIMARY_PACKAGE"
            || name == "OUT_DIR"
    })
}

/// Runs a command that speaks for itself, and fails if it does.
///
/// # Errors
///
/// When the command cannot be started, or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// What a command prints; what it complains about goes to the terminal.
///
/// # Errors
///
/// When the command cannot be started, does not succeed or prints something else than text.
pub fn output(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something odd"))
}

/// Runs a command at the root of the workspace with this input, whether it succeeds or not.
///
/// # Errors
///
/// When the command cannot be started.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<Output> {
    let line = describe(command);
    let context = || format!("cannot run `{line}`");
    let mut child = command
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(context)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it does not want to know all of it, its output says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().with_context(context)
}

/// The program and its arguments, as many as fit into a message.
fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        if line.len() + argument.len() > 70 {
            line.push_str(" ...");
            break;
        }
        line.push(' ');
        line.push_str(&argument);
    }
    line
}

/// Where cargo puts what it builds: `target`, or wherever the user's settings say.
///
/// # Errors
///
/// When `cargo metadata` fails.
pub fn target_directory() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let json = output(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Metadata = serde_json::from_str(&json).context("cargo metadata")?;
    Ok(metadata.target_directory)
}

/// Runs a `cargo build` and returns the path of the program called `name` that it made.
///
/// # Errors
///
/// When the build fails or makes no such program.
pub fn build_program(build: &mut Command, name: &str) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let messages = output(build.arg("--message-format=json-render-diagnostics"))?;
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Message>(line) else {
            continue;
        };
        if message.target.is_some_and(|target| target.name == name)
            && let Some(executable) = message.executable
        {
            return Ok(executable);
        }
    }
    bail!("cargo built no program called {name}")
}

/// Writes a file in one step, so that no reader sees half of it; says whether it changed.
/// A file that already holds `content` keeps its modification time.
///
/// # Errors
///
/// When the directory or the file cannot be written.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<bool> {
    match fs::read(path) {
        Ok(present) if present == content => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    // Other threads may be writing the same file.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let write = || {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}-{number}", std::process::id()));
        let temporary = directory.join(name);
        fs::write(&temporary, content)?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

/// A path as people write it, with the home directory as `~` and the workspace left out.
#[must_use]
pub fn short(path: &Path) -> String {
    if let Ok(inside) = path.strip_prefix(root()) {
        return inside.display().to_string();
    }
    let home = env::var_os("HOME").filter(|home| !home.is_empty());
    match home.as_ref().and_then(|home| path.strip_prefix(home).ok()) {
        Some(inside) => format!("~/{}", inside.display()),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_the_same_content_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/object");
        assert!(replace_file(&path, b"one").unwrap());
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(!replace_file(&path, b"one").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
        assert!(replace_file(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "no temporary file is left behind");
    }

    #[test]
    fn paths_of_the_workspace_are_printed_relative_to_it() {
        assert_eq!(short(&root().join("target/ebpf")), "target/ebpf");
        assert_eq!(short(Path::new("/sys/fs/bpf")), "/sys/fs/bpf");
    }

    #[test]
    fn what_a_user_sets_for_cargo_is_kept() {
        for (name, removed) in [
            ("CARGO_PKG_VERSION", true),
            ("CARGO_MANIFEST_DIR", true),
            ("CARGO_TARGET_DIR", false),
            ("CARGO_HOME", false),
            ("CARGO_TERM_COLOR", false),
        ] {
            assert_eq!(
                is_about_the_running_package(&name.into()),
                removed,
                "{name}"
            );
        }
    }
}
