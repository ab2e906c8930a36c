//! System calls, and all memory that is shared with the kernel: what of `bpf(2)` aya does not
//! offer, and maps in our own memory. All `unsafe` code of the datapath is here.
//!
//! The structures are those of `include/uapi/linux/bpf.h`; the kernel takes their size
//! from the caller and treats what is missing at the end as zero.
//!
//! - `maps`: commands on maps; `table` and `per_cpu`: typed handles to arrays;
//! - `programs`: loading programs, and asking about loaded ones;
//! - `links`: links to cgroups and tracepoints; `cgroup`: which programs are on a cgroup.

pub(crate) mod cgroup;
pub(crate) mod links;
pub(crate) mod maps;
pub(crate) mod per_cpu;
pub(crate) mod programs;
pub(crate) mod table;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytemuck::Pod;

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// Calls `bpf(2)` with a structure of the command's own shape.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
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
fn own(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Opens a pinned object (kernel 4.4).
///
/// # Errors
///
/// As `bpf(2)`: for example `ENOENT`, `EPERM`.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
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

/// Fills in what the kernel knows of an object, as far as `T` goes (kernel 4.13).
///
/// # Errors
///
/// As `bpf(2)`.
fn object_info<T: Pod>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &mut Attributes {
            descriptor: object.as_raw_fd().unsigned_abs(),
            length: size_of::<T>() as u32,
            info: std::ptr::from_mut(info) as u64,
        },
    )
    .map(drop)
}

/// The magic number of the file system that a path is on (`statfs(2)`).
///
/// # Errors
///
/// As `statfs(2)`.
pub(crate) fn file_system_magic(path: &Path) -> io::Result<i64> {
    Ok(rustix::fs::statfs(path)?.f_type)
}
