//! The original destination of a socket: what it dialled before connect() rewrote the address.
//! connect() stores it on the socket, and getpeername() shows it to the application.
//!
//! The kernel runs the getpeername hooks for accept() with an address too, so a socket without
//! an original destination costs one look at its storage.

use core::ptr::{addr_of, addr_of_mut, from_mut, from_ref};

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::bpf_sk_storage_get;
use aya_ebpf::programs::SockAddrContext;
use splitter_common::layout::{FrontendKey, OriginalDstRecord};

use crate::connect::Picked;
use crate::context::{self, ALLOW, Family};
use crate::maps::ORIGINAL_DST;

/// Handles a getpeername() of a socket of `family`.
#[inline(always)]
pub(crate) fn show(context: &SockAddrContext, family: Family) -> i32 {
    // SAFETY: only looks at the socket of the context.
    let stored = unsafe { ORIGINAL_DST.get_ptr_mut(context) };
    if stored.is_null() {
        return ALLOW;
    }
    // SAFETY: a non-null pointer is to the socket's own record, whose addresses are
    // aligned to 4 bytes.
    unsafe {
        if addr_of!((*stored).endpoint_port).read_volatile() == context::port(context)
            && context::read_words(addr_of!((*stored).endpoint_address).cast())
                == context::address(context, family)
        {
            context::replace(
                context,
                family,
                context::read_words(addr_of!((*stored).frontend_address).cast()),
                addr_of!((*stored).frontend_port).read_volatile(),
            );
        }
    }
    ALLOW
}

/// Stores the original destination on the socket. `false` if there is no memory for it.
#[inline(always)]
pub(crate) fn remember(context: &SockAddrContext, key: &FrontendKey, picked: &Picked) -> bool {
    let mut record = OriginalDstRecord {
        frontend_address: key.address,
        endpoint_address: bytemuck::cast(picked.address),
        leaf_id: picked.leaf_id,
        frontend_port: key.port,
        endpoint_port: picked.port,
    };
    // SAFETY: the socket in the context is valid while the program runs, and the map is
    // one of socket storage. The initial value is used only if the storage is new.
    unsafe {
        let socket = (*context.sock_addr).__bindgen_anon_1.sk;
        let stored = bpf_sk_storage_get(
            from_ref(&ORIGINAL_DST).cast_mut().cast(),
            socket.cast(),
            from_mut(&mut record).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
        .cast::<OriginalDstRecord>();
        if stored.is_null() {
            return false;
        }
        // A socket that connects again has storage already. Its calls are serialised by
        // the socket lock, so plain words do.
        let from = from_ref(&record).cast::<u64>();
        let to = stored.cast::<u64>();
        for word in 0..size_of::<OriginalDstRecord>() / 8 {
            to.add(word).write_volatile(from.add(word).read_volatile());
        }
    }
    true
}

/// Makes the socket forget the original destination of a connection before: nothing runs when
/// a socket is disconnected, so the next connect() has to clear what no longer holds. Costs a
/// pointer test where the socket has no storage.
#[inline(always)]
pub(crate) fn forget(context: &SockAddrContext) {
    // SAFETY: only looks at the socket of the context.
    let stored = unsafe { ORIGINAL_DST.get_ptr_mut(context) };
    if !stored.is_null() {
        // SAFETY: a non-null pointer is to the socket's own record. Port 0 is never a
        // peer's, so the record will not be believed again.
        unsafe { addr_of_mut!((*stored).endpoint_port).write_volatile(0) };
    }
}
