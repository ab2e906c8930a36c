//! What the kernel programs and the agent share.
//!
//! - [`layout`]: the records in the BPF maps, byte for byte;
//! - [`pick`]: which leaf and which endpoint the n-th connection gets;
//! - [`flows`]: the records of UDP flows;
//! - [`outcomes`]: what came of a connection;
//! - [`sockets`]: which slot of the table of live sockets is a socket's;
//! - [`address`]: the one form in which addresses stand in the maps.
//!
//! Everything here is `no_std` and free of I/O, so that the same code runs in the
//! kernel, in the agent's `explain` and in the property tests.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod flows;
pub mod layout;
pub mod outcomes;
pub mod pick;
pub mod sockets;
