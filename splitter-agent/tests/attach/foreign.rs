//! A program of another tool: it lets every connection pass.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use splitter_agent::datapath::{Instruction, load_sock_addr_program, program_id};

const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
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
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf(command: libc::c_long, attributes: &mut Attach) {
    // SAFETY: the structure is as long as is said, and what it points at outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<Attach>(),
        )
    };
    assert!(result >= 0, "{}", io::Error::last_os_error());
}

impl Foreign {
    /// Attaches it with these flags.
    pub(crate) fn attach(cgroup: &Path, flags: u32) -> Self {
        let allow = [Instruction::move_value(0, 1), Instruction::EXIT];
        let program = load_sock_addr_program(NAME, BPF_CGROUP_INET4_CONNECT, &allow)
            .expect("a program that loads");
        let foreign = Self {
            id: program_id(program.as_fd()).expect("an id"),
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
