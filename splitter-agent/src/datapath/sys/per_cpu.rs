//! A per-CPU array of counters.

use std::io;
use std::os::fd::AsFd;

use aya::maps::{MapData, MapError};

use super::maps;

/// A per-CPU array whose values are one 64-bit counter each.
///
/// aya's own handle looks the number of CPUs up in a file for each value that it reads, which took
/// most of the time of reading many.
#[derive(Debug)]
pub(crate) struct PerCpuCounters {
    map: MapData,
    /// How many CPUs there may be: how many words the kernel gives and takes.
    cpus: usize,
    length: u32,
}

impl PerCpuCounters {
    /// `map` must be a per-CPU array of 8-byte values; its shape was checked before.
    ///
    /// # Errors
    ///
    /// If the map or the machine's CPUs cannot be examined.
    pub(crate) fn new(map: MapData) -> Result<Self, MapError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let length = map.info()?.max_entries();
        Ok(Self { map, cpus, length })
    }

    /// Number of counters.
    pub(crate) fn len(&self) -> u32 {
        self.length
    }

    /// The sum over all CPUs of a counter.
    ///
    /// # Errors
    ///
    /// As `bpf(2)`: `ENOENT` if there is no such counter.
    pub(crate) fn sum(&self, index: u32) -> io::Result<u64> {
        let mut values = vec![0; self.cpus];
        // SAFETY: a word for each CPU that there may be is what the kernel writes.
        unsafe { maps::lookup_words(self.map.fd().as_fd(), index, &mut values) }?;
        Ok(values.iter().sum())
    }

    /// Sets a counter to 0 on all CPUs.
    ///
    /// # Errors
    ///
    /// As `bpf(2)`: `E2BIG` if there is no such counter.
    pub(crate) fn clear(&self, index: u32) -> io::Result<()> {
        let zeros = vec![0; self.cpus];
        // SAFETY: a word for each CPU that there may be is what the kernel reads.
        unsafe { maps::update_words(self.map.fd().as_fd(), index, &zeros) }
    }
}
