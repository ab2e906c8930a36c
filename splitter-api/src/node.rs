//! A node, its agent and its programs.

use serde::{Deserialize, Serialize};

use crate::attachment::Attachment;

/// A node, its agent and its programs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// Version of the program that wrote this; in the agent's pod, the agent's own.
    pub version: String,
    /// Version of the layout of the maps.
    pub layout: u32,
    /// Path of the directory that maps and links are pinned in.
    pub pins: String,
    /// Whether an agent is at work, so that changes are followed. Without one, what is programmed
    /// stays in effect.
    pub agent: bool,
    /// Where the programs are attached.
    #[serde(flatten)]
    pub attachment: Attachment,
}

impl NodeStatus {
    /// Whether every program is attached and an agent is at work.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.attachment.attached && self.agent
    }
}
