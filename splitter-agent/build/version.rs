//! What `--version` says: the package's version and the commit.
//!
//! Only release builds name the commit: a debug build would be compiled anew after every commit
//! for the sake of one line. Without git, or outside of a clone (in a tarball), the version stands
//! alone, unless `SPLITTER_COMMIT` names the commit.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the commit where git cannot: in a tarball, say.
const COMMIT: &str = "SPLITTER_COMMIT";

/// How much of a commit's name is shown.
const LENGTH: &str = "12";

/// What the agent is made from, seen from the root of the workspace. Cargo compiles it anew when
/// any of it changes, so looking at git then costs nothing.
const SOURCES: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "splitter-agent/Cargo.toml",
    "splitter-agent/src",
    "splitter-common",
    "splitter-ebpf",
];

/// Tells the compiler the version and the commit, `SPLITTER_VERSION` and `SPLITTER_COMMIT`; the
/// latter is empty if it is not known.
pub(crate) fn tell(root: &Path) {
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let commit = env::var(COMMIT)
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(|| of_clone(root))
        .unwrap_or_default();
    let package = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match commit.as_str() {
        "" => package,
        commit => format!("{package} ({commit})"),
    };
    println!("cargo::rustc-env=SPLITTER_VERSION={version}");
    println!("cargo::rustc-env={COMMIT}={commit}");
}

/// Whether this profile is release's, or inherits from it.
fn is_release() -> bool {
    env::var("PROFILE").is_ok_and(|profile| profile == "release")
}

/// The commit that is checked out, marked if the source is not what was committed.
fn of_clone(root: &Path) -> Option<String> {
    if !is_release() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(root)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // A clone that a tarball was unpacked into is not the tarball's.
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // What a commit, a checkout or a pull writes; the reflog may be switched off.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        let path = root.join(git(&["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed=../{source}");
    }
    let commit = git(&["rev-parse", &format!("--short={LENGTH}"), "HEAD"])?;
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let is_modified = !git(&[&status[..], &SOURCES].concat())?.is_empty();
    Some(if is_modified {
        format!("{commit}, modified")
    } else {
        commit
    })
}
