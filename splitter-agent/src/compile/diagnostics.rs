//! What is said about an object: accepted, or what is wrong with which field, and what
//! to do about it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::few::Few;
use super::split::reference;
use crate::objects::{DecodeError, ObjectName, ObjectReference};
use crate::plan::Origin;

/// What a diagnostic means for the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is wrong with it.
    Accepted,
    /// Nothing is wrong with it, but its author may want to know.
    Note,
    /// Not in force until something else changes, for example until its root Service
    /// exists.
    Inactive,
    /// In force, but not quite as its author may expect.
    Warning,
    /// Not in force; its root behaves as if the object did not exist.
    Refused,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Note => "note",
            Self::Inactive => "inactive",
            Self::Warning => "warning",
            Self::Refused => "refused",
        })
    }
}

/// One thing said about one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Diagnostic {
    /// The object.
    pub object: ObjectReference,
    /// What it means for the object.
    pub severity: Severity,
    /// One CamelCase word, for machines.
    pub reason: &'static str,
    /// The field that is the cause, for example `spec.backends[1].weight`; empty if it
    /// is the object as a whole.
    pub field: String,
    /// What is the matter and what to do about it, in one sentence for people.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.object, self.severity, self.reason)?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl From<DecodeError> for Diagnostic {
    fn from(error: DecodeError) -> Self {
        Self {
            object: error.object,
            severity: Severity::Refused,
            reason: reason::UNREADABLE,
            field: error.field.into(),
            message: error.message,
        }
    }
}

/// The reasons of diagnostics.
pub mod reason {
    use crate::objects::Refusal;

    /// Nothing is wrong with it.
    pub const ACCEPTED: &str = "Accepted";
    /// The object cannot be read.
    pub const UNREADABLE: &str = "Unreadable";

    /// The spec is not there or is not an object.
    pub const INVALID_SPEC: &str = Refusal::INVALID_SPEC;
    /// The root is not the name of a Service.
    pub const INVALID_ROOT: &str = Refusal::INVALID_ROOT;
    /// The root is a Service of another namespace.
    pub const ROOT_IN_OTHER_NAMESPACE: &str = "RootInOtherNamespace";
    /// The root is the API server.
    pub const ROOT_PROTECTED: &str = "RootProtected";
    /// An older object splits the same root.
    pub const ROOT_TAKEN: &str = "RootTaken";
    /// It asks for a choice by request.
    pub const MATCHES_UNSUPPORTED: &str = Refusal::MATCHES_UNSUPPORTED;
    /// A field that no TrafficSplit has would restrict who or what is split.
    pub const UNKNOWN_RESTRICTION: &str = Refusal::UNKNOWN_RESTRICTION;
    /// There are no backends, or one cannot be read.
    pub const INVALID_BACKEND: &str = Refusal::INVALID_BACKEND;
    /// A weight cannot be read.
    pub const INVALID_WEIGHT: &str = Refusal::INVALID_WEIGHT;
    /// The schema of the object's version does not allow it.
    pub const INVALID_IN_VERSION: &str = "InvalidInVersion";
    /// There are more backends than a split can have.
    pub const TOO_MANY_BACKENDS: &str = "TooManyBackends";

    /// The root Service does not exist.
    pub const ROOT_MISSING: &str = "RootMissing";
    /// Objects that decide it are of a kind that is not followed at present.
    pub const NOT_KNOWN_YET: &str = "NotKnownYet";
    /// The root Service is headless.
    pub const ROOT_HEADLESS: &str = "RootHeadless";
    /// The root Service is an ExternalName.
    pub const ROOT_EXTERNAL_NAME: &str = "RootExternalName";
    /// The root Service has no cluster IP yet.
    pub const ROOT_WITHOUT_CLUSTER_IP: &str = "RootWithoutClusterIP";
    /// The root Service has no ports.
    pub const ROOT_WITHOUT_PORTS: &str = "RootWithoutPorts";

    /// The root Service does not have the port that the split names.
    pub const ROOT_PORT_MISSING: &str = "RootPortMissing";
    /// The root Service chooses no pods, and has no endpoints of its own.
    pub const ROOT_WITHOUT_ENDPOINTS: &str = "RootWithoutEndpoints";

