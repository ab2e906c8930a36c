//! The neutral middle form: what every API that asks for splits is translated to. Past
//! this point nobody knows which API that was, except to report on it.

use std::cmp::Ordering;

use crate::objects::{ObjectName, ObjectReference, Timestamp, Weight};
use crate::plan::Origin;

/// What an object asks of a root.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// The object.
    pub(super) origin: Origin,
    /// When the object was created. Of two claims on one root the older one wins.
    pub(super) created: Option<Timestamp>,
    /// The root Service.
    pub(super) root: ObjectName,
    /// The field that names the root.
    pub(super) root_field: &'static str,
    /// The ports of the root that it is about.
    pub(super) ports: Ports,
    /// What it asks for; `None` if it was refused. The claim stays, so that whoever asks
    /// why the root is not split can be told.
    pub(super) split: Option<Split>,
}

/// Ports of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    /// All of them.
    All,
    /// Those of this number, whatever their protocol.
    One(u16),
}

impl Ports {
    /// Whether a port is among them.
    pub(super) const fn covers(self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::One(own) => own == port,
        }
    }
}

/// A split of a root.
#[derive(Clone, Debug)]
pub(super) struct Split {
    /// Whose connections are split.
    pub(super) clients: Clients,
    /// The field that lists the leaves.
    pub(super) leaves_field: &'static str,
    /// Its leaves: at least one, each once.
    pub(super) leaves: Vec<Leaf>,
    /// What becomes of connections while no leaf with a weight above 0 has a ready
    /// endpoint.
    pub(super) on_no_endpoints: OnNoEndpoints,
}

/// Whose connections are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clients {
    /// Everyone's.
    Everyone,
}

/// What becomes of a connection that no leaf can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OnNoEndpoints {
    /// It is refused, as kube-proxy refuses what is sent to a Service without endpoints.
    #[default]
    Refuse,
    /// It goes to the root, as without a split.
    PassThrough,
}

/// A leaf of a split.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// Its name, for reports.
    pub(super) name: String,
    /// Its Service; `None` if the name can never be one, which its author has been told.
    pub(super) service: Option<ObjectName>,
    /// Its weight.
    pub(super) weight: Weight,
    /// The field that is the leaf.
    pub(super) field: String,
}

impl Claim {
    /// Which of two claims comes first: the older one, those of unknown age last, and
    /// then by name. The same on every node.
    pub(super) fn by_seniority(&self, other: &Self) -> Ordering {
        let unknown = |claim: &Self| claim.created.is_none();
        unknown(self)
            .cmp(&unknown(other))
            .then_with(|| self.created.cmp(&other.created))
            .then_with(|| self.origin.namespace.cmp(&other.origin.namespace))
            .then_with(|| self.origin.name.cmp(&other.origin.name))
            .then_with(|| self.origin.kind.cmp(other.origin.kind))
    }
}

/// The object, as reports name it.
pub(super) fn reference(origin: &Origin) -> ObjectReference {
    ObjectReference {
        kind: origin.kind.to_owned(),
        name: ObjectName::new(&*origin.namespace, &*origin.name),
    }
}

/// The weights for people: times the power of ten that makes all of them whole or, where the
/// largest would not fit then, the largest power with which it fits. Only 0 is shown as 0.
pub(super) fn display_weights(leaves: &[Leaf]) -> Vec<u64> {
    const NANOS: u128 = 1_000_000_000;
    let mut unit = NANOS;
    while unit > 1
        && leaves
            .iter()
            .any(|leaf| !leaf.weight.nanos().is_multiple_of(unit))
    {
        unit /= 10;
    }
    let largest = leaves.iter().map(|leaf| leaf.weight.nanos()).max();
    while largest.is_some_and(|largest| largest / unit > u64::MAX.into()) {
        unit *= 10;
    }
    leaves
        .iter()
        .map(|leaf| {
            let shown = (leaf.weight.nanos() / unit).max((!leaf.weight.is_zero()).into());
            u64::try_from(shown).unwrap_or(u64::MAX)
        })
        .collect()
}
