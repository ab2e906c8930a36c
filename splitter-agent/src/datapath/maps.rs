//! Typed handles to the pinned maps.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use aya::maps::{HashMap, MapData, MapError};
use splitter_common::layout::{
    ClientNames, ClientRecord, CounterRecord, CurrentRecord, EndpointRecord, FrontendKey,
    FrontendNames, IndexRecord, LeafNames, LeafRecord, OutcomeRecord, PodLevels, PodNames,
    SplitRecord,
};

use super::load::{Layout, PinDirectory, PinError, exists, shapes};
use super::publish::Capacity;
use super::sys::maps::HashList;
use super::sys::per_cpu::PerCpuCounters;
use super::sys::table::Table;

/// What is wrong with a pinned map.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// Nothing of this layout is pinned.
    #[error(
        "nothing is pinned at {0}: no splitter-agent of this version has run here, or \
         `splitter-agent cleanup` has; if it runs with another --pin-dir, name that"
    )]
    Absent(PathBuf),
    /// The pins cannot be looked at.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// A pinned map has another shape than this agent's.
    #[error(
        "the pinned map {path} does not fit this version of splitter-agent: {field} is {found}, \
         and should be {expected}; use the version that made it, or start this version's agent, \
         which makes maps of its own beside it"
    )]
    Shape {
        /// Where it is pinned.
        path: PathBuf,
        /// What differs.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A map cannot be opened.
    #[error("cannot open the pinned map {path}")]
    Open {
        /// Where it is pinned.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<MapError>,
    },
    /// A map cannot be mapped into memory.
    #[error("cannot map {name} into memory")]
    Map {
        /// Its name.
        name: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Reading or writing a map failed.
    #[error("cannot {action} {name}")]
    Access {
        /// The operation.
        action: &'static str,
        /// The map.
        name: &'static str,
        /// The cause.
        #[source]
        source: Box<MapError>,
    },
}

impl MapsError {
    pub(crate) fn access(
        action: &'static str,
        name: &'static str,
    ) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Access {
            action,
            name,
            source: Box::new(source),
        }
    }
}

/// Bytes of a `FRONTENDS` key, as aya wants them.
pub(crate) type KeyBytes = [u8; size_of::<FrontendKey>()];
type ClientNamesBytes = [u8; size_of::<ClientNames>()];
type ClientBytes = [u8; size_of::<ClientRecord>()];
type FrontendNamesBytes = [u8; size_of::<FrontendNames>()];
type OutcomeBytes = [u8; size_of::<OutcomeRecord>()];
type LeafNamesBytes = [u8; size_of::<LeafNames>()];
type PodNamesBytes = [u8; size_of::<PodNames>()];

/// The bytes of a key.
pub(crate) fn key_bytes(key: &FrontendKey) -> KeyBytes {
    let mut bytes = [0; size_of::<KeyBytes>()];
    bytes.copy_from_slice(bytemuck::bytes_of(key));
    bytes
}

/// Whether an error says that there is no such element.
pub(crate) fn is_not_found(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// Handles to all pinned maps.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) index: Table<IndexRecord>,
    pub(crate) frontends: HashMap<MapData, KeyBytes, u32>,
    /// The same map, to read many at once.
    pub(crate) frontend_list: HashList<KeyBytes, u32>,
    pub(crate) current: Table<CurrentRecord>,
    pub(crate) clients: HashMap<MapData, u64, ClientBytes>,
    pub(crate) client_names: HashMap<MapData, u32, ClientNamesBytes>,
    pub(crate) pod_names: HashMap<MapData, u64, PodNamesBytes>,
    pub(crate) pod_levels: Table<PodLevels>,
    pub(crate) splits: Table<SplitRecord>,
    pub(crate) leaves: Table<LeafRecord>,
    pub(crate) endpoints: Table<EndpointRecord>,
    pub(crate) counters: Table<CounterRecord>,
    /// As many as there can be leaf ids.
    pub(crate) leaf_stats: PerCpuCounters,
    /// By leaf ids as well.
    pub(crate) leaf_refusals: Table<u64>,
    /// And what came of their connections.
    pub(crate) leaf_outcomes: HashMap<MapData, u32, OutcomeBytes>,
    pub(crate) verdicts: PerCpuCounters,
    pub(crate) frontend_names: HashMap<MapData, KeyBytes, FrontendNamesBytes>,
    pub(crate) leaf_names: HashMap<MapData, u32, LeafNamesBytes>,
    /// Most frontends, the agent's own included.
    pub(crate) frontend_slots: u32,
}

