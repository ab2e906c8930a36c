//! What is programmed, read from the pinned maps alone: for `status` and `explain`, and for
//! an agent that takes over from another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytemuck::Zeroable;
use splitter_common::address;
use splitter_common::layout::{
    ClientNames, ClientScope, CounterPlace, CurrentRecord, FrontendKey, FrontendNames, LeafNames,
    LeafRecord, PodNames, SplitRecord, Text, VerdictCounter,
};
use splitter_common::pick::{self, Lattice};

use crate::objects::{Kind, ObjectName};
use crate::plan::{Decision, Frontend, FrontendPlan, Origin, PlannedLeaf};

use super::load::{PinDirectory, SOCKETS};
use super::maps::{Access, KeyBytes, Maps, MapsError};
use super::outcomes::OutcomeCounts;
use super::sockets::Sockets;

/// Everything that is programmed.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every frontend, with its split.
    pub frontends: BTreeMap<Frontend, FrontendView>,
    /// Frontends whose records do not fit together; the kernel may let connections to
    /// them pass.
    pub inconsistent: BTreeSet<Frontend>,
    /// Keys of `FRONTENDS` that no agent wrote.
    pub(crate) foreign: Vec<KeyBytes>,
    /// Verdicts on connections to frontends since the maps were made.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// How full the maps are, by their names: the table of live sockets too, if there is one and it
    /// was looked at.
    pub maps: BTreeMap<&'static str, MapUse>,
    /// The names of the node's pods, by the ids of their cgroups, as an agent told them.
    pub pod_names: BTreeMap<u64, ObjectName>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapUse {
    /// Entries that what is programmed takes up.
    pub entries: u64,
    /// Most entries that it can hold.
    pub max_entries: u64,
}

/// A programmed frontend.
#[derive(Clone, Debug)]
pub struct FrontendView {
    /// What it does, as a plan says it.
    pub plan: FrontendPlan,
    /// The record itself.
    pub record: SplitRecord,
    /// Connections since its shares were last changed.
    pub connections: u64,
    /// Whose connections, by the name of the scope; `None` for everyone's.
    pub clients: Option<String>,
    /// Counters of its leaves, in their order.
    pub leaves: Vec<LeafCounts>,
}

/// Counters of a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeafCounts {
    /// Connections since the shares were last changed.
    pub connections: u64,
    /// Connections that were given one of its endpoints since it became part of the split.
    pub lifetime: u64,
    /// Connections that were refused, for lack of endpoints, since it became part of the split.
    pub refused: u64,
    /// What came of those that were given one of its endpoints.
    pub outcomes: OutcomeCounts,
    /// Connections whose sockets have a slot in the table of live sockets, and that have not ended.
    pub open: u64,
    /// Its id in `LEAF_STATS` and `LEAF_NAMES`.
    pub leaf_id: u32,
    /// Which of the leaves that have the id one after the other.
    pub incarnation: u32,
    /// Index of its first endpoint in `ENDPOINTS`.
    pub first_endpoint: u32,
}

impl FrontendView {
    /// Where its connections fall.
    #[must_use]
    pub fn lattice(&self) -> Lattice {
        Lattice {
            size: self.record.size,
            step: self.record.step,
            shift: self.record.shift,
            seed: self.record.seed,
        }
    }

    /// The leaf of connection number `n`, by the code that the kernel runs; `None` if
    /// nothing is split.
    #[must_use]
    pub fn leaf_of(&self, n: u64) -> Option<usize> {
        let leaves = &self.plan.leaves;
        let ends: Vec<u32> = leaves
            .iter()
            .scan(0, |end, leaf| {
                *end += leaf.share;
                Some(*end)
            })
            .collect();
        let leaf = pick::leaf_at(self.lattice().position(n)?, ends.len() as u32, |leaf| {
            ends.get(leaf as usize).copied()
        })?;
        Some(leaf as usize)
    }
}

