//! Every reason that the agent gives, each by one CamelCase word: those of diagnostics, which
//! findings, Events and conditions carry, and those in the kernel's records, which `status` and
//! `explain` show. A kernel reason has the word of the diagnostic that says the same.

use splitter_common::layout::{LeafState, Reason};

use crate::api;

/// Nothing is wrong with it.
pub const ACCEPTED: &str = "Accepted";
/// The object cannot be read.
pub const UNREADABLE: &str = "Unreadable";

/// The spec is not there or is not an object.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// The root cannot be read, or is not the name of a Service.
pub const INVALID_ROOT: &str = "InvalidRoot";
/// The root is a Service of another namespace.
pub const ROOT_IN_OTHER_NAMESPACE: &str = "RootInOtherNamespace";
/// The root is the API server.
pub const ROOT_PROTECTED: &str = "RootProtected";
/// An older object splits the same root.
pub const ROOT_TAKEN: &str = "RootTaken";
/// An older object of the same kind is about the same connections, so this one is not in force.
pub const SUPERSEDED: &str = "Superseded";
/// An object of a kind that takes precedence is about the same connections (GEP-1294).
pub const CONFLICTED: &str = "Conflicted";
/// It asks for a choice by request, which a connection does not have.
pub const MATCHES_UNSUPPORTED: &str = "MatchesUnsupported";
/// A field that objects of the kind do not have may restrict who or what is split.
pub const UNKNOWN_RESTRICTION: &str = "UnknownRestriction";
/// It asks for something that a connection cannot have.
pub const UNSUPPORTED_FIELD: &str = "UnsupportedField";
/// There are no backends, or one cannot be read.
pub const INVALID_BACKEND: &str = "InvalidBackend";
/// A weight cannot be read.
pub const INVALID_WEIGHT: &str = "InvalidWeight";
/// The schema of the object's version does not allow it.
pub const INVALID_IN_VERSION: &str = "InvalidInVersion";
/// There are more backends than a split can have.
pub const TOO_MANY_BACKENDS: &str = "TooManyBackends";

/// A DestinationRule asks for what cannot be done to a connection.
pub const POLICY_UNSUPPORTED: &str = "PolicyUnsupported";

/// It is bound to gateways only.
pub const NOT_MESH_BOUND: &str = "NotMeshBound";
/// It has no rules.
pub const NO_RULE: &str = "NoRule";
/// A host is not a Service of this cluster.
pub const HOST_NOT_FOUND: &str = "HostNotFound";
/// There is no VirtualService that may be used as the delegate.
pub const DELEGATE_NOT_FOUND: &str = "DelegateNotFound";
/// A delegate has no rules that can be used.
pub const DELEGATE_UNUSABLE: &str = "DelegateUnusable";
/// A rule of a delegate is for more than the rule that delegates.
pub const DELEGATE_CONFLICT: &str = "DelegateConflict";
/// No VirtualService uses the rules of one that is there for others.
pub const DELEGATE_UNUSED: &str = "DelegateUnused";
/// Its rules are those of other VirtualServices.
pub const USED_AS_DELEGATE: &str = "UsedAsDelegate";
/// No DestinationRule has the subset.
pub const SUBSET_NOT_FOUND: &str = "SubsetNotFound";
/// Ports that declare no protocol are not split, since the rules for several protocols differ.
pub const AMBIGUOUS_PROTOCOL: &str = "AmbiguousProtocol";
/// Something is done almost as it is written.
pub const APPROXIMATED: &str = "Approximated";
/// A policy of a DestinationRule is done as it is written.
pub const POLICY_HONOURED: &str = "PolicyHonoured";
/// A policy of a DestinationRule is ignored.
pub const POLICY_IGNORED: &str = "PolicyIgnored";
/// A DestinationRule, or a subset in it, is not used.
pub const RULE_NOT_USED: &str = "RuleNotUsed";

/// The root Service does not exist.
pub const ROOT_MISSING: &str = "RootMissing";
/// Objects that decide it are of a kind that is not followed at present. Transient.
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

/// A parent of a route looks like a Service and is none.
pub const INVALID_PARENT: &str = "InvalidParent";
/// It asks for something that a connection cannot have, and says that this may be ignored.
pub const UNSUPPORTED_IGNORED: &str = "UnsupportedIgnored";
/// A route on a Service has hostnames, which say nothing there.
pub const HOSTNAMES_IGNORED: &str = "HostnamesIgnored";
/// No connection comes to a rule.
pub const RULE_UNREACHABLE: &str = "RuleUnreachable";
/// A backend is of a kind that has no endpoints.
pub const INVALID_BACKEND_KIND: &str = "InvalidBackendKind";
/// No ReferenceGrant permits a backend in another namespace, where one is required.
pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
/// There are no backends, which means that connections are refused.
pub const NO_BACKENDS: &str = "NoBackends";
/// The status has entries that are not to be there any more.
pub const STATUS_ABANDONED: &str = "StatusAbandoned";
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
/// No leaf with a weight above 0 has a ready endpoint. Transient.
pub const NO_READY_ENDPOINTS: &str = "NoReadyEndpoints";
/// A leaf Service does not exist, or has no endpoints by its nature.
pub const LEAF_SERVICE_MISSING: &str = "LeafServiceMissing";
/// A leaf Service has no port like the root's.
pub const LEAF_PORT_MISSING: &str = "LeafPortMissing";
/// A leaf Service has no addresses of the same family.
pub const LEAF_FAMILY_MISSING: &str = "LeafFamilyMissing";
/// A leaf has no ready endpoint. Transient.
pub const LEAF_NOT_READY: &str = "LeafNotReady";

