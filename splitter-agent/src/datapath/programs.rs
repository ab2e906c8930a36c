//! Loading the programs, and putting them on the cgroup.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::pin::PinError as LinkPinError;
use aya::programs::links::{FdLink, LinkError};
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};

use super::features::{self, FeatureError};
use super::maps::{Capacity, MapsError, check_shapes, shapes};
use super::pins::{PROGRAMS, PinDirectory, PinError, exists};
use super::syscall;

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
    /// Whether getpeername shows the address that was dialled.
    pub peer_names: bool,
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
    /// None; the code for them is dropped when the programs are loaded.
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
        /// What was tried.
        action: &'static str,
        /// Which.
        program: String,
        /// What came of it.
        #[source]
        source: Box<ProgramError>,
    },
    /// A link cannot be made, pinned or updated.
    #[error("cannot {action} the link of {program}")]
    Link {
        /// What was tried.
        action: &'static str,
        /// Whose.
        program: String,
        /// What came of it.
        #[source]
        source: io::Error,
    },
    /// The cgroup cannot be opened.
    #[error("cannot open the cgroup {path}")]
    Cgroup {
        /// Which.
        path: PathBuf,
        /// What came of it.
        #[source]
        source: io::Error,
    },
}

/// The programs, loaded but not necessarily attached.
#[derive(Debug)]
pub struct Programs {
    object: Ebpf,
    pins: PinDirectory,
}

/// What attaching came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The program is new on the cgroup.
    New,
    /// The program took the place of an earlier one, atomically.
    Replaced,
}

