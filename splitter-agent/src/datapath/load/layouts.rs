//! Directories of maps that belong together.
//!
//! Maps keep their size for as long as they live. So where the wanted capacity is not that
//! of the maps at work, others are made in a directory beside theirs: `v2`, and then
//! `v2-2`, where 2 is the version of the records. The programs are pinned in the directory
//! of the maps that they use, which is how anyone can tell which maps are at work: the
//! ones whose programs are behind the links. Nothing has to be noted at the right moment,
//! so an agent may be killed at any.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::maps::MapData;
use splitter_common::layout::LAYOUT_VERSION;

use crate::datapath::maps::MapsError;
use crate::datapath::publish::Capacity;
use crate::datapath::sys;

use super::pins::{PROGRAMS, PinDirectory, PinError, exists, remove_layout};
use super::shapes::{fits, is_shared};

/// A directory of maps, and of the programs that use them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layout(PathBuf);

impl Layout {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a map is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where a program is pinned.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where a program is pinned that is about to take the place of another.
    pub(crate) fn next_program(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}-new"))
    }

    /// Version of the records and number of the directory, if it is a directory of maps by
    /// its name: `v1` is number 1, `v1-2` number 2.
    fn number(&self) -> Option<(u32, u32)> {
        let name = self.0.file_name()?.to_str()?.strip_prefix('v')?;
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().unwrap_or(u32::MAX))
        };
        match name.split_once('-') {
            Some((version, count)) => Some((number(version)?, number(count)?)),
            None => Some((number(name)?, 1)),
        }
    }

    /// Whether a path is one of a directory of maps, of any version.
    pub(crate) fn is_one(path: &Path) -> bool {
        Self(path.to_owned()).number().is_some()
    }

    /// Whether its records are those of this agent.
    fn is_ours(&self) -> bool {
        self.number()
            .is_some_and(|(version, _)| version == LAYOUT_VERSION)
    }

    /// Ids of the programs that are pinned here.
    fn program_ids(&self) -> Result<BTreeSet<u32>, PinError> {
        let mut ids = BTreeSet::new();
        for name in PROGRAMS {
            for path in [self.program(name), self.next_program(name)] {
                ids.extend(pinned_program(&path)?);
            }
        }
        Ok(ids)
    }
}

/// Id of the program that is pinned at a path, if there is one.
pub(crate) fn pinned_program(path: &Path) -> Result<Option<u32>, PinError> {
    if !exists(path)? {
        return Ok(None);
    }
    match sys::open_pin(path).and_then(|program| sys::programs::program_id(program.as_fd())) {
        Ok(id) => Ok(Some(id)),
        // Replaced or removed in this moment.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PinError::io("examine", path)(error)),
    }
}

impl PinDirectory {
    /// Where the maps of the first layout of this version are pinned.
    fn numbered(&self, number: u32) -> Layout {
        Layout(self.path().join(if number == 1 {
            format!("v{LAYOUT_VERSION}")
        } else {
            format!("v{LAYOUT_VERSION}-{number}")
        }))
    }

    /// The directories of maps whose records this agent can read, by their numbers.
    fn readable_layouts(&self) -> Result<Vec<Layout>, PinError> {
        if !exists(self.path())? {
            return Ok(Vec::new());
        }
        let mut layouts = self.layouts()?;
        layouts.retain(Layout::is_ours);
        layouts.sort_by_key(Layout::number);
        Ok(layouts)
    }

    /// The maps that the programs at work use; if that cannot be told (no program is
    /// attached, or an agent before us did not pin its programs), the first ones.
    ///
    /// # Errors
    ///
    /// If the pins cannot be examined.
    pub fn layout_at_work(&self) -> Result<Option<Layout>, PinError> {
        let mut layouts = self.readable_layouts()?;
        if layouts.len() < 2 {
            return Ok(layouts.pop());
        }
        let attached = self.attached_program_ids()?;
        let mut unknown = None;
        // While the links are updated one by one, both are at work; the one that most
        // programs use comes first.
        let mut best = None;
        for layout in layouts {
            let ids = layout.program_ids()?;
            let users = ids.intersection(&attached).count();
            if users > best.as_ref().map_or(0, |(users, _)| *users) {
                best = Some((users, layout));
            } else if ids.is_empty() && unknown.is_none() {
                unknown = Some(layout);
            }
        }
        match (best, unknown) {
            (Some((_, layout)), _) => Ok(Some(layout)),
            (None, Some(layout)) => Ok(Some(layout)),
            (None, None) => Ok(self.readable_layouts()?.into_iter().next()),
        }
    }

