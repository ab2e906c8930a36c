//! What tests, benchmarks and demos run on: pods without a cluster, a cluster on this machine, and
//! what several of them need on it.
//!
//! - [`lab`]: network namespaces, cgroups and processes that stand for pods;
//! - [`cluster`]: a Kubernetes cluster whose nodes are namespaces;
//! - [`fixtures`]: what tests put on either.
//!
//! The other modules are about this machine and the workspace: what is installed, what is mounted,
//! where builds are kept.

pub mod cache;
pub mod cluster;
pub mod digest;
pub mod fixtures;
pub mod lab;
pub mod mounts;
pub mod packages;
pub mod preflight;
pub mod workspace;
