//! The Kubernetes source, against a real API server with a real etcd.
//!
//! What a healthy server does not show on demand, broken connections and times of absence, is
//! made by a TCP proxy between the source and the server, or by killing the server.

mod access;
mod admission;
mod audit;
mod definition;
mod interruption;
mod knowledge;
mod listing;
mod observer;
mod own_node;
mod pods;
mod server;
