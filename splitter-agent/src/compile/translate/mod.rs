//! From each API to the neutral form of [`route`](crate::route).

mod gateway;
mod host;
pub(super) mod istio;
mod smi;

use crate::objects::{ObjectName, dns, quoted};

/// Whether a root is the API server's Service, which is never split: whoever takes it over has every
/// client of the API server in hand, the agent's own included.
fn is_api_server(root: &ObjectName) -> bool {
    root.namespace == "default" && root.name == "kubernetes"
}

/// The Service of a namespace and name, if they can be those of one.
fn leaf_service(namespace: &str, name: &str) -> Option<ObjectName> {
    (dns::is_label(namespace) && dns::is_label(name)).then(|| ObjectName::new(namespace, name))
}
