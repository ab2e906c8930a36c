//! Programs of other owners on the path of a pod: which there are, and what they and ours mean
//! to each other.
//!
//! - `path`: what the kernel says of a path, and the kernel's rules applied to it;
//! - `names`: what programs are called, and which of them are other agents'.

mod names;
mod path;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use self::names::Names;
use self::path::{HookPath, evaluate, find_blocker};
use super::hierarchy::{on_node, walk};
use super::load::{AttachedProgram, PROGRAMS, PinDirectory, attached_programs};
use super::sys::cgroup::Mode;

/// How many groups below one with our programs are looked at for programs of others.
const MAX_GROUPS: usize = 4096;

/// What a program of another owner means for ours, and ours for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    let mut names = Names::with_agents(pins);
    let mut found = Vec::new();
    for group in groups {
        let below: Vec<PathBuf> = walk(group).skip(1).take(MAX_GROUPS).collect();
        let id = fs::metadata(group).map_or(0, |status| status.ino());
        for hook in PROGRAMS {
            let Ok(path) = HookPath::read(group, hook, &below) else {
                // The group has gone, or we may not ask.
                continue;
            };
            for neighbour in evaluate(&path, own_id(&ours, hook, id)) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
