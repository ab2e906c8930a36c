//! Programs and maps in the kernel: whether they can be loaded, where they are pinned, and putting
//! the programs on cgroups.
//!
//! - `preflight`: what this machine must have; `features`: what its kernel must have;
//! - `bpf_fs`: whether a place can be a pin directory; `pins`: what is pinned there; `lock`: the
//!   lock on it; `layouts`: maps of several sizes there, and which are at work;
//! - `shapes`: what pinned maps must look like;
//! - `programs`: loading the programs; `links`: putting them on cgroups;
//! - `socket_table`: the table of live sockets; `tracing`: the programs that see what happens to
//!   sockets; `kernel_types`: where in the kernel's structures is what those look at.

mod bpf_fs;
mod features;
mod kernel_types;
mod layouts;
mod links;
mod lock;
mod pins;
mod preflight;
mod programs;
pub(crate) mod shapes;
mod socket_table;
mod tracing;

pub use features::{Feature, FeatureError};
pub use layouts::Layout;
pub use links::{Attached, AttachedProgram, attached_programs};
pub use lock::PinLock;
pub(crate) use pins::exists;
pub use pins::{PROGRAMS, PinDirectory, PinError};
pub use preflight::{PreflightError, preflight};
pub use programs::{EbpfLogLevel, LoadError, LoadSettings, Programs, Refusal};
pub use socket_table::{Outcomes, SocketMemory};
pub(crate) use socket_table::{SOCKETS, slots as socket_slots};