impl Programs {
    /// Loads the programs; opens the pinned maps, or makes and pins them.
    ///
    /// # Errors
    ///
    /// If a pinned map does not fit, or the kernel refuses something.
    pub fn load(settings: &LoadSettings) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        settings.pins.create()?;
        check_shapes(&settings.pins, settings.capacity)?;
        let has_set_retval = settings.refusal == Refusal::Best && features::has_set_retval()?;
        tracing::debug!(has_set_retval, "loading the programs");
        let mut loader = EbpfLoader::new();
        // Nothing in the programs depends on the layout of the kernel's own structures.
        loader.btf(None);
        let shapes = shapes(settings.capacity);
        for shape in &shapes {
            loader.map_pin_path(shape.name, settings.pins.map(shape.name));
            if shape.max_entries > 0 {
                loader.map_max_entries(shape.name, shape.max_entries);
            }
        }
        let (set_retval, peer_names, log_level) = (
            u8::from(has_set_retval),
            u8::from(settings.peer_names),
            settings.log_level as u8,
        );
        loader
            .override_global("HAS_SET_RETVAL", &set_retval, true)
            .override_global("PEER_NAMES", &peer_names, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true);
        let mut object = loader
            .load(OBJECT)
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
        Ok(Self {
            object,
            pins: settings.pins.clone(),
        })
    }

    /// The loaded object, for its logger.
    pub fn object(&mut self) -> &mut Ebpf {
        &mut self.object
    }

    /// Puts the programs on a cgroup. Where an agent before us left its links, ours take
    /// the place of its programs one by one, and no connection is missed.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn attach(&mut self, cgroup: &Path) -> Result<Vec<(&'static str, Attached)>, LoadError> {
        let open = |source| LoadError::Cgroup {
            path: cgroup.to_owned(),
            source,
        };
        let directory = File::open(cgroup).map_err(open)?;
        // On 64-bit kernels a cgroup's id is its directory's inode number.
        let cgroup_id = directory.metadata().map_err(open)?.ino();
        let attached = PROGRAMS
            .into_iter()
            .map(|name| {
                let attached = self.attach_one(name, &directory, cgroup_id)?;
                Ok((name, attached))
            })
            .collect::<Result<_, LoadError>>()?;
        // Programs that only another version has would go on with maps that nobody fills.
        for link in self.pins.remove_other_links(&PROGRAMS)? {
            tracing::info!(link = %link.display(), "detached a program of another version");
        }
        Ok(attached)
    }

    fn attach_one(
        &mut self,
        name: &'static str,
        cgroup: &File,
        cgroup_id: u64,
    ) -> Result<Attached, LoadError> {
        let failed = |action| {
            move |source: io::Error| LoadError::Link {
                action,
                program: name.to_owned(),
                source,
            }
        };
        let of_program = |action| {
            move |source: ProgramError| LoadError::Program {
                action,
                program: name.to_owned(),
                source: Box::new(source),
            }
        };
        let path = self.pins.link(name);
        let program = program(&mut self.object, name)?;
        let mut old = None;
        if exists(&path)? {
            let link = syscall::open_pin(&path).map_err(failed("open"))?;
            let info = syscall::link_info(link.as_fd()).map_err(failed("examine"))?;
            if info.cgroup_id == cgroup_id {
                let new = program.fd().map_err(of_program("use"))?;
                match syscall::update_link(link.as_fd(), new.as_fd()) {
                    Ok(()) => return Ok(Attached::Replaced),
                    // The cgroup was removed, and another one has its number now.
                    Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
                    Err(error) => return Err(failed("update")(error)),
                }
            }
            old = Some(link);
        }
        let link_id = program
            .attach(cgroup, CgroupAttachMode::Single)
            .map_err(of_program("attach"))?;
        let link = program.take_link(link_id).map_err(of_program("keep"))?;
        let link = FdLink::try_from(link)
            .map_err(|error: LinkError| failed("keep")(io::Error::other(error)))?;
        // Pinned beside the old link and then put in its place, so that at no moment the
        // hook hangs on this process alone.
        let beside = self.pins.link(&format!("{name}-new"));
        if exists(&beside)? {
            fs::remove_file(&beside).map_err(failed("clear the way for"))?;
        }
        link.pin(&beside)
            .map_err(|error: LinkPinError| failed("pin")(io::Error::other(error)))?;
        fs::rename(&beside, &path).map_err(failed("put in place"))?;
        if let Some(old) = old {
            // Gone already if its cgroup is; detached without its pin at the latest.
            let _ = syscall::detach_link(old.as_fd());
        }
        Ok(Attached::New)
    }

    /// Whether every program is on this cgroup. It is not if the cgroup has been removed
    /// and made anew, as systemd does when it restarts a unit.
    ///
    /// # Errors
    ///
    /// If the links cannot be examined.
    pub fn is_attached(&self, cgroup: &Path) -> Result<bool, LoadError> {
        let Ok(status) = fs::metadata(cgroup) else {
            return Ok(false);
        };
        Ok(attached_programs(&self.pins)?
            .iter()
            .all(|program| program.cgroup_id == Some(status.ino())))
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr, LoadError> {
    let Some(program) = object.program_mut(name) else {
        return Err(LoadError::NotBuilt);
    };
    program.try_into().map_err(|source| LoadError::Program {
        action: "find",
        program: name.to_owned(),
        source: Box::new(source),
    })
}

/// A program as it is attached now, with no agent's help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// Its name.
    pub name: &'static str,
    /// Id of the cgroup that it is on; `None` if it is not attached, or its cgroup is
    /// gone.
    pub cgroup_id: Option<u64>,
    /// Id of the program, for `bpftool prog show id`.
    pub program_id: Option<u32>,
}

/// Looks at the pinned links.
///
/// # Errors
///
/// If a link is pinned but cannot be examined.
pub fn attached_programs(pins: &PinDirectory) -> Result<Vec<AttachedProgram>, LoadError> {
    PROGRAMS
        .into_iter()
        .map(|name| {
            let path = pins.link(name);
            if !exists(&path)? {
                return Ok(AttachedProgram {
                    name,
                    cgroup_id: None,
                    program_id: None,
                });
            }
            let info = syscall::open_pin(&path)
                .and_then(|link| syscall::link_info(link.as_fd()))
                .map_err(|source| LoadError::Link {
                    action: "examine",
                    program: name.to_owned(),
                    source,
                })?;
            Ok(AttachedProgram {
                name,
                cgroup_id: (info.cgroup_id != 0).then_some(info.cgroup_id),
                program_id: Some(info.program_id),
            })
        })
        .collect()
}
