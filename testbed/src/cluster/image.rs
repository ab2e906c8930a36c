//! Container images without a registry: one program, and nothing else, in a file that
//! [`Cluster::load`](super::Cluster::load) takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::digest::digest;
use crate::workspace::run;

/// Writes an image called `name` (such as `shop.test/web:1`) into `directory` that holds `program`,
/// a statically linked one, at `/` under its own name, and runs it. Returns the path of the file.
///
/// # Errors
///
/// When the program cannot be read or the image not be written.
pub fn of_program(name: &str, program: &Path, directory: &Path) -> Result<PathBuf> {
    let file_name = program
        .file_name()
        .and_then(|name| name.to_str())
        .with_context(|| format!("{} has no name for a program", program.display()))?;
    let image = directory.join(format!("{file_name}.image.tar"));
    let staging = directory.join(format!("{file_name}.image"));
    fs::create_dir_all(&staging).with_context(|| format!("cannot create {}", staging.display()))?;
    let tar = |archive: &Path, from: &Path, names: &[&str]| {
        let mut tar = Command::new("tar");
        tar.args([
            "--create",
            "--owner=0",
            "--group=0",
            "--mode=0755",
            "--mtime=@0",
        ])
        .arg("--file")
        .arg(archive)
        .arg("--directory")
        .arg(from)
        .args(names);
        run(&mut tar)
    };
    let layer = staging.join("layer.tar");
    tar(
        &layer,
        program.parent().unwrap_or(Path::new("/")),
        &[file_name],
    )?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": [format!("/{file_name}")]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [digest(&fs::read(&layer)?)],
        },
    });
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": [name],
        "Layers": ["layer.tar"],
    }]);
    fs::write(staging.join("config.json"), config.to_string())?;
    fs::write(staging.join("manifest.json"), manifest.to_string())?;
    tar(
        &image,
        &staging,
        &["manifest.json", "config.json", "layer.tar"],
    )?;
    fs::remove_dir_all(&staging).with_context(|| format!("cannot remove {}", staging.display()))?;
    Ok(image)
}

/// This machine's, as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
