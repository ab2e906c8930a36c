//! What the maps shall hold: every frontend with its split, decided and ready to be
//! written.
//!
//! A plan names no map index and no generation: those belong to the datapath, which
//! compares a plan with what is programmed and writes the difference.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use splitter_common::address;
use splitter_common::layout::{ClientScope, FrontendKey, LeafState, Protocol, Reason, Verdict};

use crate::objects::{ObjectName, ObjectReference};

/// What clients dial: address, port and protocol; and which clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Address (IPv4-mapped addresses as IPv4) and port.
    pub address: SocketAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Whose connections to it.
    pub clients: ClientScope,
}

impl Frontend {
    /// The key of `FRONTENDS`.
    #[must_use]
    pub fn key(&self) -> FrontendKey {
        FrontendKey {
            address: address::to_bytes(self.address.ip()),
            port: self.address.port(),
            protocol: self.protocol,
            padding: 0,
            clients: self.clients.0,
        }
    }

    /// The frontend that a key of `FRONTENDS` stands for.
    #[must_use]
    pub fn from_key(key: &FrontendKey) -> Self {
        Self {
            address: SocketAddr::new(address::from_bytes(key.address), key.port),
            protocol: key.protocol,
            clients: ClientScope(key.clients),
        }
    }

    /// The same for everyone.
    #[must_use]
    pub fn for_everyone(self) -> Self {
        Self {
            clients: ClientScope::EVERYONE,
            ..self
        }
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, protocol_name(self.protocol))?;
        if self.clients != ClientScope::EVERYONE {
            write!(f, " from clients {:08x}", self.clients.0)?;
        }
        Ok(())
    }
}

/// The name that Kubernetes gives a protocol.
#[must_use]
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// Everything that the maps shall hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every frontend, with what to do with connections to it. One for some clients is looked at
    /// only if there is one for everyone with the same address, port and protocol.
    pub frontends: BTreeMap<Frontend, FrontendPlan>,
}

/// What to do with connections to one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendPlan {
    /// The object that asks for it.
    pub origin: Origin,
    /// The root Service.
    pub root: ObjectName,
    /// What to do.
    pub decision: Decision,
    /// Every leaf that the object names, in its order (duplicates summed).
    pub leaves: Vec<PlannedLeaf>,
}

impl FrontendPlan {
    /// Number of endpoints of all leaves.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.endpoints.len()).sum()
    }
}

/// The object that asks for a split.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Kind, for example `TrafficSplit`.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.generation`, 0 where there is none. Part of the seed of the pick, so
    /// that nodes which see the same object in the same state shift alike.
    pub generation: i64,
}

impl Origin {
    /// The kind of the agent's own frontend, which its self-test connects to. No object asks
    /// for it, so reports about objects leave it out.
    pub const SELF_TEST: &'static str = "SelfTest";

    /// The object, as reports name it.
    #[must_use]
    pub fn object(&self) -> ObjectReference {
        ObjectReference {
            kind: self.kind.to_owned(),
            name: ObjectName::new(&*self.namespace, &*self.name),
        }
    }

    /// Whether this is the agent's own frontend.
    #[must_use]
    pub fn is_self_test(&self) -> bool {
        self.kind == Self::SELF_TEST
    }
}

/// What the kernel shall do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it to an endpoint of a leaf.
    Split,
    /// Refuse it.
    Refuse(Reason),
    /// Leave it alone.
    PassThrough(Reason),
}

impl Decision {
    /// The decision that a record of the maps stands for; `None` for a free slot.
    #[must_use]
    pub const fn of_record(verdict: Verdict, reason: Reason) -> Option<Self> {
        match verdict {
            Verdict::Free => None,
            Verdict::Split => Some(Self::Split),
            Verdict::Refuse => Some(Self::Refuse(reason)),
            Verdict::PassThrough => Some(Self::PassThrough(reason)),
        }
    }

    /// Its name, for people and machines.
    #[must_use]
    pub fn name(self) -> &'static str {
        splitter_api::Verdict::from(self).as_str()
    }
}

/// What a record of the maps says of a decision.
impl From<Decision> for (Verdict, Reason) {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Split => (Verdict::Split, Reason::None),
            Decision::Refuse(reason) => (Verdict::Refuse, reason),
            Decision::PassThrough(reason) => (Verdict::PassThrough, reason),
        }
    }
}

/// A leaf of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLeaf {
    /// Its name: that of the Service, and what else tells it from the other leaves of the root.
    pub service: String,
    /// Weight for people: as configured, times the power of ten that makes all
    /// weights of the split whole.
    pub weight: u64,
    /// Positions of the lattice that it owns; 0 if the others have its share.
    /// Shares of a split have no common divisor, and their sum fits 32 bits.
    pub share: u32,
    /// Whether it can take its share, and if not, why.
    pub state: LeafState,
    /// Its endpoints: sorted, without duplicates, of the frontend's address family. If there
    /// are none, its share of the connections is refused.
    pub endpoints: Vec<SocketAddr>,
}

impl PlannedLeaf {
    /// Whether its share of the connections is refused, since it has no endpoints.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.share > 0 && self.endpoints.is_empty()
    }
}
