//! What the agent knows, as [`splitter_api`] describes it: for everything that shows it.

mod attachment;
mod node;
mod split;

use splitter_api::VerdictCounts;
use splitter_common::layout::{LeafState, VerdictCounter};

use crate::compile::{Diagnostic, Severity};
use crate::datapath::{Effect, Mode, View, verdict_counter_name};
use crate::objects::ObjectReference;
use crate::plan::Decision;

pub(crate) use node::{is_looked_up, node_status};
pub(crate) use split::split;

/// A leaf's state. A function, because both types are of other crates.
pub(crate) const fn leaf_state(state: LeafState) -> splitter_api::LeafState {
    match state {
        LeafState::Ready => splitter_api::LeafState::Ready,
        LeafState::Terminating => splitter_api::LeafState::Terminating,
        LeafState::WeightZero => splitter_api::LeafState::WeightZero,
        LeafState::ServiceMissing => splitter_api::LeafState::ServiceMissing,
        LeafState::PortMissing => splitter_api::LeafState::PortMissing,
        LeafState::NoReadyEndpoints => splitter_api::LeafState::NoReadyEndpoints,
        LeafState::FamilyMissing => splitter_api::LeafState::FamilyMissing,
        LeafState::NotKnownYet => splitter_api::LeafState::NotKnownYet,
    }
}

/// What happened to connections to frontends.
pub(crate) fn verdict_counts(view: &View) -> VerdictCounts {
    let count = |counter| {
        let count = view.verdicts.get(verdict_counter_name(counter));
        count.copied().unwrap_or_default()
    };
    VerdictCounts {
        split: count(VerdictCounter::Split),
        refused: count(VerdictCounter::Refused),
        refused_by_leaf: count(VerdictCounter::RefusedByLeaf),
        passed_through: count(VerdictCounter::PassedThrough),
        inconsistent: count(VerdictCounter::Inconsistent),
        original_dst_lost: count(VerdictCounter::OriginalDstLost),
        client_unknown: count(VerdictCounter::ClientUnknown),
        never_split: count(VerdictCounter::NeverSplit),
    }
}

impl From<Decision> for splitter_api::Verdict {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Split => Self::Split,
            Decision::Refuse(_) => Self::Refuse,
            Decision::PassThrough(_) => Self::PassThrough,
        }
    }
}

impl From<Mode> for splitter_api::AttachMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Multi => Self::Multi,
            Mode::Override => Self::Override,
            Mode::Exclusive => Self::Exclusive,
        }
    }
}

impl From<Effect> for splitter_api::Effect {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Blocks => Self::Blocks,
            Effect::SwitchedOff => Self::SwitchedOff,
            Effect::Before => Self::Before,
            Effect::After => Self::After,
        }
    }
}

impl From<Severity> for splitter_api::Severity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Accepted => Self::Accepted,
            Severity::Note => Self::Note,
            Severity::Inactive => Self::Inactive,
            Severity::Warning => Self::Warning,
            Severity::Refused => Self::Refused,
        }
    }
}

impl From<ObjectReference> for splitter_api::ObjectReference {
    fn from(object: ObjectReference) -> Self {
        Self {
            kind: object.kind,
            namespace: object.name.namespace,
            name: object.name.name,
        }
    }
}

impl From<Diagnostic> for splitter_api::Diagnostic {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            object: diagnostic.object.into(),
            severity: diagnostic.severity.into(),
            reason: diagnostic.reason.to_owned(),
            field: diagnostic.field,
            message: diagnostic.message,
        }
    }
}
