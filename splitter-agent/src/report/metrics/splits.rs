//! What is in the maps, and which generations of objects that is.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use splitter_common::layout::{LeafState, Reason};

use crate::datapath::{FrontendReading, OutcomeCounts, PinDirectory, Reader, Reading};
use crate::objects::ObjectReference;
use crate::plan::Decision;
use crate::reason;
use crate::report::agent_state::{AgentState, Generations};

use super::super::cluster;
use super::family::{counters, gauge, gauges};
use super::outcomes;

/// Which splits have series of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Detail {
    /// None.
    None,
    /// Those that connections of this node went to, with all their leaves; and the generations of
    /// those that are not programmed as their object says.
    #[default]
    Active,
    /// All.
    All,
}

/// The pinned maps and the agent_state, read when they are asked for.
#[derive(Debug)]
pub(super) struct Splits {
    reader: Mutex<Reader>,
    agent_state: AgentState,
    detail: Detail,
    feedback: Option<cluster::Metrics>,
}

impl Splits {
    pub(super) fn new(
        pins: PinDirectory,
        agent_state: AgentState,
        detail: Detail,
        feedback: Option<cluster::Metrics>,
    ) -> Self {
        Self {
            reader: Mutex::new(Reader::new(pins)),
            agent_state,
            detail,
            feedback,
        }
    }

    /// The generations of splits: of those that are active here and, on the leader, of all, so that
    /// a query over all nodes finds the newest of each.
    fn generations(&self, active: &Active<'_>) -> Generations {
        let tells_all = self.detail == Detail::All
            || self.detail == Detail::Active
                && self.feedback.as_ref().is_none_or(cluster::Metrics::leads);
        let mut generations = self
            .agent_state
            .programmed(|object| tells_all || active.objects.contains(object));
        if self.detail == Detail::None {
            generations.chosen.clear();
        }
        generations
    }
}

impl Collector for Splits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        // A reader that was given up half-way begins anew.
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = reader.read();
        if let Err(error) = &reading {
            tracing::debug!(%error, "cannot read the maps for the metrics");
        }
        gauge(
            encoder,
            "maps_readable",
            "1 if the maps could be read for these metrics, else 0",
            &u64::from(reading.is_ok()),
        )?;
        let nothing = Reading::default();
        let reading = reading.unwrap_or(&nothing);
        let active = Active::of(reading, self.detail);
        encode_leaves(encoder, &active)?;
        outcomes::encode(encoder, &active)?;
        encode_generations(encoder, &self.generations(&active), active.roots)?;
        encode_node(encoder, reading)
    }
}

/// The splits that objects ask for: all but the agent's own.
fn objects(reading: &Reading) -> impl Iterator<Item = &FrontendReading> {
    reading.splits().filter(|split| !split.is_self_test)
}

/// Splits that have series of their own.
pub(super) struct Active<'a> {
    /// How many roots are split, and have had connections here.
    roots: usize,
    /// Their objects.
    objects: HashSet<ObjectReference>,
    /// A row for each leaf of each frontend, in the order of their names.
    rows: Vec<Row<'a>>,
}

/// A leaf of a frontend.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    namespace: &'a str,
    root: &'a str,
    leaf: &'a str,
    kind: &'a str,
    split: &'a str,
    connections: u64,
    refused: u64,
    pub(super) open: Option<u64>,
    pub(super) outcomes: Option<&'a OutcomeCounts>,
    endpoints: u32,
    weight: u64,
}

impl<'a> Active<'a> {
    fn of(reading: &'a Reading, detail: Detail) -> Self {
        // A leaf without connections has a series where its split has any: there the first that it
        // is given counts for something, and `rate` sees a counter that begins at 0.
        let roots: HashSet<(&str, &str)> = objects(reading)
            .filter(|split| {
                let mut leaves = split.leaves.iter();
                leaves.any(|leaf| reading.connections(leaf) > 0 || reading.refused(leaf) > 0)
            })
            .map(|split| (&*split.root_namespace, &*split.root))
            .collect();
        let is_chosen = |split: &&FrontendReading| match detail {
            Detail::None => false,
            Detail::Active => roots.contains(&(&*split.root_namespace, &*split.root)),
            Detail::All => true,
        };
        let chosen = || objects(reading).filter(is_chosen);
        let objects = chosen().map(FrontendReading::object);
        let rows = chosen().flat_map(|split| {
            split.leaves.iter().map(|leaf| Row {
                namespace: &split.root_namespace,
                root: &split.root,
                leaf: &leaf.service,
                kind: split.kind,
                split: &split.split,
                connections: reading.connections(leaf),
                refused: reading.refused(leaf),
                open: reading.open(leaf),
                outcomes: reading.outcomes(leaf),
                endpoints: leaf.endpoints,
                weight: leaf.weight,
            })
        });
        let mut rows: Vec<Row<'a>> = rows.collect();
        rows.sort_unstable_by_key(Row::key);
        Self {
            objects: objects.collect(),
            roots: roots.len(),
            rows,
        }
    }

    /// One row for each leaf, with the most endpoints that it has at any frontend. It has one
    /// counter, however many those are.
    pub(super) fn leaves(&self) -> impl Iterator<Item = Row<'a>> {
        let same = |one: &Row<'_>, other: &Row<'_>| {
            (one.namespace, one.root, one.leaf) == (other.namespace, other.root, other.leaf)
        };
        self.rows.chunk_by(same).filter_map(|rows| {
            let endpoints = rows.iter().map(|row| row.endpoints).max()?;
            Some(Row {
                endpoints,
                ..*rows.first()?
            })
        })
    }

    /// One row for each leaf of each object.
    fn weights(&self) -> impl Iterator<Item = &Row<'a>> {
        let same = |one: &Row<'_>, other: &Row<'_>| one.key() == other.key();
        self.rows.chunk_by(same).filter_map(|rows| rows.last())
    }
}

