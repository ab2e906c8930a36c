//! Constants that the agent sets at load time. They are read-only for the kernel, so
//! the verifier drops the branches that they turn off.

use aya_ebpf::Global;

/// 1 where the kernel has the helper `bpf_set_retval` in these hooks (6.1 and later,
/// kernel commit dea6a4e17013). Without it a denied connect() fails with EPERM, which
/// some callers retry without end, so connections are refused by a rewrite instead.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u8> = Global::new(1);

/// 1 if connect() stores the original destination, for getpeername().
#[unsafe(no_mangle)]
static KEEP_ORIGINAL_DST: Global<u8> = Global::new(1);

/// Slots of `SOCKETS`, a power of two; 0 if it is not used, and everything is on the sockets
/// themselves.
#[unsafe(no_mangle)]
static SOCKET_SLOTS: Global<u32> = Global::new(0);

/// Where in the kernel's `struct sock` the cookie is, in bytes.
#[unsafe(no_mangle)]
static COOKIE_OFFSET: Global<u32> = Global::new(0);

/// What of a cookie is an index into `SOCKETS`; `None` if the table is not used.
#[inline(always)]
pub(crate) fn socket_mask() -> Option<u32> {
    SOCKET_SLOTS.load().checked_sub(1)
}

/// Where in a socket its cookie is, in bytes.
#[inline(always)]
pub(crate) fn cookie_offset() -> u32 {
    COOKIE_OFFSET.load()
}

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
