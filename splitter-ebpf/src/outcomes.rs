//! What comes of split connections, by [`splitter_common::outcomes`]: counted for each leaf when it
//! happens, in the kernel.
//!
//! ```text
//! connect()            ─► Begun
//! inet_sock_set_state  ─► Established     some ten times for each connection; only if that is asked for
//! inet_sk_error_report ─► Ended           errors only
//! tcp_receive_reset    ─► Ended           resets only
//! tcp_send_reset       ─► Ended           resets only
//! tcp_destroy_sock     ─► freed           once for each TCP socket
//! ```
//!
//! What happens to one socket happens under its lock, one after the other, but for timestamps, which are
//! no outcomes. A connection is counted when it leaves a stage, and the stage is stored: so it does not matter how often
//! something is told, as it is while a new agent's programs are attached beside those of the one before.
//!
//! A connection that nothing was split for costs one look at its socket's cookie, which is not there.

use core::ptr::{addr_of, addr_of_mut, from_ref, null_mut};

use aya_ebpf::helpers::{bpf_jiffies64, bpf_sk_storage_get, bpf_skc_to_tcp_sock};
use splitter_common::layout::{ConnectionRecord, HISTOGRAM_BUCKETS, OutcomeRecord, Stage};
use splitter_common::outcomes::{self, Outcome, SocketState};

use crate::count::add;
use crate::maps::{LEAF_OUTCOMES, ORIGINAL_DST};
use crate::settings::{self, read_member};
use crate::sockets::Known;

/// States (include/net/tcp_states.h).
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const CLOSED: u8 = 7;
/// Flags (include/net/sock.h, `enum sock_flags`): the owner has closed the socket, the other side has.
const DEAD: u64 = 1 << 0;
const DONE: u64 = 1 << 1;
/// `srtt_us` is in eighths (net/ipv4/tcp_input.c, `tcp_rtt_estimator`).
const ROUND_TRIP_SHIFT: u32 = 3;

/// Now, in ticks of the kernel's timer: one load, where the exact time costs as much as everything else
/// here.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_jiffies64() }
}

/// How long ago a connection began, in nanoseconds, to a tick.
///
/// # Safety
///
/// `record` must be readable.
#[inline(always)]
unsafe fn elapsed(record: *mut ConnectionRecord) -> u64 {
    // SAFETY: the caller's.
    let started = unsafe {
        ConnectionRecord::ticks_of_parts(
            addr_of!((*record).started).read_volatile(),
            addr_of!((*record).started_upper).read_volatile(),
        )
    };
    now().wrapping_sub(started).wrapping_mul(settings::tick())
}

/// The socket of an event that may be about none.
#[inline(always)]
fn known(socket: *const u8) -> Option<Known> {
    if socket.is_null() || !settings::count_outcomes() {
        return None;
    }
    // SAFETY: it is the argument of a tracepoint or function that takes a `struct sock *`.
    unsafe { Known::of(socket) }
}

/// The connection of a socket that has a cookie, if it was split: in its slot, or on the socket.
#[inline(always)]
fn connection(socket: *const u8, known: &Known) -> Option<*mut ConnectionRecord> {
    known.record.or_else(|| stored(socket))
}

/// The connection that is stored on a socket.
#[inline(always)]
fn stored(socket: *const u8) -> Option<*mut ConnectionRecord> {
    // SAFETY: the socket is valid while the program runs, and the map is one of socket storage.
    // Nothing is created.
    let stored = unsafe {
        bpf_sk_storage_get(
            from_ref(&ORIGINAL_DST).cast_mut().cast(),
            socket.cast_mut().cast(),
            null_mut(),
            0,
        )
        .cast::<ConnectionRecord>()
    };
    (!stored.is_null()).then_some(stored)
}

/// The stage of a connection.
///
/// # Safety
///
/// `record` must be readable.
#[inline(always)]
unsafe fn stage(record: *mut ConnectionRecord) -> Stage {
    // SAFETY: the caller's.
    outcomes::stage(unsafe { addr_of!((*record).stage).read_volatile() })
}

/// Stores a stage, and counts why. `None`, and nothing is done, if the leaf is not that of
/// the connection any more: its id was given to another, or is one of other maps.
///
/// # Safety
///
/// `record` must be a connection's own record.
#[inline(always)]
unsafe fn enter(
    record: *mut ConnectionRecord,
    stage: Stage,
    outcome: Outcome,
) -> Option<*mut OutcomeRecord> {
    // SAFETY: the caller's; what is counted is in a map value.
    unsafe {
        let leaf = addr_of!((*record).original_dst.leaf_id).read_volatile();
        let counters = LEAF_OUTCOMES.get_ptr_mut(leaf)?;
        let incarnation = addr_of!((*record).incarnation).read_volatile();
        if addr_of!((*counters).incarnation).read_volatile() != u64::from(incarnation) {
            return None;
        }
        addr_of_mut!((*record).stage).write_volatile(stage as u8);
        let counts = addr_of_mut!((*counters).counts).cast::<u64>();
        add(counts.add(outcome as usize), 1);
        Some(counters)
    }
}

