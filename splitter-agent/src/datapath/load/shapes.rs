//! The shapes that pinned maps must have.

use aya::maps::{MapInfo, MapType};
use splitter_common::flows::{FLOWS, FlowKey, FlowRecord, FlowSourceRecord};
use splitter_common::index;
use splitter_common::layout::{
    ClientNames, ClientRecord, ConnectionRecord, CounterRecord, CurrentRecord, EndpointRecord,
    FrontendKey, FrontendNames, FrontendValue, IndexRecord, LeafNames, LeafRecord, LeafStats,
    MAX_CLIENTS, OutcomeRecord, PodLevels, PodNames, SplitRecord, VERDICT_COUNTERS,
};

use crate::datapath::maps::MapsError;
use crate::datapath::publish::Capacity;

use super::layouts::Layout;
use super::pins;

/// `BPF_F_NO_PREALLOC`: elements are allocated as they come.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: may be mapped into memory.
pub(super) const MMAPABLE: u32 = 1024;

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
pub(crate) fn shapes(capacity: Capacity) -> [Shape; 20] {
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
    // All of their memory is taken at once.
    let flows = |name, value_size| {
        shape(
            name,
            MapType::LruHash,
            size_of::<FlowKey>(),
            value_size,
            FLOWS,
            0,
        )
    };
    [
        table("FRONTEND_INDEX", size_of::<IndexRecord>(), index::SLOTS),
        hash(
            "FRONTENDS",
            size_of::<FrontendKey>(),
            size_of::<FrontendValue>(),
            capacity.frontend_slots(),
        ),
        table("CURRENT", size_of::<CurrentRecord>(), capacity.current()),
        hash(
            "CLIENTS",
            size_of::<u64>(),
            size_of::<ClientRecord>(),
            MAX_CLIENTS,
        ),
        hash("CLIENT_NAMES", WORD, size_of::<ClientNames>(), MAX_CLIENTS),
        hash(
            "POD_NAMES",
            size_of::<u64>(),
            size_of::<PodNames>(),
            MAX_CLIENTS,
        ),
        table("POD_LEVELS", size_of::<PodLevels>(), 1),
        table("SPLITS", size_of::<SplitRecord>(), capacity.splits()),
        table("LEAVES", size_of::<LeafRecord>(), capacity.leaf_slots()),
        table(
            "ENDPOINTS",
            size_of::<EndpointRecord>(),
            capacity.endpoint_slots(),
        ),
        table("COUNTERS", size_of::<CounterRecord>(), capacity.counters()),
        counters("LEAF_STATS", size_of::<LeafStats>(), capacity.leaf_slots()),
        table("LEAF_REFUSALS", size_of::<u64>(), capacity.leaf_slots()),
        hash(
            "LEAF_OUTCOMES",
            WORD,
            size_of::<OutcomeRecord>(),
            capacity.leaf_slots(),
        ),
        counters("VERDICTS", size_of::<u64>(), VERDICT_COUNTERS as u32),
        shape(
            "ORIGINAL_DST",
            MapType::SkStorage,
            WORD,
            size_of::<ConnectionRecord>(),
            0,
            NO_PREALLOC,
        ),
        flows("FLOWS", size_of::<FlowRecord>()),
        flows("FLOW_SOURCES", size_of::<FlowSourceRecord>()),
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

impl Shape {
    /// Compares a pinned map with this shape, before anything opens it for use: aya and
    /// the kernel both believe the sizes that the program was compiled with, and a
    /// value larger than expected would be copied over the reader's stack.
    ///
    /// A map that is not pinned is fine. `max_entries` is compared only if `sized`.
    pub(crate) fn check(&self, layout: &Layout, sized: bool) -> Result<(), MapsError> {
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
