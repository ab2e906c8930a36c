//! The entry points. The return value of a program on a cgroup: 1 lets the call go on, 0 makes it
//! fail.
//!
//! A program on a tracepoint is left out while the same program runs on the CPU already
//! (kernel/trace/bpf_trace.c, `__bpf_trace_run`). That happens: a thread that closes a socket handles what
//! came for it meanwhile with interrupts on, in which others end (net/core/sock.c, `__release_sock`). So what
//! must not be missed is there twice, and of the two at least one runs: there is no third level. Whichever
//! is second finds that it was done.
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macro calls each entry point with a context of its own"
)]

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{btf_tracepoint, cgroup_sock_addr};
use aya_ebpf::programs::{BtfTracePointContext, SockAddrContext};

use crate::{connect, context, datagrams, original_dst, outcomes};

/// An IPv4 socket connects.
#[cgroup_sock_addr(connect4)]
fn connect4(context: SockAddrContext) -> i32 {
    connect::run(&context, context::Family::V4)
}

/// An IPv6 socket connects, to an IPv6 address or to an IPv4-mapped one.
#[cgroup_sock_addr(connect6)]
fn connect6(context: SockAddrContext) -> i32 {
    connect::run(&context, context::Family::V6)
}

/// An application asks an IPv4 socket for its peer.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(context: SockAddrContext) -> i32 {
    original_dst::show(&context, context::Family::V4)
}

/// An application asks an IPv6 socket for its peer.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(context: SockAddrContext) -> i32 {
    original_dst::show(&context, context::Family::V6)
}

/// A UDP socket sends to an IPv4 address that it is not connected to: an IPv4 socket, or an IPv6 one
/// that sends to an IPv4-mapped address.
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(context: SockAddrContext) -> i32 {
    datagrams::send(&context, context::Family::V4)
}

/// An IPv6 UDP socket sends to an IPv6 address that it is not connected to.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(context: SockAddrContext) -> i32 {
    datagrams::send(&context, context::Family::V6)
}

/// An IPv4 UDP socket has received a datagram, and the application asks where it is from.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(context: SockAddrContext) -> i32 {
    datagrams::receive(&context, context::Family::V4)
}

/// The same of an IPv6 socket, from an IPv6 address or an IPv4-mapped one.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(context: SockAddrContext) -> i32 {
    datagrams::receive(&context, context::Family::V6)
}

/// A TCP socket dies, of any process. Attached only where `SOCKETS` is used, as all that follow.
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn tcp_destroy_sock(context: BtfTracePointContext) -> i32 {
    outcomes::destroyed(context.arg(0));
    0
}

/// The same, for what happens while that runs.
#[btf_tracepoint(function = "tcp_destroy_sock")]
fn tcp_destroy_sock_nested(context: BtfTracePointContext) -> i32 {
    outcomes::destroyed(context.arg(0));
    0
}

/// A TCP socket enters another state. Attached only where that is asked for: it runs five times and
/// more for each connection, of whichever process, and at both of its ends.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(context: BtfTracePointContext) -> i32 {
    outcomes::state_changed(context.arg(0), context.arg(1), context.arg(2));
    0
}

/// An error is reported to the owner of a socket (5.14, kernel commit e6a3e4434000).
#[btf_tracepoint(function = "inet_sk_error_report")]
fn inet_sk_error_report(context: BtfTracePointContext) -> i32 {
    outcomes::failed(context.arg(0));
    0
}

/// The same, for what happens while that runs.
#[btf_tracepoint(function = "inet_sk_error_report")]
fn inet_sk_error_report_nested(context: BtfTracePointContext) -> i32 {
    outcomes::failed(context.arg(0));
    0
}

/// A reset was received.
#[btf_tracepoint(function = "tcp_receive_reset")]
fn tcp_receive_reset(context: BtfTracePointContext) -> i32 {
    outcomes::reset_received(context.arg(0));
    0
}

/// The same, for what happens while that runs.
#[btf_tracepoint(function = "tcp_receive_reset")]
fn tcp_receive_reset_nested(context: BtfTracePointContext) -> i32 {
    outcomes::reset_received(context.arg(0));
    0
}

/// A reset is sent, perhaps for no socket (6.10, kernel commit 19822a980e19).
///
/// Whether there is one is asked of a copy: kernels before 6.12.5 (838a10bd2ebf) take for granted that
/// there is, drop the test of the argument itself, and then read from address 0.
#[btf_tracepoint(function = "tcp_send_reset")]
fn tcp_send_reset(context: BtfTracePointContext) -> i32 {
    reset_sent(&context);
    0
}

/// The same, for what happens while that runs.
#[btf_tracepoint(function = "tcp_send_reset")]
fn tcp_send_reset_nested(context: BtfTracePointContext) -> i32 {
    reset_sent(&context);
    0
}

#[inline(always)]
fn reset_sent(context: &BtfTracePointContext) {
    // SAFETY: the context begins with the arguments, a word for each.
    let copy = unsafe { bpf_probe_read_kernel(context.as_ptr().cast::<u64>()) };
    if copy.is_ok_and(|socket| socket != 0) {
        outcomes::reset_sent(context.arg(0));
    }
}

/// Of the licences that the kernel accepts for helpers marked GPL-only
/// (include/linux/license.h), the one that matches the project's own.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: no code here can panic, or the verifier would refuse the loop.
    loop {}
}