impl View {
    /// Reads the pinned maps that are at work.
    ///
    /// # Errors
    ///
    /// If nothing is pinned, or the maps are of another shape.
    pub fn open(pins: &PinDirectory) -> Result<Self, MapsError> {
        let mut view = Self::without_sockets(pins)?;
        let Some(sockets) = Sockets::open(pins)? else {
            return Ok(view);
        };
        let usage = sockets.usage();
        view.maps.insert(SOCKETS, usage.slots);
        let frontends = view.frontends.values_mut();
        for leaf in frontends.flat_map(|frontend| &mut frontend.leaves) {
            leaf.open = usage.open((leaf.leaf_id, leaf.incarnation));
        }
        Ok(view)
    }

    /// The same, for who looks at the table of live sockets by himself: no connection counts as open.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn without_sockets(pins: &PinDirectory) -> Result<Self, MapsError> {
        let maps = Maps::at_work(pins, Access::Read)?;
        Ok(Self {
            pod_names: pod_names(&maps)?,
            ..Self::read(&maps)?
        })
    }

    /// Reads open maps. An agent may publish meanwhile, so a record that does not
    /// confirm its frontend is looked at again.
    pub(crate) fn read(maps: &Maps) -> Result<Self, MapsError> {
        let mut view = Self::default();
        let keys = maps
            .frontends
            .keys()
            .collect::<Result<BTreeSet<_>, _>>()
            .map_err(MapsError::access("list", "FRONTENDS"))?;
        for bytes in keys {
            let Ok(key) = bytemuck::checked::try_pod_read_unaligned::<FrontendKey>(&bytes) else {
                view.foreign.push(bytes);
                continue;
            };
            let frontend = Frontend::from_key(&key);
            match read_split(maps, &key, &bytes) {
                Read::Gone => {}
                Read::Frontend(split, _) => {
                    view.frontends.insert(frontend, *split);
                }
                Read::Inconsistent => {
                    view.inconsistent.insert(frontend);
                }
            }
        }
        view.verdicts = verdicts(maps)?;
        view.maps = view.map_use(maps);
        Ok(view)
    }

    fn map_use(&self, maps: &Maps) -> BTreeMap<&'static str, MapUse> {
        let splits = self.frontends.values();
        let leaf_ids: BTreeSet<u32> = splits
            .clone()
            .flat_map(|split| &split.leaves)
            .map(|leaf| leaf.leaf_id)
            .collect();
        let mut entries = Entries {
            frontends: self.frontends.len() + self.inconsistent.len() + self.foreign.len(),
            leaf_ids: leaf_ids.len(),
            ..Entries::default()
        };
        for split in splits {
            entries.add_split(split.leaves.len(), split.plan.endpoint_count());
        }
        entries.map_use(maps)
    }
}

/// How much is programmed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entries {
    pub(super) frontends: usize,
    pub(super) leaf_ids: usize,
    pub(super) splits: usize,
    pub(super) leaves: usize,
    pub(super) counters: usize,
    pub(super) endpoints: usize,
}

impl Entries {
    /// Adds what a split takes up.
    pub(super) fn add_split(&mut self, leaves: usize, endpoints: usize) {
        self.splits += 1;
        self.leaves += leaves;
        self.counters += CounterPlace::records(leaves as u32) as usize;
        self.endpoints += endpoints;
    }

    /// How full the maps are. Arrays have as many entries as slots; counted are those that
    /// what is programmed takes up.
    pub(super) fn map_use(self, maps: &Maps) -> BTreeMap<&'static str, MapUse> {
        [
            ("FRONTENDS", self.frontends, maps.frontend_slots),
            ("CURRENT", self.splits, maps.current.len()),
            ("SPLITS", self.splits, maps.splits.len()),
            ("LEAVES", self.leaves, maps.leaves.len()),
            ("ENDPOINTS", self.endpoints, maps.endpoints.len()),
            ("COUNTERS", self.counters, maps.counters.len()),
            ("LEAF_STATS", self.leaf_ids, maps.leaf_stats.len()),
        ]
        .into_iter()
        .map(|(name, entries, max_entries)| {
            let entries = entries as u64;
            let max_entries = max_entries.into();
            (
                name,
                MapUse {
                    entries,
                    max_entries,
                },
            )
        })
        .collect()
    }
}

