//! Counting.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::addr_of_mut;

use splitter_common::layout::{COUNTS_IN_RECORD, CounterPlace, VerdictCounter};

use crate::maps::{COUNTERS, LEAF_REFUSALS, LEAF_STATS, VERDICTS};

/// The number of this connection: what a counter in `COUNTERS` was before it. `None` if there
/// is no such counter.
#[inline(always)]
pub(crate) fn next(place: CounterPlace) -> Option<u64> {
    let record = COUNTERS.get_ptr_mut(place.record)?;
    // The mask shows the verifier what the place promises.
    let count = (place.count & (COUNTS_IN_RECORD - 1)) as usize;
    // SAFETY: the pointer is into a map value that lives as long as the program runs,
    // and every writer in the kernel uses this instruction.
    //
    // Not Relaxed: LLVM 22 compiles a relaxed fetching add to one that does not fetch
    // and returns the addend (llvm/llvm-project#210280).
    Some(unsafe {
        let counts = addr_of_mut!((*record).counts).cast::<u64>();
        atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(counts.add(count), 1)
    })
}

/// Counts a connection to a leaf.
#[inline(always)]
pub(crate) fn leaf(leaf_id: u32) {
    if let Some(stats) = LEAF_STATS.get_ptr_mut(leaf_id) {
        // SAFETY: the slot is this CPU's own.
        unsafe { increment(addr_of_mut!((*stats).connections)) };
    }
}

/// Counts a connection that is refused because its leaf has no endpoints.
#[inline(always)]
pub(crate) fn leaf_refusal(leaf_id: u32) {
    if let Some(count) = LEAF_REFUSALS.get_ptr_mut(leaf_id) {
        // SAFETY: the pointer is into a map value, whose only writers are these atomic adds.
        unsafe { increment(count) };
    }
}

/// Counts a verdict on a connection.
#[inline(always)]
pub(crate) fn verdict(counter: VerdictCounter) {
    if let Some(count) = VERDICTS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's own.
        unsafe { increment(count) };
    }
}

/// Adds one to a counter.
///
/// # Safety
///
/// `counter` must point into a map value.
#[inline(always)]
unsafe fn increment(counter: *mut u64) {
    // SAFETY: the caller's.
    unsafe { add(counter, 1) };
}

/// Adds to a counter. Atomic even if the counter is this CPU's own: a program may be
/// preempted between load and store (cgroup programs run with migration off, not
/// preemption), and a lost count is a lie in a table that promises exact numbers.
///
/// # Safety
///
/// `counter` must point into a map value.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: the caller's.
    let _ = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, value) };
}
