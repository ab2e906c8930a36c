//! The node agent of splitter, as a library: its binary, its tests and its benchmarks
//! use the same modules.
//!
//! ```text
//! source ──► objects ──► compile ──► plan ──► datapath ──► BPF maps
//!               │           │
//!             kinds       route
//! ```
//!
//! - [`source`]: where objects come from (a watched directory of manifests);
//! - [`objects`]: what the agent reads of Kubernetes objects; [`kinds`] is the list of their kinds;
//! - [`route`]: what objects ask for, whatever API they are of;
//! - [`compile`]: the pure function from objects to a [`plan::Plan`] and diagnostics;
//! - [`reason`]: every reason that is given, by its word;
//! - [`datapath`]: programs and maps; everything `unsafe` is there;
//! - [`judge`]: manifests judged without a cluster;
//! - `api`: what is shown, in the types of `splitter-api`;
//! - [`agent`]: all of it at work; [`cli`]: one module per command.

pub mod agent;
mod api;
mod causes;
pub mod cli;
pub mod compile;
pub mod datapath;
pub mod judge;
pub mod kinds;
pub mod objects;
pub mod plan;
pub mod reason;
pub mod report;
pub mod route;
pub mod source;

/// Version of the agent: the package's, and in brackets the commit that it was built from, where
/// the build knows it.
pub const VERSION: &str = env!("SPLITTER_VERSION");

/// The commit that the agent was built from; empty where the build does not know it.
pub const COMMIT: &str = env!("SPLITTER_COMMIT");
