//! The few `bpf(2)` commands that aya does not offer, and mapping a map into memory.
//!
//! The structures are those of `include/uapi/linux/bpf.h`; the kernel takes their size
//! from the caller and treats what is missing at the end as zero.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytemuck::Pod;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Calls `bpf(2)` with a structure of the command's own shape.
pub(super) fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the structure is valid for reads and writes of its own size, and any
    // pointer in it is to memory that its caller keeps alive for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Takes ownership of a descriptor that `bpf(2)` has just returned.
pub(super) fn own(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Opens a pinned object (kernel 4.4).
///
/// # Errors
///
/// As `bpf(2)`: for example `ENOENT`, `EPERM`.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    own(bpf(
        BPF_OBJ_GET,
        &mut Attributes {
            path: path.as_ptr() as u64,
            descriptor: 0,
            flags: 0,
        },
    )?)
}

/// Puts another program in the place of a link's own, atomically (kernel 5.7).
///
/// # Errors
///
/// As `bpf(2)`: `ENOLINK` if what the link was attached to is gone.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link: u32,
        program: u32,
        flags: u32,
        old_program: u32,
    }
    bpf(
        BPF_LINK_UPDATE,
        &mut Attributes {
            link: link.as_raw_fd().unsigned_abs(),
            program: program.as_raw_fd().unsigned_abs(),
            flags: 0,
            old_program: 0,
        },
    )
    .map(drop)
}

/// Whether links to cgroups can be made and updated (kernel 5.7): the commands look at the
/// descriptors that they are given, which are none.
///
/// # Errors
///
/// `EINVAL` if the kernel does not know the commands, else as `bpf(2)`.
pub(super) fn has_cgroup_links(hook: u32) -> io::Result<()> {
    #[repr(C)]
    struct Create {
        program: i32,
        target: i32,
        attach_type: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Update {
        link: i32,
        program: i32,
        flags: u32,
        old_program: u32,
    }
    let known = |result: io::Result<libc::c_long>| match result {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
        result => result.map(drop),
    };
    let mut create = Create {
        program: -1,
        target: -1,
        attach_type: hook,
        flags: 0,
    };
    known(bpf(BPF_LINK_CREATE, &mut create))?;
    let mut update = Update {
        link: -1,
        program: -1,
        flags: 0,
        old_program: 0,
    };
    known(bpf(BPF_LINK_UPDATE, &mut update))
}

/// An instruction of a program (`struct bpf_insn`, of a little-endian machine).
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    pub(super) const EXIT: Self = Self {
        code: 0x95,
        registers: 0,
        offset: 0,
        immediate: 0,
    };

    /// `to = value`
    pub(super) const fn move_value(to: u8, value: i32) -> Self {
        Self {
            code: 0xb7,
            registers: to,
            offset: 0,
            immediate: value,
        }
    }

    /// `*(u64 *)(to + offset) = from`
    pub(super) const fn store(to: u8, from: u8, offset: i16) -> Self {
        Self {
            code: 0x7b,
            registers: from << 4 | to,
            offset,
            immediate: 0,
        }
    }

    /// `from = atomic_fetch_add((u64 *)(to + offset), from)`
    pub(super) const fn fetching_add(to: u8, from: u8, offset: i16) -> Self {
        Self {
            code: 0xdb,
            registers: from << 4 | to,
            offset,
            immediate: 1,
        }
    }
}

/// Loads a program on cgroup hooks with an address (kernel 4.17). `hook` is an
/// `enum bpf_attach_type`.
///
/// # Errors
///
/// As `bpf(2)`: `EINVAL` if the kernel does not know the hook, or an instruction.
pub(super) fn load_sock_addr_program(
    hook: u32,
    instructions: &[Instruction],
) -> io::Result<OwnedFd> {
    const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        device: u32,
        expected_attach_type: u32,
    }
    own(bpf(
        BPF_PROG_LOAD,
        &mut Attributes {
            kind: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: [0; 16],
            device: 0,
            expected_attach_type: hook,
        },
    )?)
}

