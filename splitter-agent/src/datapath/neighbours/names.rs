//! What programs of others are called, and which of them belong to other splitter-agents.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::datapath::load::PinDirectory;
use crate::datapath::sys;
use crate::datapath::sys::programs::{ProgramInfo, program_info};

use super::Neighbour;
use super::path::Found;

/// How deep below the BPF file system's root other pin directories are looked for.
const MAX_PIN_DEPTH: usize = 4;

/// What programs are called, each asked for once.
#[derive(Default)]
pub(super) struct Names {
    known: BTreeMap<u32, Option<ProgramInfo>>,
    /// Programs of other agents, and their pin directories.
    agents: BTreeMap<u32, PathBuf>,
}

impl Names {
    /// With the programs of agents that have other pin directories than this.
    pub(super) fn with_agents(pins: &PinDirectory) -> Self {
        Self {
            agents: other_agents(pins),
            ..Self::default()
        }
    }

    pub(super) fn name(&mut self, found: Found, hook: &'static str) -> Neighbour {
        let info = self
            .known
            .entry(found.id)
            .or_insert_with(|| program_info(found.id).ok());
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
            let info = sys::open_pin(&link.path)
                .and_then(|descriptor| sys::links::link_info(descriptor.as_fd()));
            if let Ok(info) = info {
                agents.insert(info.program_id, directory.clone());
            }
        }
        if depth < MAX_PIN_DEPTH {
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
