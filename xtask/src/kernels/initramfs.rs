//! The file system that a virtual machine starts with: a cpio archive in the "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// The name of the last entry.
const END: &str = "TRAILER!!!";

/// An archive that is being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Initramfs {
    archive: Vec<u8>,
    known: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// One with what the kernel itself opens for the first process.
    pub(super) fn new() -> Self {
        let mut archive = Self::default();
        archive.add(
            Path::new("/dev/console"),
            CHARACTER_DEVICE | 0o600,
            (5, 1),
            &[],
        );
        archive
    }

    /// An empty directory.
    pub(super) fn directory(&mut self, path: impl AsRef<Path>) {
        self.add(path.as_ref(), DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// A file.
    pub(super) fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: &[u8]) {
        self.add(path.as_ref(), FILE | mode & 0o7777, (0, 0), content);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        let target = target.as_ref().as_os_str().as_encoded_bytes();
        self.add(path.as_ref(), LINK | 0o777, (0, 0), target);
    }

    /// The archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, (0, 0), &[]);
        self.archive
    }

    /// Adds something, and the directories above it; what is there already stays.
    fn add(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) {
        if path == Path::new("/") || !self.known.insert(path.to_owned()) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        let name = path.strip_prefix("/").unwrap_or(path);
        self.entry(&name.to_string_lossy(), mode, device, content);
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        // Magic, then: inode, mode, owner, group, links, time, size, device of the file system,
        // device, length of the name with its end, checksum.
        let number = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [
            number, mode, 0, 0, 1, 0, size, 0, 0, major, minor, length, 0,
        ];
        self.archive.extend_from_slice(b"070701");
        for field in fields {
            self.archive
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.push(0);
        self.align();
        self.archive.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.archive
            .resize(self.archive.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of each entry.
    fn read(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        while !archive.is_empty() {
            assert!(archive.starts_with(b"070701"));
            let field = |number: usize| {
                let start = 6 + 8 * number;
                let text = std::str::from_utf8(&archive[start..start + 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, length) = (field(1), field(6), field(11));
            let name = String::from_utf8(archive[110..110 + length - 1].to_vec()).unwrap();
            let start = (110 + length).next_multiple_of(4);
            let content = archive[start..start + size].to_vec();
            archive = &archive[(start + size).next_multiple_of(4)..];
            entries.push((name, u32::try_from(mode).unwrap(), content));
        }
        entries
    }

    #[test]
    fn an_archive_has_each_file_once_and_the_directories_above_it_first() {
        let mut archive = Initramfs::new();
        archive.file("/usr/bin/ip", 0o755, b"ip");
        archive.file("/usr/bin/ip", 0o755, b"another");
        archive.link("/usr/bin/sh", "dash");
        let archive = archive.finish();
        assert_eq!(archive.len() % 4, 0);
        let found = read(&archive);
        let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "dev",
                "dev/console",
                "usr",
                "usr/bin",
                "usr/bin/ip",
                "usr/bin/sh",
                END
            ]
        );
        assert_eq!(found[3].1, 0o040_755);
        assert_eq!(
            (found[4].1, found[4].2.as_slice()),
            (0o100_755, b"ip".as_slice())
        );
        assert_eq!(
            (found[5].1, found[5].2.as_slice()),
            (0o120_777, b"dash".as_slice())
        );
    }
}
