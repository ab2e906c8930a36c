//! Hands the kernel programs to the agent, which embeds them as `$OUT_DIR/splitter-ebpf.o`, and
//! tells it its version.
//!
//! They are built for another target, by `cargo xtask build-ebpf`. Without them the agent
//! still compiles, with an empty file in their place, so that editors, clippy and rustdoc work on
//! a fresh clone; such an agent says so when it starts.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[path = "build/version.rs"]
mod version;

#[path = "../xtask/src/sources.rs"]
#[expect(unreachable_pub, reason = "public in xtask, which the file belongs to")]
mod sources;

/// Path of an object to embed instead of the one in the workspace.
const OVERRIDE: &str = "SPLITTER_EBPF_OBJECT";

fn main() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    version::tell(&root);
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let object = match env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        Some(path) => read(&root.join(path)),
        None => object_of_workspace(&root),
    }?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let out = out.join("splitter-ebpf.o");
    fs::write(&out, object).map_err(|error| format!("cannot write {}: {error}", out.display()))
}

fn object_of_workspace(root: &Path) -> Result<Vec<u8>, String> {
    let path = root.join(sources::OBJECT);
    create_stub(&path);
    let object = if path.exists() {
        read(&path)?
    } else {
        Vec::new()
    };
    if object.is_empty() {
        println!(
            "cargo::warning=the kernel programs are not built; run `cargo xtask build-ebpf` \
             (without them this binary only says that they are missing)"
        );
    } else if is_stale(root) {
        println!(
            "cargo::warning=the kernel programs are older than their source; \
             run `cargo xtask build-ebpf`"
        );
    }
    Ok(object)
}

/// An empty object where there is none: cargo runs a build script that watches a missing file
/// anew each time, and compiles the agent again with it. Old, so that it does not
/// look like a change that came after this run.
fn create_stub(path: &Path) {
    let create = || {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        let stub = fs::File::create_new(path)?;
        stub.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1))
    };
    // It is there, or the source is read-only: a stub is a convenience.
    let _: io::Result<()> = create();
}

/// Whether the source has changed since `cargo xtask build-ebpf`.
fn is_stale(root: &Path) -> bool {
    for source in sources::SOURCES {
        println!("cargo::rerun-if-changed=../{source}");
    }
    let Ok(stamp) = fs::read_to_string(root.join(sources::STAMP)) else {
        return false; // an object from elsewhere
    };
    println!("cargo::rerun-if-changed=../{}", sources::STAMP);
    sources::fingerprint(root).is_ok_and(|fingerprint| fingerprint != stamp)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
