//! The configuration files of a cluster's programs. Most take JSON where people write YAML.

use std::path::Path;

use serde_json::{Value, json};

use super::{KubeProxy, address};

/// Where containerd listens in each node.
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// Where a node's network plugins are configured.
pub(super) const NETWORKS: &str = "/run/cni/net.d";

/// The image that holds the namespaces of a pod.
pub(super) const PAUSE: &str = "splitter.test/pause:1";

/// How a client reaches the API server, and who it is.
pub(super) fn kubeconfig(server: &str, authority: &Path, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "cluster",
        "clusters": [{"name": "cluster", "cluster": {
            "server": server,
            "certificate-authority": authority,
            // One name of the certificate for every address that leads to the server.
            "tls-server-name": "kubernetes.default.svc",
        }}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "user"}}],
    })
}

/// For kubelet, on every node.
pub(super) fn kubelet() -> Value {
    let endpoint = format!("unix://{CONTAINERD}");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [address::CONTROL_PLANE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": endpoint,
        "enforceNodeAllocatable": [],
        // The machine is the developer's: how full it is says nothing about the cluster.
        "evictionHard": {
            "imagefs.available": "0%",
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    })
}

/// For kube-proxy of one node.
pub(super) fn kube_proxy(node: &str, mode: KubeProxy, kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "clusterCIDR": address::PODS,
        // The table of connections is sized for the machine, and not a node's to change.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "hostnameOverride": node,
        "mode": mode.to_string(),
    })
}

/// For containerd, on every node.
pub(super) fn containerd(plugins: &Path) -> String {
    let plugins = plugins.display();
    format!(
        "\
version = 3
root = '/var/lib/containerd'
state = '/run/containerd'

[grpc]
address = '{CONTAINERD}'

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{plugins}']
conf_dir = '{NETWORKS}'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'

[plugins.'io.containerd.internal.v1.opt']
path = '/var/lib/containerd/opt'

[plugins.'io.containerd.nri.v1.nri']
disable = true
"
    )
}

/// For the network plugins of the node with this number. Each pod has a link of its own to the
/// node, so that what pods of one node send each other passes the node's rules for Services too.
pub(super) fn network(node: usize) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni/addresses",
                "ranges": [[{"subnet": address::pods_of(node)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// For CoreDNS, which knows the cluster and nothing beyond it.
pub(super) fn core_dns(kubeconfig: &Path) -> String {
    format!(
        "\
.:53 {{
    errors
    ready {}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {} cluster
        ttl 5
    }}
    cache 5
}}
",
        address::DNS_READY,
        kubeconfig.display()
    )
}
