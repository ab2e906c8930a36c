//! The table of live sockets: its slots, by [`splitter_common::sockets`]. It is filled by connect(),
//! and freed by the death of TCP sockets, whichever process they are of.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::programs::{BtfTracePointContext, SockAddrContext};
use splitter_common::layout::{OriginalDstRecord, SocketRecord};
use splitter_common::sockets::{self, Slots};

use crate::maps::SOCKETS;
use crate::settings;

/// The slots of `SOCKETS`.
struct Table;

impl Slots for Table {
    type Slot = *mut SocketRecord;

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<*mut SocketRecord> {
        SOCKETS.get_ptr_mut(index)
    }

    #[inline(always)]
    fn owner(&self, slot: *mut SocketRecord) -> u64 {
        // SAFETY: the slot is a map value, which lives as long as the program runs.
        unsafe { addr_of!((*slot).cookie).read_volatile() }
    }

    #[inline(always)]
    fn exchange(&self, slot: *mut SocketRecord, from: u64, to: u64) -> bool {
        // SAFETY: as above; every writer of the cookie uses this instruction.
        let (_, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::AcqRel }, { AtomicOrdering::Acquire }>(
                addr_of_mut!((*slot).cookie),
                from,
                to,
            )
        };
        done
    }
}

/// The record of the socket in the context, if it has a slot.
#[inline(always)]
pub(crate) fn find(context: &SockAddrContext) -> Option<*mut OriginalDstRecord> {
    let mask = settings::socket_mask()?;
    sockets::find(&Table, mask, cookie(context)).map(record)
}

/// The record of the socket in the context, in the slot that it has or gets now. `None` if the table
/// is not used, or has no room for it.
#[inline(always)]
pub(crate) fn claim(context: &SockAddrContext) -> Option<*mut OriginalDstRecord> {
    let mask = settings::socket_mask()?;
    sockets::claim(&Table, mask, cookie(context)).map(record)
}

/// Takes the slot from the socket in the context, if it has one.
#[inline(always)]
pub(crate) fn free(context: &SockAddrContext) {
    if let Some(mask) = settings::socket_mask() {
        sockets::free(&Table, mask, cookie(context));
    }
}

/// Takes the slot from a socket that dies, if it has one. Most sockets never had a cookie.
#[inline(always)]
pub(crate) fn destroyed(context: &BtfTracePointContext) {
    let Some(mask) = settings::socket_mask() else {
        return;
    };
    // SAFETY: the argument is a `struct sock *`, and the agent took the offset of the cookie in it
    // from the running kernel's type information, by which the verifier checks this load.
    let cookie = unsafe {
        let socket = context.as_ptr().cast::<*const u8>().read_volatile();
        let cookie = socket.add(settings::cookie_offset() as usize);
        cookie.cast::<u64>().read_volatile()
    };
    if cookie != sockets::FREE {
        sockets::free(&Table, mask, cookie);
    }
}

#[inline(always)]
fn cookie(context: &SockAddrContext) -> u64 {
    // SAFETY: the helper looks at the socket of the context only.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) }
}

#[inline(always)]
fn record(slot: *mut SocketRecord) -> *mut OriginalDstRecord {
    // SAFETY: only the place of a field is taken.
    unsafe { addr_of_mut!((*slot).original_dst) }
}
