//! The table of live sockets: whether this kernel can have one, where it is pinned, and the program
//! that frees its slots.
//!
//! ```text
//! <pin directory>/SOCKETS-v1                       the table, below no layout: sockets that are open
//!                                                  keep what is in it when the layout changes
//! <pin directory>/links/tcp_destroy_sock-4711      the link of the program that frees slots, which
//!                                                  the number is the id of
//! ```
//!
//! A link to a tracepoint cannot be given another program. So a new agent attaches its own program
//! beside that of the agent before, and then removes that: a death that both see frees the slot once.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, ProgramError};
use aya::sys::BpfHelper;
use aya::{Btf, Ebpf};
use splitter_common::layout::{SOCKET_SLOTS, SOCKETS_VERSION, SocketRecord};

use crate::datapath::sys;
use crate::datapath::sys::links::open_tracepoint;
use crate::datapath::sys::programs::{Instruction, load_tracepoint_program};

use super::features::has_helper;
use super::kernel_types::KernelTypes;
use super::pins::{PinDirectory, PinError, entries, exists, remove_file};
use super::programs::{LoadError, LoadSettings, Programs};
use super::shapes::MMAPABLE;

/// The map, by its name in the programs.
pub(crate) const SOCKETS: &str = "SOCKETS";

/// The program, and the tracepoint that it is for.
pub(super) const TRACEPOINT: &str = "tcp_destroy_sock";

/// Where the original destinations of sockets are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SocketMemory {
    /// In the table of live sockets if the kernel can have one, or else on the sockets.
    #[default]
    Best,
    /// On the sockets themselves.
    Storage,
}