/// What a frontend leads to.
pub(super) enum Read {
    Gone,
    Inconsistent,
    /// Its records, and what of `CURRENT` led there.
    Frontend(Box<FrontendView>, CurrentRecord),
}

pub(super) fn read_split(maps: &Maps, key: &FrontendKey, bytes: &KeyBytes) -> Read {
    for _ in 0..4 {
        let Ok(index) = maps.frontends.get(bytes, 0) else {
            return Read::Gone;
        };
        let Some(current) = maps.current.read(index) else {
            continue;
        };
        let Some(record) = confirmed(maps, key, current) else {
            continue;
        };
        let Some(split) = read_leaves(maps, key, bytes, record) else {
            continue;
        };
        // Nothing of it was reused meanwhile only if the frontend still points there.
        if maps.frontends.get(bytes, 0).ok() == Some(index)
            && maps.current.read(index) == Some(current)
        {
            return Read::Frontend(Box::new(split), current);
        }
    }
    Read::Inconsistent
}

/// The record that is programmed, if it is that of the frontend.
pub(super) fn confirmed(
    maps: &Maps,
    key: &FrontendKey,
    current: CurrentRecord,
) -> Option<SplitRecord> {
    let record = maps.splits.read(current.split)?;
    (record.frontend == *key && record.generation == current.generation).then_some(record)
}

fn read_leaves(
    maps: &Maps,
    key: &FrontendKey,
    bytes: &KeyBytes,
    record: SplitRecord,
) -> Option<FrontendView> {
    let names = maps
        .frontend_names
        .get(bytes, 0)
        .map_or(FrontendNames::zeroed(), bytemuck::cast);
    let mut begin = 0;
    let mut leaves = Vec::new();
    let mut counts = Vec::new();
    for index in 0..record.leaf_count {
        let leaf = maps.leaves.read(record.first_leaf.checked_add(index)?)?;
        leaves.push(PlannedLeaf {
            service: leaf_name(maps, &leaf),
            weight: leaf.weight,
            share: leaf.end.checked_sub(begin)?,
            state: leaf.state,
            endpoints: (0..leaf.endpoint_count)
                .map(|endpoint| {
                    let endpoint = maps
                        .endpoints
                        .read(leaf.first_endpoint.checked_add(endpoint)?)?;
                    // Another leaf's, or none: the map is not the one that was written.
                    if endpoint.leaf_id != leaf.leaf_id || endpoint.port == 0 {
                        return None;
                    }
                    Some(SocketAddr::new(
                        address::from_bytes(endpoint.address),
                        endpoint.port,
                    ))
                })
                .collect::<Option<_>>()?,
        });
        begin = leaf.end;
        counts.push(LeafCounts {
            connections: maps
                .counters
                .counted(CounterPlace::of_leaf(record.first_counter, index)),
            lifetime: maps.leaf_stats.sum(leaf.leaf_id).unwrap_or_default(),
            refused: maps.leaf_refusals.count(leaf.leaf_id),
            outcomes: OutcomeCounts::of(maps, leaf.leaf_id),
            open: 0,
            leaf_id: leaf.leaf_id,
            incarnation: leaf.incarnation,
            first_endpoint: leaf.first_endpoint,
        });
    }
    Some(FrontendView {
        plan: FrontendPlan {
            origin: Origin {
                kind: known_kind(&read_text(&names.kind)),
                namespace: read_text(&names.namespace),
                name: read_text(&names.name),
                generation: 0,
            },
            root: ObjectName::new(read_text(&names.root_namespace), read_text(&names.root)),
            decision: Decision::of_record(record.verdict, record.reason)?,
            leaves,
        },
        clients: clients(maps, ClientScope(key.clients)),
        connections: maps
            .counters
            .counted(CounterPlace::of_split(record.first_counter)),
        leaves: counts,
        record: SplitRecord {
            frontend: *key,
            ..record
        },
    })
}

