//! Programs and maps: what runs in the kernel, and what it reads.
//!
//! - `preflight`: what this machine must have; `features`: what its kernel must have;
//! - `pins`: where maps and links are pinned, and the lock on that place; `layouts`: maps of
//!   several sizes there, and which are at work;
//! - `maps`: shapes of the maps, and handles to them; `table`: arrays in our memory;
//! - `programs`: loading the programs; `links`: putting them on cgroups;
//! - `hierarchy`: the cgroup hierarchy; `places`: which of its groups hold pods;
//! - `neighbours`: programs of others on the path of a pod; `foreign`: asking for them;
//! - `publish`: bringing the maps to what a plan says; `difference`: what needs
//!   a change; `report`: what came of it;
//!   `recover`: taking over maps;
//!   `allocation`, `slots`, `leaf_ids` and `grace` serve them;
//! - `view`: what is programmed, read back from the maps; `reader`: the same, again and again;
//! - `per_cpu`: per-CPU counters;
//! - `syscall`: the few system calls that aya does not offer.
//!
//! All `unsafe` code of the agent but the one lease call of the manifests source is here.

mod allocation;
mod difference;
mod features;
mod foreign;
mod grace;
mod hierarchy;
mod layouts;
mod leaf_ids;
mod links;
mod maps;
mod neighbours;
mod per_cpu;
mod pins;
mod places;
mod preflight;
mod programs;
mod publish;
mod reader;
mod recover;
mod report;
mod slots;
mod syscall;
mod table;
mod view;

pub use features::{Feature, FeatureError};
pub use foreign::Mode;
pub use hierarchy::{Hierarchy, OwnPlace, on_node};
pub(crate) use hierarchy::{cgroup_id, is_cgroup, path_to_root};
pub use layouts::Layout;
pub use links::{Attached, AttachedProgram, attached_programs};
pub use maps::{Capacity, MapsError};
pub use neighbours::{Blocker, Effect, Neighbour, neighbours};
pub use pins::{PROGRAMS, PinDirectory, PinError, PinLock};
pub use places::{Choice, Fallback};
pub(crate) use places::{choose, outermost};
pub use preflight::{PreflightError, preflight};
pub use programs::{EbpfLogLevel, LoadError, LoadSettings, Programs, Refusal};
pub use publish::Publisher;
pub use reader::{FrontendReading, Leaf, Reader, Reading};
pub use report::{Change, Extent, FrontendError, PublishError, Put, Report};
pub use view::{LeafCounts, SplitView, View};
