//! What is in the maps.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use splitter_common::layout::Reason;

use crate::datapath::{PinDirectory, SplitView, View, verdict_name};
use crate::plan::Decision;

use super::family::{counters, gauge, gauges};

/// The pinned maps, read when they are asked for.
#[derive(Debug)]
pub(super) struct Datapath {
    pub(super) pins: PinDirectory,
}

impl Collector for Datapath {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let view = View::open(&self.pins);
        if let Err(error) = &view {
            tracing::debug!(%error, "the maps cannot be read for the metrics");
        }
        gauge(
            encoder,
            "maps_readable",
            "1 if the maps could be read for these metrics, else 0",
            &u64::from(view.is_ok()),
        )?;
        let view = view.unwrap_or_default();
        encode_leaves(encoder, &view)?;
        encode_weights(encoder, &view)?;
        encode_node(encoder, &view)
    }
}

/// Namespace, root and leaf Service.
type Leaf<'a> = (&'a str, &'a str, &'a str);

fn leaf_labels((namespace, root, leaf): Leaf<'_>) -> [(&str, &str); 3] {
    [
        ("destination_namespace", namespace),
        ("destination_service", root),
        ("backend", leaf),
    ]
}

/// The splits that objects ask for: all but the agent's own.
fn objects(view: &View) -> impl Iterator<Item = &SplitView> {
    view.frontends
        .values()
        .filter(|split| !split.split.origin.is_self_test())
}

/// Namespace and name of the root Service.
fn names(split: &SplitView) -> (&str, &str) {
    (&split.split.origin.namespace, &split.split.root)
}

fn encode_leaves(encoder: &mut DescriptorEncoder<'_>, view: &View) -> fmt::Result {
    // A leaf has one counter, however many frontends its root has.
    let mut leaves = BTreeMap::<Leaf<'_>, (u64, u64)>::new();
    for split in objects(view) {
        let (namespace, root) = names(split);
        for (leaf, counts) in split.split.leaves.iter().zip(&split.leaves) {
            let key = (namespace, root, leaf.service.as_str());
            let (connections, endpoints) = leaves.entry(key).or_default();
            *connections = counts.lifetime;
            *endpoints = (*endpoints).max(leaf.endpoints.len() as u64);
        }
    }
    counters(
        encoder,
        "leaf_connections",
        "Connections that were given an endpoint of the backend, since it became part of a split",
        leaves
            .iter()
            .map(|(leaf, (connections, _))| (leaf_labels(*leaf), *connections)),
    )?;
    gauges(
        encoder,
        "leaf_endpoints",
        "Endpoints that the backend's connections go to; the most that it has at one of the \
         destination's addresses and ports",
        leaves
            .iter()
            .map(|(leaf, (_, endpoints))| (leaf_labels(*leaf), *endpoints)),
    )
}

fn encode_weights(encoder: &mut DescriptorEncoder<'_>, view: &View) -> fmt::Result {
    let mut weights = BTreeMap::new();
    for split in objects(view) {
        let (namespace, root) = names(split);
        for leaf in &split.split.leaves {
            let key = (
                namespace,
                split.split.origin.name.as_str(),
                root,
                leaf.service.as_str(),
            );
            weights.insert(key, leaf.weight);
        }
    }
    gauges(
        encoder,
        "split_weight",
        "Weight of the backend in force, as configured, times the power of ten that makes all \
         weights of the split whole",
        weights
            .iter()
            .map(|((namespace, split, root, leaf), weight)| {
                let labels = [
                    ("destination_namespace", *namespace),
                    ("split", *split),
                    ("destination_service", *root),
                    ("backend", *leaf),
                ];
                (labels, *weight)
            }),
    )
}

fn encode_node(encoder: &mut DescriptorEncoder<'_>, view: &View) -> fmt::Result {
    counters(
        encoder,
        "outcomes",
        "What became of connections to frontends since the maps were made; those of the self-test \
         count as split",
        view.outcomes
            .iter()
            .map(|(outcome, count)| ([("outcome", *outcome)], *count)),
    )?;
    let every = [
        Decision::Split,
        Decision::Refuse(Reason::None),
        Decision::PassThrough(Reason::None),
    ];
    let mut frontends: BTreeMap<&str, u64> = every
        .into_iter()
        .map(|decision| (verdict_name(decision), 0))
        .collect();
    for split in objects(view) {
        *frontends
            .entry(verdict_name(split.split.decision))
            .or_default() += 1;
    }
    frontends.insert("inconsistent", view.inconsistent.len() as u64);
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
        "bpf_map_entries",
        "Entries of the map that what is in force takes up",
        view.maps
            .iter()
            .map(|(map, usage)| ([("map", *map)], usage.entries)),
    )?;
    gauges(
        encoder,
        "bpf_map_max_entries",
        "Most entries that the map can hold",
        view.maps
            .iter()
            .map(|(map, usage)| ([("map", *map)], usage.max_entries)),
    )
}
