//! Programs of other owners on the path of a pod: which there are, and what they and ours mean
//! to each other.
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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::foreign::{self, AttachedIds, Mode};
use super::hierarchy::{on_node, path_to_root, walk};
use super::links::{AttachedProgram, attached_programs};
use super::pins::{PROGRAMS, PinDirectory};
use super::syscall;

/// How many groups below one with our programs are looked at for programs of others.
const MAX_GROUPS: usize = 4096;

/// How deep below the BPF file system's root other pin directories are looked for.
const PIN_DEPTH: usize = 4;

/// What a program of another owner means for ours, and ours for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It keeps ours from being attached.
    Blocks,
    /// It does not run for pods, because ours are attached below it.
    SwitchedOff,
    /// It runs before ours and may change the address first.
    Before,
    /// It runs after ours.
    After,
}

/// A program of another owner on the path of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// The hook, by the name that bpftool gives it.
    pub hook: &'static str,
    /// The cgroup, as it is called on the node; `None` if it is above what can be seen.
    pub cgroup: Option<PathBuf>,
    /// Id of the program, for `bpftool prog show id`.
    pub id: u32,
    /// Its name; `None` if it cannot be read, which takes `CAP_SYS_ADMIN`.
    pub name: Option<String>,
    /// How it bears with others; `None` if its cgroup cannot be seen.
    pub mode: Option<Mode>,
    /// When it runs for a pod's connection, counted from 1 over all programs of the hook;
    /// `None` if it does not, or only for some pods.
    pub order: Option<usize>,
    /// What it means for ours.
    pub effect: Effect,
    /// Whether it is a splitter-agent's, with other pins.
    pub is_splitter: bool,
    /// The pin directory of that agent, if it is known.
    pub pins: Option<PathBuf>,
}

impl Neighbour {
    /// Whether something should be done about it.
    #[must_use]
    pub fn is_harmful(&self) -> bool {
        self.is_splitter || self.effect != Effect::After
    }

    /// What should be done about it; `None` if nothing has to be.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let program = Named(self);
        let place = match &self.cgroup {
            Some(cgroup) => format!("the cgroup {}", cgroup.display()),
            None => "a cgroup above those that can be seen here".to_owned(),
        };
        if self.is_splitter {
            let remedy = match &self.pins {
                Some(pins) => format!(
                    "end that agent and run `splitter-agent cleanup --pin-dir {}`",
                    pins.display()
                ),
                None => "end that agent and run `splitter-agent cleanup` with its --pin-dir".into(),
            };
            return Some(format!(
                "another splitter-agent's {program} is on {place} too, and the one that runs first \
                 decides; {remedy}"
            ));
        }
        Some(match self.effect {
            Effect::After => return None,
            Effect::Before => format!(
                "{program} on {place} runs before splitter's for connections of pods; addresses \
                 that it changes are not split"
            ),
            Effect::SwitchedOff => format!(
                "{program} on {place} no longer runs for pods, since it was attached so that \
                 programs below replace it; its owner has to attach it with BPF_F_ALLOW_MULTI or \
                 as a link for both to run"
            ),
            Effect::Blocks => self.blocking(),
        })
    }

    fn blocking(&self) -> String {
        let program = Named(self);
        let Some(cgroup) = &self.cgroup else {
            return format!("{program} keeps splitter's from being attached");
        };
        let cgroup = cgroup.display();
        let how = match self.mode {
            Some(Mode::Override) => "without BPF_F_ALLOW_MULTI",
            _ => "exclusively (with no flags)",
        };
        format!(
            "{program} is attached to the cgroup {cgroup} {how}, so the kernel refuses others \
             there{}; have its owner attach it with BPF_F_ALLOW_MULTI or as a link, or detach it: \
             `bpftool cgroup detach {cgroup} {} id {}`",
            if self.mode == Some(Mode::Override) {
                ""
            } else {
                " and below"
            },
            self.hook,
            self.id
        )
    }
}

/// A program as it is called in messages.
struct Named<'a>(&'a Neighbour);

impl fmt::Display for Named<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Neighbour { hook, id, name, .. } = self.0;
        match name {
            Some(name) => write!(formatter, "{hook} program {id} ({name})"),
            None => write!(formatter, "{hook} program {id}"),
        }
    }
}

