//! What the programs need of the kernel, found out by trying it.
//!
//! Versions would not tell: distributions bring features of later kernels to earlier ones
//! (RHEL 9 is 5.14 by name), and a kernel may be built without one. A missing feature is
//! told apart from a missing right: without the right nothing is known about the kernel.

use std::fs;
use std::io;

use aya::programs::{ProgramError, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};

use crate::datapath::sys::links::has_cgroup_links;
use crate::datapath::sys::maps::{MapShape, create_map};
use crate::datapath::sys::programs::{Instruction, load_btf, load_sock_addr_program};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1024;

/// `enum bpf_attach_type` in include/uapi/linux/bpf.h.
const INET4_CONNECT: u32 = 10;
const INET6_CONNECT: u32 = 11;
const UDP4_SENDMSG: u32 = 14;
const UDP6_SENDMSG: u32 = 15;
const UDP4_RECVMSG: u32 = 19;
const UDP6_RECVMSG: u32 = 20;
const INET4_GETPEERNAME: u32 = 29;
const INET6_GETPEERNAME: u32 = 30;

/// Something that the programs cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `BPF_BTF_LOAD`.
    TypedMaps,
    /// `BPF_F_MMAPABLE`.
    MappedArrays,
    /// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR` on connect().
    ConnectHooks,
    /// The same on getpeername().
    GetpeernameHooks,
    /// The same on sendmsg() and recvmsg() of UDP sockets.
    DatagramHooks,
    /// `bpf_sk_storage_get` in these programs.
    SocketStorage,
    /// `bpf_get_current_ancestor_cgroup_id` in these programs.
    CgroupOfClient,
    /// `BPF_ATOMIC` with `BPF_FETCH`.
    FetchingAtomics,
    /// `BPF_LINK_CREATE` and `BPF_LINK_UPDATE`.
    Links,
}

impl Feature {
    const ALL: [Self; 9] = [
        Self::TypedMaps,
        Self::MappedArrays,
        Self::ConnectHooks,
        Self::GetpeernameHooks,
        Self::DatagramHooks,
        Self::SocketStorage,
        Self::CgroupOfClient,
        Self::FetchingAtomics,
        Self::Links,
    ];

    /// What it is, and the first kernel that has it.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::TypedMaps => "maps with type information (BPF_BTF_LOAD, Linux 4.18)",
            Self::MappedArrays => "arrays mapped into memory (BPF_F_MMAPABLE, Linux 5.5)",
            Self::ConnectHooks => {
                "programs on connect() (cgroup/connect4 and connect6, Linux 4.17 with \
                 CONFIG_CGROUP_BPF)"
            }
            Self::GetpeernameHooks => {
                "programs on getpeername() (cgroup/getpeername4 and getpeername6, Linux 5.8)"
            }
            Self::DatagramHooks => {
                "programs on sendmsg() and recvmsg() of UDP (cgroup/sendmsg4, sendmsg6, recvmsg4 and \
                 recvmsg6, Linux 5.2)"
            }
            Self::SocketStorage => {
                "storage in sockets for programs on connect() (bpf_sk_storage_get)"
            }
            Self::CgroupOfClient => {
                "the cgroup of who connects (bpf_get_current_ancestor_cgroup_id in programs on \
                 connect(), Linux 5.7)"
            }
            Self::FetchingAtomics => "atomic operations that fetch (BPF_FETCH, Linux 5.12)",
            Self::Links => "links to cgroups whose program can be replaced (Linux 5.7)",
        }
    }

    /// Tries it. Nothing is left behind.
    fn probe(self) -> io::Result<()> {
        match self {
            Self::TypedMaps => load_btf(&INTEGER_TYPE).map(drop),
            Self::MappedArrays => create_map(MapShape {
                kind: BPF_MAP_TYPE_ARRAY,
                key_size: 4,
                value_size: 8,
                max_entries: 1,
                flags: BPF_F_MMAPABLE,
                ..MapShape::default()
            })
            .map(drop),
            Self::ConnectHooks => {
                load(INET4_CONNECT, &ALLOW).and_then(|()| load(INET6_CONNECT, &ALLOW))
            }
            Self::GetpeernameHooks => {
                load(INET4_GETPEERNAME, &ALLOW).and_then(|()| load(INET6_GETPEERNAME, &ALLOW))
            }
            Self::DatagramHooks => [UDP4_SENDMSG, UDP6_SENDMSG, UDP4_RECVMSG, UDP6_RECVMSG]
                .into_iter()
                .try_for_each(|hook| load(hook, &ALLOW)),
            Self::SocketStorage => has_helper(BpfHelper::BPF_FUNC_sk_storage_get),
            Self::CgroupOfClient => has_helper(BpfHelper::BPF_FUNC_get_current_ancestor_cgroup_id),
            Self::FetchingAtomics => load(INET4_CONNECT, &FETCHING_ADD),
            Self::Links => has_cgroup_links(INET4_CONNECT),
        }
    }
}

