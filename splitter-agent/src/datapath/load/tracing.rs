//! The programs that see what happens to sockets, whichever process they are of: one frees the slots of
//! those that die, the others count what comes of connections.
//!
//! ```text
//! <pin directory>/links/tcp_destroy_sock-4711      the link of such a program, which the number is
//!                                                  the id of
//! ```
//!
//! Such a link cannot be given another program. So a new agent attaches its own programs beside
//! those of the agent before, and then removes those: what both see is counted and freed once.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, ProgramError, ProgramInfo};
use aya::{Btf, Ebpf};

use crate::datapath::sys;
use crate::datapath::sys::links::open_tracepoint;
use crate::datapath::sys::programs::{Instruction, load_tracepoint_program};

use super::kernel_types::KernelTypes;
use super::pins::{PinDirectory, PinError, entries, exists, is_numbered, remove_file};
use super::programs::{LoadError, Programs};

/// A program, which has the name of the tracepoint that it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TracingProgram(&'static str);

/// The one that frees slots.
pub(super) const FREEING: TracingProgram = TracingProgram("tcp_destroy_sock");

/// Those that count what comes of connections, together with the one that frees slots.
pub(super) const COUNTING: [TracingProgram; 3] = [
    TracingProgram("inet_sk_error_report"),
    TracingProgram("tcp_receive_reset"),
    TracingProgram("tcp_send_reset"),
];

/// The one that tells how long handshakes take.
pub(super) const TIMING: TracingProgram = TracingProgram("inet_sock_set_state");

fn all() -> impl Iterator<Item = TracingProgram> {
    [FREEING, TIMING].into_iter().chain(COUNTING)
}

/// Why a program cannot be put to work.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotTrace {
    #[error("this kernel has no tracepoint {0}")]
    Absent(&'static str),
    #[error("the kernel does not let this process watch {0}: {1} (it takes CAP_PERFMON)")]
    Refused(&'static str, io::Error),
}

impl TracingProgram {
    /// Tries whether a program can be put on what this one is on. Nothing is left behind.
    pub(super) fn probe(
        self,
        types: &KernelTypes,
        instructions: &[Instruction],
    ) -> Result<(), CannotTrace> {
        let tracepoint = types.tracepoint(self.0);
        let tracepoint = tracepoint.ok_or(CannotTrace::Absent(self.0))?;
        load_tracepoint_program(tracepoint, instructions)
            .and_then(|program| open_tracepoint(program.as_fd()))
            .map_err(|error| CannotTrace::Refused(self.0, error))?;
        Ok(())
    }

    /// Loads it.
    fn load(self, object: &mut Ebpf, types: &Btf) -> Result<(), LoadError> {
        let program = self.find(object)?;
        program
            .load(self.0, types)
            .map_err(|source| self.failed("load", source))
    }

    fn find(self, object: &mut Ebpf) -> Result<&mut BtfTracePoint, LoadError> {
        let Some(program) = object.program_mut(self.0) else {
            return Err(LoadError::NotBuilt);
        };
        program
            .try_into()
            .map_err(|source| self.failed("find", source))
    }

    fn info(self, object: &Ebpf) -> Result<ProgramInfo, LoadError> {
        let program = object.program(self.0).ok_or(LoadError::NotBuilt)?;
        program
            .info()
            .map_err(|source| self.failed("examine", source))
    }

    fn attach(self, object: &mut Ebpf) -> Result<FdLink, LoadError> {
        let program = self.find(object)?;
        let id = program
            .attach()
            .map_err(|source| self.failed("attach", source))?;
        let link = program
            .take_link(id)
            .map_err(|source| self.failed("keep", source))?;
        Ok(link.into())
    }

    fn failed(self, action: &'static str, source: ProgramError) -> LoadError {
        LoadError::Program {
            action,
            program: self.0.to_owned(),
            source: Box::new(source),
        }
    }

    /// Whether a pin is, by its name, a link of this program.
    fn owns(self, path: &Path) -> bool {
        is_numbered(path, self.0, "-")
    }
}

/// Loads some of these programs.
pub(super) fn load(object: &mut Ebpf, programs: &[TracingProgram]) -> Result<(), LoadError> {
    let Some(first) = programs.first() else {
        return Ok(());
    };
    let types = Btf::from_sys_fs().map_err(|error| first.failed("load", error.into()))?;
    programs
        .iter()
        .try_for_each(|program| program.load(object, &types))
}

impl Programs {
    /// Where the link of a program is pinned.
    fn tracing_link(&self, program: TracingProgram) -> Result<PathBuf, LoadError> {
        let id = program.info(&self.object)?.id();
        Ok(self.pins.tracing_link(program, id))
    }

    /// Whether all of those that are needed are attached.
    pub(super) fn is_tracing(&self) -> Result<bool, LoadError> {
        for program in &self.tracing {
            if !exists(&self.tracing_link(*program)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Attaches those that are needed and are not: before any slot is claimed.
    pub(super) fn attach_tracing(&mut self) -> Result<(), LoadError> {
        for program in self.tracing.clone() {
            let path = self.tracing_link(program)?;
            if exists(&path)? {
                continue;
            }
            let link = program.attach(&mut self.object)?;
            link.pin(&path).map_err(|error| LoadError::Link {
                action: "pin",
                program: program.0.to_owned(),
                source: io::Error::other(error),
            })?;
        }
        Ok(())
    }

    /// Takes those of agents before us off, once no program claims slots that only those would
    /// free.
    pub(super) fn remove_other_tracing(&self) -> Result<(), LoadError> {
        let own = self.tracing.iter();
        let own = own.map(|program| self.tracing_link(*program));
        let own = own.collect::<Result<BTreeSet<PathBuf>, _>>()?;
        self.pins.remove_tracing_links(&own)?;
        Ok(())
    }
}

impl PinDirectory {
    /// Whether a program is attached.
    pub(super) fn is_traced(&self, program: TracingProgram) -> Result<bool, PinError> {
        let links = self.tracing_links()?;
        let mut links = links.iter().filter(|link| program.owns(link));
        Ok(links.any(|link| sys::open_pin(link).is_ok()))
    }

    fn tracing_link(&self, program: TracingProgram, id: u32) -> PathBuf {
        self.links().join(format!("{}-{id}", program.0))
    }

    /// The links of all such programs.
    fn tracing_links(&self) -> Result<Vec<PathBuf>, PinError> {
        if !exists(&self.links())? {
            return Ok(Vec::new());
        }
        let mut links = entries(&self.links())?;
        links.retain(|link| is_tracing_link(link));
        Ok(links)
    }

    /// Takes such programs off, but for some. Gives back the pins that were removed.
    pub(super) fn remove_tracing_links(
        &self,
        keep: &BTreeSet<PathBuf>,
    ) -> Result<Vec<PathBuf>, PinError> {
        let mut links = self.tracing_links()?;
        links.retain(|link| !keep.contains(link));
        for link in &links {
            remove_file(link)?;
        }
        Ok(links)
    }
}

/// Whether a pin is, by its name, a link of a program that sees what happens to sockets.
pub(super) fn is_tracing_link(path: &Path) -> bool {
    all().any(|program| program.owns(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_known_by_their_names() {
        for (name, is_link) in [
            ("tcp_destroy_sock-17", true),
            ("inet_sock_set_state-4", true),
            ("tcp_destroy_sock", false),
            ("tcp_destroy_sock-new", false),
            ("connect4-17", false),
            ("SOCKETS-v1", false),
        ] {
            assert_eq!(
                is_tracing_link(&Path::new("/pins").join(name)),
                is_link,
                "{name}"
            );
        }
    }
}
