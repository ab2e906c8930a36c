//! The addresses in a cluster. They are the same in each, and never clash.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The control plane: its API server, and the name server of pods.
pub(super) const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);

/// The port of the API server.
pub(super) const API_PORT: u16 = 6443;

/// The addresses of pods on all nodes.
pub(super) const PODS: &str = "10.244.0.0/16";

/// The addresses of Services.
pub(super) const SERVICES: &str = "10.96.0.0/16";

/// Where etcd listens, in the network of the control plane.
pub(super) const ETCD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2379);

/// Where CoreDNS says that it is ready, in the network of the control plane.
pub(super) const DNS_READY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8181);

/// Where kube-proxy says that Services work, in the network of its node.
pub(super) const PROXY_READY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10256);

/// How many nodes there are addresses for.
pub(super) const MAXIMUM_NODES: usize = 100;

/// The node with this number, counted from one.
pub(super) fn of_node(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + octet(number))
}

/// The addresses of pods on the node with this number.
pub(super) fn pods_of(number: usize) -> String {
    format!("10.244.{}.0/24", octet(number))
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX - 10)
}

/// The `ip` commands for the control plane.
pub(super) fn control_plane_network(nodes: usize) -> String {
    let mut commands = format!(
        "link set lo up
         link add nodes type bridge mcast_snooping 0
         address add {CONTROL_PLANE}/24 dev nodes
         link set nodes up
        "
    );
    for number in 1..=nodes {
        commands += &route_to(number);
    }
    commands
}

/// The `ip` commands, for the control plane, that connect the node that `holder` holds.
pub(super) fn connect_node(number: usize, holder: u32) -> String {
    format!(
        "link add node-{number} type veth peer name eth0 netns {holder}
         link set node-{number} master nodes up
        "
    )
}

/// The `ip` commands for a node.
pub(super) fn node_network(number: usize, nodes: usize) -> String {
    let mut commands = format!(
        "link set lo up
         link set eth0 up
         address add {}/24 dev eth0
         route add default via {CONTROL_PLANE}
        ",
        of_node(number)
    );
    for other in (1..=nodes).filter(|other| *other != number) {
        commands += &route_to(other);
    }
    commands
}

fn route_to(node: usize) -> String {
    format!("route add {} via {}\n", pods_of(node), of_node(node))
}
