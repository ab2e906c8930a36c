//! From each API to the neutral form of [`route`](crate::route).

mod host;
mod smi;
