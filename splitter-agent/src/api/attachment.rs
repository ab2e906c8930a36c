//! Where the programs are attached, and which programs of others are there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use splitter_api::{Attachment, OtherProgram, Program, SocketTable};

use crate::datapath::{
    AttachedProgram, Hierarchy, LoadError, MapUse, Neighbour, PinDirectory, attached_programs,
    neighbours, on_node,
};

/// Reads the pinned links, and asks the kernel which other programs pods' connections pass. `sockets` is how
/// full the table of live sockets is.
pub(super) fn attachment(
    pins: &PinDirectory,
    sockets: Option<MapUse>,
) -> Result<Attachment, LoadError> {
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
    let socket_table = sockets
        .map(|sockets| socket_table(pins, sockets))
        .transpose()?;
    let unfreed = socket_table.filter(|table| !table.attached).map(|_| {
        "the program tcp_destroy_sock is not attached, so sockets that end stay in the table of \
         sockets, and connections take longer once it is full; restart the agent"
            .to_owned()
    });
    let warnings = root
        .chain(unfreed)
        .chain(other_programs.iter().filter_map(Neighbour::warning))
        .collect();
    Ok(Attachment {
        attached: programs.iter().all(|program| program.cgroup_id.is_some()),
        programs: programs.iter().map(|it| program(it, &cgroups)).collect(),
        socket_table,
        other_programs: other_programs.into_iter().map(Into::into).collect(),
        warnings,
    })
}

fn socket_table(pins: &PinDirectory, sockets: MapUse) -> Result<SocketTable, LoadError> {
    // A map has fewer than 2^32 entries.
    Ok(SocketTable {
        slots: sockets.max_entries as u32,
        taken: sockets.entries as u32,
        attached: pins.is_socket_table_in_use()?,
    })
}

fn program(program: &AttachedProgram, cgroups: &BTreeMap<u64, PathBuf>) -> Program {
    let cgroup = program.cgroup_id.and_then(|id| cgroups.get(&id));
    Program {
        name: program.name.to_owned(),
        attached: program.cgroup_id.is_some(),
        program_id: program.program_id,
        cgroup: cgroup.map(|path| text(&on_node(path))),
        cgroup_id: program.cgroup_id,
    }
}

impl From<Neighbour> for OtherProgram {
    fn from(neighbour: Neighbour) -> Self {
        Self {
            hook: neighbour.hook.to_owned(),
            cgroup: neighbour.cgroup.as_deref().map(text),
            id: neighbour.id,
            name: neighbour.name,
            mode: neighbour.mode.map(Into::into),
            order: neighbour.order,
            effect: neighbour.effect.into(),
            is_splitter: neighbour.is_splitter,
            pins: neighbour.pins.as_deref().map(text),
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
