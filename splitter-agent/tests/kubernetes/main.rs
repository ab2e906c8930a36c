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
mod proxy;
mod server;

use std::sync::OnceLock;

use tokio::sync::{Semaphore, SemaphorePermit};

/// A server takes a quarter of a gigabyte and most of two processors to start, so that
/// only some run at a time.
async fn turn() -> SemaphorePermit<'static> {
    static TURNS: OnceLock<Semaphore> = OnceLock::new();
    let turns = TURNS.get_or_init(|| Semaphore::new(3));
    turns
        .acquire()
        .await
        .expect("a semaphore that is never closed")
}
