//! The file system of an image: one program, the same bytes each time it is packed.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};
use testbed::digest::digest;

/// Everyone may read and run it, nobody may change it.
const PROGRAM_MODE: u32 = 0o555;

/// The file system of an image, as one compressed archive.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The compressed archive.
    pub(super) blob: Vec<u8>,
    /// The digest of the archive before it was compressed.
    pub(super) diff_id: String,
    /// The size of the program.
    size: usize,
}

impl Layer {
    /// A file system with one file at `/`, called `name`.
    ///
    /// # Errors
    ///
    /// When the program cannot be read.
    pub fn of_program(name: &str, program: &Path) -> Result<Self> {
        let program =
            fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        let pack = || -> io::Result<_> {
            let mut archive = Builder::new(Vec::new());
            archive.append(&entry(name, program.len(), PROGRAM_MODE)?, &program[..])?;
            let archive = archive.into_inner()?;
            // Neither a time nor a system in the header.
            let mut compressed = GzBuilder::new()
                .mtime(0)
                .operating_system(255)
                .write(Vec::new(), Compression::best());
            compressed.write_all(&archive)?;
            Ok((digest(&archive), compressed.finish()?))
        };
        let (diff_id, blob) = pack().with_context(|| format!("cannot pack {name}"))?;
        Ok(Self {
            blob,
            diff_id,
            size: program.len(),
        })
    }

    /// The sizes of the program, and of what is transferred, for people.
    pub(super) fn size_text(&self) -> String {
        let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        format!(
            "{:.1} MiB, {:.1} compressed",
            mebibytes(self.size),
            mebibytes(self.blob.len())
        )
    }
}

/// An entry of an archive that says nothing about when and by whom it was made.
pub(super) fn entry(path: &str, size: usize, mode: u32) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(path)?;
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}
