//! Under sudo, what a build writes belongs to root, and the user's next build could not touch it.
//! So it is given back at the end.

use std::{env, path::PathBuf, process::Command};

use crate::{tools, workspace};

/// Gives what this run may have written to the user who called sudo, if one did.
pub fn give_back() {
    let id = |name| env::var(name).ok()?.parse::<u32>().ok();
    let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else {
        return;
    };
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let registry = cargo_home.map(|home| home.join("registry"));
    let paths = [
        Some(workspace::root().join("target")),
        env::var_os("CARGO_TARGET_DIR").map(PathBuf::from),
        Some(tools::cache_directory()),
        registry,
    ];
    let paths: Vec<_> = paths
        .into_iter()
        .flatten()
        .filter(|path| path.exists())
        .collect();
    // A courtesy: if it fails, the user will see whose the files are.
    let _ = Command::new("chown")
        .args(["--recursive", "--quiet", &format!("{user}:{group}"), "--"])
        .args(paths)
        .status();
}