/// The name of a scope, or its number if it has none.
fn clients(maps: &Maps, scope: ClientScope) -> Option<String> {
    if scope == ClientScope::EVERYONE {
        return None;
    }
    let name = maps.client_names.get(&scope.0, 0);
    let name = name.map(|bytes| read_text(&bytemuck::cast::<_, ClientNames>(bytes).clients));
    Some(name.unwrap_or_else(|_| format!("{:08x}", scope.0)))
}

fn leaf_name(maps: &Maps, leaf: &LeafRecord) -> String {
    maps.leaf_names.get(&leaf.leaf_id, 0).map_or_else(
        |_| String::new(),
        |bytes| read_text(&bytemuck::cast::<_, LeafNames>(bytes).leaf),
    )
}

/// The names of the scopes of clients.
pub(super) fn client_names(maps: &Maps) -> Result<BTreeMap<ClientScope, String>, MapsError> {
    let names = maps.client_names.iter().map(|entry| {
        let (scope, bytes) = entry?;
        let names: ClientNames = bytemuck::cast(bytes);
        Ok((ClientScope(scope), read_text(&names.clients)))
    });
    let names = names.collect::<Result<_, _>>();
    names.map_err(MapsError::access("list", "CLIENT_NAMES"))
}

/// The names of the node's pods.
pub(super) fn pod_names(maps: &Maps) -> Result<BTreeMap<u64, ObjectName>, MapsError> {
    let names = maps.pod_names.iter().map(|entry| {
        let (id, bytes) = entry?;
        let names: PodNames = bytemuck::cast(bytes);
        let name = ObjectName::new(read_text(&names.namespace), read_text(&names.name));
        Ok((id, name))
    });
    let names = names.collect::<Result<_, _>>();
    names.map_err(MapsError::access("list", "POD_NAMES"))
}

pub(super) fn verdicts(maps: &Maps) -> Result<BTreeMap<&'static str, u64>, MapsError> {
    VerdictCounter::ALL
        .into_iter()
        .map(|counter| {
            let count = maps.verdicts.sum(counter as u32);
            let count =
                count.map_err(|error| MapsError::access("read", "VERDICTS")(error.into()))?;
            Ok((verdict_counter_name(counter), count))
        })
        .collect()
}

pub(crate) fn verdict_counter_name(counter: VerdictCounter) -> &'static str {
    match counter {
        VerdictCounter::Split => "split",
        VerdictCounter::Refused => "refused",
        VerdictCounter::PassedThrough => "passed_through",
        VerdictCounter::Inconsistent => "inconsistent",
        VerdictCounter::OriginalDstLost => "original_dst_lost",
        VerdictCounter::RefusedByLeaf => "refused_by_leaf",
        VerdictCounter::ClientUnknown => "client_unknown",
        VerdictCounter::NeverSplit => "never_split",
    }
}

/// The text in a record, up to its first NUL.
pub(crate) fn read_text<const N: usize>(text: &Text<N>) -> String {
    let bytes: Vec<u8> = text
        .iter()
        .take_while(|&&byte| byte != 0)
        .map(|byte| byte.cast_unsigned())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A record's text, cut so that a NUL always ends it. Kubernetes' names fit.
pub(crate) fn write_text<const N: usize>(value: &str) -> Text<N> {
    let mut text = [0; N];
    for (slot, byte) in text.iter_mut().zip(value.bytes().take(N - 1)) {
        *slot = byte.cast_signed();
    }
    text
}

/// The name of a kind, as it is known to this program.
fn known_kind(name: &str) -> &'static str {
    if name == Origin::SELF_TEST {
        return Origin::SELF_TEST;
    }
    Kind::from_name(name).map_or("unknown", Kind::name)
}
