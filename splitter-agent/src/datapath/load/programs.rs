//! Loading the programs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::{CgroupSockAddr, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use splitter_common::socket_offsets::SocketOffsets;

use crate::causes::with_causes;
use crate::datapath::maps::MapsError;
use crate::datapath::neighbours::Blocker;
use crate::datapath::publish::Capacity;
use crate::datapath::ticks;

use super::features::{self, FeatureError};
use super::layouts::{Layout, pinned_program};
use super::pins::{PROGRAMS, PinDirectory, PinError, exists};
use super::shapes::shapes;
use super::socket_table::{Outcomes, SOCKETS, SocketMemory, SocketTable};
use super::tracing::{TracingProgram, load as load_tracing};

/// The kernel programs, as `cargo xtask build-ebpf` made them; empty if it did not.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/splitter-ebpf.o"));

/// How the programs are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadSettings {
    /// Where maps and links are pinned.
    pub pins: PinDirectory,
    /// How large the maps are.
    pub capacity: Capacity,
    /// Level of the logs in the programs; at `Off` they cost nothing.
    pub log_level: EbpfLogLevel,
    /// Whether sockets keep their original destination, for getpeername() to show.
    pub keep_original_dst: bool,
    /// Where they do.
    pub socket_memory: SocketMemory,
    /// What is counted of what comes of their connections.
    pub outcomes: Outcomes,
    /// How connections are refused.
    pub refusal: Refusal,
}

/// How a connection is refused with ECONNREFUSED.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// As the kernel can: by the program (6.1 and later), or else by a rewrite.
    #[default]
    Best,
    /// By a rewrite to a loopback address and a port where nobody can listen.
    Rewrite,
}

/// Level of the logs that the kernel programs write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[repr(u8)]
pub enum EbpfLogLevel {
    /// No logs; the code for them is dropped when the programs are loaded.
    #[default]
    Off = 0,
    /// Errors.
    Error = 1,
    /// And warnings.
    Warn = 2,
    /// And what is worth knowing.
    Info = 3,
    /// And every connection that is rewritten or refused.
    Debug = 4,
    /// And every connection to a frontend that passes through.
    Trace = 5,
}

