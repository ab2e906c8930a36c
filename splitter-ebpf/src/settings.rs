//! Constants that the agent sets at load time. They are read-only for the kernel, so
//! the verifier drops the branches that they turn off.

use aya_ebpf::Global;
use splitter_common::socket_offsets::SocketOffsets;

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

/// Where members are in the kernel's sockets.
#[unsafe(no_mangle)]
static SOCKET_OFFSETS: Global<SocketOffsets> = Global::new(SocketOffsets {
    cookie: 0,
    state: 0,
    flags: 0,
    peer_port: 0,
    error: 0,
    soft_error: 0,
    round_trip: 0,
    sent_again: 0,
    segments_sent: 0,
    bytes_acknowledged: 0,
    next_received: 0,
    bytes_sent: 0,
    bytes_sent_again: 0,
    bytes_received: 0,
});

/// Nanoseconds of a tick of the kernel's timer.
#[unsafe(no_mangle)]
static TICK: Global<u32> = Global::new(0);

/// 1 if what comes of connections is counted.
#[unsafe(no_mangle)]
static COUNT_OUTCOMES: Global<u8> = Global::new(0);

/// What of a cookie is an index into `SOCKETS`; `None` if the table is not used.
#[inline(always)]
pub(crate) fn socket_mask() -> Option<u32> {
    SOCKET_SLOTS.load().checked_sub(1)
}

/// Where members are in the kernel's sockets. To be read member by member, each from read-only
/// memory, so that the verifier knows the number.
#[inline(always)]
pub(crate) fn socket_offsets() -> *const SocketOffsets {
    core::ptr::addr_of!(SOCKET_OFFSETS).cast()
}

/// Nanoseconds of a tick of the kernel's timer.
#[inline(always)]
pub(crate) fn tick() -> u64 {
    TICK.load().into()
}

/// Whether what comes of connections is counted.
#[inline(always)]
pub(crate) fn count_outcomes() -> bool {
    COUNT_OUTCOMES.load() != 0
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

/// Reads a member of a kernel's `struct sock` or `struct tcp_sock`, whose offset is that of this name
/// in [`SocketOffsets`].
///
/// To be used where the pointer is what the verifier knows as one to such a structure: it checks
/// the load by the kernel's type information.
macro_rules! read_member {
    ($type:ty, $socket:expr, $member:ident) => {{
        let offsets = $crate::settings::socket_offsets();
        let offset = core::ptr::addr_of!((*offsets).$member).read_volatile();
        $socket.add(offset as usize).cast::<$type>().read_volatile()
    }};
}
pub(crate) use read_member;
