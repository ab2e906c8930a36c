//! Putting the programs on cgroups, and what of them is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::pin::PinError as LinkPinError;
use aya::programs::links::{FdLink, LinkError};
use aya::programs::{CgroupAttachMode, ProgramError};

use crate::datapath::hierarchy::cgroup_id;
use crate::datapath::neighbours::blocker;
use crate::datapath::sys;
use crate::datapath::sys::links::{LinkInfo, detach_link, link_info, update_link};

use super::pins::{PROGRAMS, PinDirectory, PinnedLink, exists, remove_file};
use super::programs::{LoadError, Programs, program};

/// How a program was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The program is new on the cgroup.
    New,
    /// The program took the place of an earlier one, atomically.
    Replaced,
}

impl Programs {
    /// Puts the programs on this cgroup and on no other. Where an agent before us left its
    /// links, ours take the place of its programs one by one, and no connection is missed.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn attach(&mut self, cgroup: &Path) -> Result<Vec<(&'static str, Attached)>, LoadError> {
        self.take_over()?;
        let attached = self.attach_beside(cgroup)?;
        let id = cgroup_id(cgroup).map_err(|source| LoadError::Cgroup {
            path: cgroup.to_owned(),
            source,
        })?;
        self.detach_from_others(&BTreeSet::from([id]))?;
        Ok(attached)
    }

    /// Puts our programs in the place of those that an agent before us left on any cgroup, so
    /// that all of them read the maps that are kept up to date. Gives back the ids of the
    /// cgroups.
    ///
    /// # Errors
    ///
    /// If a link cannot be examined or updated.
    pub fn take_over(&mut self) -> Result<BTreeSet<u64>, LoadError> {
        let mut cgroups = BTreeSet::new();
        self.pin_programs()?;
        self.attach_tracing()?;
        for link in self.pins.pinned_links()? {
            let name = link.program;
            let (descriptor, info) = open_link(&link)?;
            let new = program(&mut self.object, name)?
                .fd()
                .map_err(of_program(name, "use"))?;
            match update_link(descriptor.as_fd(), new.as_fd()) {
                Ok(()) => {}
                // Its cgroup is gone.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
                    remove_file(&link.path)?;
                    continue;
                }
                Err(error) => return Err(of_link(name, "update")(error)),
            }
            let path = self.pins.link(name, info.cgroup_id);
            if path != link.path {
                if exists(&path)? {
                    // Two on one cgroup: an agent was killed between two steps of ours.
                    let _ = detach_link(descriptor.as_fd());
                    remove_file(&link.path)?;
                } else {
                    fs::rename(&link.path, &path).map_err(of_link(name, "rename"))?;
                }
            }
            cgroups.insert(info.cgroup_id);
        }
        self.replace_pinned_programs()?;
        for path in self.remove_other_socket_tables()? {
            tracing::info!(path = %path.display(), "removed a table of sockets that is not used any more");
        }
        self.remove_other_tracing()?;
        Ok(cgroups)
    }

    /// Puts the programs on a cgroup, and leaves those on other cgroups alone.
    ///
    /// # Errors
    ///
    /// If the kernel refuses; if a program of another owner is the reason, it is named.
    pub fn attach_beside(
        &mut self,
        cgroup: &Path,
    ) -> Result<Vec<(&'static str, Attached)>, LoadError> {
        let open = |source| LoadError::Cgroup {
            path: cgroup.to_owned(),
            source,
        };
        let directory = File::open(cgroup).map_err(open)?;
        // On 64-bit kernels a cgroup's id is its directory's inode number.
        let id = directory.metadata().map_err(open)?.ino();
        self.pin_programs()?;
        self.attach_tracing()?;
        let attached = PROGRAMS
            .into_iter()
            .map(|name| Ok((name, self.attach_one(name, &directory, cgroup, id)?)))
            .collect();
        self.replace_pinned_programs()?;
        attached
    }

    fn attach_one(
        &mut self,
        name: &'static str,
        directory: &File,
        cgroup: &Path,
        id: u64,
    ) -> Result<Attached, LoadError> {
        let path = self.pins.link(name, id);
        let program = program(&mut self.object, name)?;
        if exists(&path)? {
            let old = sys::open_pin(&path).map_err(of_link(name, "open"))?;
            let new = program.fd().map_err(of_program(name, "use"))?;
            match update_link(old.as_fd(), new.as_fd()) {
                Ok(()) => return Ok(Attached::Replaced),
                // The cgroup was removed, and another one has its number now.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => remove_file(&path)?,
                Err(error) => return Err(of_link(name, "update")(error)),
            }
        }
        let link_id = program
            .attach(directory, CgroupAttachMode::Single)
            .map_err(|error| {
                is_refused(&error)
                    .then(|| blocker(cgroup, name))
                    .flatten()
                    .map_or_else(
                        || of_program(name, "attach")(error),
                        |blocker| LoadError::Blocked(Box::new(blocker)),
                    )
            })?;
        let link = program
            .take_link(link_id)
            .map_err(of_program(name, "keep"))?;
        let link = FdLink::try_from(link)
            .map_err(|error: LinkError| of_link(name, "keep")(io::Error::other(error)))?;
        link.pin(&path)
            .map_err(|error: LinkPinError| of_link(name, "pin")(io::Error::other(error)))?;
        Ok(Attached::New)
    }

    /// Takes the programs off every cgroup but these, and removes what other versions pinned.
    /// Gives back the pins that were removed.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub fn detach_from_others(&self, cgroups: &BTreeSet<u64>) -> Result<Vec<PathBuf>, LoadError> {
        Ok(self.pins.remove_other_links(cgroups)?)
    }

    /// Whether every program is on this cgroup, and that on the tracepoint is attached. It is not if the cgroup has been removed
    /// and made anew, as systemd does when it restarts a unit.
    ///
    /// # Errors
    ///
    /// If the links cannot be examined.
    pub fn is_attached(&self, cgroup: &Path) -> Result<bool, LoadError> {
        let Ok(id) = cgroup_id(cgroup) else {
            return Ok(false);
        };
        for name in PROGRAMS {
            let path = self.pins.link(name, id);
            if !exists(&path)? {
                return Ok(false);
            }
            let link = PinnedLink {
                path,
                program: name,
                cgroup_id: Some(id),
            };
            if open_link(&link)?.1.cgroup_id != id {
                return Ok(false);
            }
        }
        self.is_tracing()
    }
}

