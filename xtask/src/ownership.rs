//! Under sudo, what a build writes belongs to root, and the user's next build could not touch it.
//! So it is given back at the end.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::{cache, workspace};

/// Gives what this run may have written to the user who called sudo, if one did: the build, the
/// tools and the crates that were fetched, each where it lies in a directory of that user's. Where
/// sudo set HOME to root's, tools and crates are root's own, and stay so.
pub fn give_back() {
    let id = |name| env::var(name).ok()?.parse::<u32>().ok();
    let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else {
        return;
    };
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let paths: Vec<_> = [
        // The object for the kernel is always there; the rest is where cargo is told.
        Some(workspace::root().join("target")),
        workspace::target_directory().ok(),
        Some(cache::directory()),
        cargo_home.map(|home| home.join("registry")),
    ]
    .into_iter()
    .flatten()
    .filter(|path| is_in_directory_of(path, user))
    .collect();
    if paths.is_empty() {
        return;
    }
    // A courtesy: if it fails, the user will see whose the files are.
    let _ = Command::new("chown")
        .args(["--recursive", "--quiet", &format!("{user}:{group}"), "--"])
        .args(paths)
        .status();
}

/// Whether something is there, in a directory that belongs to a user. What is in anybody
/// else's is not ours to give away.
fn is_in_directory_of(path: &Path, user: u32) -> bool {
    path.exists()
        && path
            .parent()
            .and_then(|parent| fs::metadata(parent).ok())
            .is_some_and(|parent| parent.uid() == user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_another_users_directory_is_not_given_away() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("target");
        let owner = fs::metadata(directory.path()).unwrap().uid();
        assert!(!is_in_directory_of(&inside, owner), "not there yet");
        fs::create_dir(&inside).unwrap();
        assert!(is_in_directory_of(&inside, owner));
        assert!(!is_in_directory_of(&inside, owner + 1));
    }
}
