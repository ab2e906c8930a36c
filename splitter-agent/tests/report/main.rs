//! What the agent tells over HTTP, of real programs and real connections.

#[path = "../common/mod.rs"]
mod common;

#[path = "../agent/bookstore.rs"]
mod bookstore;
mod clients;
mod health;
mod health_command;
mod http;
mod log_level;
mod metrics;
