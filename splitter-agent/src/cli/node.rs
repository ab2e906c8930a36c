//! Which node a command looks at.

use std::fs;

use clap::Args;

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