/// Adds a value to a histogram and to its sum.
///
/// # Safety
///
/// Both must be in a map value.
#[inline(always)]
unsafe fn observe(histogram: *mut [u64; HISTOGRAM_BUCKETS], sum: *mut u64, value: u64) {
    // The mask shows the verifier what `bucket` promises.
    let bucket = outcomes::bucket(value) & (HISTOGRAM_BUCKETS - 1);
    // SAFETY: the caller's.
    unsafe {
        add(histogram.cast::<u64>().add(bucket), 1);
        add(sum, value);
    }
}

/// A socket connects again, or is to forget its connection, though no end of that was told: nothing could
/// be sent.
///
/// # Safety
///
/// `record` must be a connection's own record.
#[inline(always)]
pub(crate) unsafe fn replaced(record: *mut ConnectionRecord) {
    // SAFETY: the caller's.
    unsafe {
        if let Some(outcome) = outcomes::of_end(stage(record), SocketState::default()) {
            enter(record, Stage::Ended, outcome);
        }
    }
}

/// A socket enters another state.
#[inline(always)]
pub(crate) fn state_changed(socket: *const u8, from: u32, to: u32) {
    if from != SYN_SENT || to != ESTABLISHED {
        return;
    }
    let Some(known) = known(socket) else {
        return;
    };
    let Some(record) = connection(socket, &known) else {
        return;
    };
    // SAFETY: the record is the socket's own; members are read by the kernel's type information.
    unsafe {
        if stage(record) != Stage::Begun {
            return;
        }
        let Some(counters) = enter(record, Stage::Established, Outcome::Established) else {
            return;
        };
        let Some(Socket { tcp, .. }) = Socket::of(socket) else {
            return;
        };
        // The answer to the first SYN gives the first round-trip time, to the microsecond. If that
        // was lost, there is none, but then it took a second and more.
        let microseconds = if read_member!(u32, tcp, sent_again) == 0 {
            u64::from(read_member!(u32, tcp, round_trip) >> ROUND_TRIP_SHIFT)
        } else {
            elapsed(record) / 1000
        };
        observe(
            addr_of_mut!((*counters).handshakes),
            addr_of_mut!((*counters).handshake_sum),
            microseconds,
        );
    }
}

/// An error is reported to the owner of a socket, or that it is disconnected, or a timestamp. The last
/// of these is the one thing here that may happen without the socket's lock.
#[inline(always)]
pub(crate) fn failed(socket: *const u8) {
    // SAFETY: it is the argument of a tracepoint that takes a `struct sock *`; members are read by the
    // kernel's type information.
    let (error, state) = unsafe {
        (
            read_member!(u32, socket, error),
            read_member!(u8, socket, state),
        )
    };
    // Nothing that comes without the socket's lock gets any further.
    if error != 0 || state == CLOSED {
        event(socket, outcomes::of_error);
    }
}

/// The kernel takes something for a reset from the endpoint.
#[inline(always)]
pub(crate) fn reset_received(socket: *const u8) {
    event(socket, outcomes::of_reset_received);
}

/// A reset is sent.
#[inline(always)]
pub(crate) fn reset_sent(socket: *const u8) {
    event(socket, outcomes::of_reset_sent);
}

/// Something that may end a connection.
#[inline(always)]
fn event(socket: *const u8, outcome: impl FnOnce(Stage, SocketState) -> Option<Outcome>) {
    let Some(known) = known(socket) else {
        return;
    };
    let Some(record) = connection(socket, &known) else {
        return;
    };
    let Some(socket) = Socket::of(socket) else {
        return;
    };
    // SAFETY: the record is the socket's own.
    unsafe {
        let state = state(record, &socket);
        if let Some(outcome) = outcome(reached(record, &socket, state.is_closed), state) {
            end(record, &socket, outcome);
        }
    }
}

/// A TCP socket dies, of any process: frees its slot, if it has one.
#[inline(always)]
pub(crate) fn destroyed(socket: *const u8) {
    // SAFETY: it is the argument of a tracepoint that takes a `struct sock *`.
    let Some(known) = (unsafe { Known::of(socket) }) else {
        return;
    };
    if settings::count_outcomes()
        && let Some(record) = connection(socket, &known)
        && let Some(socket) = Socket::of(socket)
    {
        // SAFETY: the record is the socket's own.
        unsafe {
            let state = state(record, &socket);
            if let Some(outcome) = outcomes::of_end(reached(record, &socket, true), state) {
                end(record, &socket, outcome);
            }
            // One before it that could not be made, and for which the table had no room: the program that
            // runs after this one would take it for this connection.
            if known.record.is_some()
                && let Some(before) = stored(socket.common)
            {
                replaced(before);
            }
        }
    }
    known.free();
}