/// Whether the kernel says `EPERM`, which it does if programs of others do not allow ours.
fn is_refused(error: &ProgramError) -> bool {
    let error: &(dyn std::error::Error + 'static) = error;
    anyhow::Chain::new(error).any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.raw_os_error() == Some(libc::EPERM))
    })
}

fn of_link(program: &str, action: &'static str) -> impl FnOnce(io::Error) -> LoadError + use<> {
    let program = program.to_owned();
    move |source| LoadError::Link {
        action,
        program,
        source,
    }
}

fn of_program(
    program: &str,
    action: &'static str,
) -> impl FnOnce(ProgramError) -> LoadError + use<> {
    let program = program.to_owned();
    move |source| LoadError::Program {
        action,
        program,
        source: Box::new(source),
    }
}

fn open_link(link: &PinnedLink) -> Result<(OwnedFd, LinkInfo), LoadError> {
    sys::open_pin(&link.path)
        .and_then(|descriptor| {
            let info = link_info(descriptor.as_fd())?;
            Ok((descriptor, info))
        })
        .map_err(of_link(link.program, "examine"))
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

/// Looks at the pinned links: for each cgroup that has any, what is there of each program.
/// Where nothing is attached, no program is.
///
/// # Errors
///
/// If a link is pinned but cannot be examined.
pub fn attached_programs(pins: &PinDirectory) -> Result<Vec<AttachedProgram>, LoadError> {
    let mut cgroups = BTreeMap::<u64, BTreeMap<&'static str, u32>>::new();
    // Links whose cgroup is gone.
    let mut orphans = BTreeMap::new();
    for link in pins.pinned_links()? {
        let info = match open_link(&link) {
            Ok((_, info)) => info,
            // A running agent has removed it since.
            Err(_) if !exists(&link.path)? => continue,
            Err(error) => return Err(error),
        };
        if info.cgroup_id == 0 {
            orphans.insert(link.program, info.program_id);
        } else {
            let programs = cgroups.entry(info.cgroup_id).or_default();
            programs.insert(link.program, info.program_id);
        }
    }
    if cgroups.is_empty() {
        let nothing = PROGRAMS.into_iter().map(|name| AttachedProgram {
            name,
            cgroup_id: None,
            program_id: orphans.get(name).copied(),
        });
        return Ok(nothing.collect());
    }
    let programs = cgroups.iter().flat_map(|(id, programs)| {
        PROGRAMS.into_iter().map(|name| {
            let program_id = programs.get(name).copied();
            AttachedProgram {
                name,
                cgroup_id: program_id.map(|_| *id),
                program_id,
            }
        })
    });
    Ok(programs.collect())
}
