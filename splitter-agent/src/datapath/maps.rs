//! The maps: their shapes, and typed handles to those that are pinned.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use aya::maps::{HashMap, MapData, MapError, MapInfo, MapType};
use splitter_common::layout::{
    CounterRecord, EndpointRecord, FrontendKey, FrontendNames, FrontendValue, LeafNames,
    LeafRecord, LeafStats, OriginalDstRecord, SplitRecord, VERDICT_COUNTERS,
};

use super::layouts::Layout;
use super::per_cpu::PerCpuCounters;
use super::pins::{self, PinDirectory, PinError};
use super::table::Table;

/// `BPF_F_NO_PREALLOC`: elements are allocated as they come.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: may be mapped into memory.
const MMAPABLE: u32 = 1024;

/// How much fits into the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Most frontends: addresses and ports of root Services.
    pub frontends: u32,
    /// Most leaves, over all frontends.
    pub leaves: u32,
    /// Most endpoints, over all frontends and leaves.
    pub endpoints: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            frontends: 65_536,
            leaves: 131_072,
            endpoints: 262_144,
        }
    }
}

/// Entries that no object's split may take, so that the agent's own frontend, by which it
/// finds out whether connections are split, has room in maps that are full. In the arrays
/// it needs a fresh slot for a change while the old one is still in use.
pub(crate) mod own {
    pub(crate) const FRONTENDS: u32 = 1;
    pub(crate) const SPLITS: u32 = 2 * FRONTENDS;
    pub(crate) const LEAVES: u32 = SPLITS;
    pub(crate) const ENDPOINTS: u32 = SPLITS;
    pub(crate) const COUNTERS: u32 = SPLITS + LEAVES;
}

impl Capacity {
    /// Elements of `FRONTENDS`.
    fn frontend_slots(self) -> u32 {
        self.frontends.saturating_add(own::FRONTENDS)
    }

    /// Slots of `SPLITS`. An update needs a fresh slot while the old one is still in
    /// use, so there are a quarter more than frontends.
    fn splits(self) -> u32 {
        let spare = self.frontends / 4 + 64;
        self.frontends.saturating_add(spare + own::SPLITS)
    }

    /// Slots of `LEAVES`, with the same reserve.
    fn leaf_slots(self) -> u32 {
        self.leaves
            .saturating_add(self.leaves / 4 + 64 + own::LEAVES)
    }

    /// Slots of `ENDPOINTS`, with the same reserve.
    fn endpoint_slots(self) -> u32 {
        self.endpoints
            .saturating_add(self.endpoints / 4 + 1024 + own::ENDPOINTS)
    }

    /// Slots of `COUNTERS`: one for each split and each leaf.
    fn counters(self) -> u32 {
        self.splits().saturating_add(self.leaf_slots())
    }
}

/// What a map must look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: usize,
    pub(crate) max_entries: u32,
    flags: u32,
}

