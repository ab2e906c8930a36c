//! Which pod it is that connects.
//!
//! Asked only where a split says that it matters: the pod's cgroup is one of those that the
//! process is in, at one of few levels. Who asks later which pods have connections finds it out from
//! the group alone.

use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id};
use splitter_common::layout::{ClientRecord, MAX_POD_LEVELS, PodLevels};

use crate::maps::{CLIENTS, POD_LEVELS};

/// How often a lookup is repeated. An update of an element may hide it from a reader for a
/// moment, and recycling may show another one; both pass.
const ATTEMPTS: u32 = 2;

/// The group that the process is in: the lower half of its id.
#[inline(always)]
pub(crate) fn cgroup() -> u32 {
    // SAFETY: the helper only looks at the current task.
    (unsafe { bpf_get_current_cgroup_id() }) as u32
}

/// The scope of the pod; `None` if it is not known.
#[inline(always)]
pub(crate) fn scope() -> Option<u32> {
    let levels = POD_LEVELS.get_ptr(0)?;
    // SAFETY: the value is 8 bytes, aligned to 8, and lives as long as the program runs.
    let word = unsafe { levels.cast::<u64>().read_volatile() };
    let PodLevels { levels } = bytemuck::cast(word);
    // The list as a number, its first element lowest: an index would have to be proven.
    let mut levels = u64::from_le_bytes(levels);
    for _ in 0..MAX_POD_LEVELS {
        let level = levels & 0xff;
        if level == 0 {
            return None;
        }
        levels >>= 8;
        // SAFETY: the helper only looks at the current task.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        // 0: the process is not that deep.
        if id != 0
            && let Some(scope) = scope_of(id)
        {
            return Some(scope);
        }
    }
    None
}

/// The scope of the pod whose cgroup this is; `None` if it is not a pod's. A function of its
/// own, since it would be there for each level.
#[inline(never)]
fn scope_of(id: u64) -> Option<u32> {
    for _ in 0..ATTEMPTS {
        if let Some(record) = CLIENTS.get_ptr(id) {
            // SAFETY: the record begins with 8 bytes, aligned to 8: one load takes both halves.
            let word = unsafe { record.cast::<u64>().read_volatile() };
            let ClientRecord { scope, cgroup, .. } = bytemuck::cast([word, 0]);
            if cgroup == id as u32 {
                return Some(scope);
            }
        }
    }
    None
}
