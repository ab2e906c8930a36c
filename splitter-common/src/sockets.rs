//! The table of live sockets: which slot is a socket's.
//!
//! A slot belongs to the socket whose cookie is in it, or to none. A cookie has two ways, slots
//! that stand side by side, and a socket has at most one of them; if both are others', it has
//! none, and whoever asked remembers what it wants to in another place. Nothing is ever moved.
//!
//! A slot is claimed by the socket's own connect(), and freed when the socket dies, each by one
//! compare-and-exchange of the cookie: what finds the slot to be another's leaves it alone. So
//! it does not matter how often a death is reported.
//!
//! Cookies are handed out in runs (4,096 for each CPU at a time, `include/linux/cookie.h` of the
//! kernel), so their low bits are as good as a hash.

/// The cookie in a slot that is nobody's. No socket has it.
pub const FREE: u64 = 0;

/// The slots: in a map in the kernel, in mapped memory, or in a test.
pub trait Slots {
    /// Leads to one slot.
    type Slot: Copy;

    /// The slot at an index; `None` if there is none.
    fn slot(&self, index: u32) -> Option<Self::Slot>;

    /// The cookie in a slot.
    fn owner(&self, slot: Self::Slot) -> u64;

    /// Replaces the cookie in a slot if it is `from`, in one step that no other CPU can come
    /// between. `false` if it is not.
    fn exchange(&self, slot: Self::Slot, from: u64, to: u64) -> bool;
}

/// The two ways of a cookie. `mask` is the number of slots, a power of two, less one.
#[inline(always)]
#[must_use]
pub const fn ways(mask: u32, cookie: u64) -> [u32; 2] {
    let first = cookie as u32 & mask;
    [first, first ^ 1]
}

/// The slot of a socket, if it has one.
#[inline(always)]
pub fn find<S: Slots>(slots: &S, mask: u32, cookie: u64) -> Option<S::Slot> {
    let [first, second] = ways(mask, cookie);
    let first = slots.slot(first)?;
    if slots.owner(first) == cookie {
        return Some(first);
    }
    let second = slots.slot(second)?;
    (slots.owner(second) == cookie).then_some(second)
}

/// The slot that a socket has, or gets now. `None` if both of its ways are others'.
///
/// Of one socket, no two calls may run at a time; connect() holds the socket's lock.
#[inline(always)]
pub fn claim<S: Slots>(slots: &S, mask: u32, cookie: u64) -> Option<S::Slot> {
    let [first, second] = ways(mask, cookie);
    let (first, second) = (slots.slot(first)?, slots.slot(second)?);
    let owners = (slots.owner(first), slots.owner(second));
    // The second way before a free first one: a socket must not have two slots.
    if owners.0 == cookie {
        return Some(first);
    }
    if owners.1 == cookie {
        return Some(second);
    }
    if owners.0 == FREE && slots.exchange(first, FREE, cookie) {
        return Some(first);
    }
    if owners.1 == FREE && slots.exchange(second, FREE, cookie) {
        return Some(second);
    }
    None
}

/// Takes a socket's slot from it. `false` if it has none.
#[inline(always)]
pub fn free<S: Slots>(slots: &S, mask: u32, cookie: u64) -> bool {
    match find(slots, mask, cookie) {
        Some(slot) if cookie != FREE => slots.exchange(slot, cookie, FREE),
        _ => false,
    }
}
