//! Maps and programs against the real kernel: real cgroups, namespaces and sockets.

#[path = "../common/mod.rs"]
mod common;

mod capacity;
mod clients;
mod connect;
mod exact;
mod outcome_storm;
mod outcomes;
mod pins;
mod publish;
mod reader;
mod refused_share;
mod resolvers;
mod sockets;
mod storm;
mod udp;
mod udp_connected;