/// The table that the programs are to use.
#[derive(Debug)]
pub(super) struct SocketTable {
    pub(super) path: PathBuf,
    /// How many slots it has: a power of two.
    pub(super) slots: u32,
    /// Where in the kernel's `struct sock` the cookie is, in bytes.
    pub(super) cookie_offset: u32,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
enum Lack {
    #[error(
        "the kernel's own types cannot be read from /sys/kernel/btf/vmlinux: {0} (it takes \
         CONFIG_DEBUG_INFO_BTF)"
    )]
    Types(io::Error),
    #[error(
        "this kernel has no tracepoint {TRACEPOINT}, or keeps the cookies of sockets elsewhere"
    )]
    Tracepoint,
    #[error("programs on connect() may not ask for the cookie of a socket (bpf_get_socket_cookie)")]
    Helper,
    #[error("the kernel does not let this process watch {TRACEPOINT}: {0} (it takes CAP_PERFMON)")]
    Watch(io::Error),
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
        let found = slots(&path)
            .ok_or_else(|| Lack::Shape(path.clone()))
            .and_then(|slots| Ok((slots, probe()?)));
        match found {
            Ok((slots, cookie_offset)) => Ok(Some(Self {
                path,
                slots,
                cookie_offset,
            })),
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
fn probe() -> Result<u32, Lack> {
    let types = KernelTypes::running().map_err(Lack::Types)?;
    let place = || {
        let tracepoint = types.tracepoint(TRACEPOINT)?;
        let common = types.offset("sock", "__sk_common")?;
        let cookie = types.offset("sock_common", "skc_cookie")?;
        let cookie = i16::try_from(common.checked_add(cookie)?).ok()?;
        Some((tracepoint, cookie))
    };
    let (tracepoint, cookie) = place().ok_or(Lack::Tracepoint)?;
    let read_cookie = [
        Instruction::load_long(1, 1, 0),
        Instruction::load_long(1, 1, cookie),
        Instruction::move_value(0, 0),
        Instruction::EXIT,
    ];
    load_tracepoint_program(tracepoint, &read_cookie)
        .and_then(|program| open_tracepoint(program.as_fd()))
        .map_err(Lack::Watch)?;
    match has_helper(BpfHelper::BPF_FUNC_get_socket_cookie) {
        Ok(()) => Ok(cookie.unsigned_abs().into()),
        Err(_) => Err(Lack::Helper),
    }
}

/// Loads the program that frees slots.
pub(super) fn load(object: &mut Ebpf) -> Result<(), LoadError> {
    let failed = |source: ProgramError| failed("load", source);
    let types = Btf::from_sys_fs().map_err(|error| failed(error.into()))?;
    tracepoint(object)?.load(TRACEPOINT, &types).map_err(failed)
}

fn tracepoint(object: &mut Ebpf) -> Result<&mut BtfTracePoint, LoadError> {
    let Some(program) = object.program_mut(TRACEPOINT) else {
        return Err(LoadError::NotBuilt);
    };
    program.try_into().map_err(|source| failed("find", source))
}

fn failed(action: &'static str, source: ProgramError) -> LoadError {
    LoadError::Program {
        action,
        program: TRACEPOINT.to_owned(),
        source: Box::new(source),
    }
}

impl Programs {
    /// Where the link of the program that frees slots is pinned; `None` if it is not needed.
    fn freeing_link(&self) -> Result<Option<PathBuf>, LoadError> {
        if self.socket_table.is_none() {
            return Ok(None);
        }
        let program = self.object.program(TRACEPOINT).ok_or(LoadError::NotBuilt)?;
        let program: &BtfTracePoint = program
            .try_into()
            .map_err(|source| failed("find", source))?;
        let info = program.info().map_err(|source| failed("examine", source))?;
        Ok(Some(self.pins.tracepoint_link(info.id())))
    }

    /// Whether slots are freed, if there are any.
    pub(super) fn is_freeing(&self) -> Result<bool, LoadError> {
        Ok(match self.freeing_link()? {
            Some(link) => exists(&link)?,
            None => true,
        })
    }

    /// Attaches the program that frees slots, unless it is: before any slot is claimed.
    pub(super) fn attach_freeing(&mut self) -> Result<(), LoadError> {
        let Some(path) = self.freeing_link()? else {
            return Ok(());
        };
        if exists(&path)? {
            return Ok(());
        }
        let program = tracepoint(&mut self.object)?;
        let id = program
            .attach()
            .map_err(|source| failed("attach", source))?;
        let link = program
            .take_link(id)
            .map_err(|source| failed("keep", source))?;
        FdLink::from(link)
            .pin(&path)
            .map_err(|error| LoadError::Link {
                action: "pin",
                program: TRACEPOINT.to_owned(),
                source: io::Error::other(error),
            })?;
        Ok(())
    }

    /// Takes what agents before us attached to free slots off, once no program claims any that
    /// only that would free.
    pub(super) fn remove_other_freeing(&self) -> Result<(), LoadError> {
        let own = self.freeing_link()?;
        self.pins.remove_tracepoint_links(own.as_deref())?;
        Ok(())
    }

    /// Removes tables that these programs do not use: of other versions, or without need. To be
    /// called once no other programs are attached. Gives back what was removed.
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
        Ok(exists(&self.socket_table())?
            && self
                .tracepoint_links()?
                .iter()
                .any(|link| sys::open_pin(link).is_ok()))
    }

    /// Where the link of the program that frees slots is pinned.
    fn tracepoint_link(&self, program_id: u32) -> PathBuf {
        self.links().join(format!("{TRACEPOINT}-{program_id}"))
    }

    /// The links of all programs that free slots.
    fn tracepoint_links(&self) -> Result<Vec<PathBuf>, PinError> {
        if !exists(&self.links())? {
            return Ok(Vec::new());
        }
        let mut links = entries(&self.links())?;
        links.retain(|link| is_tracepoint_link(link));
        Ok(links)
    }

    /// Takes the programs that free slots off, but for one. Gives back the pins that were removed.
    pub(super) fn remove_tracepoint_links(
        &self,
        keep: Option<&Path>,
    ) -> Result<Vec<PathBuf>, PinError> {
        let mut links = self.tracepoint_links()?;
        links.retain(|link| Some(&**link) != keep);
        for link in &links {
            remove_file(link)?;
        }
        Ok(links)
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

/// Whether a pin is, by its name, a link of a program that frees slots.
pub(super) fn is_tracepoint_link(path: &Path) -> bool {
    is_numbered(path, TRACEPOINT, "-")
}

/// Whether a pin is, by its name, a table of live sockets, of any version.
fn is_socket_table(path: &Path) -> bool {
    is_numbered(path, SOCKETS, "-v")
}

fn is_numbered(path: &Path, name: &str, separator: &str) -> bool {
    let number = || {
        let own = path.file_name()?.to_str()?;
        own.strip_prefix(name)?.strip_prefix(separator)
    };
    number().is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_links_are_known_by_their_names() {
        for (name, is_table, is_link) in [
            ("SOCKETS-v1", true, false),
            ("SOCKETS-v20", true, false),
            ("SOCKETS", false, false),
            ("SOCKETS-v", false, false),
            ("SOCKETS-v1-2", false, false),
            ("v3", false, false),
            ("tcp_destroy_sock-17", false, true),
            ("tcp_destroy_sock", false, false),
            ("tcp_destroy_sock-new", false, false),
            ("connect4-17", false, false),
        ] {
            let path = Path::new("/pins").join(name);
            assert_eq!(is_socket_table(&path), is_table, "{name}");
            assert_eq!(is_tracepoint_link(&path), is_link, "{name}");
        }
    }
}