/// `return 1`.
const ALLOW: [Instruction; 2] = [Instruction::move_value(0, 1), Instruction::EXIT];

/// Adds to a word on the stack and fetches what it was.
const FETCHING_ADD: [Instruction; 5] = [
    Instruction::move_value(1, 0),
    Instruction::store(10, 1, -8),
    Instruction::fetching_add(10, 1, -8),
    Instruction::move_value(0, 1),
    Instruction::EXIT,
];

/// BTF of one type, `int` (Documentation/bpf/btf.rst): header, type, names.
const INTEGER_TYPE: [u8; 45] = *b"\
    \x9f\xeb\x01\x00\x18\x00\x00\x00\
    \x00\x00\x00\x00\x10\x00\x00\x00\
    \x10\x00\x00\x00\x05\x00\x00\x00\
    \x01\x00\x00\x00\x00\x00\x00\x01\
    \x04\x00\x00\x00\x20\x00\x00\x01\
    \x00int\x00";

fn load(hook: u32, program: &[Instruction]) -> io::Result<()> {
    load_sock_addr_program("", hook, program).map(drop)
}

/// `Unsupported` if programs on connect() may not call a helper.
///
/// # Errors
///
/// If they may not, or that cannot be found out.
pub(super) fn has_helper(helper: BpfHelper) -> io::Result<()> {
    match is_helper_supported(ProgramType::CgroupSockAddr, helper) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::ErrorKind::Unsupported.into()),
        Err(ProgramError::SyscallError(error)) => Err(error.io_error),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Why the programs cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The kernel lacks something.
    #[error(
        "this kernel ({release}) lacks what the programs need: {}; boot one that has it, such as \
         Linux 5.15 or later, or a distribution's kernel with the same BPF features",
        missing.iter().map(|feature| feature.description()).collect::<Vec<_>>().join("; ")
    )]
    Missing {
        /// What `uname -r` says.
        release: String,
        /// What it lacks.
        missing: Vec<Feature>,
    },
    /// The process may not try.
    #[error("the kernel does not let this process use BPF: {0}")]
    NotPermitted(&'static str, #[source] io::Error),
    /// It cannot be found out.
    #[error("cannot find out whether this kernel has {}", .0.description())]
    Unknown(Feature, #[source] io::Error),
}

/// The result of trying a feature.
#[derive(Debug)]
enum Probed {
    Present,
    Missing,
    Denied(io::Error),
    Unknown(io::Error),
}

impl From<io::Result<()>> for Probed {
    fn from(result: io::Result<()>) -> Self {
        /// `ENOTSUPP`, which the kernel gives to user space by mistake in places.
        const ENOTSUPP: i32 = 524;
        match result {
            Ok(()) => Self::Present,
            Err(error) => match (error.kind(), error.raw_os_error()) {
                (io::ErrorKind::PermissionDenied, _) => Self::Denied(error),
                (io::ErrorKind::Unsupported, _)
                | (
                    _,
                    Some(libc::EINVAL | libc::E2BIG | libc::ENOSYS | libc::EOPNOTSUPP | ENOTSUPP),
                ) => Self::Missing,
                _ => Self::Unknown(error),
            },
        }
    }
}

/// Checks that this kernel has what the programs need.
///
/// # Errors
///
/// Names everything that is missing; or the right to find it out.
pub(crate) fn check() -> Result<(), FeatureError> {
    evaluate(Feature::ALL.map(|feature| (feature, feature.probe().into())))
}

/// Whether programs on connect() may choose its error (`bpf_set_retval`, Linux 6.1).
///
/// # Errors
///
/// If this cannot be found out.
pub(crate) fn has_set_retval() -> Result<bool, FeatureError> {
    match has_helper(BpfHelper::BPF_FUNC_set_retval).into() {
        Probed::Present => Ok(true),
        Probed::Missing => Ok(false),
        Probed::Denied(error) => Err(FeatureError::NotPermitted(remedy(), error)),
        // What can be done without it is done without it.
        Probed::Unknown(error) => {
            tracing::debug!(%error, "cannot find out whether the kernel has bpf_set_retval");
            Ok(false)
        }
    }
}

fn evaluate(probed: impl IntoIterator<Item = (Feature, Probed)>) -> Result<(), FeatureError> {
    let mut missing = Vec::new();
    let mut unknown = None;
    for (feature, result) in probed {
        match result {
            Probed::Present => {}
            Probed::Missing => missing.push(feature),
            Probed::Denied(error) => return Err(FeatureError::NotPermitted(remedy(), error)),
            Probed::Unknown(error) => unknown = Some(FeatureError::Unknown(feature, error)),
        }
    }
    if !missing.is_empty() {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        return Err(FeatureError::Missing {
            release: release.trim().to_owned(),
            missing,
        });
    }
    unknown.map_or(Ok(()), Err)
}

/// What to do for the right to use BPF.
fn remedy() -> &'static str {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if !is_initial_user_namespace(&uid_map) {
        "it is in a user namespace, whose capabilities do not count; run it in the node's own (no \
         rootless container, no `hostUsers: false`)"
    } else if lacks_capabilities(&status) {
        "it lacks CAP_BPF or CAP_NET_ADMIN; run the command as root on the node, or give its \
         container the capabilities BPF, PERFMON and NET_ADMIN, or `privileged: true`"
    } else {
        "it has the capabilities, so a seccomp profile or a security module forbids it (the audit \
         log says which; with SELinux the container needs the type spc_t)"
    }
}