/// A socket that is neither a request nor in TIME_WAIT: all that can have a connection of ours.
struct Socket {
    /// A `struct sock *`.
    common: *const u8,
    /// The same as a `struct tcp_sock *`.
    tcp: *const u8,
}

impl Socket {
    /// `socket` must be what the verifier knows as a `struct sock *`.
    #[inline(always)]
    fn of(socket: *const u8) -> Option<Self> {
        // SAFETY: the helper only looks at the socket, which is valid while the program runs.
        let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast_mut().cast()) };
        (!tcp.is_null()).then_some(Self {
            common: socket,
            tcp: tcp.cast(),
        })
    }
}

/// What a socket says of itself.
///
/// # Safety
///
/// `record` must be the own record of the socket.
#[inline(always)]
unsafe fn state(record: *mut ConnectionRecord, socket: &Socket) -> SocketState {
    let Socket { common, tcp } = *socket;
    // SAFETY: the caller's; members are read by the kernel's type information.
    unsafe {
        SocketState {
            error: read_member!(u32, common, error),
            soft_error: read_member!(u32, common, soft_error),
            is_closed: read_member!(u8, common, state) == CLOSED,
            is_orphan: read_member!(u64, common, flags) & DEAD != 0,
            has_sent: read_member!(u32, tcp, segments_sent) != 0,
            elapsed: elapsed(record),
        }
    }
}

/// The stage of a connection: established, and counted as that, if the endpoint has acknowledged
/// something.
///
/// # Safety
///
/// `record` must be the own record of the socket.
#[inline(always)]
unsafe fn reached(record: *mut ConnectionRecord, socket: &Socket, is_closed: bool) -> Stage {
    let Socket { common, tcp } = *socket;
    // SAFETY: the caller's; members are read by the kernel's type information.
    unsafe {
        let stage = stage(record);
        if stage != Stage::Begun {
            return stage;
        }
        // A SYN counts as a byte. Of a socket that was disconnected, which resets all counters, what was
        // expected next is left; it is 0 until the answer to the SYN.
        let was_disconnected = is_closed && read_member!(u32, tcp, segments_sent) == 0;
        let is_established = read_member!(u64, tcp, bytes_acknowledged) != 0
            || was_disconnected && read_member!(u32, tcp, next_received) != 0;
        if !is_established {
            return stage;
        }
        // It may be another connection, that is not split: an IPv4 socket that found no route to the
        // endpoint forgets nothing when it dials something else.
        let port = u16::from_be(read_member!(u16, common, peer_port));
        if port != 0 && port != addr_of!((*record).original_dst.endpoint_port).read_volatile() {
            enter(record, Stage::Ended, Outcome::Unreachable);
            return Stage::Ended;
        }
        enter(record, Stage::Established, Outcome::Established);
        Stage::Established
    }
}

/// Counts the end of a connection.
///
/// # Safety
///
/// `record` must be the own record of the socket.
#[inline(always)]
unsafe fn end(record: *mut ConnectionRecord, socket: &Socket, outcome: Outcome) {
    let Socket { common, tcp } = *socket;
    // SAFETY: the caller's; members are read by the kernel's type information.
    unsafe {
        let Some(counters) = enter(record, Stage::Ended, outcome) else {
            return;
        };
        if !outcome.ends_established() {
            return;
        }
        observe(
            addr_of_mut!((*counters).lifetimes),
            addr_of_mut!((*counters).lifetime_sum),
            elapsed(record) / 1_000_000,
        );
        let round_trip = read_member!(u32, tcp, round_trip) >> ROUND_TRIP_SHIFT;
        if round_trip != 0 {
            observe(
                addr_of_mut!((*counters).round_trips),
                addr_of_mut!((*counters).round_trip_sum),
                round_trip.into(),
            );
        }
        // What could not be sent again for want of memory is counted as sent again all the same.
        let sent = read_member!(u64, tcp, bytes_sent);
        let again = read_member!(u64, tcp, bytes_sent_again);
        add(
            addr_of_mut!((*counters).bytes_sent),
            sent.saturating_sub(again),
        );
        // The kernel counts the other side's FIN as a byte.
        let received = read_member!(u64, tcp, bytes_received);
        let fin = u64::from(read_member!(u64, common, flags) & DONE != 0);
        add(
            addr_of_mut!((*counters).bytes_received),
            received.saturating_sub(fin),
        );
    }
}

/// When and in which stage a connection begins.
#[inline(always)]
pub(crate) fn beginning() -> (u64, Stage) {
    let stage = if settings::count_outcomes() {
        Stage::Begun
    } else {
        Stage::NotCounted
    };
    (now(), stage)
}
