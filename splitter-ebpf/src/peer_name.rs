//! getpeername(): the application sees the address that it dialled.
//!
//! The kernel runs these hooks for accept() with an address too, so a socket that
//! remembers nothing costs one look at its storage.

use core::ptr::addr_of;

use aya_ebpf::programs::SockAddrContext;

use crate::context::{self, ALLOW, Family, Words};
use crate::maps::CONNECTIONS;

/// Handles a getpeername() of a socket of `family`.
#[inline(always)]
pub(crate) fn run(context: &SockAddrContext, family: Family) -> i32 {
    // SAFETY: only looks at the socket of the context.
    let stored = unsafe { CONNECTIONS.get_ptr_mut(context) };
    if stored.is_null() {
        return ALLOW;
    }
    // SAFETY: a non-null pointer is to the socket's own record, whose addresses are
    // aligned to 4 bytes.
    unsafe {
        if addr_of!((*stored).endpoint_port).read_volatile() == context::port(context)
            && words(addr_of!((*stored).endpoint_address)) == context::address(context, family)
        {
            context::replace(
                context,
                family,
                words(addr_of!((*stored).frontend_address)),
                addr_of!((*stored).frontend_port).read_volatile(),
            );
        }
    }
    ALLOW
}

/// The four words of an address in a record.
///
/// # Safety
///
/// `address` must be readable and aligned to 4 bytes.
#[inline(always)]
unsafe fn words(address: *const [u8; 16]) -> Words {
    let words = address.cast::<u32>();
    // SAFETY: the caller's.
    unsafe {
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}
