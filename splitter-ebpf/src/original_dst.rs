//! The original destination of a socket: what it dialled before connect() rewrote the address.
//! connect() stores it, and getpeername() shows it to the application.
//!
//! It is stored in the socket's slot of the table of live sockets. If it has none, since both of
//! its ways are taken or the table is not used, it is stored on the socket itself: that takes two
//! allocations, some ten times as long. What is in the slot counts before what is on the socket.
//!
//! The kernel runs the getpeername hooks for accept() with an address too, so a socket without
//! an original destination costs one look at either place.

use core::ptr::{addr_of, addr_of_mut, from_mut, from_ref};

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::bpf_sk_storage_get;
use aya_ebpf::programs::SockAddrContext;
use splitter_common::layout::{ConnectionRecord, FrontendKey, OriginalDstRecord, Protocol, Stage};

use crate::connect::Picked;
use crate::context::{self, ALLOW, Family};
use crate::maps::ORIGINAL_DST;
use crate::{client, outcomes, sockets};

/// Handles a getpeername() of a socket of `family`.
#[inline(always)]
pub(crate) fn show(context: &SockAddrContext, family: Family) -> i32 {
    if let Some(stored) = sockets::find(context) {
        // SAFETY: the record is in a map value, and the socket's own.
        unsafe { show_stored(context, family, addr_of!((*stored).original_dst)) };
        return ALLOW;
    }
    show_of_storage(context, family);
    ALLOW
}

/// Shows what is stored on the socket itself.
#[inline(always)]
pub(crate) fn show_of_storage(context: &SockAddrContext, family: Family) {
    // SAFETY: only looks at the socket of the context.
    let stored = unsafe { ORIGINAL_DST.get_ptr_mut(context) };
    if !stored.is_null() {
        // SAFETY: a non-null pointer is to the socket's own record.
        unsafe { show_stored(context, family, addr_of!((*stored).original_dst)) };
    }
}

/// Whether a connected UDP socket has this peer because it dialled a frontend.
#[inline(always)]
pub(crate) fn has_dialled(
    context: &SockAddrContext,
    frontend: &FrontendKey,
    peer: (context::Words, u16),
) -> bool {
    // SAFETY: only looks at the socket of the context.
    let stored = unsafe { ORIGINAL_DST.get_ptr_mut(context) };
    if stored.is_null() {
        return false;
    }
    // SAFETY: a non-null pointer is to the socket's own record.
    unsafe {
        let stored = addr_of!((*stored).original_dst);
        has_endpoint(stored, peer)
            && addr_of!((*stored).frontend_port).read_volatile() == frontend.port
            && context::read_words(addr_of!((*stored).frontend_address).cast())
                == bytemuck::cast::<[u8; 16], context::Words>(frontend.address)
    }
}

/// Shows what is stored, if the socket's peer is the endpoint in it.
///
/// # Safety
///
/// `stored` must be readable; its addresses are aligned to 4 bytes.
#[inline(always)]
unsafe fn show_stored(context: &SockAddrContext, family: Family, stored: *const OriginalDstRecord) {
    let peer = (context::address(context, family), context::port(context));
    // SAFETY: the caller's.
    unsafe {
        if has_endpoint(stored, peer) {
            context::replace(
                context,
                family,
                context::read_words(addr_of!((*stored).frontend_address).cast()),
                addr_of!((*stored).frontend_port).read_volatile(),
            );
        }
    }
}

/// Whether what is stored is of a connection to this endpoint: its address, and its port in host order.
///
/// # Safety
///
/// As for `show_stored`.
#[inline(always)]
unsafe fn has_endpoint(stored: *const OriginalDstRecord, endpoint: (context::Words, u16)) -> bool {
    // SAFETY: the caller's.
    unsafe {
        addr_of!((*stored).endpoint_port).read_volatile() == endpoint.1
            && context::read_words(addr_of!((*stored).endpoint_address).cast()) == endpoint.0
    }
}

