//! What the agent reports about itself and about objects: shared state, and its readers.
//!
//! The agent alone writes: findings about objects to the [`DiagnosticStore`], and what it is doing
//! to the [`AgentState`]. Metrics, health checks and events read both, each in its own time;
//! none of them can hold up a publication.
//!
//! - `diagnostic_store`, `agent_state`, `places`: what all of them share;
//! - [`cluster`]: Events and statuses, written by one agent for all;
//! - [`self_test`]: a real connection that must be split;
//! - [`health`]: alive, ready, and if not, why and since when;
//! - [`metrics`]: numbers for Prometheus, read from the maps and the shared state;
//! - [`log`]: the log, whose level can be changed;
//! - `server`: all of this over HTTP.

mod agent_state;
pub mod cluster;
mod diagnostic_store;
pub mod health;
pub mod log;
pub mod metrics;
mod places;
pub mod self_test;
mod server;

pub use agent_state::{AgentSnapshot, AgentState, Generations, Programmed};
pub use diagnostic_store::{
    DiagnosticChange, DiagnosticStore, Edit, ObjectDiagnostics, Producer, Subscriber,
};
pub use metrics::Telemetry;
pub use places::{AttachmentPlace, Places};
pub use self_test::{SelfTest, SelfTestError, SelfTestState};
pub use server::{Listen, Server, ServerError};