/// Why the programs cannot be put to work.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The agent was built without them.
    #[error(
        "this splitter-agent was built without its kernel programs; build them with \
         `cargo xtask build-ebpf`, then build the agent again"
    )]
    NotBuilt,
    /// The kernel does not let us look at it.
    #[error(transparent)]
    Kernel(#[from] FeatureError),
    /// The pin directory cannot be used.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// A pinned map does not fit.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The object cannot be loaded.
    #[error("cannot create the maps")]
    Object(#[source] Box<EbpfError>),
    /// The kernel refuses a program.
    #[error("cannot {action} the program {program}")]
    Program {
        /// The operation.
        action: &'static str,
        /// Its name.
        program: String,
        /// The cause.
        #[source]
        source: Box<ProgramError>,
    },
    /// A link cannot be made, pinned or updated.
    #[error("cannot {action} the link of {program}")]
    Link {
        /// The operation.
        action: &'static str,
        /// The program's name.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program of another owner keeps ours out.
    #[error("{0}")]
    Blocked(Box<Blocker>),
    /// The cgroup cannot be opened.
    #[error("cannot open the cgroup {path}")]
    Cgroup {
        /// The cgroup.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The programs, loaded but not necessarily attached.
#[derive(Debug)]
pub struct Programs {
    pub(crate) object: Ebpf,
    pub(crate) pins: PinDirectory,
    layout: Layout,
    /// The table of live sockets, if they use it.
    pub(super) socket_table: Option<PathBuf>,
    /// Those that see what happens to sockets, as far as they are needed.
    pub(super) tracing: Vec<TracingProgram>,
}

impl Programs {
    /// The programs as they were built: an ELF object, empty if they were not.
    #[must_use]
    pub fn object_file() -> &'static [u8] {
        OBJECT
    }

    /// Loads the programs; opens the pinned maps of this capacity, or makes and pins them.
    ///
    /// # Errors
    ///
    /// If the pins cannot be used, or the kernel refuses something.
    pub fn load(settings: &LoadSettings) -> Result<Self, LoadError> {
        Self::load_object(OBJECT, settings)
    }

    /// The same with the programs in another ELF object, which must be aligned to 8 bytes: one that was
    /// made of [`Self::object_file`], to measure parts of them.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_object(object: &[u8], settings: &LoadSettings) -> Result<Self, LoadError> {
        if object.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        settings.pins.create()?;
        let layout = settings.pins.choose_layout(settings.capacity)?;
        let Some(table) = SocketTable::choose(settings)? else {
            return Self::load_with(object, settings, layout, None);
        };
        let plain = SocketTable {
            outcomes: Outcomes::Off,
            ..table.clone()
        };
        // What the programs do is more than what was tried.
        let mut attempts = vec![(Some(plain), "that use the table of live sockets")];
        if table.outcomes != Outcomes::Off {
            attempts.push((Some(table), "that count what comes of connections"));
        }
        while let Some((table, which)) = attempts.pop() {
            match Self::load_with(object, settings, layout.clone(), table) {
                Err(error @ LoadError::Program { .. }) => tracing::warn!(
                    error = with_causes(&error),
                    "the kernel refuses the programs {which}; trying others that do less"
                ),
                result => return result,
            }
        }
        Self::load_with(object, settings, layout, None)
    }

    fn load_with(
        elf: &[u8],
        settings: &LoadSettings,
        layout: Layout,
        table: Option<SocketTable>,
    ) -> Result<Self, LoadError> {
        let has_set_retval = settings.refusal == Refusal::Best && features::has_set_retval()?;
        tracing::debug!(has_set_retval, "loading the programs");
        let mut loader = EbpfLoader::new();
        // What the programs read of the kernel's own structures they find by constants.
        loader.btf(None);
        let shapes = shapes(settings.capacity);
        for shape in &shapes {
            loader.map_pin_path(shape.name, layout.map(shape.name));
            if shape.max_entries > 0 {
                loader.map_max_entries(shape.name, shape.max_entries);
            }
        }
        match &table {
            Some(table) => loader
                .map_pin_path(SOCKETS, &table.path)
                .map_max_entries(SOCKETS, table.slots),
            // Not used: as small as can be.
            None => loader.map_max_entries(SOCKETS, 1),
        };
        let socket_slots = table.as_ref().map_or(0, |table| table.slots);
        let offsets = table
            .as_ref()
            .map_or_else(SocketOffsets::default, |table| table.offsets);
        let offsets: [u32; size_of::<SocketOffsets>() / 4] = bytemuck::cast(offsets);
        let is_counting = |table: &SocketTable| table.outcomes != Outcomes::Off;
        let count_outcomes = u8::from(table.as_ref().is_some_and(is_counting));
        let tick = ticks::length().subsec_nanos();
        let (set_retval, keep_original_dst, log_level) = (
            u8::from(has_set_retval),
            u8::from(settings.keep_original_dst),
            settings.log_level as u8,
        );
        loader
            .override_global("HAS_SET_RETVAL", &set_retval, true)
            .override_global("KEEP_ORIGINAL_DST", &keep_original_dst, true)
            .override_global("SOCKET_SLOTS", &socket_slots, true)
            .override_global("SOCKET_OFFSETS", &offsets, true)
            .override_global("COUNT_OUTCOMES", &count_outcomes, true)
            .override_global("TICK", &tick, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true);
        let mut object = loader
            .load(elf)
            .map_err(|source| LoadError::Object(Box::new(source)))?;
        // All programs are loaded before any map is taken out of the object: their
        // instructions hold the maps' descriptors by number.
        for name in PROGRAMS {
            program(&mut object, name)?
                .load()
                .map_err(|source| LoadError::Program {
                    action: "load",
                    program: name.to_owned(),
                    source: Box::new(source),
                })?;
        }
        let tracing = table
            .as_ref()
            .map(SocketTable::programs)
            .unwrap_or_default();
        load_tracing(&mut object, &tracing)?;
        Ok(Self {
            object,
            pins: settings.pins.clone(),
            layout,
            socket_table: table.map(|table| table.path),
            tracing,
        })
    }

    /// Where the maps are that the programs use.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether the programs at work already use these maps, or there are no others that
    /// they could use.
    ///
    /// # Errors
    ///
    /// If the pins cannot be examined.
    pub fn is_layout_at_work(&self) -> Result<bool, LoadError> {
        Ok(self.pins.other_layouts(&self.layout)?.is_empty()
            || self.pins.is_at_work(&self.layout)?)
    }

    /// The maps at work, if these programs and their maps are to replace them.
    pub(crate) fn layout_to_replace(&self) -> Result<Option<Layout>, PinError> {
        if self.pins.is_at_work(&self.layout)? {
            return Ok(None);
        }
        let at_work = self.pins.layout_at_work()?;
        Ok(at_work.filter(|layout| *layout != self.layout))
    }

    /// Pins the programs beside their maps, before they are put to work.
    pub(crate) fn pin_programs(&mut self) -> Result<(), LoadError> {
        let attached = self.pins.attached_program_ids()?;
        for name in PROGRAMS {
            let (path, next) = (self.layout.program(name), self.layout.next_program(name));
            // An agent before us ended after it had put its program to work, or before.
            match pinned_program(&next)? {
                Some(id) if attached.contains(&id) => rename(&next, &path)?,
                Some(_) => fs::remove_file(&next).map_err(PinError::io("remove", &next))?,
                None => {}
            }
            let failed = |action| {
                move |source: ProgramError| LoadError::Program {
                    action,
                    program: name.to_owned(),
                    source: Box::new(source),
                }
            };
            let program = program(&mut self.object, name)?;
            let id = program.info().map_err(failed("examine"))?.id();
            let place = match pinned_program(&path)? {
                Some(pinned) if pinned == id => continue,
                Some(_) => &next,
                None => &path,
            };
            program.pin(place).map_err(|error| {
                PinError::io("pin a program at", place)(io::Error::other(error))
            })?;
        }
        Ok(())
    }

    /// Removes the programs from the pins whose place ours have taken.
    pub(crate) fn replace_pinned_programs(&self) -> Result<(), LoadError> {
        for name in PROGRAMS {
            let next = self.layout.next_program(name);
            if exists(&next)? {
                rename(&next, &self.layout.program(name))?;
            }
        }
        Ok(())
    }

    /// The loaded object, for its logger.
    pub fn object(&mut self) -> &mut Ebpf {
        &mut self.object
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), PinError> {
    fs::rename(from, to).map_err(PinError::io("rename", from))
}

pub(crate) fn program<'a>(
    object: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut CgroupSockAddr, LoadError> {
    let Some(program) = object.program_mut(name) else {
        return Err(LoadError::NotBuilt);
    };
    program.try_into().map_err(|source| LoadError::Program {
        action: "find",
        program: name.to_owned(),
        source: Box::new(source),
    })
}