/// An EndpointSlice names no Service.
pub const SLICE_WITHOUT_SERVICE: &str = "SliceWithoutService";
/// An EndpointSlice has a port by a name that its Service does not know. Transient.
pub const SLICE_PORT_UNKNOWN: &str = "SlicePortUnknown";
/// Something in an EndpointSlice cannot be used.
pub const SLICE_CONTENT_IGNORED: &str = "SliceContentIgnored";

/// A file of manifests cannot be parsed.
pub const INVALID_SYNTAX: &str = "InvalidSyntax";
/// A document in a file of manifests is no Kubernetes object.
pub const NOT_AN_OBJECT: &str = "NotAnObject";
/// An object has the name of a kind that is read, with an `apiVersion` of another group that looks
/// like a slip.
pub const UNKNOWN_API_VERSION: &str = "UnknownApiVersion";
/// A file of manifests is larger than any that is read.
pub const TOO_LARGE: &str = "TooLarge";
/// A process keeps writing a file of manifests.
pub const BEING_WRITTEN: &str = "BeingWritten";
/// The same object is in the manifests more than once.
pub const DUPLICATE_OBJECT: &str = "DuplicateObject";
/// The directory of manifests cannot be watched for changes.
pub const NOT_WATCHED: &str = "NotWatched";

/// A frontend of the object could not be written to the maps.
pub const NOT_PUBLISHED: &str = "NotPublished";

/// Whether it is about a Service that the object names: that it does not exist, does not fit,
/// or has no endpoints.
#[must_use]
pub fn is_about_references(reason: &str) -> bool {
    matches!(
        reason,
        INVALID_ROOT
            | ROOT_IN_OTHER_NAMESPACE
            | ROOT_MISSING
            | ROOT_HEADLESS
            | ROOT_EXTERNAL_NAME
            | ROOT_WITHOUT_CLUSTER_IP
            | ROOT_WITHOUT_PORTS
            | ROOT_PORT_MISSING
            | NOT_KNOWN_YET
            | INVALID_BACKEND_NAME
            | INVALID_BACKEND_KIND
            | BACKEND_IN_OTHER_NAMESPACE
            | REF_NOT_PERMITTED
            | NO_LEAF_SERVICE
            | NO_LEAF_PORT
            | NO_LEAF_FAMILY
            | NO_READY_ENDPOINTS
            | LEAF_SERVICE_MISSING
            | LEAF_PORT_MISSING
            | LEAF_FAMILY_MISSING
            | LEAF_NOT_READY
            | HOST_NOT_FOUND
            | DELEGATE_NOT_FOUND
            | DELEGATE_UNUSABLE
            | SUBSET_NOT_FOUND
    )
}

/// Whether a condition comes and goes by itself within seconds while pods are replaced or a
/// controller catches up, so that it is a fault only once it has lasted. Those are marked as
/// transient above.
#[must_use]
pub fn is_transient(reason: &str) -> bool {
    matches!(
        reason,
        LEAF_NOT_READY | NO_READY_ENDPOINTS | NOT_KNOWN_YET | SLICE_PORT_UNKNOWN
    )
}

/// The word for a reason in a record of the maps; `None` for a frontend that is split.
#[must_use]
pub const fn of_record(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::None => return None,
        Reason::AllWeightsZero => ALL_WEIGHTS_ZERO,
        Reason::NoReadyEndpoints => NO_READY_ENDPOINTS,
        Reason::NoLeafService => NO_LEAF_SERVICE,
        Reason::NoLeafPort => NO_LEAF_PORT,
        Reason::ProtocolNotSplit => PROTOCOL_NOT_SPLIT,
        // The object's own diagnostic has the word for what is wrong with it.
        Reason::ObjectRefused => "ObjectRefused",
        Reason::NoLeafFamily => NO_LEAF_FAMILY,
        Reason::NotKnownYet => NOT_KNOWN_YET,
        // Nothing is wrong, so no diagnostic says it.
        Reason::OtherClients => "OtherClients",
    })
}

/// A reason in a record of the maps, and what to do about it, in a sentence; empty for a
/// frontend that is split.
#[must_use]
pub fn text_of_record(reason: Reason) -> &'static str {
    match reason {
        Reason::None => "",
        Reason::AllWeightsZero => {
            "every weight is 0, so nothing may be connected to; give a leaf a weight above 0"
        }
        Reason::NoReadyEndpoints => "no leaf with a weight above 0 has a ready endpoint",
        Reason::NoLeafService => {
            "no leaf is a Service that exists and has endpoints of its own, so the root Service \
             behaves as without a split"
        }
        Reason::NoLeafPort => {
            "no leaf Service has a port of this number and protocol, so this port behaves as \
             without a split"
        }
        Reason::ProtocolNotSplit => {
            "only TCP and UDP are split; this port behaves as without a split"
        }
        Reason::ObjectRefused => {
            "the object that asks for the split was refused, so the root Service behaves as \
             without it; `splitter-agent check` says why"
        }
        Reason::NoLeafFamily => {
            "no leaf Service has addresses of this family, so this address behaves as without a \
             split"
        }
        Reason::OtherClients => {
            "the connections of some clients only are split; for all others the root Service \
             behaves as without a split"
        }
        Reason::NotKnownYet => {
            "the agent does not follow all kinds of objects that decide this split, so the root \
             Service behaves as without it until the agent does; `splitter-agent \
             health` names the kinds"
        }
    }
}

/// The word for a leaf's state: that it takes its share, or why not.
#[must_use]
pub fn of_leaf(state: LeafState) -> &'static str {
    api::leaf_state(state).as_str()
}