/// What keeps one of our programs from being attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Where ours should be.
    pub cgroup: PathBuf,
    /// The program in the way.
    pub neighbour: Neighbour,
}

impl fmt::Display for Blocker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "cannot attach to the cgroup {}: {}",
            self.cgroup.display(),
            self.neighbour.blocking()
        )
    }
}

/// The kernel's name of a hook, an `enum bpf_attach_type`.
fn attach_type(hook: &str) -> u32 {
    match hook {
        "connect4" => 10,
        "connect6" => 11,
        "getpeername4" => 29,
        _ => 30,
    }
}

/// One cgroup on the path from a group to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    cgroup: PathBuf,
    attached: AttachedIds,
}

/// What the kernel says about one hook on the path of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct HookPath {
    /// The group with our programs first, the root last.
    levels: Vec<Level>,
    /// What runs for processes in the group, in this order.
    effective: Vec<u32>,
    /// Programs on groups below the group.
    below: Vec<Level>,
}

impl HookPath {
    fn read(group: &Path, hook: &str, below: &[PathBuf]) -> std::io::Result<Self> {
        let attach_type = attach_type(hook);
        let level = |cgroup: PathBuf| {
            let directory = File::open(&cgroup)?;
            Ok::<_, std::io::Error>(Level {
                attached: foreign::attached(directory.as_fd(), attach_type)?,
                cgroup: on_node(&cgroup),
            })
        };
        let below = below
            .iter()
            // Pods end at any time.
            .filter_map(|cgroup| level(cgroup.clone()).ok())
            .filter(|level| !level.attached.ids.is_empty());
        Ok(Self {
            effective: foreign::effective(File::open(group)?.as_fd(), attach_type)?,
            below: below.collect(),
            levels: path_to_root(group).map(level).collect::<Result<_, _>>()?,
        })
    }
}

/// A neighbour, before it is known what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    cgroup: Option<PathBuf>,
    id: u32,
    mode: Option<Mode>,
    order: Option<usize>,
    effect: Effect,
}

