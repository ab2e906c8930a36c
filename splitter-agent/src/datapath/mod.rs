//! Programs and maps: what runs in the kernel, and what it reads.
//!
//! - `load`: programs, pins and links;
//! - `publish`: bringing the maps to what a plan says;
//! - `maps`: typed handles to the pinned maps;
//! - `view`: what is programmed, read back from the maps; `reader`: the same, again and again;
//! - `outcomes`: what came of connections; `sockets`: the table of live sockets;
//! - `hierarchy`: the cgroup hierarchy; `places`: which of its groups hold pods; `cgroup_pods`: which is
//!   which pod's;
//! - `neighbours`: programs of others on the path of a pod;
//! - `ticks`: the time by the kernel's timer;
//! - `sys`: system calls and shared memory; all `unsafe` code of the agent but the one lease
//!   call of the manifests source is there.

mod cgroup_pods;
mod hierarchy;
mod load;
mod maps;
mod neighbours;
mod outcomes;
mod places;
mod pod_groups;
mod publish;
mod reader;
mod sockets;
mod sys;
mod ticks;
mod view;

pub use cgroup_pods::{CgroupPlace, CgroupPod, CgroupPods};
pub use hierarchy::{Hierarchy, OwnPlace, on_node};
pub(crate) use hierarchy::{cgroup_id, is_cgroup, path_to_root};
pub(crate) use load::SOCKETS;
pub use load::{
    Attached, AttachedProgram, EbpfLogLevel, Feature, FeatureError, Layout, LoadError,
    LoadSettings, Outcomes, PROGRAMS, PinDirectory, PinError, PinLock, PreflightError, Programs,
    Refusal, SocketMemory, attached_programs, preflight,
};
pub use maps::MapsError;
pub use neighbours::{Blocker, Effect, Neighbour, neighbours};
pub use outcomes::{Histogram, OutcomeCounts};
pub use places::{Choice, Fallback};
pub(crate) use places::{choose, holder_of_pods, outermost};
pub use pod_groups::PodGroups;
pub use publish::{
    Capacity, Change, ClientError, FrontendError, InstalledFrontend, PodGroup, PublishError,
    PublishSummary, Publisher,
};
pub use reader::{FrontendReading, LeafReading, Reader, Reading};
pub use sockets::{LiveConnection, Sockets};
pub use sys::cgroup::Mode;
pub use sys::programs::{Instruction, load_sock_addr_program, program_id};
pub(crate) use view::verdict_counter_name;
pub use view::{FrontendView, LeafCounts, MapUse, View};