/// Stores the original destination. `false` if there is no memory for it.
#[inline(always)]
pub(crate) fn remember(context: &SockAddrContext, key: &FrontendKey, picked: &Picked) -> bool {
    // A UDP socket tells nothing of what comes of it, and its errors end nothing.
    let (started, stage, cgroup) = match key.protocol {
        Protocol::Tcp => {
            let (started, stage) = outcomes::beginning();
            (started, stage, client::cgroup())
        }
        _ => (0, Stage::NotCounted, 0),
    };
    let (started, started_upper) = ConnectionRecord::parts_of_ticks(started);
    let mut words: Words = bytemuck::cast(ConnectionRecord {
        original_dst: OriginalDstRecord {
            frontend_address: key.address,
            endpoint_address: bytemuck::cast(picked.address),
            leaf_id: picked.leaf_id,
            frontend_port: key.port,
            endpoint_port: picked.port,
        },
        started,
        cgroup,
        incarnation: picked.incarnation,
        started_upper,
        stage: stage as u8,
        padding: 0,
    });
    // Nothing tells of the death of UDP sockets, so that they would keep their slots.
    if key.protocol == Protocol::Tcp
        && let Some(stored) = sockets::claim(context)
    {
        // SAFETY: the record is in a map value, and the socket's own.
        unsafe {
            outcomes::replaced(stored);
            write(stored, &words);
        }
        return true;
    }
    // SAFETY: only looks at the socket of the context.
    let before = unsafe { ORIGINAL_DST.get_ptr_mut(context) };
    if !before.is_null() {
        // SAFETY: a non-null pointer is to the socket's own record.
        unsafe {
            outcomes::replaced(before);
            write(before, &words);
        }
        return true;
    }
    // SAFETY: the socket in the context is valid while the program runs, and the map is
    // one of socket storage.
    let stored = unsafe {
        let socket = (*context.sock_addr).__bindgen_anon_1.sk;
        bpf_sk_storage_get(
            from_ref(&ORIGINAL_DST).cast_mut().cast(),
            socket.cast(),
            from_mut(&mut words).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    !stored.is_null()
}

/// A record in the form in which it is stored.
type Words = [u64; size_of::<ConnectionRecord>() / 8];

/// Writes a record. The calls of a socket are serialised by its lock, so plain words do.
///
/// # Safety
///
/// `to` must be writable and aligned to 8 bytes.
#[inline(always)]
unsafe fn write(to: *mut ConnectionRecord, words: &Words) {
    let to = to.cast::<u64>();
    for (index, word) in words.iter().enumerate() {
        // SAFETY: the record is as long as the words are.
        unsafe { to.add(index).write_volatile(*word) };
    }
}

/// Makes the socket forget the original destination of a connection before: nothing runs when
/// a socket is disconnected, so the next connect() has to clear what no longer holds. Costs a
/// load or two where a TCP socket was never connected, and a lookup for one of UDP.
///
/// An IPv4 socket whose connect() found no route has no destination, and forgets nothing. What it
/// remembers would be believed only if it dialled that very endpoint next, by its own address.
#[inline(always)]
pub(crate) fn forget(context: &SockAddrContext, family: Family) {
    // One of UDP has no slot, and loses its address when it is disconnected.
    if context::protocol(context) == Protocol::Tcp as u32 {
        if !context::was_connected(context, family) {
            return;
        }
        if let Some(stored) = sockets::find(context) {
            // SAFETY: the record is in a map value, and the socket's own.
            unsafe { outcomes::replaced(stored) };
            sockets::free(context, stored);
        }
    }
    // SAFETY: only looks at the socket of the context.
    let stored = unsafe { ORIGINAL_DST.get_ptr_mut(context) };
    if !stored.is_null() {
        // SAFETY: a non-null pointer is to the socket's own record. Port 0 is never a
        // peer's, so the record will not be believed again.
        unsafe {
            outcomes::replaced(stored);
            addr_of_mut!((*stored).stage).write_volatile(Stage::NotCounted as u8);
            addr_of_mut!((*stored).original_dst.endpoint_port).write_volatile(0);
        }
    }
}