/// Whether a `/proc/<pid>/uid_map` is that of the initial user namespace.
fn is_initial_user_namespace(uid_map: &str) -> bool {
    let numbers: Vec<&str> = uid_map.split_whitespace().collect();
    numbers.is_empty() || numbers == ["0", "0", "4294967295"]
}

/// Whether a `/proc/<pid>/status` lacks what loading these programs takes: CAP_BPF, or
/// CAP_SYS_ADMIN in its place, and CAP_NET_ADMIN.
fn lacks_capabilities(status: &str) -> bool {
    const NET_ADMIN: u32 = 12;
    const SYS_ADMIN: u32 = 21;
    const BPF: u32 = 39;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let Some(effective) = effective else {
        return false;
    };
    let has = |capability: u32| effective & (1 << capability) != 0;
    !(has(BPF) || has(SYS_ADMIN)) || !has(NET_ADMIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(code: i32) -> Probed {
        Err(io::Error::from_raw_os_error(code)).into()
    }

    #[test]
    fn everything_that_a_kernel_lacks_is_named_at_once() {
        let error = evaluate([
            (Feature::ConnectHooks, Probed::Present),
            (Feature::GetpeernameHooks, os(libc::EINVAL)),
            (Feature::FetchingAtomics, os(libc::EINVAL)),
            (Feature::Links, os(libc::ENOMEM)),
        ])
        .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("getpeername4"), "{text}");
        assert!(text.contains("BPF_FETCH, Linux 5.12"), "{text}");
        assert!(!text.contains("links"), "{text}");
    }

    #[test]
    fn without_the_right_to_look_nothing_is_said_about_the_kernel() {
        for code in [libc::EPERM, libc::EACCES] {
            let error = evaluate([
                (Feature::TypedMaps, os(libc::EINVAL)),
                (Feature::ConnectHooks, os(code)),
            ])
            .unwrap_err();
            assert!(
                matches!(error, FeatureError::NotPermitted(..)),
                "{code}: {error}"
            );
        }
    }

    #[test]
    fn a_shortage_of_memory_is_not_a_missing_feature() {
        let error = evaluate([(Feature::Links, os(libc::ENOMEM))]).unwrap_err();
        assert!(matches!(error, FeatureError::Unknown(Feature::Links, _)));
    }

    #[test]
    fn capabilities_are_read_from_the_status_of_the_process() {
        let status = |set: &str| format!("Name:\tx\nCapEff:\t{set}\nCapBnd:\t0\n");
        assert!(!lacks_capabilities(&status("000001ffffffffff")));
        // CAP_BPF and CAP_NET_ADMIN.
        assert!(!lacks_capabilities(&status("0000008000001000")));
        // CAP_SYS_ADMIN and CAP_NET_ADMIN.
        assert!(!lacks_capabilities(&status("0000000000201000")));
        assert!(lacks_capabilities(&status("0000008000000000")));
        assert!(lacks_capabilities(&status("0000000000001000")));
        assert!(!lacks_capabilities("no such line"));
    }

    #[test]
    fn a_user_namespace_is_told_from_the_initial_one() {
        assert!(is_initial_user_namespace(
            "         0          0 4294967295\n"
        ));
        assert!(!is_initial_user_namespace(
            "         0       1000          1\n"
        ));
    }
}
