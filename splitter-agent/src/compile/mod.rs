//! From objects to a plan: a pure function, in which every decision that a person could
//! argue about is made.
//!
//! ```text
//! TrafficSplit ─► smi ─► split::Claim ─┐
//! Service, EndpointSlice ──────────────┴─► resolve ─► Plan, diagnostics
//! ```
//!
//! Each API that asks for splits has a translator of its own to the neutral form
//! in `split`; `resolve` knows no API.

mod diagnostics;
mod endpoints;
mod findings;
mod host;
mod resolve;
mod shares;
mod slices;
mod smi;
mod split;

use crate::objects::{ObjectReference, Objects};
use crate::plan::Plan;

pub use diagnostics::{Diagnostic, Severity, reason};
pub use shares::shares;

/// What a cluster's administrator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The DNS domain of the cluster.
    pub cluster_domain: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".to_owned(),
        }
    }
}

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

/// Compiles objects to a plan. The same objects give the same plan, on every node.
#[must_use]
pub fn compile(objects: &Objects, settings: &Settings) -> Compiled {
    let mut report = diagnostics::Report::default();
    let claims = objects
        .traffic_splits
        .values()
        .filter_map(|object| smi::claim(object, &settings.cluster_domain, &mut report))
        .collect();
    let plan = resolve::resolve(objects, claims, &mut report);
    let origins = objects.traffic_splits.keys().map(|name| ObjectReference {
        kind: smi::KIND.to_owned(),
        name: name.clone(),
    });
    Compiled {
        plan,
        diagnostics: report.finish(origins),
    }
}
