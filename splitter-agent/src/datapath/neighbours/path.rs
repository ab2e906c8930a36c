//! What the kernel says of the programs on the path of a pod, and what that means.
//!
//! The kernel's rules (`kernel/bpf/cgroup.c`: `compute_effective_progs`,
//! `hierarchy_allows_attach`, `__cgroup_bpf_attach`):
//!
//! - for a process run the programs of its cgroup, then those of each cgroup above, and on one
//!   cgroup in the order in which they were attached; `BPF_F_PREORDER` (6.15) turns that round;
//! - a program that is attached with no flags keeps all others from its cgroup and from those
//!   below; one with `BPF_F_ALLOW_OVERRIDE` does not run for processes below a cgroup with
//!   programs of its own, and keeps others from its own cgroup;
//! - a link is attached with `BPF_F_ALLOW_MULTI`, as ours are.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::datapath::hierarchy::{on_node, path_to_root};
use crate::datapath::sys::cgroup::{self, AttachedIds, Mode};

use super::Effect;

/// The kernel's name of a hook, an `enum bpf_attach_type`.
fn attach_type(hook: &str) -> u32 {
    match hook {
        "connect4" => 10,
        "connect6" => 11,
        "sendmsg4" => 14,
        "sendmsg6" => 15,
        "recvmsg4" => 19,
        "recvmsg6" => 20,
        "getpeername4" => 29,
        _ => 30,
    }
}

/// One cgroup on the path from a group to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Level {
    cgroup: PathBuf,
    attached: AttachedIds,
}

/// What the kernel says about one hook on the path of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HookPath {
    /// The group with our programs first, the root last.
    pub(super) levels: Vec<Level>,
    /// What runs for processes in the group, in this order.
    effective: Vec<u32>,
    /// Programs on groups below the group.
    below: Vec<Level>,
}

impl HookPath {
    pub(super) fn read(group: &Path, hook: &str, below: &[PathBuf]) -> io::Result<Self> {
        let attach_type = attach_type(hook);
        let level = |cgroup: PathBuf| {
            let directory = File::open(&cgroup)?;
            Ok::<_, io::Error>(Level {
                attached: cgroup::attached(directory.as_fd(), attach_type)?,
                cgroup: on_node(&cgroup),
            })
        };
        let below = below
            .iter()
            // Pods end at any time.
            .filter_map(|cgroup| level(cgroup.clone()).ok())
            .filter(|level| !level.attached.ids.is_empty());
        Ok(Self {
            effective: cgroup::effective(File::open(group)?.as_fd(), attach_type)?,
            below: below.collect(),
            levels: path_to_root(group).map(level).collect::<Result<_, _>>()?,
        })
    }
}

/// A neighbour, before it is known what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cgroup: Option<PathBuf>,
    pub(super) id: u32,
    pub(super) mode: Option<Mode>,
    pub(super) order: Option<usize>,
    pub(super) effect: Effect,
}

/// Which program keeps another from being attached to the first level with
/// `BPF_F_ALLOW_MULTI`.
pub(super) fn find_blocker(levels: &[Level]) -> Option<Found> {
    let blocked_by = |level: &Level| {
        Some(Found {
            cgroup: Some(level.cgroup.clone()),
            id: *level.attached.ids.first()?,
            mode: Some(level.attached.mode),
            order: None,
            effect: Effect::Blocks,
        })
    };
    let (group, above) = levels.split_first()?;
    if !group.attached.ids.is_empty() && group.attached.mode != Mode::Multi {
        return blocked_by(group);
    }
    let nearest = above.iter().find(|level| !level.attached.ids.is_empty())?;
    (nearest.attached.mode == Mode::Exclusive)
        .then(|| blocked_by(nearest))
        .flatten()
}

