//! Bringing the maps to what a plan says.
//!
//! - `publisher`: what to change, and in which order; `difference`: what needs a change;
//!   `summary`: what was changed;
//! - `install`: writing a frontend's records; `index`: how the programs find most of them;
//!   `reclaim` and `grace`: when slots are free again;
//! - `clients`: the pods of the node, and whether a split depends on who connects;
//! - `pod_names`: their names;
//! - `recover`: taking over maps that another agent left;
//! - `capacity`, `slots`, `allocation` and `leaf_ids`: slots and ids, taken and given back.

mod allocation;
mod capacity;
mod clients;
mod difference;
mod grace;
mod index;
mod install;
mod leaf_ids;
mod pod_names;
mod publisher;
mod reclaim;
mod recover;
mod slots;
mod summary;

pub use capacity::Capacity;
pub use clients::{ClientError, PodGroup};
pub use publisher::Publisher;
pub use summary::{Change, FrontendError, InstalledFrontend, PublishError, PublishSummary};
