//! Asking the kernel which programs are on a cgroup.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::bpf;

const BPF_PROG_QUERY: libc::c_long = 16;

/// `BPF_F_QUERY_EFFECTIVE`.
const EFFECTIVE: u32 = 1;

/// `BPF_F_ALLOW_OVERRIDE` and `BPF_F_ALLOW_MULTI`.
const ALLOW_OVERRIDE: u32 = 1;
const ALLOW_MULTI: u32 = 2;

/// The kernel has at most 64 programs on one cgroup (`BPF_CGROUP_MAX_PROGS`); what is effective
/// comes from a cgroup and all above it.
const MAX_PROGRAMS: usize = 1024;

/// How programs on a cgroup bear with others (`kernel/bpf/cgroup.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Others may be attached to the same cgroup and below it, and all run. Links are always
    /// attached like this.
    Multi,
    /// Others may be attached below, and this one then does not run for processes there.
    Override,
    /// Nothing may be attached to the same cgroup or below it.
    Exclusive,
}

/// The programs that are attached to one cgroup, for one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachedIds {
    /// Ids, in the order in which they run.
    pub(crate) ids: Vec<u32>,
    pub(crate) mode: Mode,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
    // Unused, but there: kernels write the revision (6.17) without looking at the size of what
    // they were given.
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The programs that are attached to a cgroup itself.
///
/// # Errors
///
/// As `bpf(2)`: `EPERM` without `CAP_NET_ADMIN`.
pub(crate) fn attached(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<AttachedIds> {
    let (ids, flags) = query(cgroup, attach_type, 0)?;
    let mode = if flags & ALLOW_MULTI != 0 {
        Mode::Multi
    } else if flags & ALLOW_OVERRIDE != 0 {
        Mode::Override
    } else {
        Mode::Exclusive
    };
    Ok(AttachedIds { ids, mode })
}

/// The programs that run for processes in a cgroup, in their order, wherever they are attached.
///
/// # Errors
///
/// As `bpf(2)`.
pub(crate) fn effective(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    Ok(query(cgroup, attach_type, EFFECTIVE)?.0)
}

fn query(
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
    query_flags: u32,
) -> io::Result<(Vec<u32>, u32)> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attributes = QueryAttributes {
        target: cgroup.as_raw_fd().unsigned_abs(),
        attach_type,
        query_flags,
        program_ids: ids.as_mut_ptr() as u64,
        program_count: MAX_PROGRAMS as u32,
        ..QueryAttributes::default()
    };
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    ids.truncate(attributes.program_count as usize);
    Ok((ids, attributes.attach_flags))
}
