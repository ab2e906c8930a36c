//! A split at one frontend.

use serde::{Deserialize, Serialize};

use crate::word::words;

/// What is programmed for one frontend: an address, port and protocol of a root Service.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Split {
    /// What clients connect to, as `ADDRESS:PORT/PROTOCOL`, for example `10.96.0.10:80/TCP` or
    /// `[fd00::10]:80/TCP`.
    pub frontend: String,
    /// Whose connections to it, for example `namespace=team-a, app=web`; null for those of everyone
    /// for whom there is no other split.
    #[serde(default)]
    pub clients: Option<String>,
    /// Namespace of the root Service.
    pub namespace: String,
    /// Name of the root Service.
    pub root: String,
    /// Kind of the object that asks for the split, for example `TrafficSplit`; `SelfTest` for the
    /// agent's own frontend, and `unknown` if this version does not know the kind.
    pub kind: String,
    /// Namespace of that object.
    pub object_namespace: String,
    /// Name of that object.
    pub name: String,
    /// What the maps say of connections to the frontend.
    pub verdict: Verdict,
    /// Why they are not split, in one CamelCase word, for example `NoReadyEndpoints`; null if they are.
    pub reason: Option<String>,
    /// The reason and what to do about it, in one sentence for people; null if they are split.
    pub message: Option<String>,
    /// What happens to connections to the frontend now.
    pub state: SplitState,
    /// Number of the frontend's record; it grows with each publication that changes the record.
    pub generation: u32,
    /// Connections since the shares were last changed.
    pub connections: u64,
    /// Every leaf that the object names, in its order.
    pub leaves: Vec<Leaf>,
}

impl Split {
    /// Whether connections are split, and this node has seen none since the shares were last changed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(
            self.state,
            SplitState::AsConfigured | SplitState::Moved | SplitState::PartlyRefused
        ) && self.connections == 0
    }
}

/// A leaf of a split.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Leaf {
    /// Name of the leaf: that of its Service, and what else tells it from the other leaves of the
    /// root, as in `web`, `web.other-namespace`, `web:8080` and `web/subset`.
    pub service: String,
    /// Its weight as configured, times the power of ten that makes all weights of the split whole.
    pub weight: u64,
    /// The share that the weights ask for, from 0 to 1.
    pub configured: f64,
    /// The share that is programmed, from 0 to 1: without the leaves that cannot take theirs; 0 while
    /// no program is attached that looks the frontend up.
    pub programmed: f64,
    /// The share of the connections since the shares were last changed, from 0 to 1; null if there
    /// are none.
    pub observed: Option<f64>,
    /// Connections since the shares were last changed, those that were refused included.
    pub connections: u64,
    /// Connections that were given one of its endpoints since it became part of the split.
    pub lifetime: u64,
    /// Connections that were refused, because it had a share and no endpoints, since it became part
    /// of the split.
    #[serde(default)]
    pub refused: u64,
    /// Connections to its endpoints that have not ended, as far as their sockets are in the table of
    /// live sockets.
    #[serde(default)]
    pub open: u64,
    /// What came of those that have ended, since it became part of the split.
    #[serde(default)]
    pub outcomes: LeafOutcomes,
    /// Whether it can take its share, and if not, why. A leaf that cannot while `programmed` is above
    /// 0 has that share refused.
    pub state: LeafState,
    /// Number of its endpoints that are in use.
    pub endpoints: usize,
}

/// What came of connections that were given an endpoint of a leaf. All are 0 where that is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeafOutcomes {
    /// The endpoint accepted them. Known when they end, unless the agent measures handshakes.
    pub established: u64,
    /// The endpoint's host answered that nobody listens.
    pub refused: u64,
    /// Nobody answered.
    pub timed_out: u64,
    /// They could not be sent, or a router said that there is no way.
    pub unreachable: u64,
    /// The client gave up within a second, before there was an answer.
    pub abandoned: u64,
    /// They were established, and closed in order.
    pub closed: u64,
    /// They were established, and the endpoint's side reset them.
    pub reset_by_endpoint: u64,
    /// They were established, and the client's side reset them.
    pub reset_by_client: u64,
    /// They were established, and the endpoint no longer answered.
    pub lost: u64,
    /// Bytes that clients sent.
    pub bytes_sent: u64,
    /// Bytes that clients received.
    pub bytes_received: u64,
}

impl LeafOutcomes {
    /// Attempts that failed: refused, timed out, or unreachable.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.refused
            .saturating_add(self.timed_out)
            .saturating_add(self.unreachable)
    }
}

impl Leaf {
    /// Whether its share of the connections is refused, since it has no endpoints.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.programmed > 0.0 && self.endpoints == 0
    }
}

words! {
    /// What the maps say of connections to a frontend.
    pub enum Verdict {
        /// Each is sent to an endpoint of a leaf.
        Split = "split",
        /// They are refused.
        Refuse = "refuse",
        /// They are left alone.
        PassThrough = "pass-through",
    }
}

words! {
    /// What happens to connections to a frontend, from best to worst.
    pub enum SplitState {
        /// They are left alone, since the object cannot or does not split them.
        PassThrough = "pass-through",
        /// Every leaf gets the share that its weight asks for.
        AsConfigured = "as-configured",
        /// A leaf cannot take its share; others have it.
        Moved = "moved",
        /// A leaf has no endpoints; its share of the connections is refused.
        PartlyRefused = "partly-refused",
        /// They are refused.
        Refused = "refused",
        /// They are left alone, since no program is attached.
        NotProgrammed = "not-programmed",
    }
}

words! {
    /// Whether a leaf can take its share, and if not, why.
    pub enum LeafState {
        /// It takes its share.
        Ready = "ready",
        /// None of its endpoints is ready; those that still serve while they terminate take its share.
        Terminating = "terminating",
        /// Its weight is 0.
        WeightZero = "weight-zero",
        /// Its Service does not exist, or is an ExternalName.
        ServiceMissing = "service-missing",
        /// Its Service does not have the frontend's port.
        PortMissing = "port-missing",
        /// None of its endpoints is ready.
        NoReadyEndpoints = "no-ready-endpoints",
        /// Its Service has no addresses of the frontend's family.
        FamilyMissing = "family-missing",
        /// Objects that decide it are of a kind that the agent does not follow at present.
        NotKnownYet = "not-known-yet",
    }
}
