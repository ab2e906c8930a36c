//! Loading programs that probe the kernel, and asking about programs that are loaded.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytemuck::{Pod, Zeroable};

use super::{bpf, object_info, own};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_BTF_LOAD: libc::c_long = 18;

/// An instruction of a program (`struct bpf_insn`, of a little-endian machine).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// `exit`: the program ends with what is in register 0.
    pub const EXIT: Self = Self {
        code: 0x95,
        registers: 0,
        offset: 0,
        immediate: 0,
    };

    /// `to = value`
    #[must_use]
    pub const fn move_value(to: u8, value: i32) -> Self {
        Self {
            code: 0xb7,
            registers: to,
            offset: 0,
            immediate: value,
        }
    }

    /// `to = *(u32 *)(from + offset)`
    pub(crate) const fn load(to: u8, from: u8, offset: i16) -> Self {
        Self {
            code: 0x61,
            registers: from << 4 | to,
            offset,
            immediate: 0,
        }
    }

    /// `to = *(u64 *)(from + offset)`
    pub(crate) const fn load_long(to: u8, from: u8, offset: i16) -> Self {
        Self {
            code: 0x79,
            ..Self::load(to, from, offset)
        }
    }

    /// Calls a helper, whose number is in `enum bpf_func_id`.
    pub(crate) const fn call(helper: i32) -> Self {
        Self {
            code: 0x85,
            registers: 0,
            offset: 0,
            immediate: helper,
        }
    }

    /// `*(u64 *)(to + offset) = from`
    pub(crate) const fn store(to: u8, from: u8, offset: i16) -> Self {
        Self {
            code: 0x7b,
            registers: from << 4 | to,
            offset,
            immediate: 0,
        }
    }

    /// `from = atomic_fetch_add((u64 *)(to + offset), from)`
    pub(crate) const fn fetching_add(to: u8, from: u8, offset: i16) -> Self {
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
pub fn load_sock_addr_program(
    name: &str,
    hook: u32,
    instructions: &[Instruction],
) -> io::Result<OwnedFd> {
    const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
    load(
        &Kind {
            program_type: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            attach_type: hook,
            ..Kind::default()
        },
        name,
        instructions,
    )
}

/// Loads a program on a tracepoint, whose arguments have the kernel's own types (kernel 5.5).
/// `btf_id` is that of the type `btf_trace_<name of the tracepoint>`.
///
/// # Errors
///
/// As `bpf(2)`: `EPERM` without `CAP_PERFMON`, `EACCES` if a load is not of a member.
pub(crate) fn load_tracepoint_program(
    btf_id: u32,
    instructions: &[Instruction],
) -> io::Result<OwnedFd> {
    const BPF_PROG_TYPE_TRACING: u32 = 26;
    const BPF_TRACE_RAW_TP: u32 = 23;
    load(
        &Kind {
            program_type: BPF_PROG_TYPE_TRACING,
            attach_type: BPF_TRACE_RAW_TP,
            attach_btf_id: btf_id,
            ..Kind::default()
        },
        "",
        instructions,
    )
}

/// The ids of the cgroups that this process is in (kernel 5.14), of each the lower half: that of
/// the root of the whole hierarchy first, whatever of it is visible here, and its own last.
///
/// # Errors
///
/// As `bpf(2)`.
pub(crate) fn own_cgroups() -> io::Result<Vec<u32>> {
    const BPF_PROG_TYPE_SYSCALL: u32 = 31;
    const BPF_F_SLEEPABLE: u32 = 1 << 4;
    const GET_CURRENT_ANCESTOR_CGROUP_ID: i32 = 123;
    let ancestor = [
        Instruction::load(1, 1, 0),
        Instruction::call(GET_CURRENT_ANCESTOR_CGROUP_ID),
        Instruction::EXIT,
    ];
    let kind = Kind {
        program_type: BPF_PROG_TYPE_SYSCALL,
        flags: BPF_F_SLEEPABLE,
        ..Kind::default()
    };
    let program = load(&kind, "", &ancestor)?;
    let mut ids = Vec::new();
    for level in 0..=u32::from(u8::MAX) {
        match run(program.as_fd(), level)? {
            // No group is that deep.
            0 => break,
            id => ids.push(id),
        }
    }
    Ok(ids)
}

/// Runs a program on a word, in this process (`BPF_PROG_TEST_RUN`). Gives back what it returns.
fn run(program: BorrowedFd<'_>, word: u32) -> io::Result<u32> {
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        program: u32,
        result: u32,
        data_in_length: u32,
        data_out_length: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_in_length: u32,
        context_out_length: u32,
        context_in: u64,
        context_out: u64,
    }
    let mut attributes = Attributes {
        program: program.as_raw_fd().unsigned_abs(),
        context_in_length: size_of::<u32>() as u32,
        context_in: std::ptr::from_ref(&word) as u64,
        ..Attributes::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes.result)
}

/// What a program is, and what it is for.
#[derive(Default)]
struct Kind {
    /// An `enum bpf_prog_type`.
    program_type: u32,
    /// An `enum bpf_attach_type`, if the type of program has several.
    attach_type: u32,
    /// The kernel's type that it is for, if it is for one.
    attach_btf_id: u32,
    flags: u32,
}

fn load(kind: &Kind, name: &str, instructions: &[Instruction]) -> io::Result<OwnedFd> {
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
        /// Type information of the program itself: none.
        btf: u32,
        debug_information: [u32; 8],
        attach_btf_id: u32,
    }
    let mut object_name = [0; 16];
    // The kernel wants a NUL at the end.
    for (to, from) in object_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    own(bpf(
        BPF_PROG_LOAD,
        &mut Attributes {
            kind: kind.program_type,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: kind.flags,
            name: object_name,
            device: 0,
            expected_attach_type: kind.attach_type,
            btf: 0,
            debug_information: [0; 8],
            attach_btf_id: kind.attach_btf_id,
        },
    )?)
}

/// Loads type information (kernel 4.18).
///
/// # Errors
///
/// As `bpf(2)`.
pub(crate) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
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

/// The id of a program (kernel 4.13).
///
/// # Errors
///
/// As `bpf(2)`.
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    /// How `struct bpf_prog_info` begins.
    #[repr(C)]
    #[derive(Clone, Copy, Default, Pod, Zeroable)]
    struct Info {
        kind: u32,
        id: u32,
    }
    let mut info = Info::default();
    object_info(program, &mut info)?;
    Ok(info.id)
}

/// What a loaded program is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgramInfo {
    pub(crate) name: String,
    /// Names of the maps that it uses.
    pub(crate) maps: Vec<String>,
}

/// `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
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
#[derive(Clone, Copy, Default, Pod, Zeroable)]
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
pub(crate) fn program_info(id: u32) -> io::Result<ProgramInfo> {
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

fn text(name: &[u8]) -> String {
    CStr::from_bytes_until_nul(name)
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
