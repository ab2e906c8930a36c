//! The cgroups of the node's pods, and which pod each belongs to: found by the names that the
//! kubelet gives them, as they come and go.
//!
//! The kubelet makes a pod's group before its first container, so that a pod whose group is seen
//! at once is known before it connects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::hierarchy::{Hierarchy, cgroup_id, names};
use super::places;
use super::publish::PodGroup;

/// Groups that come and go.
const GROUPS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ONLYDIR);

/// The kubelet's groups by quality of service, in which it keeps pods that are not guaranteed
/// their resources.
const QUALITIES: [&str; 2] = ["burstable", "besteffort"];

/// The groups of the node's pods.
#[derive(Debug)]
pub struct PodGroups {
    hierarchy: Hierarchy,
    descriptor: OwnedFd,
    watched: HashMap<PathBuf, i32>,
    /// The groups that hold pods.
    places: BTreeSet<PathBuf>,
    /// The uid of each pod that has a group.
    found: BTreeMap<PodGroup, String>,
    /// What each group is, by its path; a path that comes again is another group.
    paths: BTreeMap<PathBuf, PodGroup>,
}

impl PodGroups {
    /// Knows of none yet.
    ///
    /// # Errors
    ///
    /// If the kernel gives no inotify instance.
    pub fn new(hierarchy: Hierarchy) -> io::Result<Self> {
        Ok(Self {
            hierarchy,
            descriptor: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            watched: HashMap::new(),
            places: BTreeSet::new(),
            found: BTreeMap::new(),
            paths: BTreeMap::new(),
        })
    }

    /// Every group of a pod, with the uid of the pod as the kubelet writes it there: that of a
    /// static pod is the digest of its manifest.
    #[must_use]
    pub fn found(&self) -> &BTreeMap<PodGroup, String> {
        &self.found
    }

    /// From now on pods are in these groups, as the next look will find.
    pub fn set_places(&mut self, places: BTreeSet<PathBuf>) {
        self.places = places;
    }

    /// Takes note of groups that came and went since the last time; whether any did. To be called
    /// when there is something to read.
    pub fn read(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.descriptor, &mut buffer);
        // Which group it was is not asked: a name that came may be gone again.
        while let Ok(_) | Err(Errno::INTR) = reader.next() {}
        self.look()
    }

    /// Looks what groups there are; whether others than before.
    pub fn look(&mut self) -> bool {
        let mut holders = BTreeSet::new();
        for place in &self.places {
            holders.insert(place.clone());
            let below = names(place).filter(|name| is_quality(name));
            holders.extend(below.map(|name| place.join(name)));
        }
        self.watch(&holders);
        let mut found = BTreeMap::new();
        let mut paths = BTreeMap::new();
        for holder in &holders {
            let names = match groups_in(holder) {
                Ok(names) => names,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    // What cannot be looked at is not gone.
                    tracing::debug!(%error, cgroup = %holder.display(), "cannot list pods' cgroups");
                    let known = self.paths.iter();
                    for (path, group) in known.filter(|(path, _)| path.parent() == Some(holder)) {
                        if let Some(uid) = self.found.get(group) {
                            found.insert(*group, uid.clone());
                            paths.insert(path.clone(), *group);
                        }
                    }
                    continue;
                }
            };
            for name in names {
                let Some(uid) = places::uid_of(&name) else {
                    continue;
                };
                let path = holder.join(&name);
                let Some(group) = self.group(&path) else {
                    // Gone again.
                    continue;
                };
                found.insert(group, uid);
                paths.insert(path, group);
            }
        }
        self.paths = paths;
        let has_changed = self.found != found;
        self.found = found;
        has_changed
    }

    fn group(&self, path: &Path) -> Option<PodGroup> {
        let id = cgroup_id(path).ok()?;
        match self.paths.get(path) {
            Some(known) if known.id == id => Some(*known),
            _ => {
                let level = self.hierarchy.level_of(path).ok()?;
                Some(PodGroup { id, level })
            }
        }
    }

    /// Watches these groups, and no others.
    fn watch(&mut self, holders: &BTreeSet<PathBuf>) {
        let gone: Vec<PathBuf> = self
            .watched
            .keys()
            .filter(|path| !holders.contains(*path))
            .cloned()
            .collect();
        for path in gone {
            if let Some(watch) = self.watched.remove(&path) {
                // The kernel has removed that of a group that is gone.
                let _ = inotify::remove_watch(&self.descriptor, watch);
            }
        }
        for path in holders {
            // Each time: what has the path now may be another group than the one that is watched.
            match inotify::add_watch(&self.descriptor, path, GROUPS) {
                Ok(watch) => {
                    self.watched.insert(path.clone(), watch);
                }
                Err(Errno::NOENT) => {}
                Err(error) => {
                    // Looked at again now and then all the same.
                    tracing::debug!(%error, cgroup = %path.display(), "cannot watch a cgroup for pods");
                }
            }
        }
    }
}

impl AsFd for PodGroups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for PodGroups {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// The names of the groups right below one.
fn groups_in(holder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(holder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether a group is one of the kubelet's by quality of service: `burstable`, or
/// `kubepods-burstable.slice` with the systemd driver.
fn is_quality(name: &str) -> bool {
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let last = name.rsplit('-').next().unwrap_or(name);
    QUALITIES.contains(&last)
}
