//! An array map in our own memory: reads and writes without system calls.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::checked::{CheckedBitPattern, try_pod_read_unaligned};
use bytemuck::{NoUninit, Zeroable};
use splitter_common::layout::{
    COUNTS_IN_RECORD, CounterPlace, CounterRecord, CurrentRecord, IndexRecord, PodLevels,
    SocketRecord,
};

use super::maps::Mapping;

/// A mapped array of `T`.
///
/// Kernel programs may read any slot at any time, so a slot is written only while
/// nothing that they can reach points at it; that is the publisher's job to see to.
#[derive(Debug)]
pub(crate) struct Table<T> {
    mapping: Mapping,
    length: u32,
    record: PhantomData<T>,
}

impl<T> Table<T> {
    /// The kernel rounds every value up to 8 bytes.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps the array `map` of `length` records.
    ///
    /// # Errors
    ///
    /// As `mmap(2)`.
    pub(crate) fn map(map: BorrowedFd<'_>, length: u32, writable: bool) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= 8) };
        Ok(Self {
            mapping: Mapping::new(map, length as usize * Self::STRIDE, writable)?,
            length,
            record: PhantomData,
        })
    }

    /// Number of records.
    pub(crate) fn len(&self) -> u32 {
        self.length
    }

    /// Pointer to a record's words.
    fn words(&self, index: u32) -> Option<*mut u64> {
        (index < self.length).then(|| {
            // SAFETY: below the length, so inside the mapping.
            unsafe { self.mapping.start().add(index as usize * Self::STRIDE) }.cast()
        })
    }
}

impl<T: CheckedBitPattern> Table<T> {
    /// A copy of a record; `None` if there is no such record, or if its bytes are not
    /// one (someone else wrote them).
    pub(crate) fn read(&self, index: u32) -> Option<T> {
        let words = self.words(index)?;
        let mut copy = MaybeUninit::<[u64; 8]>::uninit();
        const { assert!(size_of::<T>() <= 64) };
        let copy = {
            let target = copy.as_mut_ptr().cast::<u64>();
            for word in 0..Self::STRIDE / 8 {
                // SAFETY: the record is STRIDE bytes long and aligned to 8; the copy has
                // room for 8 words. Volatile, since another process may write it.
                unsafe { target.add(word).write(words.add(word).read_volatile()) };
            }
            // SAFETY: the first `size_of::<T>()` bytes have just been written.
            unsafe { std::slice::from_raw_parts(target.cast::<u8>(), size_of::<T>()) }
        };
        try_pod_read_unaligned(copy).ok()
    }
}

impl<T: NoUninit> Table<T> {
    /// Writes a record. `false` if there is no such slot.
    pub(crate) fn write(&self, index: u32, record: &T) -> bool {
        let Some(words) = self.words(index) else {
            return false;
        };
        let bytes = bytemuck::bytes_of(record);
        for (word, bytes) in bytes.chunks(8).enumerate() {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            // SAFETY: inside the record, which is STRIDE bytes long and aligned to 8.
            unsafe { words.add(word).write_volatile(u64::from_ne_bytes(padded)) };
        }
        true
    }
}

impl<T: NoUninit + Zeroable> Table<T> {
    /// Overwrites a record with zeros.
    pub(crate) fn clear(&self, index: u32) {
        self.write(index, &T::zeroed());
    }
}

/// A record of one word, which may be changed while the kernel reads it.
pub(crate) trait Word: bytemuck::Pod {}

impl Word for CurrentRecord {}
impl Word for IndexRecord {}
impl Word for PodLevels {}

impl<T: Word> Table<T> {
    /// Replaces a record: whoever reads it sees the old one or the new one, and with the new one
    /// everything that was written before. `false` if there is no such record.
    pub(crate) fn replace(&self, index: u32, record: T) -> bool {
        const { assert!(size_of::<T>() == 8) };
        let Some(word) = self.words(index) else {
            return false;
        };
        // SAFETY: inside the mapping and aligned to 8; nobody of this process has a reference.
        unsafe { AtomicU64::from_ptr(word) }.store(bytemuck::cast(record), Ordering::Release);
        true
    }
}

/// A record whose first word is a count that the kernel may be adding to, or an owner that the
/// kernel may be replacing.
pub(crate) trait Counts {}

impl Counts for SocketRecord {}
impl Counts for u64 {}

impl<T: Counts> Table<T> {
    /// The first word of a record; 0 if there is no such record.
    pub(crate) fn count(&self, index: u32) -> u64 {
        self.words(index).map_or(0, |words| {
            // SAFETY: it is aligned to 8, and only ever touched by atomic operations while the
            // kernel can reach it.
            unsafe { AtomicU64::from_ptr(words) }.load(Ordering::Acquire)
        })
    }
}

impl Table<CounterRecord> {
    /// A counter, which the kernel may be adding to; 0 if there is none.
    pub(crate) fn counted(&self, place: CounterPlace) -> u64 {
        let record = self.words(place.record);
        record
            .filter(|_| place.count < COUNTS_IN_RECORD)
            .map_or(0, |counts| {
                // SAFETY: inside the record, aligned to 8, and only ever touched by atomic operations while
                // the kernel can reach it.
                let count = unsafe { AtomicU64::from_ptr(counts.add(place.count as usize)) };
                count.load(Ordering::Acquire)
            })
    }
}
