//! The list of kinds that are read. Everything that differs from kind to kind goes by the entries
//! named here: the sources, the compiler, reports, the names in the maps, and `check`.

use std::sync::OnceLock;

use crate::objects::{Entry, Kind, endpoint_slice, node, service, traffic_split};

impl Kind {
    /// Service (`v1`).
    pub const SERVICE: Self = Self::new(&service::ENTRY);
    /// EndpointSlice (`discovery.k8s.io/v1`).
    pub const ENDPOINT_SLICE: Self = Self::new(&endpoint_slice::ENTRY);
    /// TrafficSplit (SMI, `split.smi-spec.io`).
    pub const TRAFFIC_SPLIT: Self = Self::new(&traffic_split::ENTRY);
    /// Node (`v1`).
    pub const NODE: Self = Self::new(&node::ENTRY);
}

/// What a split depends on comes first.
const BUILT_IN: [Kind; 4] = [
    Kind::SERVICE,
    Kind::ENDPOINT_SLICE,
    Kind::TRAFFIC_SPLIT,
    Kind::NODE,
];

static ADDED: OnceLock<Vec<Kind>> = OnceLock::new();

/// The kinds are in use already, so that no more can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kinds can only be added before any object is read, and once")]
pub struct InUse;

/// Adds kinds of the program that uses this library. Possible once, before any object is read: what
/// has been read would otherwise have to be read again.
///
/// # Errors
///
/// If kinds are in use already.
pub fn add(entries: &[&'static Entry]) -> Result<(), InUse> {
    let kinds = entries.iter().map(|entry| Kind::new(entry)).collect();
    ADDED.set(kinds).map_err(|_| InUse)
}

/// Every kind that is read.
pub(crate) fn all() -> impl Iterator<Item = Kind> + Clone {
    let added = ADDED.get_or_init(Vec::new);
    BUILT_IN.iter().chain(added).copied()
}