/// Which program keeps another from being attached to the first level with
/// `BPF_F_ALLOW_MULTI`.
fn find_blocker(levels: &[Level]) -> Option<Found> {
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
fn judge(path: &HookPath, ours: Option<u32>) -> Vec<Found> {
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

/// What keeps a program from being attached to a cgroup; `None` if no program does, as far as
/// can be seen.
pub(super) fn blocker(cgroup: &Path, hook: &'static str) -> Option<Blocker> {
    let path = HookPath::read(cgroup, hook, &[]).ok()?;
    let found = find_blocker(&path.levels)?;
    Some(Blocker {
        cgroup: on_node(cgroup),
        neighbour: Names::default().name(found, hook),
    })
}

/// The programs of other owners on the paths of pods below these groups, which ours are on or
/// should be on.
#[must_use]
pub fn neighbours(pins: &PinDirectory, groups: &[PathBuf]) -> Vec<Neighbour> {
    let ours = attached_programs(pins).unwrap_or_default();
    let mut names = Names {
        agents: other_agents(pins),
        ..Names::default()
    };
    let mut found = Vec::new();
    for group in groups {
        let below: Vec<PathBuf> = walk(group).skip(1).take(MAX_GROUPS).collect();
        let id = fs::metadata(group).map_or(0, |status| status.ino());
        for hook in PROGRAMS {
            let Ok(path) = HookPath::read(group, hook, &below) else {
                // The group has gone, or we may not ask.
                continue;
            };
            for neighbour in judge(&path, own_id(&ours, hook, id)) {
                found.push(names.name(neighbour, hook));
            }
        }
    }
    // Ours on another of the groups.
    let own: BTreeSet<u32> = ours.iter().filter_map(|it| it.program_id).collect();
    found.retain(|neighbour: &Neighbour| !own.contains(&neighbour.id));
    found.sort_by(|one, other| {
        let key = |it: &Neighbour| (it.effect, it.hook, it.cgroup.clone(), it.order, it.id);
        key(one).cmp(&key(other))
    });
    // Groups have ancestors in common; the gravest effect counts.
    let mut told = BTreeSet::new();
    found.retain(|it| told.insert((it.hook, it.cgroup.clone(), it.id)));
    found
}

fn own_id(ours: &[AttachedProgram], hook: &str, cgroup_id: u64) -> Option<u32> {
    ours.iter()
        .find(|program| program.name == hook && program.cgroup_id == Some(cgroup_id))?
        .program_id
}

/// What programs are called, each asked for once.
#[derive(Default)]
struct Names {
    known: BTreeMap<u32, Option<foreign::ProgramInfo>>,
    /// Programs of other agents, and their pin directories.
    agents: BTreeMap<u32, PathBuf>,
}

impl Names {
    fn name(&mut self, found: Found, hook: &'static str) -> Neighbour {
        let info = self
            .known
            .entry(found.id)
            .or_insert_with(|| foreign::program_info(found.id).ok());
        let pins = self.agents.get(&found.id).cloned();
        let is_ours_by_name = info
            .as_ref()
            .is_some_and(|info| info.name == hook && info.maps.iter().any(|map| is_our_map(map)));
        Neighbour {
            hook,
            cgroup: found.cgroup,
            id: found.id,
            name: info.as_ref().map(|info| info.name.clone()),
            mode: found.mode,
            order: found.order,
            effect: found.effect,
            is_splitter: pins.is_some() || is_ours_by_name,
            pins,
        }
    }
}

/// Maps that the programs of every splitter-agent use.
fn is_our_map(name: &str) -> bool {
    matches!(name, "FRONTENDS" | "ORIGINAL_DST")
}

/// The programs that splitter-agents with other pin directories have attached, and where their
/// links are pinned. Unlike a program's name, that can be found out without `CAP_SYS_ADMIN`.
fn other_agents(pins: &PinDirectory) -> BTreeMap<u32, PathBuf> {
    let mut agents = BTreeMap::new();
    let Some(root) = file_system_root(pins.path()) else {
        return agents;
    };
    let mut pending = vec![(root, 0)];
    while let Some((directory, depth)) = pending.pop() {
        let links = if directory == pins.path() {
            Vec::new()
        } else {
            // What cannot be listed is nobody's that we could name.
            let other = PinDirectory::new(&directory);
            other.pinned_links().unwrap_or_default()
        };
        for link in links {
            let info = syscall::open_pin(&link.path)
                .and_then(|descriptor| syscall::link_info(descriptor.as_fd()));
            if let Ok(info) = info {
                agents.insert(info.program_id, directory.clone());
            }
        }
        if depth < PIN_DEPTH {
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let directories = entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| (entry.path(), depth + 1));
            pending.extend(directories);
        }
    }
    agents
}

/// The topmost directory of the file system that a path is on.
fn file_system_root(path: &Path) -> Option<PathBuf> {
    let device = |path: &Path| fs::metadata(path).ok().map(|status| status.dev());
    let own = device(path)?;
    let on_it = path
        .ancestors()
        .take_while(|ancestor| device(ancestor) == Some(own));
    on_it.last().map(Path::to_owned)
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

    fn judged(path: &HookPath, ours: Option<u32>) -> Vec<(u32, Option<usize>, Effect)> {
        let found = judge(path, ours);
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
            judged(&path, Some(7)),
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
        assert_eq!(judged(&path, Some(7)), [(4, None, Effect::SwitchedOff)]);
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

    #[test]
    fn warnings_name_cgroup_program_and_remedy() {
        let neighbour = Neighbour {
            hook: "connect4",
            cgroup: Some("/sys/fs/cgroup".into()),
            id: 42,
            name: Some("their_connect".to_owned()),
            mode: Some(Mode::Exclusive),
            order: None,
            effect: Effect::Blocks,
            is_splitter: false,
            pins: None,
        };
        let warning = neighbour.warning().expect("a warning");
        for part in [
            "connect4 program 42 (their_connect)",
            "the cgroup /sys/fs/cgroup exclusively",
            "bpftool cgroup detach /sys/fs/cgroup connect4 id 42",
        ] {
            assert!(warning.contains(part), "{warning}");
        }
        let harmless = Neighbour {
            effect: Effect::After,
            ..neighbour.clone()
        };
        assert_eq!(harmless.warning(), None);
        let agent = Neighbour {
            is_splitter: true,
            pins: Some("/sys/fs/bpf/other".into()),
            ..harmless
        };
        let warning = agent.warning().expect("a warning");
        assert!(
            warning.contains("cleanup --pin-dir /sys/fs/bpf/other"),
            "{warning}"
        );
    }
}