/// Loads type information (kernel 4.18).
///
/// # Errors
///
/// As `bpf(2)`.
pub(super) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        btf: u64,
        log: u64,
        size: u32,
        log_size: u32,
        log_level: u32,
        padding: u32,
    }
    own(bpf(
        BPF_BTF_LOAD,
        &mut Attributes {
            btf: btf.as_ptr() as u64,
            log: 0,
            size: btf.len() as u32,
            log_size: 0,
            log_level: 0,
            padding: 0,
        },
    )?)
}

/// Takes a link off what it is attached to, at once (kernel 5.9). Unpinning would do the
/// same, but later: the kernel leaves that to a worker.
///
/// # Errors
///
/// As `bpf(2)`.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link: u32,
    }
    bpf(
        BPF_LINK_DETACH,
        &mut Attributes {
            link: link.as_raw_fd().unsigned_abs(),
        },
    )
    .map(drop)
}

/// What a cgroup link is attached to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkInfo {
    kind: u32,
    /// The link's id.
    pub(super) id: u32,
    /// Id of the program behind it.
    pub(super) program_id: u32,
    padding: u32,
    /// Id of the cgroup (the inode number of its directory); 0 once that is removed.
    pub(super) cgroup_id: u64,
    /// The hook, an `enum bpf_attach_type`.
    pub(super) attach_type: u32,
    padding_end: u32,
}

/// Asks what a link is attached to (kernel 5.8).
///
/// # Errors
///
/// As `bpf(2)`.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    #[repr(C)]
    struct Attributes {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    let mut info = LinkInfo::default();
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &mut Attributes {
            descriptor: link.as_raw_fd().unsigned_abs(),
            length: size_of::<LinkInfo>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        },
    )?;
    Ok(info)
}

/// The id of a program (kernel 4.13).
///
/// # Errors
///
/// As `bpf(2)`.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    /// How `struct bpf_prog_info` begins.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
    }
    #[repr(C)]
    struct Attributes {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    let mut info = Info::default();
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &mut Attributes {
            descriptor: program.as_raw_fd().unsigned_abs(),
            length: size_of::<Info>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        },
    )?;
    Ok(info.id)
}

/// What a map is made of, as `BPF_MAP_CREATE` takes it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct MapShape {
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
    pub(super) inner_map: u32,
}

/// Makes a map.
///
/// # Errors
///
/// As `bpf(2)`.
pub(super) fn create_map(mut shape: MapShape) -> io::Result<OwnedFd> {
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
pub(super) fn update_word(map: BorrowedFd<'_>, key: u32, value: u32) -> io::Result<()> {
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
pub(super) unsafe fn update_words(map: BorrowedFd<'_>, key: u32, values: &[u64]) -> io::Result<()> {
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
pub(super) unsafe fn lookup_words(
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
pub(super) struct Position([u64; 8]);

/// Reads elements of a hash, many at once (kernel 5.6): as many as fit, from a position on, or from
/// the beginning. Tells how many there were, and where to go on; `None` at the end. Each bucket of
/// the hash is read whole, under its lock, so that an element that is replaced meanwhile is there
/// once.
///
/// # Safety
///
/// `K` and `V` must be as long as the map's keys and values.
///
/// # Errors
///
/// As `bpf(2)`: `ENOSPC` if a bucket has more elements than fit.
pub(super) unsafe fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
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
        map: map.as_raw_fd().unsigned_abs(),
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

/// A map of the kernel's, mapped into our memory.
#[derive(Debug)]
pub(super) struct Mapping {
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
    pub(super) fn new(map: BorrowedFd<'_>, length: usize, writable: bool) -> io::Result<Self> {
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
    pub(super) fn start(&self) -> *mut u8 {
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

/// The magic number of the file system that a path is on (`statfs(2)`).
///
/// # Errors
///
/// As `statfs(2)`.
pub(super) fn file_system_magic(path: &Path) -> io::Result<i64> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut status = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is NUL-terminated and the structure is as long as the kernel's.
    if unsafe { libc::statfs(path.as_ptr(), status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed at first and filled by the kernel since.
    let status = unsafe { status.assume_init() };
    #[allow(
        clippy::unnecessary_cast,
        reason = "signed in one C library, unsigned in another"
    )]
    let magic = status.f_type as i64;
    Ok(magic)
}
