//! What the kernel programs and the agent share.
//!
//! - [`layout`]: the records in the BPF maps, byte for byte;
//! - [`pick`]: which leaf and which endpoint the n-th connection gets;
//! - [`index`]: where a frontend is in the index of `FRONTENDS`;
//! - [`flows`]: the records of UDP flows;
//! - [`outcomes`]: what came of a connection;
//! - [`sockets`]: which slot of the table of live sockets is a socket's;
//! - [`socket_offsets`]: where members are in the kernel's sockets;
//! - [`address`]: the one form in which addresses stand in the maps.
//!
//! Everything here is `no_std` and free of I/O, so that the same code runs in the
//! kernel, in the agent's `explain` and in the property tests.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod flows;
pub mod index;
pub mod layout;
pub mod outcomes;
pub mod pick;
pub mod socket_offsets;
pub mod sockets;
