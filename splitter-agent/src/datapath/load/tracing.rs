//! The programs that see what happens to sockets, whichever process they are of: one frees the slots of
//! those that die, the others count what comes of connections.
//!
//! ```text
//! <pin directory>/links/tcp_destroy_sock-4711      the link of such a program, which the number is
//!                                                  the id of
//! <pin directory>/links/tcp_destroy_sock_nested-4712
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

/// A program on a tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TracingProgram {
    name: &'static str,
    tracepoint: &'static str,
}

/// The one that frees slots.
pub(super) const FREEING: TracingProgram = TracingProgram::on("tcp_destroy_sock");

/// The same again: the kernel runs no program while it already runs on the CPU, and runs the other one
/// then.
pub(super) const FREEING_NESTED: TracingProgram = FREEING.again("tcp_destroy_sock_nested");

const ERRORS: TracingProgram = TracingProgram::on("inet_sk_error_report");
const RECEIVED: TracingProgram = TracingProgram::on("tcp_receive_reset");
const SENT: TracingProgram = TracingProgram::on("tcp_send_reset");

/// Those that count what comes of connections, together with the one that frees slots.
pub(super) const COUNTING: [TracingProgram; 6] = [
    ERRORS,
    ERRORS.again("inet_sk_error_report_nested"),
    RECEIVED,
    RECEIVED.again("tcp_receive_reset_nested"),
    SENT,
    SENT.again("tcp_send_reset_nested"),
];

/// The one that tells how long handshakes take. Of one that it misses it is known later that it was made.
pub(super) const TIMING: TracingProgram = TracingProgram::on("inet_sock_set_state");

fn all() -> impl Iterator<Item = TracingProgram> {
    [FREEING, FREEING_NESTED, TIMING]
        .into_iter()
        .chain(COUNTING)
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
    /// That which has the name of its tracepoint.
    const fn on(tracepoint: &'static str) -> Self {
        Self {
            name: tracepoint,
            tracepoint,
        }
    }

    /// Another one on the same tracepoint.
    const fn again(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Whether it is another one on a tracepoint.
    pub(super) fn is_again(self) -> bool {
        self.name != self.tracepoint
    }

    /// Tries whether a program can be put on what this one is on. Nothing is left behind.
    pub(super) fn probe(
        self,
        types: &KernelTypes,
        instructions: &[Instruction],
    ) -> Result<(), CannotTrace> {
        let tracepoint = types.tracepoint(self.tracepoint);
        let tracepoint = tracepoint.ok_or(CannotTrace::Absent(self.tracepoint))?;
        load_tracepoint_program(tracepoint, instructions)
            .and_then(|program| open_tracepoint(program.as_fd()))
            .map_err(|error| CannotTrace::Refused(self.tracepoint, error))?;
        Ok(())
    }

    /// Loads it.
    fn load(self, object: &mut Ebpf, types: &Btf) -> Result<(), LoadError> {
        let program = self.find(object)?;
        program
            .load(self.tracepoint, types)
            .map_err(|source| self.failed("load", source))
    }

    fn find(self, object: &mut Ebpf) -> Result<&mut BtfTracePoint, LoadError> {
        let Some(program) = object.program_mut(self.name) else {
            return Err(LoadError::NotBuilt);
        };
        program
            .try_into()
            .map_err(|source| self.failed("find", source))
    }

    fn info(self, object: &Ebpf) -> Result<ProgramInfo, LoadError> {
        let program = object.program(self.name).ok_or(LoadError::NotBuilt)?;
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
            program: self.name.to_owned(),
            source: Box::new(source),
        }
    }

    /// Whether a pin is, by its name, a link of this program.
    fn owns(self, path: &Path) -> bool {
        is_numbered(path, self.name, "-")
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
                program: program.name.to_owned(),
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
        self.links().join(format!("{}-{id}", program.name))
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
            ("tcp_destroy_sock_nested-17", true),
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
