//! The node that a command looks at: its name, and what is at work on it.

use std::fmt::Write;
use std::fs;

use clap::Args;
use splitter_api::NodeStatus;

use super::{CommandOutcome, attachment};

/// The node's name.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// Name of this node, to be shown [default: the machine's host name].
    #[arg(long, env = "NODE_NAME", default_value = "", value_name = "NAME")]
    node_name: String,
}

impl NodeArgs {
    /// The name that was given (in the agent's pod the manifests do), or else the host name.
    pub(super) fn name(&self) -> String {
        if self.node_name.is_empty() {
            let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            name.trim().to_owned()
        } else {
            self.node_name.clone()
        }
    }
}

/// "No" unless everything is attached and an agent keeps it current.
pub(super) fn outcome(node: &NodeStatus) -> CommandOutcome {
    if node.is_at_work() {
        CommandOutcome::Done
    } else {
        CommandOutcome::Refused
    }
}

/// The node, the agent, the programs; a line each, and more about programs of others.
pub(super) fn text(node: &NodeStatus) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "node      {}", node.node)?;
    let agent = match (node.agent, node.attachment.has_any()) {
        (true, _) => "at work",
        (false, true) => {
            "none at work: what is programmed stays, but nothing follows changes; start the agent"
        }
        (false, false) => "none at work; start the agent",
    };
    writeln!(text, "agent     {agent}")?;
    text.push_str(&attachment::text(&node.attachment)?);
    Ok(text)
}
