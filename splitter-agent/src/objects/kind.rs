//! The kinds of objects that splits depend on.

use std::fmt;

/// A kind of objects that a source tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Service (`v1`).
    Service,
    /// EndpointSlice (`discovery.k8s.io/v1`).
    EndpointSlice,
    /// TrafficSplit (`split.smi-spec.io`, any version).
    TrafficSplit,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Service, Self::EndpointSlice, Self::TrafficSplit];

    /// Its name, as in `kind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::TrafficSplit => "TrafficSplit",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
