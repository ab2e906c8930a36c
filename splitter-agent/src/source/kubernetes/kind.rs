//! The kinds of objects that are asked for.

use std::fmt;

use kube::core::ApiResource;

use crate::objects::ObjectKind;

/// A kind of objects that is listed and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    TrafficSplit,
    CustomResourceDefinition,
}

impl Kind {
    /// As objects of it are called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::TrafficSplit => "TrafficSplit",
            Self::CustomResourceDefinition => "CustomResourceDefinition",
        }
    }

    /// As URLs and access rules call it.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::TrafficSplit => "trafficsplits",
            Self::CustomResourceDefinition => "customresourcedefinitions",
        }
    }

    /// Its group; empty for the core of Kubernetes.
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Service => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::TrafficSplit => "split.smi-spec.io",
            Self::CustomResourceDefinition => "apiextensions.k8s.io",
        }
    }

    /// Where one version of it is found.
    pub(super) fn resource(self, version: &str) -> ApiResource {
        let api_version = match self.group() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        ApiResource {
            group: self.group().to_owned(),
            version: version.to_owned(),
            api_version,
            kind: self.name().to_owned(),
            plural: self.plural().to_owned(),
        }
    }
}

impl From<ObjectKind> for Kind {
    fn from(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Service => Self::Service,
            ObjectKind::EndpointSlice => Self::EndpointSlice,
            ObjectKind::TrafficSplit => Self::TrafficSplit,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
