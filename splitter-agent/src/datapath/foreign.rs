//! Asking the kernel which programs are on a cgroup, and what they are.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::syscall::{bpf, own};

const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
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
pub(super) struct AttachedIds {
    /// Ids, in the order in which they run.
    pub(super) ids: Vec<u32>,
    pub(super) mode: Mode,
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
pub(super) fn attached(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<AttachedIds> {
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
pub(super) fn effective(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
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

/// What a loaded program is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramInfo {
    pub(super) name: String,
    /// Names of the maps that it uses.
    pub(super) maps: Vec<String>,
}

/// `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct KernelProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    user: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// `struct bpf_map_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct KernelMapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// Looks at a program by its id.
///
/// # Errors
///
/// As `bpf(2)`: `EPERM` without `CAP_SYS_ADMIN`, `ENOENT` if it is gone.
pub(super) fn program_info(id: u32) -> io::Result<ProgramInfo> {
    const MAX_MAPS: usize = 64;
    let program = by_id(BPF_PROG_GET_FD_BY_ID, id)?;
    let mut map_ids = [0_u32; MAX_MAPS];
    let mut info = KernelProgramInfo {
        map_count: MAX_MAPS as u32,
        map_ids: map_ids.as_mut_ptr() as u64,
        ..KernelProgramInfo::default()
    };
    object_info(program.as_fd(), &mut info)?;
    let used = map_ids.iter().take(info.map_count as usize);
    Ok(ProgramInfo {
        name: text(&info.name),
        maps: used.filter_map(|id| map_name(*id).ok()).collect(),
    })
}

fn map_name(id: u32) -> io::Result<String> {
    let map = by_id(BPF_MAP_GET_FD_BY_ID, id)?;
    let mut info = KernelMapInfo::default();
    object_info(map.as_fd(), &mut info)?;
    Ok(text(&info.name))
}

fn by_id(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    own(bpf(
        command,
        &mut Attributes {
            id,
            next_id: 0,
            open_flags: 0,
        },
    )?)
}

fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
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

fn text(name: &[u8]) -> String {
    CStr::from_bytes_until_nul(name)
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