/// Every program of others, where `ours` is the id of our own on the first level.
pub(super) fn evaluate(path: &HookPath, ours: Option<u32>) -> Vec<Found> {
    let position = |id: u32| path.effective.iter().position(|it| *it == id);
    let own = ours.and_then(position);
    let blocker = match own {
        Some(_) => None,
        None => find_blocker(&path.levels),
    };
    let mut found = Vec::new();
    for level in &path.levels {
        for &id in &level.attached.ids {
            if Some(id) == ours {
                continue;
            }
            let order = position(id);
            let is_blocker = blocker
                .as_ref()
                .is_some_and(|it| it.id == id && it.cgroup.as_ref() == Some(&level.cgroup));
            let effect = match (order, own) {
                _ if is_blocker => Effect::Blocks,
                (None, _) => Effect::SwitchedOff,
                (Some(theirs), Some(own)) if theirs < own => Effect::Before,
                _ => Effect::After,
            };
            found.push(Found {
                cgroup: Some(level.cgroup.clone()),
                id,
                mode: Some(level.attached.mode),
                order: order.map(|index| index + 1),
                effect,
            });
        }
    }
    for level in &path.below {
        found.extend(level.attached.ids.iter().map(|&id| Found {
            cgroup: Some(level.cgroup.clone()),
            id,
            mode: Some(level.attached.mode),
            order: None,
            // Whatever is on a group runs before what is above it.
            effect: Effect::Before,
        }));
    }
    let seen: BTreeSet<u32> = found.iter().map(|found| found.id).collect();
    for (index, &id) in path.effective.iter().enumerate() {
        if Some(id) != ours && !seen.contains(&id) {
            found.push(Found {
                cgroup: None,
                id,
                mode: None,
                order: Some(index + 1),
                effect: match own {
                    Some(own) if index < own => Effect::Before,
                    _ => Effect::After,
                },
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(cgroup: &str, mode: Mode, ids: &[u32]) -> Level {
        Level {
            cgroup: cgroup.into(),
            attached: AttachedIds {
                ids: ids.to_vec(),
                mode,
            },
        }
    }

    fn evaluated(path: &HookPath, ours: Option<u32>) -> Vec<(u32, Option<usize>, Effect)> {
        let found = evaluate(path, ours);
        found
            .iter()
            .map(|found| (found.id, found.order, found.effect))
            .collect()
    }

    #[test]
    fn programs_before_and_after_ours_are_told_apart_by_their_order() {
        let path = HookPath {
            levels: vec![
                level("pods", Mode::Multi, &[2, 7, 3]),
                level("root", Mode::Multi, &[4]),
            ],
            effective: vec![9, 2, 7, 3, 4],
            below: vec![level("pods/pod1", Mode::Exclusive, &[1])],
        };
        assert_eq!(
            evaluated(&path, Some(7)),
            [
                (2, Some(2), Effect::Before),
                (3, Some(4), Effect::After),
                (4, Some(5), Effect::After),
                (1, None, Effect::Before),
                // Above what can be seen, and attached so that it runs first.
                (9, Some(1), Effect::Before),
            ]
        );
    }

    #[test]
    fn a_program_that_ours_replaces_for_pods_is_switched_off() {
        let path = HookPath {
            levels: vec![
                level("pods", Mode::Multi, &[7]),
                level("root", Mode::Override, &[4]),
            ],
            effective: vec![7],
            below: Vec::new(),
        };
        assert_eq!(evaluated(&path, Some(7)), [(4, None, Effect::SwitchedOff)]);
        assert_eq!(find_blocker(&path.levels), None);
    }

    #[test]
    fn the_program_that_keeps_others_out_is_found_as_the_kernel_does() {
        let found = |levels: &[Level]| find_blocker(levels).map(|found| found.id);
        let pods = |mode, ids: &[u32]| level("pods", mode, ids);
        let middle = |mode, ids: &[u32]| level("middle", mode, ids);
        let root = |mode, ids: &[u32]| level("root", mode, ids);
        let nothing = &[][..];
        // A group without programs reads as exclusive.
        let none = Mode::Exclusive;
        for (levels, blocker) in [
            (vec![pods(none, nothing), root(none, nothing)], None),
            (vec![pods(none, nothing), root(none, &[1])], Some(1)),
            (vec![pods(none, &[1]), root(none, nothing)], Some(1)),
            (
                vec![pods(Mode::Override, &[1]), root(none, nothing)],
                Some(1),
            ),
            (vec![pods(none, nothing), root(Mode::Override, &[1])], None),
            (vec![pods(none, nothing), root(Mode::Multi, &[1])], None),
            // The nearest one above decides.
            (
                vec![
                    pods(none, nothing),
                    middle(Mode::Multi, &[1]),
                    root(none, &[2]),
                ],
                None,
            ),
            (
                vec![pods(none, nothing), middle(none, nothing), root(none, &[2])],
                Some(2),
            ),
        ] {
            assert_eq!(found(&levels), blocker, "{levels:?}");
        }
    }
}
