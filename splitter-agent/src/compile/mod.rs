//! From objects to a plan: a pure function, in which every decision that a person could
//! argue about is made.
//!
//! ```text
//! TrafficSplit, ... ─► translate ─► Route ─► index ─► conflict ─┐
//! Service, EndpointSlice ───────────────────────────────────────┴─► resolve ─► Plan, diagnostics
//! ```
//!
//! [`Compiler`] does so change by change, root by root; [`compile`] all at once.
//!
//! What is not known is not absent: while a kind of objects is not followed (see
//! [`Knowledge`]), a frontend that would be refused, or would lose a leaf, because an object of
//! that kind was never heard of is planned as [`NotKnownYet`](splitter_common::layout::Reason),
//! and [`Compiler::judge`] tells whether what is programmed stays.
//!
//! Each API that asks for splits has a translator of its own, in `translate`, to the neutral form
//! of [`route`](crate::route). Past that no API is known: `index` tells which roots a change
//! affects, `scopes` which clients of this node claims tell apart, `conflict` which of several
//! claims has a frontend, `resolve` and `decide` what becomes of it.

mod compiler;
mod conflict;
mod decide;
mod delegates;
mod diagnostics;
mod endpoints;
mod findings;
mod grants;
mod impossible;
mod index;
mod judgement;
mod knowledge;
mod ledger;
mod notes;
mod overlap;
mod pods;
mod resolve;
mod root_ports;
mod roots;
mod rules;
mod scopes;
mod shares;
mod slices;
mod sorted_vec_set;
mod store;
mod subsets;
mod translate;
mod waiting;

use std::sync::Arc;

use crate::objects::Objects;
use crate::plan::Plan;

pub use compiler::{Compiler, Delta, PodNews};
pub use delegates::Everything;
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use judgement::Judgement;
pub use knowledge::{Kinds, Knowledge};
pub(crate) use rules::service_of as destination_service;
pub use scopes::{Client, Scope};
pub use shares::shares;

/// What a cluster's administrator decides, and what is known of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The DNS domain of the cluster.
    pub cluster_domain: String,
    /// Whether a route of the Gateway API may name a Service of another namespace as its backend only
    /// if a ReferenceGrant there permits it.
    pub requires_grants: bool,
    /// The name of the node that the plan is for. Without one it is for none in particular:
    /// endpoints of every node are used, whatever traffic policy and hints say.
    pub node_name: Option<String>,
    /// The zone of that node; without it the one that the Node itself says, if it is known.
    pub zone: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_domain: DEFAULT_CLUSTER_DOMAIN.to_owned(),
            requires_grants: false,
            node_name: None,
            zone: None,
        }
    }
}

/// What every cluster is called unless it is told otherwise.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// What objects come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// What the maps shall hold.
    pub plan: Plan,
    /// What is said about every object that asks for a split, sorted: that it is
    /// accepted, or else everything that is wrong with it; and what is wrong with the
    /// EndpointSlices that splits need.
    pub diagnostics: Vec<Diagnostic>,
}

/// Compiles objects to a plan. The same objects and settings give the same plan, and what is
/// said of them is the same on every node.
#[must_use]
pub fn compile(objects: &Objects, settings: &Settings) -> Compiled {
    let mut compiler = Compiler::new(settings.clone());
    for object in &objects.refused {
        compiler.refuse(object.clone());
    }
    for object in objects.iter() {
        compiler.apply(object);
    }
    compiler.compile();
    Compiled {
        diagnostics: compiler
            .all_diagnostics()
            .map(Arc::unwrap_or_clone)
            .collect(),
        plan: compiler.plan().clone(),
    }
}