/// Every map that is pinned.
pub(crate) fn shapes(capacity: Capacity) -> [Shape; 10] {
    const WORD: usize = size_of::<u32>();
    let shape = |name, kind, key_size, value_size, max_entries, flags| Shape {
        name,
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
    };
    let hash = |name, key_size, value_size, max_entries| {
        shape(
            name,
            MapType::Hash,
            key_size,
            value_size,
            max_entries,
            NO_PREALLOC,
        )
    };
    let table = |name, value_size, max_entries| {
        shape(
            name,
            MapType::Array,
            WORD,
            value_size,
            max_entries,
            MMAPABLE,
        )
    };
    let counters = |name, value_size, max_entries| {
        shape(name, MapType::PerCpuArray, WORD, value_size, max_entries, 0)
    };
    [
        hash(
            "FRONTENDS",
            size_of::<FrontendKey>(),
            size_of::<FrontendValue>(),
            capacity.frontend_slots(),
        ),
        table("SPLITS", size_of::<SplitRecord>(), capacity.splits()),
        table("LEAVES", size_of::<LeafRecord>(), capacity.leaf_slots()),
        table(
            "ENDPOINTS",
            size_of::<EndpointRecord>(),
            capacity.endpoint_slots(),
        ),
        table("COUNTERS", size_of::<CounterRecord>(), capacity.counters()),
        counters("LEAF_STATS", size_of::<LeafStats>(), capacity.leaf_slots()),
        counters("VERDICTS", size_of::<u64>(), VERDICT_COUNTERS as u32),
        shape(
            "ORIGINAL_DST",
            MapType::SkStorage,
            WORD,
            size_of::<OriginalDstRecord>(),
            0,
            NO_PREALLOC,
        ),
        hash(
            "FRONTEND_NAMES",
            size_of::<FrontendKey>(),
            size_of::<FrontendNames>(),
            capacity.frontend_slots(),
        ),
        hash(
            "LEAF_NAMES",
            WORD,
            size_of::<LeafNames>(),
            capacity.leaf_slots(),
        ),
    ]
}

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
        /// What came of it.
        #[source]
        source: Box<MapError>,
    },
    /// A map cannot be mapped into memory.
    #[error("cannot map {name} into memory")]
    Map {
        /// Which.
        name: &'static str,
        /// What came of it.
        #[source]
        source: io::Error,
    },
    /// Reading or writing a map failed.
    #[error("cannot {action} {name}")]
    Access {
        /// What was tried.
        action: &'static str,
        /// With which map.
        name: &'static str,
        /// What came of it.
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

impl Shape {
    /// Compares a pinned map with this shape, before anything opens it for use: aya and
    /// the kernel both believe the sizes that the program was compiled with, and a
    /// value larger than expected would be copied over the reader's stack.
    ///
    /// A map that is not pinned is fine. `max_entries` is compared only if `sized`.
    fn check(&self, layout: &Layout, sized: bool) -> Result<(), MapsError> {
        let path = layout.map(self.name);
        if !pins::exists(&path)? {
            return Ok(());
        }
        let open = |source| MapsError::Open {
            path: path.clone(),
            source: Box::new(source),
        };
        let info = MapInfo::from_pin(&path).map_err(open)?;
        let kind = info.map_type().map_err(open)?;
        let numbers = [
            ("the key's size", info.key_size(), self.key_size as u32),
            (
                "the value's size",
                info.value_size(),
                self.value_size as u32,
            ),
            ("its flags", info.map_flags(), self.flags),
            (
                "its capacity",
                info.max_entries(),
                if sized {
                    self.max_entries
                } else {
                    info.max_entries()
                },
            ),
        ];
        let differs = |field, found: String, expected: String| MapsError::Shape {
            path: path.clone(),
            field,
            found,
            expected,
        };
        if kind != self.kind {
            return Err(differs(
                "its type",
                format!("{kind:?}"),
                format!("{:?}", self.kind),
            ));
        }
        for (field, found, expected) in numbers {
            if found != expected {
                return Err(differs(field, found.to_string(), expected.to_string()));
            }
        }
        Ok(())
    }
}

/// Whether every map in a directory, if there, has the shape that it must have.
///
/// # Errors
///
/// If that cannot be found out.
pub(crate) fn fits(layout: &Layout, capacity: Capacity) -> Result<bool, MapsError> {
    let shapes = shapes(capacity);
    all_fit(shapes.iter(), layout)
}

/// Whether a map, which is the same for every capacity, has the shape that it must have.
///
/// # Errors
///
/// If that cannot be found out.
pub(crate) fn is_shared(layout: &Layout, name: &str) -> Result<bool, MapsError> {
    let shapes = shapes(Capacity::default());
    all_fit(shapes.iter().filter(|shape| shape.name == name), layout)
}

fn all_fit<'a>(
    mut shapes: impl Iterator<Item = &'a Shape>,
    layout: &Layout,
) -> Result<bool, MapsError> {
    match shapes.try_for_each(|shape| shape.check(layout, true)) {
        Ok(()) => Ok(true),
        Err(MapsError::Shape { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes of a `FRONTENDS` key, as aya wants them.
pub(crate) type KeyBytes = [u8; size_of::<FrontendKey>()];
type FrontendNamesBytes = [u8; size_of::<FrontendNames>()];
type LeafNamesBytes = [u8; size_of::<LeafNames>()];

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
    pub(crate) frontends: HashMap<MapData, KeyBytes, u64>,
    /// The same map, with the descriptor that aya's handle of a hash hides: to read many at once.
    pub(crate) frontend_list: MapData,
    pub(crate) splits: Table<SplitRecord>,
    pub(crate) leaves: Table<LeafRecord>,
    pub(crate) endpoints: Table<EndpointRecord>,
    pub(crate) counters: Table<CounterRecord>,
    /// As many as there can be leaf ids.
    pub(crate) leaf_stats: PerCpuCounters,
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
        if !pins::exists(&pins.map("FRONTENDS"))? {
            return Err(MapsError::Absent(pins.path().to_owned()));
        }
        for shape in shapes(Capacity::default()) {
            shape.check(pins, false)?;
        }
        let frontends = open(pins, "FRONTENDS")?;
        Ok(Self {
            frontend_slots: entries(&frontends)
                .map_err(MapsError::access("examine", "FRONTENDS"))?,
            frontend_list: open(pins, "FRONTENDS")?,
            frontends: typed(frontends, aya::maps::Map::HashMap, "FRONTENDS")?,
            splits: table(pins, "SPLITS", access)?,
            leaves: table(pins, "LEAVES", access)?,
            endpoints: table(pins, "ENDPOINTS", access)?,
            counters: table(pins, "COUNTERS", access)?,
            leaf_stats: counters(pins, "LEAF_STATS")?,
            verdicts: counters(pins, "VERDICTS")?,
            frontend_names: typed(
                open(pins, "FRONTEND_NAMES")?,
                aya::maps::Map::HashMap,
                "FRONTEND_NAMES",
            )?,
            leaf_names: typed(
                open(pins, "LEAF_NAMES")?,
                aya::maps::Map::HashMap,
                "LEAF_NAMES",
            )?,
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

fn counters(pins: &Layout, name: &'static str) -> Result<PerCpuCounters, MapsError> {
    PerCpuCounters::new(open(pins, name)?).map_err(MapsError::access("examine", name))
}

fn table<T>(pins: &Layout, name: &'static str, access: Access) -> Result<Table<T>, MapsError> {
    let map = open(pins, name)?;
    let length = entries(&map).map_err(MapsError::access("examine", name))?;
    Table::map(map.fd().as_fd(), length, access == Access::Write)
        .map_err(|source| MapsError::Map { name, source })
}
