//! What the agent shows about a node: the types of the JSON that `splitter-agent status -o json`
//! ([`Status`]), `splitter-agent connections -o json` ([`Connections`]) and
//! `splitter-agent explain -o json` ([`Explanation`]) print.
//!
//! Programs that write and programs that read use the same types, and may be of different versions.
//! A newer agent may add fields, which readers ignore, and words to an enumeration, which are read as
//! its `Unknown`. Fields are neither removed nor given another meaning without a note in the changelog.
//!
//! Shares are fractions from 0 to 1. Counts of connections are those of one node, that of the client.
//!
//! `docs/schemas` has the JSON Schema of each document; a test here compares it with the types.

mod attachment;
mod connection;
mod diagnostic;
mod explanation;
mod node;
mod split;
mod status;
mod word;

#[cfg(test)]
mod schemas;
#[cfg(test)]
mod tolerance;

pub use attachment::{AttachMode, Attachment, Effect, OtherProgram, Program, SocketTable};
pub use connection::{Connection, ConnectionPod, Connections};
pub use diagnostic::{Diagnostic, ObjectReference, Severity};
pub use explanation::{Explanation, FrontendExplanation, LeafEndpoints, NextConnection};
pub use node::NodeStatus;
pub use split::{Leaf, LeafOutcomes, LeafState, Split, SplitState, Verdict};
pub use status::{Status, VerdictCounts};
