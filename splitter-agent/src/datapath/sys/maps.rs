//! Commands on maps, and mapping a map into memory.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya::maps::{MapData, MapError};
use bytemuck::Pod;

use super::{bpf, own};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// What a map is made of, as `BPF_MAP_CREATE` takes it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct MapShape {
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    pub(crate) inner_map: u32,
}

/// Makes a map.
///
/// # Errors
///
/// As `bpf(2)`.
pub(crate) fn create_map(mut shape: MapShape) -> io::Result<OwnedFd> {
    own(bpf(BPF_MAP_CREATE, &mut shape)?)
}

/// What the commands on one element of a map take.
#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl ElementAttributes {
    fn new<V: ?Sized>(map: BorrowedFd<'_>, key: &u32, value: *const V) -> Self {
        Self {
            map: map.as_raw_fd().unsigned_abs(),
            padding: 0,
            key: std::ptr::from_ref(key) as u64,
            value: value.cast::<u8>() as u64,
            flags: 0,
        }
    }
}

/// Writes an element of a map whose keys and values are 4 bytes.
///
/// # Errors
///
/// As `bpf(2)`.
pub(crate) fn update_word(map: BorrowedFd<'_>, key: u32, value: u32) -> io::Result<()> {
    let mut attributes = ElementAttributes::new(map, &key, std::ptr::from_ref(&value));
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Writes an element of a map whose keys are 4 bytes.
///
/// # Safety
///
/// `values` must be as long as what the kernel reads: for a per-CPU map, its value for each CPU
/// that there may be.
///
/// # Errors
///
/// As `bpf(2)`.
pub(crate) unsafe fn update_words(map: BorrowedFd<'_>, key: u32, values: &[u64]) -> io::Result<()> {
    let mut attributes = ElementAttributes::new(map, &key, values.as_ptr());
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Reads an element of a map whose keys are 4 bytes.
///
/// # Safety
///
/// `values` must be as long as what the kernel writes: for a per-CPU map, its value for each CPU
/// that there may be.
///
/// # Errors
///
/// As `bpf(2)`: `ENOENT` if there is no such element.
pub(crate) unsafe fn lookup_words(
    map: BorrowedFd<'_>,
    key: u32,
    values: &mut [u64],
) -> io::Result<()> {
    let mut attributes = ElementAttributes::new(map, &key, values.as_mut_ptr());
    bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes).map(drop)
}

/// How far a hash was read in batches. The kernel takes its first word, and promises no more
/// than that it fits into a key.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub(crate) struct Position([u64; 8]);

/// A hash that is read many elements at once (kernel 5.6), which aya's own handle cannot.
#[derive(Debug)]
pub(crate) struct HashList<K, V> {
    map: MapData,
    id: u32,
    types: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> HashList<K, V> {
    /// # Errors
    ///
    /// If the map cannot be examined, or has keys or values of other sizes.
    pub(crate) fn new(map: MapData) -> Result<Self, MapError> {
        let info = map.info()?;
        for (size, expected) in [
            (info.key_size() as usize, size_of::<K>()),
            (info.value_size() as usize, size_of::<V>()),
        ] {
            if size != expected {
                return Err(MapError::InvalidKeySize { size, expected });
            }
        }
        Ok(Self {
            id: info.id(),
            map,
            types: PhantomData,
        })
    }

    /// The id of the map.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Reads as many elements as fit, from a position on, or from the beginning. Tells how many
    /// there were, and where to go on; `None` at the end. Each bucket of the hash is read whole,
    /// under its lock, so that an element that is replaced meanwhile is there once.
    ///
    /// # Errors
    ///
    /// As `bpf(2)`: `ENOSPC` if a bucket has more elements than fit.
    pub(crate) fn next(
        &self,
        from: Option<Position>,
        keys: &mut [K],
        values: &mut [V],
    ) -> io::Result<(usize, Option<Position>)> {
        #[repr(C)]
        struct Attributes {
            from: u64,
            to: u64,
            keys: u64,
            values: u64,
            count: u32,
            map: u32,
            element_flags: u64,
            flags: u64,
        }
        let mut to = Position::default();
        let room = keys.len().min(values.len());
        let mut attributes = Attributes {
            from: from
                .as_ref()
                .map_or(0, |from| std::ptr::from_ref(from) as u64),
            to: std::ptr::from_mut(&mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(room).unwrap_or(u32::MAX),
            map: self.map.fd().as_fd().as_raw_fd().unsigned_abs(),
            element_flags: 0,
            flags: 0,
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes);
        let count = room.min(attributes.count as usize);
        match result {
            Ok(_) => Ok((count, Some(to))),
            // There are no more; what was read is there all the same.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, None)),
            Err(error) => Err(error),
        }
    }
}

/// A map of the kernel's, mapped into our memory.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    length: usize,
}

// SAFETY: the mapping is plain shared memory; it belongs to no thread. Users go through
// volatile or atomic accesses.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of a `BPF_F_MMAPABLE` array (kernel 5.5).
    ///
    /// # Errors
    ///
    /// As `mmap(2)`.
    pub(crate) fn new(map: BorrowedFd<'_>, length: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        // SAFETY: a fresh mapping, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    /// First byte, aligned to a page.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing points into it any more: tables hand
        // out copies only.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}
