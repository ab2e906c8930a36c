//! Programs and maps: what runs in the kernel, and what it reads.
//!
//! - `preflight`: what this machine must have; `features`: what its kernel must have;
//! - `pins`: where maps and links are pinned, and the lock on that place;
//! - `maps`: shapes of the maps, and handles to them; `table`: arrays in our memory;
//! - `programs`: loading the programs and putting them on the cgroup;
//! - `publish`: bringing the maps to what a plan says; `difference`: what needs
//!   a change; `report`: what came of it;
//!   `recover`: taking over maps;
//!   `allocation`, `slots`, `leaf_ids` and `grace` serve them;
//! - `view`: what is in force, read back from the maps;
//! - `syscall`: the few system calls that aya does not offer.
//!
//! All `unsafe` code of the agent but the one lease call of the manifests source is here.

mod allocation;
mod difference;
mod features;
mod grace;
mod leaf_ids;
mod maps;
mod pins;
mod preflight;
mod programs;
mod publish;
mod recover;
mod report;
mod slots;
mod syscall;
mod table;
mod view;

pub use features::{Feature, FeatureError};
pub use maps::{Capacity, MapsError};
pub use pins::{PROGRAMS, PinDirectory, PinError, PinLock};
pub use preflight::{PreflightError, cgroup_path, find_cgroup, preflight};
pub use programs::{
    Attached, AttachedProgram, EbpfLogLevel, LoadError, LoadSettings, Programs, Refusal,
    attached_programs,
};
pub use publish::Publisher;
pub use report::{Change, Extent, FrontendError, PublishError, Put, Report};
pub use view::{LeafCounts, SplitView, View, reason_name, reason_text, verdict_name};