/// How maps are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To look at them.
    Read,
    /// To publish.
    Write,
}

impl Maps {
    /// What came of the connections to a leaf; `None` if nothing is kept of it.
    pub(crate) fn outcomes(&self, leaf_id: u32) -> Option<OutcomeRecord> {
        let bytes = self.leaf_outcomes.get(&leaf_id, 0).ok()?;
        Some(bytemuck::cast(bytes))
    }

    /// Opens the maps that are at work.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub(crate) fn at_work(pins: &PinDirectory, access: Access) -> Result<Self, MapsError> {
        let absent = || MapsError::Absent(pins.path().to_owned());
        let mut layout = pins.layout_at_work()?.ok_or_else(absent)?;
        loop {
            let result = Self::open(&layout, access);
            // Others may have been put to work meanwhile, and these removed.
            match pins.layout_at_work()? {
                Some(now) if result.is_err() && now != layout => layout = now,
                _ => break result,
            }
        }
    }

    /// Opens the pinned maps. Their shapes are checked, all but their capacities, which
    /// are read from them.
    ///
    /// # Errors
    ///
    /// If a map is absent, has another shape, or cannot be opened.
    pub(crate) fn open(pins: &Layout, access: Access) -> Result<Self, MapsError> {
        if !exists(&pins.map("FRONTENDS"))? {
            return Err(MapsError::Absent(pins.path().to_owned()));
        }
        for shape in shapes::shapes(Capacity::default()) {
            shape.check(pins, false)?;
        }
        let frontends = open(pins, "FRONTENDS")?;
        Ok(Self {
            frontend_slots: entries(&frontends)
                .map_err(MapsError::access("examine", "FRONTENDS"))?,
            frontend_list: HashList::new(open(pins, "FRONTENDS")?)
                .map_err(MapsError::access("examine", "FRONTENDS"))?,
            frontends: typed(frontends, aya::maps::Map::HashMap, "FRONTENDS")?,
            index: table(pins, "FRONTEND_INDEX", access)?,
            current: table(pins, "CURRENT", access)?,
            clients: hash(pins, "CLIENTS")?,
            client_names: hash(pins, "CLIENT_NAMES")?,
            pod_names: hash(pins, "POD_NAMES")?,
            pod_levels: table(pins, "POD_LEVELS", access)?,
            splits: table(pins, "SPLITS", access)?,
            leaves: table(pins, "LEAVES", access)?,
            endpoints: table(pins, "ENDPOINTS", access)?,
            counters: table(pins, "COUNTERS", access)?,
            leaf_stats: counters(pins, "LEAF_STATS")?,
            leaf_refusals: table(pins, "LEAF_REFUSALS", access)?,
            leaf_outcomes: hash(pins, "LEAF_OUTCOMES")?,
            verdicts: counters(pins, "VERDICTS")?,
            frontend_names: hash(pins, "FRONTEND_NAMES")?,
            leaf_names: hash(pins, "LEAF_NAMES")?,
        })
    }
}

fn open(pins: &Layout, name: &'static str) -> Result<MapData, MapsError> {
    let path = pins.map(name);
    MapData::from_pin(&path).map_err(|source| MapsError::Open {
        path,
        source: Box::new(source),
    })
}

fn entries(map: &MapData) -> Result<u32, MapError> {
    Ok(map.info()?.max_entries())
}

fn typed<T>(
    data: MapData,
    variant: impl FnOnce(MapData) -> aya::maps::Map,
    name: &'static str,
) -> Result<T, MapsError>
where
    T: TryFrom<aya::maps::Map, Error = MapError>,
{
    T::try_from(variant(data)).map_err(MapsError::access("use", name))
}

fn hash<T>(pins: &Layout, name: &'static str) -> Result<T, MapsError>
where
    T: TryFrom<aya::maps::Map, Error = MapError>,
{
    typed(open(pins, name)?, aya::maps::Map::HashMap, name)
}

fn counters(pins: &Layout, name: &'static str) -> Result<PerCpuCounters, MapsError> {
    PerCpuCounters::new(open(pins, name)?).map_err(MapsError::access("examine", name))
}

fn table<T>(pins: &Layout, name: &'static str, access: Access) -> Result<Table<T>, MapsError> {
    let map = open(pins, name)?;
    let length = entries(&map).map_err(MapsError::access("examine", name))?;
    Table::map(map.fd().as_fd(), length, access == Access::Write)
        .map_err(|source| MapsError::Map { name, source })
}