    /// Whether programs at work use a layout's maps.
    ///
    /// # Errors
    ///
    /// If the pins cannot be examined.
    pub(crate) fn is_at_work(&self, layout: &Layout) -> Result<bool, PinError> {
        let attached = self.attached_program_ids()?;
        Ok(!layout.program_ids()?.is_disjoint(&attached))
    }

    /// Chooses the directory of maps of a capacity: one that has them already, or may come
    /// to have them, or else a new one.
    ///
    /// # Errors
    ///
    /// If pins cannot be examined or made.
    pub(crate) fn choose_layout(&self, capacity: Capacity) -> Result<Layout, MapsError> {
        let at_work = self.layout_at_work()?;
        let mut candidates = self.readable_layouts()?;
        candidates.sort_by_key(|layout| Some(layout) != at_work.as_ref());
        let mut chosen = None;
        for layout in &candidates {
            if fits(layout, capacity)? {
                chosen = Some(layout.clone());
                break;
            }
        }
        let chosen = match chosen {
            Some(layout) => layout,
            None => self.make_layout()?,
        };
        if let Some(old) = at_work.filter(|old| *old != chosen) {
            tracing::info!(
                at_work = %old.path().display(),
                new = %chosen.path().display(),
                "the maps at work have another capacity; filling others beside them"
            );
            share(&old, &chosen)?;
            self.remove_abandoned(&[&old, &chosen])?;
        }
        Ok(chosen)
    }

    fn make_layout(&self) -> Result<Layout, PinError> {
        let mut number = 1;
        loop {
            let layout = self.numbered(number);
            match fs::DirBuilder::new().mode(0o700).create(layout.path()) {
                Ok(()) => return Ok(layout),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(PinError::io("create", layout.path())(error)),
            }
        }
    }

    /// Removes maps that an agent made and never put to work.
    fn remove_abandoned(&self, keep: &[&Layout]) -> Result<(), PinError> {
        for layout in self.readable_layouts()? {
            if !keep.contains(&&layout) && !self.is_at_work(&layout)? {
                remove_layout(&layout)?;
                tracing::info!(maps = %layout.path().display(), "removed maps that were never put to work");
            }
        }
        Ok(())
    }
}

/// The maps that do not depend on the capacity: the original destinations, so that
/// getpeername() goes on to show those of open connections, and answers to UDP flows what was sent to;
/// the counters of verdicts, and the pods. Not the endpoints of the flows, which are indexes into maps that do.
const SHARED: [&str; 7] = [
    "ORIGINAL_DST",
    "FLOW_SOURCES",
    "VERDICTS",
    "CLIENTS",
    "CLIENT_NAMES",
    "POD_NAMES",
    "POD_LEVELS",
];

/// Pins the maps that do not depend on the capacity in another directory too.
fn share(old: &Layout, new: &Layout) -> Result<(), MapsError> {
    for name in SHARED {
        let (from, to) = (old.map(name), new.map(name));
        if !exists(&from)? || exists(&to)? || !is_shared(old, name)? {
            continue;
        }
        let open = |source| MapsError::Open {
            path: from.clone(),
            source: Box::new(source),
        };
        let map = MapData::from_pin(&from).map_err(open)?;
        map.pin(&to).map_err(|error| {
            let source = io::Error::other(error);
            PinError::io("pin a map at", &to)(source)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_maps_are_known_by_their_names() {
        let number = |name: &str| Layout(PathBuf::from("/pins").join(name)).number();
        assert_eq!(number("v1"), Some((1, 1)));
        assert_eq!(number("v1-2"), Some((1, 2)));
        assert_eq!(number("v20-11"), Some((20, 11)));
        for other in ["v", "v1-", "v-2", "1", "vendor", "v1.2", "v1-2-3", "links"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
