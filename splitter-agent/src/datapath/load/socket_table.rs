//! The table of live sockets: whether this kernel can have one, where it is pinned, and whether what
//! comes of connections can be counted.
//!
//! ```text
//! <pin directory>/SOCKETS-v2                       the table, below no layout: sockets that are open
//!                                                  keep what is in it when the layout changes
//! ```

use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use aya::sys::BpfHelper;
use splitter_common::layout::{SOCKET_SLOTS, SOCKETS_VERSION, SocketRecord};
use splitter_common::socket_offsets::SocketOffsets;

use crate::datapath::sys::programs::Instruction;

use super::features::has_helper;
use super::kernel_types::KernelTypes;
use super::pins::{PinDirectory, PinError, entries, exists, is_numbered, remove_file};
use super::programs::{LoadSettings, Programs};
use super::shapes::MMAPABLE;
use super::tracing::{COUNTING, CannotTrace, FREEING, FREEING_NESTED, TIMING, TracingProgram};

/// The map, by its name in the programs.
pub(crate) const SOCKETS: &str = "SOCKETS";

/// Where the original destinations of sockets are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketMemory {
    /// In the table of live sockets if the kernel can have one, or else on the sockets. Outcomes are
    /// counted only with the table.
    #[default]
    Best,
    /// On the sockets themselves.
    Storage,
}

/// What is counted of what comes of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Outcomes {
    /// Nothing.
    Off,
    /// How each ends: nothing runs for a connection before, unless it fails.
    #[default]
    Ends,
    /// And how long each takes to be established, which costs every TCP connection on the node some
    /// 300 ns.
    Handshakes,
}

/// The table that the programs are to use.
#[derive(Clone, Debug)]
pub(super) struct SocketTable {
    pub(super) path: PathBuf,
    /// How many slots it has: a power of two.
    pub(super) slots: u32,
    /// Where members are in the kernel's sockets; all but the cookie only if outcomes are counted.
    pub(super) offsets: SocketOffsets,
    /// What is counted of what comes of connections.
    pub(super) outcomes: Outcomes,
}

impl SocketTable {
    /// The programs that see what happens to sockets, as far as they are needed.
    pub(super) fn programs(&self) -> Vec<TracingProgram> {
        [FREEING, FREEING_NESTED]
            .into_iter()
            .chain(self.outcomes.programs())
            .collect()
    }
}

impl Outcomes {
    /// The programs that are needed for it.
    fn programs(self) -> impl Iterator<Item = TracingProgram> {
        let counting = (self >= Self::Ends).then_some(COUNTING);
        let timing = (self >= Self::Handshakes).then_some(TIMING);
        counting.into_iter().flatten().chain(timing)
    }
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
enum Lack {
    #[error(
        "the kernel's own types cannot be read from /sys/kernel/btf/vmlinux: {0} (it takes \
         CONFIG_DEBUG_INFO_BTF)"
    )]
    Types(io::Error),
    #[error("this kernel keeps the cookies of sockets elsewhere")]
    Cookie,
    #[error("this kernel keeps elsewhere what is counted of sockets")]
    Members,
    #[error("programs on connect() may not ask for the cookie of a socket (bpf_get_socket_cookie)")]
    Helper,
    #[error(transparent)]
    Tracing(#[from] CannotTrace),
    #[error("what is pinned at {0} is no table of this version; remove it")]
    Shape(PathBuf),
}

impl SocketTable {
    /// The table to use with these settings. If the kernel cannot have one, that is logged.
    ///
    /// # Errors
    ///
    /// If pins cannot be examined or removed.
    pub(super) fn choose(settings: &LoadSettings) -> Result<Option<Self>, PinError> {
        let pins = &settings.pins;
        let is_in_use = pins.is_socket_table_in_use()?;
        // Sockets from before keep their original destination also if new ones shall have none.
        if settings.socket_memory == SocketMemory::Storage
            || !settings.keep_original_dst && !is_in_use
        {
            return Ok(None);
        }
        let path = pins.socket_table();
        if exists(&path)? && !is_in_use {
            // Nobody has freed slots for a while: an agent of a version without the table has been
            // at work, or none of ours got as far as to use it.
            remove_file(&path)?;
        }
        let found = slots(&path).ok_or_else(|| Lack::Shape(path.clone()));
        let found = found.and_then(|slots| {
            let types = KernelTypes::running().map_err(Lack::Types)?;
            let cookie = probe(&types)?;
            let offsets = SocketOffsets {
                cookie,
                ..SocketOffsets::default()
            };
            let mut table = Self {
                path,
                slots,
                offsets,
                outcomes: Outcomes::Off,
            };
            // Handshakes are not worth giving the rest up for.
            let mut attempts = vec![settings.outcomes, settings.outcomes.min(Outcomes::Ends)];
            attempts.dedup();
            for wanted in attempts {
                if wanted <= table.outcomes {
                    continue;
                }
                match probe_counting(&types, wanted) {
                    Ok(offsets) => {
                        table.offsets = offsets;
                        table.outcomes = wanted;
                    }
                    Err(lack) => tracing::warn!(
                        ?wanted,
                        "what comes of connections cannot be counted as wanted: {lack}"
                    ),
                }
            }
            Ok(table)
        });
        match found {
            Ok(table) => Ok(Some(table)),
            Err(lack) => {
                tracing::warn!(
                    "connections that are split take longer than they could, since the original \
                     destination is stored on each socket: {lack}"
                );
                Ok(None)
            }
        }
    }
}

