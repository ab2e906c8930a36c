//! Links of programs to cgroups and tracepoints.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use bytemuck::{Pod, Zeroable};

use super::{bpf, object_info, own};

const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Puts another program in the place of a link's own, atomically (kernel 5.7).
///
/// # Errors
///
/// As `bpf(2)`: `ENOLINK` if what the link was attached to is gone.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
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
pub(crate) fn has_cgroup_links(hook: u32) -> io::Result<()> {
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

/// Takes a link off what it is attached to, at once (kernel 5.9). Unpinning would do the
/// same, but later: the kernel leaves that to a worker.
///
/// # Errors
///
/// As `bpf(2)`.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
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

/// Puts a program on the tracepoint that it was loaded for, until the link is closed (kernel 5.5).
///
/// # Errors
///
/// As `bpf(2)`.
pub(crate) fn open_tracepoint(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        name: u64,
        program: u32,
        padding: u32,
    }
    own(bpf(
        BPF_RAW_TRACEPOINT_OPEN,
        &mut Attributes {
            name: 0,
            program: program.as_raw_fd().unsigned_abs(),
            padding: 0,
        },
    )?)
}

/// What a link is attached to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct LinkInfo {
    kind: u32,
    /// The link's id.
    pub(crate) id: u32,
    /// Id of the program behind it.
    pub(crate) program_id: u32,
    padding: u32,
    /// Of a link to a cgroup its id (the inode number of its directory); 0 once that is removed.
    pub(crate) cgroup_id: u64,
    /// The hook, an `enum bpf_attach_type`.
    pub(crate) attach_type: u32,
    padding_end: u32,
}

/// Asks what a link is attached to (kernel 5.8).
///
/// # Errors
///
/// As `bpf(2)`.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    object_info(link, &mut info)?;
    Ok(info)
}
