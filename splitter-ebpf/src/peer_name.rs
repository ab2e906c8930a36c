//! getpeername(): the application sees the address that it dialled.
//!
//! The kernel runs these hooks for accept() with an address too, so a socket that
//! remembers nothing costs one look at its storage.

use core::ptr::addr_of;

use aya_ebpf::programs::SockAddrContext;

use crate::context::{self, ALLOW, Family};
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
