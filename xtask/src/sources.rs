//! What the kernel programs are made from, so that a stale object can be told from a
//! fresh one. Used by `cargo xtask build-ebpf`, which notes the fingerprint beside the object,
//! and by the agent's build script, which compares it. Standard library only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The object with the kernel programs, seen from the root of the workspace. It stays there
/// wherever cargo's target directory is, for that one may be shared by several clones.
pub const OBJECT: &str = "target/ebpf/splitter-ebpf.o";

/// The fingerprint of what the object was built from.
pub const STAMP: &str = "target/ebpf/splitter-ebpf.o.sources";

/// What the object is built from, seen from the root of the workspace.
pub const SOURCES: [&str; 6] = [
    "splitter-common/Cargo.toml",
    "splitter-common/src",
    "splitter-ebpf/Cargo.toml",
    "splitter-ebpf/src",
    "xtask/src/btf_text.rs",
    "xtask/src/build_ebpf.rs",
];

/// A fingerprint of the names and contents of [`SOURCES`] below `root`.
///
/// # Errors
///
/// When one of them cannot be read.
pub fn fingerprint(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(root, Path::new(source), &mut files)?;
    }
    files.sort();
    let mut hash = Fnv::default();
    for file in files {
        hash.field(file.as_os_str().as_encoded_bytes());
        hash.field(&fs::read(root.join(&file))?);
    }
    Ok(format!("{:016x}\n", hash.0))
}

fn collect(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !root.join(path).is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(root.join(path))? {
        collect(root, &path.join(entry?.file_name()), files)?;
    }
    Ok(())
}

/// FNV-1a, because the standard library promises no hash that two programs agree on.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// The length goes in as well, so that no two lists of fields look the same.
    fn field(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
