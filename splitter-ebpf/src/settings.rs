//! Constants that the agent sets at load time. They are read-only for the kernel, so
//! the verifier drops the branches that they turn off.

use aya_ebpf::Global;

/// 1 where the kernel has the helper `bpf_set_retval` in these hooks (6.1 and later,
/// kernel commit dea6a4e17013). Without it a denied connect() fails with EPERM, which
/// some callers retry without end, so connections are refused by a rewrite instead.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u8> = Global::new(1);

/// 1 if sockets shall remember the VIP that was dialled, for getpeername.
#[unsafe(no_mangle)]
static PEER_NAMES: Global<u8> = Global::new(1);

/// Whether `bpf_set_retval` may be called.
#[inline(always)]
pub(crate) fn has_set_retval() -> bool {
    HAS_SET_RETVAL.load() != 0
}

/// Whether sockets remember the VIP.
#[inline(always)]
pub(crate) fn peer_names() -> bool {
    PEER_NAMES.load() != 0
}
