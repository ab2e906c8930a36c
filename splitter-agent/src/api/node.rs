//! A node, its agent and its programs.

use std::net::SocketAddr;

use splitter_api::{Attachment, NodeStatus};
use splitter_common::layout::LAYOUT_VERSION;

use super::attachment::attachment;
use crate::datapath::{PinDirectory, SOCKETS, View};

/// Looks at pinned links, and at the lock that an agent holds; how full the table of live sockets is, the
/// view has seen.
pub(crate) fn node_status(
    pins: &PinDirectory,
    view: &View,
    name: String,
) -> anyhow::Result<NodeStatus> {
    Ok(NodeStatus {
        node: name,
        version: crate::VERSION.to_owned(),
        layout: LAYOUT_VERSION,
        pins: pins.path().display().to_string(),
        agent: pins.is_locked()?,
        attachment: attachment(pins, view.maps.get(SOCKETS).copied())?,
    })
}

/// Whether the program is attached that looks up connections to an address of this family.
pub(crate) fn is_looked_up(attachment: &Attachment, address: SocketAddr) -> bool {
    attachment.has(if address.is_ipv4() {
        "connect4"
    } else {
        "connect6"
    })
}
