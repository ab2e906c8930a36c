//! Where the programs are, and which programs of others are there: a part of `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::datapath::{
    AttachedProgram, Effect, Hierarchy, LoadError, Neighbour, PROGRAMS, PinDirectory,
    attached_programs, neighbours, on_node,
};

/// How many programs of others are shown in text.
const MOST_SHOWN: usize = 20;

/// Where the programs are.
#[derive(Serialize)]
pub(super) struct Attachment {
    /// Whether every program is attached to every cgroup that has any.
    pub(super) attached: bool,
    pub(super) programs: Vec<Program>,
    /// Programs of others that run for pods, or keep ours from it.
    pub(super) other_programs: Vec<Neighbour>,
    /// What should be done about them, and about where ours are.
    pub(super) warnings: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Program {
    name: &'static str,
    attached: bool,
    program_id: Option<u32>,
    cgroup: Option<String>,
}

impl Attachment {
    /// Reads the pinned links, and asks the kernel what else is on the way.
    pub(super) fn read(pins: &PinDirectory) -> Result<Self, LoadError> {
        let programs = attached_programs(pins)?;
        let hierarchy = Hierarchy::find().ok();
        let ids: BTreeSet<u64> = programs.iter().filter_map(|it| it.cgroup_id).collect();
        let cgroups: BTreeMap<u64, PathBuf> = ids
            .into_iter()
            .filter_map(|id| Some((id, hierarchy.as_ref()?.path_of(id)?)))
            .collect();
        let groups: Vec<PathBuf> = cgroups.values().cloned().collect();
        let other_programs = neighbours(pins, &groups);
        let is_root = |group: &PathBuf| {
            hierarchy
                .as_ref()
                .is_some_and(|hierarchy| hierarchy.root() == group)
        };
        let root = groups.iter().filter(|group| is_root(group)).map(|root| {
            format!(
                "programs are on {}, the root of the cgroup hierarchy, so connections of every \
                 process on the node are split, after programs of others there have seen them; \
                 name the pods' cgroup with --cgroup if there is one",
                on_node(root).display()
            )
        });
        let warnings = root
            .chain(other_programs.iter().filter_map(Neighbour::warning))
            .collect();
        Ok(Self {
            attached: programs.iter().all(|program| program.cgroup_id.is_some()),
            programs: programs
                .iter()
                .map(|program| Program::new(program, &cgroups))
                .collect(),
            other_programs,
            warnings,
        })
    }

    /// Whether a program is attached to a cgroup, by its name.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut programs = self.programs.iter();
        programs.any(|program| program.name == name && program.attached)
    }

    /// Whether any program is attached.
    pub(super) fn has_any(&self) -> bool {
        self.programs.iter().any(|program| program.attached)
    }

    /// For people.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = self.ours();
        if !self.other_programs.is_empty() {
            text.push_str("other programs on the way of pods' connections:\n");
        }
        for neighbour in self.other_programs.iter().take(MOST_SHOWN) {
            writeln!(text, "  {}", line(neighbour))?;
        }
        if let Some(more) = self
            .other_programs
            .len()
            .checked_sub(MOST_SHOWN)
            .filter(|more| *more > 0)
        {
            writeln!(text, "  and {more} more (see -o json)")?;
        }
        for warning in self.warnings.iter().take(MOST_SHOWN) {
            writeln!(text, "warning: {warning}")?;
        }
        Ok(text)
    }

    fn ours(&self) -> String {
        let cgroups: BTreeSet<&str> = self
            .programs
            .iter()
            .filter_map(|program| program.cgroup.as_deref())
            .collect();
        let missing: BTreeSet<&str> = self
            .programs
            .iter()
            .filter(|program| !program.attached)
            .map(|program| program.name)
            .collect();
        let cgroups = cgroups.into_iter().collect::<Vec<_>>().join(" and ");
        if cgroups.is_empty() {
            "programs  none attached, so nothing is split; start the agent\n".to_owned()
        } else if missing.is_empty() {
            format!("programs  attached to {cgroups}\n")
        } else {
            let missing: Vec<&str> = PROGRAMS
                .into_iter()
                .filter(|name| missing.contains(name))
                .collect();
            format!(
                "programs  attached to {cgroups}, but not {}; restart the agent\n",
                missing.join(", ")
            )
        }
    }
}

impl Program {
    fn new(program: &AttachedProgram, cgroups: &BTreeMap<u64, PathBuf>) -> Self {
        Self {
            name: program.name,
            attached: program.cgroup_id.is_some(),
            program_id: program.program_id,
            cgroup: program.cgroup_id.map(|id| {
                cgroups.get(&id).map_or_else(
                    || format!("cgroup {id}"),
                    |path| on_node(path).display().to_string(),
                )
            }),
        }
    }
}

fn line(neighbour: &Neighbour) -> String {
    let name = match &neighbour.name {
        Some(name) => format!("`{name}`"),
        None => "(its name takes CAP_SYS_ADMIN to read)".to_owned(),
    };
    let cgroup = match &neighbour.cgroup {
        Some(cgroup) => cgroup.display().to_string(),
        None => "a cgroup above those that can be seen here".to_owned(),
    };
    let order = match (neighbour.effect, neighbour.order) {
        (Effect::Blocks, _) => "keeps splitter's from being attached".to_owned(),
        (Effect::SwitchedOff, _) => "does not run for pods".to_owned(),
        (Effect::Before, Some(order)) => format!("runs before splitter's, as number {order}"),
        (Effect::Before, None) => "runs before splitter's".to_owned(),
        (Effect::After, Some(order)) => format!("runs after splitter's, as number {order}"),
        (Effect::After, None) => "runs after splitter's".to_owned(),
    };
    format!(
        "{} {} {name} on {cgroup}: {order}",
        neighbour.hook, neighbour.id
    )
}