    /// A field is not one of a TrafficSplit.
    pub const UNKNOWN_FIELD: &str = "UnknownField";
    /// An older object splits a port of the same root.
    pub const PORT_TAKEN: &str = "PortTaken";
    /// Connections stay on the node that they are made on.
    pub const NODE_LOCAL: &str = "NodeLocal";
    /// An endpoint is in more than one backend.
    pub const OVERLAPPING_BACKENDS: &str = "OverlappingBackends";
    /// A backend stands there more than once.
    pub const DUPLICATE_BACKEND: &str = "DuplicateBackend";
    /// The name of a backend cannot be that of a Service.
    pub const INVALID_BACKEND_NAME: &str = "InvalidBackendName";
    /// A backend is in another namespace.
    pub const BACKEND_IN_OTHER_NAMESPACE: &str = "BackendInOtherNamespace";
    /// An annotation has a value that is not known.
    pub const INVALID_ANNOTATION: &str = "InvalidAnnotation";
    /// Something looks like an annotation of ours and is none.
    pub const UNKNOWN_ANNOTATION: &str = "UnknownAnnotation";
    /// The root Service asks for session affinity.
    pub const SESSION_AFFINITY_IGNORED: &str = "SessionAffinityIgnored";
    /// Another object splits the same address and port.
    pub const FRONTEND_TAKEN: &str = "FrontendTaken";
    /// A port of the root is not TCP.
    pub const PROTOCOL_NOT_SPLIT: &str = "ProtocolNotSplit";
    /// No leaf is a Service that exists and has endpoints of its own.
    pub const NO_LEAF_SERVICE: &str = "NoLeafService";
    /// A port of the root is a port of no leaf.
    pub const NO_LEAF_PORT: &str = "NoLeafPort";
    /// No leaf with a port of the root's has addresses of the same family.
    pub const NO_LEAF_FAMILY: &str = "NoLeafFamily";
    /// All weights are 0.
    pub const ALL_WEIGHTS_ZERO: &str = "AllWeightsZero";
    /// No leaf with a weight above 0 has a ready endpoint.
    pub const NO_READY_ENDPOINTS: &str = "NoReadyEndpoints";
    /// A leaf Service does not exist, or has no endpoints by its nature.
    pub const LEAF_SERVICE_MISSING: &str = "LeafServiceMissing";
    /// A leaf Service has no port like the root's.
    pub const LEAF_PORT_MISSING: &str = "LeafPortMissing";
    /// A leaf Service has no addresses of the same family.
    pub const LEAF_FAMILY_MISSING: &str = "LeafFamilyMissing";
    /// A leaf has no ready endpoint.
    pub const LEAF_NOT_READY: &str = "LeafNotReady";

    /// An EndpointSlice names no Service.
    pub const SLICE_WITHOUT_SERVICE: &str = "SliceWithoutService";
    /// An EndpointSlice has a port by a name that its Service does not know.
    pub const SLICE_PORT_UNKNOWN: &str = "SlicePortUnknown";
    /// Something in an EndpointSlice cannot be used.
    pub const SLICE_CONTENT_IGNORED: &str = "SliceContentIgnored";

    /// Whether a condition comes and goes by itself within seconds while pods are replaced or a
    /// controller catches up, so that it is a fault only once it has lasted.
    #[must_use]
    pub fn is_transient(reason: &str) -> bool {
        matches!(
            reason,
            LEAF_NOT_READY | NO_READY_ENDPOINTS | NOT_KNOWN_YET | SLICE_PORT_UNKNOWN
        )
    }
}

/// What has been said so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Says one thing about the object that a split comes from.
    pub(super) fn say(
        &mut self,
        origin: &Origin,
        severity: Severity,
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        let ObjectReference { kind, name } = reference(origin);
        self.say_of(&kind, &name, severity, reason, field, message);
    }

    /// Says one thing about any object.
    pub(super) fn say_of(
        &mut self,
        kind: &str,
        name: &ObjectName,
        severity: Severity,
        reason: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic {
            object: ObjectReference {
                kind: kind.to_owned(),
                name: name.clone(),
            },
            severity,
            reason,
            field: field.into(),
            message: message.into(),
        });
    }

    /// Says of an object that nothing is wrong with it, unless more than notes was said of it.
    pub(super) fn accept(&mut self, origin: &Origin) {
        let object = reference(origin);
        let is_wrong = |said: &Diagnostic| said.object == object && said.severity != Severity::Note;
        if self.diagnostics.iter().any(is_wrong) {
            return;
        }
        self.say(
            origin,
            Severity::Accepted,
            reason::ACCEPTED,
            "",
            "accepted as written",
        );
    }

    /// Everything that was said.
    pub(super) fn into_diagnostics(self) -> Few<Arc<Diagnostic>> {
        self.diagnostics.into_iter().map(Arc::new).collect()
    }
}
