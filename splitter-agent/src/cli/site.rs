//! What is at work on a node: which programs are attached, and whether an agent is there.

use std::fmt::Write;
use std::net::SocketAddr;

use serde::Serialize;
use splitter_common::layout::LAYOUT_VERSION;

use super::Outcome;
use super::attachment::Attachment;
use super::node::NodeArgs;
use crate::datapath::PinDirectory;

/// What is at work on a node.
#[derive(Serialize)]
pub(super) struct Site {
    /// The node's name.
    node: String,
    /// Version of the program that says this; the agent's own, in its pod.
    version: &'static str,
    layout: u32,
    pins: String,
    /// Whether an agent is at work.
    agent: bool,
    #[serde(flatten)]
    attachment: Attachment,
}

impl Site {
    /// Looks at pinned links, and at the lock.
    pub(super) fn look(pins: &PinDirectory, node: &NodeArgs) -> anyhow::Result<Self> {
        Ok(Self {
            node: node.name(),
            version: crate::VERSION,
            layout: LAYOUT_VERSION,
            pins: pins.path().display().to_string(),
            agent: pins.is_locked()?,
            attachment: Attachment::read(pins)?,
        })
    }

    /// Whether connections to an address are split, if the maps say so: the program for
    /// connections of its family is attached.
    pub(super) fn splits(&self, address: SocketAddr) -> bool {
        self.attachment.has(if address.is_ipv4() {
            "connect4"
        } else {
            "connect6"
        })
    }

    /// "No" unless everything is attached and somebody keeps it current.
    pub(super) fn outcome(&self) -> Outcome {
        if self.attachment.attached && self.agent {
            Outcome::Done
        } else {
            Outcome::Refused
        }
    }

    /// The node, the agent, the programs; a line each, and more about programs of others.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "node      {}", self.node)?;
        let agent = match (self.agent, self.attachment.has_any()) {
            (true, _) => "at work",
            (false, true) => {
                "none at work: what is programmed stays, but nothing follows changes; start the agent"
            }
            (false, false) => "none at work; start the agent",
        };
        writeln!(text, "agent     {agent}")?;
        text.push_str(&self.attachment.text()?);
        Ok(text)
    }
}
