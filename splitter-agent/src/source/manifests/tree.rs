//! Lists the manifests below a directory.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::reading::Stamp;

/// What is below a directory. Every path is relative to it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Every manifest.
    pub(super) files: BTreeMap<PathBuf, ListedFile>,
    /// Directories that cannot be listed, and why; the path of the root is empty.
    pub(super) unreadable: BTreeMap<PathBuf, String>,
    /// Whether any link was seen: then names that are no manifests matter too.
    pub(super) has_links: bool,
}

/// A manifest.
#[derive(Debug)]
pub(super) struct ListedFile {
    /// Its version; none if it cannot be told, as of a link to nothing.
    pub(super) stamp: Option<Stamp>,
    /// Whether it is a link.
    pub(super) is_link: bool,
}

/// Whether a file of this name is a manifest.
pub(super) fn is_manifest(name: &OsStr) -> bool {
    !is_hidden(name)
        && Path::new(name).extension().is_some_and(|extension| {
            extension == "yaml" || extension == "yml" || extension == "json"
        })
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

/// Lists everything below `root`. Calls `entering` with each directory before listing
/// it, so that a watch can be in place by then.
///
/// Each directory is listed once, whatever links lead to it, which also ends loops; its
/// real path is preferred.
pub(super) fn list(root: &Path, mut entering: impl FnMut(&Path)) -> Listing {
    let mut walk = Walk {
        root,
        listing: Listing::default(),
        directories: vec![PathBuf::new()],
        links: Vec::new(),
        visited: HashSet::new(),
    };
    loop {
        let Some(directory) = walk.directories.pop().or_else(|| walk.links.pop()) else {
            return walk.listing;
        };
        entering(&directory);
        match walk.enter(&directory) {
            Ok(()) => {}
            // Gone since its parent was listed. The root has no parent.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != Path::new("") => {
            }
            Err(error) => {
                walk.listing.unreadable.insert(directory, error.to_string());
            }
        }
    }
}

struct Walk<'root> {
    root: &'root Path,
    listing: Listing,
    /// Directories to list.
    directories: Vec<PathBuf>,
    /// Links to directories: listed when no directory is left.
    links: Vec<PathBuf>,
    /// Device and inode of each directory listed.
    visited: HashSet<(u64, u64)>,
}

impl Walk<'_> {
    fn enter(&mut self, directory: &Path) -> io::Result<()> {
        let path = self.root.join(directory);
        let metadata = fs::metadata(&path)?;
        if !self.visited.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        let (mut directories, mut links) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_hidden(&name) {
                continue;
            }
            let relative = directory.join(&name);
            let Ok(kind) = entry.file_type() else {
                continue; // gone since
            };
            self.listing.has_links |= kind.is_symlink();
            if kind.is_dir() {
                directories.push(relative);
            } else if kind.is_symlink() && entry.path().is_dir() {
                links.push(relative);
            } else if is_manifest(&name) {
                let stamp = fs::metadata(entry.path()).ok().as_ref().map(Stamp::from);
                let is_link = kind.is_symlink();
                self.listing
                    .files
                    .insert(relative, ListedFile { stamp, is_link });
            }
        }
        // Both are stacks: the first name is to be on top.
        directories.sort_unstable_by(|a, b| b.cmp(a));
        links.sort_unstable_by(|a, b| b.cmp(a));
        self.directories.append(&mut directories);
        self.links.append(&mut links);
        Ok(())
    }
}
