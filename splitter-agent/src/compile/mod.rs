//! From objects to a plan: a pure function, in which every decision that a person could
//! argue about is made.
//!
//! ```text
//! TrafficSplit ─► smi ─► split::Claim ─┐
//! Service, EndpointSlice ──────────────┴─► resolve ─► Plan, diagnostics
//! ```
//!
//! [`Compiler`] does so change by change, root by root; [`compile`] all at once.
//!
//! Each API that asks for splits has a translator of its own to the neutral form
//! in `split`; `resolve` knows no API.

mod compiler;
mod diagnostics;
mod endpoints;
mod few;
mod findings;
mod host;
mod resolve;
mod shares;
mod slices;
mod smi;
mod split;
mod store;

use crate::objects::Objects;
use crate::plan::Plan;

pub use compiler::{Compiler, Delta};
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
    let mut compiler = Compiler::new(settings.clone());
    for object in &objects.refused {
        compiler.refuse(object.clone());
    }
    for object in objects.iter() {
        compiler.put(object);
    }
    compiler.compile();
    Compiled {
        diagnostics: compiler.all_diagnostics().cloned().collect(),
        plan: compiler.plan().clone(),
    }
}
