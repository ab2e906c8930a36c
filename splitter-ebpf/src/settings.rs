//! Constants that the agent sets at load time. They are read-only for the kernel, so
//! the verifier drops the branches that they turn off.

use aya_ebpf::Global;

/// 1 where the kernel has the helper `bpf_set_retval` in these hooks (6.1 and later,
/// kernel commit dea6a4e17013). Without it a denied connect() fails with EPERM, which
/// some callers retry without end, so connections are refused by a rewrite instead.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u8> = Global::new(1);

/// 1 if connect() stores the original destination on the socket, for getpeername().
#[unsafe(no_mangle)]
static KEEP_ORIGINAL_DST: Global<u8> = Global::new(1);

/// Whether `bpf_set_retval` may be called.
#[inline(always)]
pub(crate) fn has_set_retval() -> bool {
    HAS_SET_RETVAL.load() != 0
}

/// Whether connect() stores the original destination.
#[inline(always)]
pub(crate) fn keep_original_dst() -> bool {
    KEEP_ORIGINAL_DST.load() != 0
}
