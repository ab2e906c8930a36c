//! Datagrams of UDP sockets that are not connected: each is sent to the endpoint of its flow, and an
//! answer is shown as what was sent to.
//!
//! The kernel runs the sendmsg hooks for datagrams with an address of their own, and the recvmsg hooks
//! where the application asks for the source, also on connected sockets. It shows an IPv6 socket that
//! sends to an IPv4-mapped address to `sendmsg4`, and its answers to `recvmsg6`.
//!
//! What a connected socket sends passes a hook only with an address of its own, or if it is an IPv6 socket
//! that is connected to an IPv4-mapped address. Its endpoint was chosen by connect(), and answers of another
//! do not reach it.

use core::ptr::addr_of;

use aya_ebpf::helpers::bpf_set_retval;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::{debug, trace};
use splitter_common::layout::{FrontendKey, Protocol, SplitRecord, Verdict, VerdictCounter};

use crate::connect::{self, Chosen, ECONNREFUSED, Found, Picked};
use crate::context::{self, ALLOW, DENY, Family, Words};
use crate::flows::{self, Flow, Remembered};
use crate::{count, original_dst, settings};

/// Handles a datagram that a socket sends.
#[inline(always)]
pub(crate) fn send(context: &SockAddrContext, family: Family) -> i32 {
    // The other protocol with these hooks is UDP-Lite.
    if context::protocol(context) != Protocol::Udp as u32 {
        return ALLOW;
    }
    let mut key = connect::dialled(context, family, Protocol::Udp);
    match connect::find_for_client(&mut key) {
        Found::Nothing => ALLOW,
        Found::Inconsistent => doubt(),
        Found::Split(split) => match context::peer(context, family) {
            Some(peer) => send_connected(context, family, &key, split, peer),
            None => follow(context, family, &key, split),
        },
    }
}

/// Handles a datagram that a connected socket sends to what is split.
#[inline(always)]
fn send_connected(
    context: &SockAddrContext,
    family: Family,
    key: &FrontendKey,
    split: *const SplitRecord,
    peer: (Words, u16),
) -> i32 {
    let (address, port) = peer;
    // It was connected when nothing was split there, and remains so.
    if port == key.port && bytemuck::cast::<Words, [u8; 16]>(address) == key.address {
        return ALLOW;
    }
    if original_dst::has_dialled(context, key, peer) {
        context::replace(context, family, address, port);
        return ALLOW;
    }
    follow(context, family, key, split)
}

/// Handles a datagram that a socket has received.
#[inline(always)]
pub(crate) fn receive(context: &SockAddrContext, family: Family) -> i32 {
    let source = context::address(context, family);
    let port = context::port(context);
    if context::peer(context, family) == Some((source, port)) {
        original_dst::show_of_storage(context, family);
    } else if let Some((address, port)) = flows::source(context, source, port) {
        context::replace(context, family, address, port);
    }
    ALLOW
}

/// Leaves a datagram alone, since records do not fit together.
#[inline(always)]
fn doubt() -> i32 {
    count::verdict(VerdictCounter::Inconsistent);
    ALLOW
}

/// Does what a split says.
#[inline(always)]
fn follow(
    context: &SockAddrContext,
    family: Family,
    key: &FrontendKey,
    split: *const SplitRecord,
) -> i32 {
    // SAFETY: the record is a map value, which lives as long as the program runs. Read as a number,
    // not as an enum: what the kernel finds in a map is checked, not believed.
    let verdict = unsafe { addr_of!((*split).verdict).cast::<u8>().read_volatile() };
    if verdict == Verdict::Split as u8 {
        let flow = Flow::new(context, key);
        let remembered = flow.endpoint(split);
        let is_new = matches!(remembered, Remembered::Nothing);
        let picked = match remembered {
            Remembered::Endpoint(picked) => picked,
            Remembered::Gone | Remembered::Nothing => {
                match choose(context, &flow, key, split, is_new) {
                    Ok(picked) => picked,
                    Err(verdict) => return verdict,
                }
            }
        };
        if !flow.remember_source(key, &picked) {
            count::verdict(VerdictCounter::OriginalDstLost);
        }
        context::replace(context, family, picked.address, picked.port);
        return ALLOW;
    }
    if verdict == Verdict::Refuse as u8 {
        count::verdict(VerdictCounter::Refused);
        debug!(context, "{:i} port {} refused", key.address, key.port);
        return refuse();
    }
    count::verdict(VerdictCounter::PassedThrough);
    trace!(context, "{:i} port {} passed", key.address, key.port);
    ALLOW
}

/// Chooses an endpoint for a flow, just as for a connection; or what to return if it gets none.
#[inline(always)]
fn choose(
    context: &SockAddrContext,
    flow: &Flow,
    key: &FrontendKey,
    split: *const SplitRecord,
    is_new: bool,
) -> Result<Picked, i32> {
    let picked = match connect::choose(context, key, split) {
        Chosen::Endpoint(picked) => picked,
        Chosen::Refusal => return Err(refuse()),
        Chosen::Inconsistent => return Err(doubt()),
    };
    if !flow.remember(split, &picked, is_new)
        && let Remembered::Endpoint(first) = flow.endpoint(split)
    {
        return Ok(first);
    }
    debug!(
        context,
        "{:i} port {} -> {:i} port {}",
        key.address,
        key.port,
        bytemuck::cast::<Words, [u8; 16]>(picked.address),
        picked.port
    );
    Ok(picked)
}

/// Makes sendmsg() fail: with ECONNREFUSED, or with EPERM where the kernel cannot say more from a program.
/// There is no port to which a datagram could be sent instead that would tell the sender.
#[inline(always)]
fn refuse() -> i32 {
    if settings::has_set_retval() {
        // SAFETY: the helper only stores the number.
        let _ = unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    DENY
}
