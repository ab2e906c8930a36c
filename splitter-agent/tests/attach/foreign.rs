//! A program of another tool: it lets every connection pass.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const BPF_CGROUP_INET4_CONNECT: u32 = 10;

/// Nobody else may attach to the cgroup or below.
pub(crate) const EXCLUSIVE: u32 = 0;
/// Programs below replace it.
pub(crate) const OVERRIDE: u32 = 1;
/// All run.
pub(crate) const MULTI: u32 = 2;

/// What the program is called.
pub(crate) const NAME: &str = "their_connect4";

/// A program on a cgroup's `connect4` hook; it stays there until it is detached or the cgroup
/// is removed.
pub(crate) struct Foreign {
    pub(crate) id: u32,
    program: OwnedFd,
    cgroup: File,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct GetInfo {
    descriptor: u32,
    length: u32,
    info: u64,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> libc::c_long {
    // SAFETY: the structure is as long as is said, and what it points at outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    assert!(result >= 0, "{}", io::Error::last_os_error());
    result
}

impl Foreign {
    /// Attaches it with these flags.
    pub(crate) fn attach(cgroup: &Path, flags: u32) -> Self {
        // r0 = 1; exit
        let instructions: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
        let license = CString::new("GPL").expect("text");
        let mut load = Load {
            kind: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            instruction_count: 2,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            expected_attach_type: BPF_CGROUP_INET4_CONNECT,
            ..Load::default()
        };
        load.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
        let program = bpf(BPF_PROG_LOAD, &mut load);
        // SAFETY: the kernel has just made this descriptor for us.
        let program = unsafe { OwnedFd::from_raw_fd(program as i32) };
        let mut info = [0_u32; 2];
        bpf(
            BPF_OBJ_GET_INFO_BY_FD,
            &mut GetInfo {
                descriptor: program.as_raw_fd().unsigned_abs(),
                length: size_of_val(&info) as u32,
                info: info.as_mut_ptr() as u64,
            },
        );
        let foreign = Self {
            id: info[1],
            program,
            cgroup: File::open(cgroup).expect("a cgroup"),
        };
        bpf(BPF_PROG_ATTACH, &mut foreign.attributes(flags));
        foreign
    }

    pub(crate) fn detach(self) {
        bpf(BPF_PROG_DETACH, &mut self.attributes(0));
    }

    fn attributes(&self, flags: u32) -> Attach {
        Attach {
            target: self.cgroup.as_raw_fd().unsigned_abs(),
            program: self.program.as_raw_fd().unsigned_abs(),
            attach_type: BPF_CGROUP_INET4_CONNECT,
            flags,
        }
    }
}
