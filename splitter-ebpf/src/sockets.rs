//! The table of live sockets: its slots, by [`splitter_common::sockets`]. It is filled by connect(),
//! and freed by the death of TCP sockets, whichever process they are of.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::programs::SockAddrContext;
use splitter_common::layout::{ConnectionRecord, SocketRecord, Stage};
use splitter_common::sockets::{self, Slots};

use crate::maps::SOCKETS;
use crate::settings;
use crate::settings::read_member;

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
pub(crate) fn find(context: &SockAddrContext) -> Option<*mut ConnectionRecord> {
    let mask = settings::socket_mask()?;
    sockets::find(&Table, mask, cookie(context)).map(record)
}

/// The record of the socket in the context, in the slot that it has or gets now. `None` if the table
/// is not used, or has no room for it. Of a slot that it did not have, the stage is not counted.
#[inline(always)]
pub(crate) fn claim(context: &SockAddrContext) -> Option<*mut ConnectionRecord> {
    let mask = settings::socket_mask()?;
    sockets::claim(&Table, mask, cookie(context)).map(record)
}

/// Takes the slot from the socket in the context, which has this record in it.
#[inline(always)]
pub(crate) fn free(context: &SockAddrContext, record: *mut ConnectionRecord) {
    if let Some(mask) = settings::socket_mask() {
        // SAFETY: the record is in a map value, and the socket's own until it is freed.
        unsafe { not_counted(record) };
        sockets::free(&Table, mask, cookie(context));
    }
}

/// What a socket of the kernel's has in the table.
pub(crate) struct Known {
    pub(crate) cookie: u64,
    pub(crate) record: Option<*mut ConnectionRecord>,
}

impl Known {
    /// Of a kernel's `struct sock`; `None` if it cannot have a slot: most sockets never had a
    /// cookie.
    ///
    /// # Safety
    ///
    /// `socket` must be what the verifier knows as a pointer to a `struct sock`.
    #[inline(always)]
    pub(crate) unsafe fn of(socket: *const u8) -> Option<Self> {
        let mask = settings::socket_mask()?;
        // SAFETY: the agent took the offset of the cookie from the running kernel's type
        // information, by which the verifier checks this load.
        let cookie = unsafe { read_member!(u64, socket, cookie) };
        if cookie == sockets::FREE {
            return None;
        }
        let record = sockets::find(&Table, mask, cookie).map(record);
        Some(Self { cookie, record })
    }

    /// Takes the slot from the socket, if it has one.
    #[inline(always)]
    pub(crate) fn free(self) {
        let (Some(mask), Some(record)) = (settings::socket_mask(), self.record) else {
            return;
        };
        // SAFETY: the record is in a map value, and the socket's own until it is freed.
        unsafe { not_counted(record) };
        sockets::free(&Table, mask, self.cookie);
    }
}

/// What a free slot says: whoever gets it next must find no connection of another in it.
///
/// # Safety
///
/// `record` must be writable.
#[inline(always)]
unsafe fn not_counted(record: *mut ConnectionRecord) {
    // SAFETY: the caller's.
    unsafe { addr_of_mut!((*record).stage).write_volatile(Stage::NotCounted as u8) };
}

#[inline(always)]
fn cookie(context: &SockAddrContext) -> u64 {
    // SAFETY: the helper looks at the socket of the context only.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) }
}

#[inline(always)]
fn record(slot: *mut SocketRecord) -> *mut ConnectionRecord {
    // SAFETY: only the place of a field is taken.
    unsafe { addr_of_mut!((*slot).connection) }
}