impl<'a> Row<'a> {
    fn key(&self) -> [&'a str; 5] {
        [self.namespace, self.root, self.leaf, self.kind, self.split]
    }

    pub(super) fn labels(&self) -> [(&'static str, &'a str); 3] {
        [
            ("destination_namespace", self.namespace),
            ("destination_service", self.root),
            ("backend", self.leaf),
        ]
    }
}

fn encode_leaves(encoder: &mut DescriptorEncoder<'_>, active: &Active<'_>) -> fmt::Result {
    counters(
        encoder,
        "leaf_connections",
        "Connections that were given an endpoint of the backend, since it became part of a split",
        active.leaves().map(|row| (row.labels(), row.connections)),
    )?;
    counters(
        encoder,
        "leaf_refused_connections",
        "Connections that were refused because the backend had a share and no endpoints, since it \
         became part of a split",
        active.leaves().map(|row| (row.labels(), row.refused)),
    )?;
    gauges(
        encoder,
        "leaf_endpoints",
        "Endpoints that the backend's connections go to; the most that it has at one of the \
         destination's addresses and ports",
        active.leaves().map(|row| (row.labels(), row.endpoints)),
    )?;
    gauges(
        encoder,
        "split_weight",
        "Programmed weight of the backend, as configured, times the power of ten that makes all \
         weights of the split whole",
        active.weights().map(|row| {
            let labels = [
                ("kind", row.kind),
                ("destination_namespace", row.namespace),
                ("split", row.split),
                ("destination_service", row.root),
                ("backend", row.leaf),
            ];
            (labels, row.weight)
        }),
    )
}

fn encode_generations(
    encoder: &mut DescriptorEncoder<'_>,
    generations: &Generations,
    active: usize,
) -> fmt::Result {
    let series = generations.chosen.iter().map(|(object, programmed)| {
        let labels = [
            ("kind", object.kind.as_str()),
            ("destination_namespace", object.name.namespace.as_str()),
            ("split", object.name.name.as_str()),
        ];
        (labels, programmed)
    });
    gauges(
        encoder,
        "split_generation",
        "Generation of the object that was last brought to the maps, 0 before the first",
        series.clone().map(|(labels, it)| (labels, it.programmed)),
    )?;
    gauges(
        encoder,
        "split_desired_generation",
        "Generation of the object that the source tells",
        series.map(|(labels, it)| (labels, it.seen)),
    )?;
    gauge(
        encoder,
        "splits",
        "Objects that ask for splits",
        &(generations.splits as u64),
    )?;
    gauge(
        encoder,
        "splits_stale",
        "Objects whose newest generation could not be brought to the maps",
        &(generations.stale as u64),
    )?;
    gauge(
        encoder,
        "splits_active",
        "Root Services that are split, and that connections of this node went to",
        &(active as u64),
    )
}

fn encode_node(encoder: &mut DescriptorEncoder<'_>, reading: &Reading) -> fmt::Result {
    counters(
        encoder,
        "verdicts",
        "Verdicts on connections to frontends since the maps were made; connections of the \
         self-test count as split",
        reading
            .verdicts
            .iter()
            .map(|(verdict, count)| ([("verdict", *verdict)], *count)),
    )?;
    let (mut frontends, mut leaves) = (verdicts(), states());
    for split in objects(reading) {
        *frontends.entry(split.decision.name()).or_default() += 1;
        for leaf in &split.leaves {
            *leaves.entry(reason::of_leaf(leaf.state)).or_default() += 1;
        }
    }
    frontends.insert("inconsistent", reading.inconsistent as u64);
    gauges(
        encoder,
        "frontends",
        "Addresses and ports of root Services in the maps, by what happens to connections there",
        frontends
            .iter()
            .map(|(verdict, count)| ([("verdict", *verdict)], *count)),
    )?;
    gauges(
        encoder,
        "leaves",
        "Backends of all addresses and ports in the maps, by whether they take their share",
        leaves
            .iter()
            .map(|(state, count)| ([("state", *state)], *count)),
    )?;
    gauges(
        encoder,
        "bpf_map_entries",
        "Entries of the map that what is programmed takes up",
        reading
            .maps
            .iter()
            .map(|(map, usage)| ([("map", *map)], usage.entries)),
    )?;
    gauges(
        encoder,
        "bpf_map_max_entries",
        "Most entries that the map can hold",
        reading
            .maps
            .iter()
            .map(|(map, usage)| ([("map", *map)], usage.max_entries)),
    )
}

/// Every verdict, so far without frontends.
fn verdicts() -> BTreeMap<&'static str, u64> {
    [
        Decision::Split,
        Decision::Refuse(Reason::None),
        Decision::PassThrough(Reason::None),
    ]
    .into_iter()
    .map(|decision| (decision.name(), 0))
    .collect()
}

/// Every state, so far without leaves.
fn states() -> BTreeMap<&'static str, u64> {
    [
        LeafState::Ready,
        LeafState::Terminating,
        LeafState::WeightZero,
        LeafState::ServiceMissing,
        LeafState::PortMissing,
        LeafState::NoReadyEndpoints,
        LeafState::FamilyMissing,
        LeafState::NotKnownYet,
    ]
    .into_iter()
    .map(|state| (reason::of_leaf(state), 0))
    .collect()
}