/// How many slots the pinned table has, or a new one gets. `None` if what is pinned is none.
pub(crate) fn slots(path: &Path) -> Option<u32> {
    if !exists(path).ok()? {
        return Some(SOCKET_SLOTS);
    }
    let info = MapInfo::from_pin(path).ok()?;
    let slots = info.max_entries();
    let fits = info.map_type().ok()? == MapType::Array
        && info.key_size() as usize == size_of::<u32>()
        && info.value_size() as usize == size_of::<SocketRecord>()
        && info.map_flags() == MMAPABLE
        && slots.is_power_of_two()
        && slots >= 2;
    fits.then_some(slots)
}

/// Whether slots can be claimed, and freed when sockets die: tried with a program that does nothing.
/// Gives back where the cookie of a socket is. Nothing is left behind.
fn probe(types: &KernelTypes) -> Result<u32, Lack> {
    let place = || {
        let common = types.offset("sock", "__sk_common")?;
        let cookie = types.offset("sock_common", "skc_cookie")?;
        i16::try_from(common.checked_add(cookie)?).ok()
    };
    let cookie = place().ok_or(Lack::Cookie)?;
    let read_cookie = [
        Instruction::load_long(1, 1, 0),
        Instruction::load_long(1, 1, cookie),
        Instruction::move_value(0, 0),
        Instruction::EXIT,
    ];
    FREEING.probe(types, &read_cookie)?;
    has_helper(BpfHelper::BPF_FUNC_get_socket_cookie).map_err(|_| Lack::Helper)?;
    Ok(cookie.unsigned_abs().into())
}

/// Whether what comes of connections can be counted. Gives back where what is counted is.
fn probe_counting(types: &KernelTypes, wanted: Outcomes) -> Result<SocketOffsets, Lack> {
    let offsets = types.socket_offsets().ok_or(Lack::Members)?;
    let nothing = [Instruction::move_value(0, 0), Instruction::EXIT];
    for program in wanted.programs().filter(|program| !program.is_again()) {
        program.probe(types, &nothing)?;
    }
    Ok(offsets)
}

impl Programs {
    /// Removes tables that these programs do not use: of other versions, or without need. To be
    /// called once no other programs are on cgroups, and before those are taken off that free the slots
    /// of such a table: an agent of its version would take what nobody freed for live sockets. Gives
    /// back what was removed.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub fn remove_other_socket_tables(&self) -> Result<Vec<PathBuf>, PinError> {
        self.pins.remove_socket_tables(self.socket_table.as_deref())
    }
}

impl PinDirectory {
    /// Where the table of live sockets is pinned.
    #[must_use]
    pub fn socket_table(&self) -> PathBuf {
        self.path().join(format!("{SOCKETS}-v{SOCKETS_VERSION}"))
    }

    /// Whether a program is attached that frees slots.
    ///
    /// # Errors
    ///
    /// If the pins cannot be examined.
    pub fn is_socket_table_in_use(&self) -> Result<bool, PinError> {
        Ok(exists(&self.socket_table())? && self.is_traced(FREEING)?)
    }

    /// Removes tables of every version, but for one. Gives back what was removed.
    pub(super) fn remove_socket_tables(
        &self,
        keep: Option<&Path>,
    ) -> Result<Vec<PathBuf>, PinError> {
        let mut tables = entries(self.path())?;
        tables.retain(|path| is_socket_table(path) && Some(&**path) != keep);
        for table in &tables {
            remove_file(table)?;
        }
        Ok(tables)
    }
}

/// Whether a pin is, by its name, a table of live sockets, of any version.
fn is_socket_table(path: &Path) -> bool {
    is_numbered(path, SOCKETS, "-v")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_known_by_their_names() {
        for (name, is_table) in [
            ("SOCKETS-v1", true),
            ("SOCKETS-v20", true),
            ("SOCKETS", false),
            ("SOCKETS-v", false),
            ("SOCKETS-v1-2", false),
            ("v3", false),
            ("tcp_destroy_sock-17", false),
        ] {
            assert_eq!(
                is_socket_table(&Path::new("/pins").join(name)),
                is_table,
                "{name}"
            );
        }
    }
}
