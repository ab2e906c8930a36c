//! The objects of a large cluster, all in one namespace.

use std::net::Ipv4Addr;
use std::str::FromStr;

use serde_json::{Value, json};
use splitter_agent::plan::Frontend;
use splitter_common::layout::{ClientScope, Protocol};
use testbed::fixtures::manifests;

/// The namespace of everything.
pub(crate) const NAMESPACE: &str = "default";

/// The range of ClusterIPs.
pub(crate) const CLUSTER_IPS: &str = "10.96.0.0/12";

const PORT: u16 = 80;
const FIRST_CLUSTER_IP: u32 = u32::from_be_bytes([10, 96, 1, 0]);
const FIRST_POD_IP: u32 = u32::from_be_bytes([10, 128, 0, 0]);

/// How far the addresses are apart that an endpoint gets one after the other.
const NEXT_ADDRESS: u32 = 1 << 19;

/// How many addresses an endpoint can have before they repeat.
const ADDRESSES: u32 = 16;

/// Leaves of each split, with an EndpointSlice each.
const LEAVES: [&str; 2] = ["a", "b"];

/// The API in which the splits are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Api {
    /// TrafficSplit.
    #[default]
    Smi,
    /// HTTPRoute.
    Gateway,
    /// VirtualService.
    Istio,
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "smi" => Ok(Self::Smi),
            "gateway" => Ok(Self::Gateway),
            "istio" => Ok(Self::Istio),
            _ => Err(format!("{text:?} is none of smi, gateway, istio")),
        }
    }
}

impl Api {
    /// The kind of the objects that split.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Smi => "TrafficSplit",
            Self::Gateway => "HTTPRoute",
            Self::Istio => "VirtualService",
        }
    }

    /// Where its objects are.
    pub(crate) fn path(self) -> String {
        let (resource, plural) = match self {
            Self::Smi => ("split.smi-spec.io/v1alpha4", "trafficsplits"),
            Self::Gateway => ("gateway.networking.k8s.io/v1", "httproutes"),
            Self::Istio => ("networking.istio.io/v1", "virtualservices"),
        };
        format!("/apis/{resource}/namespaces/{NAMESPACE}/{plural}")
    }

    /// The object of a split.
    fn object(self, split: usize) -> Value {
        let root = root(split);
        let object = match self {
            Self::Smi => manifests::traffic_split::<u64>("v1alpha4", NAMESPACE, &root, &root, &[]),
            Self::Gateway => json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": self.kind(),
                "metadata": {"namespace": NAMESPACE, "name": root},
                "spec": {"parentRefs": [
                    {"group": "", "kind": "Service", "name": root, "port": PORT},
                ]},
            }),
            Self::Istio => json!({
                "apiVersion": "networking.istio.io/v1", "kind": self.kind(),
                "metadata": {"namespace": NAMESPACE, "name": root},
                "spec": {"hosts": [root]},
            }),
        };
        manifests::with(object, &self.weights(split, 90))
    }

    /// The part of a split's object that has this weight for its first leaf, and 10 for the other.
    fn weights(self, split: usize, weight: usize) -> Value {
        let leaves = [(0, weight), (1, 10)];
        let leaves =
            leaves.map(|(leaf, weight)| (format!("{}-{}", root(split), LEAVES[leaf]), weight));
        match self {
            Self::Smi => {
                let backends =
                    leaves.map(|(name, weight)| json!({"service": name, "weight": weight}));
                json!({"spec": {"backends": backends}})
            }
            Self::Gateway => {
                let backends = leaves
                    .map(|(name, weight)| json!({"name": name, "port": PORT, "weight": weight}));
                json!({"spec": {"rules": [{"backendRefs": backends}]}})
            }
            Self::Istio => {
                let route = leaves
                    .map(|(host, weight)| json!({"destination": {"host": host}, "weight": weight}));
                json!({"spec": {"http": [{"route": route}]}})
            }
        }
    }

    /// The path of a split's object, and what changes its weights.
    pub(crate) fn weight_change(self, split: usize, version: usize) -> (String, Value) {
        let path = format!("{}/{}", self.path(), root(split));
        (path, self.weights(split, 1 + version % 89))
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) api: Api,
    pub(crate) splits: usize,
    endpoints_per_slice: usize,
}

/// What is needed to make an object.
pub(crate) struct Creation {
    pub(crate) path: String,
    pub(crate) object: Value,
}

impl Size {
    /// As many splits, and about as many endpoints.
    pub(crate) fn new(api: Api, splits: usize, endpoints: usize) -> Self {
        let splits = splits.clamp(1, 500_000);
        let endpoints_per_slice = (endpoints / (splits * LEAVES.len())).clamp(1, 1000);
        Self {
            api,
            splits,
            endpoints_per_slice,
        }
    }

    pub(crate) fn slices(self) -> usize {
        self.splits * LEAVES.len()
    }

    pub(crate) fn endpoints(self) -> usize {
        self.slices() * self.endpoints_per_slice
    }

    /// Everything there is, in the order of its creation.
    pub(crate) fn objects(self) -> impl Iterator<Item = Creation> {
        (0..self.splits).flat_map(move |split| {
            let leaves = LEAVES.iter().enumerate();
            let leaves = leaves.flat_map(move |(leaf, suffix)| {
                let service = format!("{}-{suffix}", root(split));
                [
                    headless(&service),
                    slice(&service, &self.addresses(split, leaf, 0)),
                ]
            });
            [service(split)].into_iter().chain(leaves).chain([Creation {
                path: self.api.path(),
                object: self.api.object(split),
            }])
        })
    }

    /// The endpoints of a leaf, of which the first has its `version`-th address.
    fn addresses(self, split: usize, leaf: usize, version: usize) -> Vec<Value> {
        let first = (split * LEAVES.len() + leaf) * self.endpoints_per_slice;
        (0..self.endpoints_per_slice)
            .map(|index| {
                let version = if index == 0 { version as u32 } else { 0 };
                let offset = (first + index) as u32 + version % ADDRESSES * NEXT_ADDRESS;
                let address = Ipv4Addr::from_bits(FIRST_POD_IP + offset);
                json!({
                    "addresses": [address],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": format!("node-{}", (first + index) % 5000),
                    "targetRef": {
                        "kind": "Pod",
                        "namespace": NAMESPACE,
                        "name": format!("{}-{}-7d4b9c6f5-{index:05}", root(split), LEAVES[leaf]),
                        "uid": format!("00000000-0000-4000-8000-{:012}", first + index),
                    },
                    "zone": "zone-1",
                })
            })
            .collect()
    }

    /// The path of a slice of a split's, and what changes one of its endpoints.
    pub(crate) fn slice_change(self, split: usize, version: usize) -> (String, Value) {
        let name = format!("{}-{}-0", root(split), LEAVES[0]);
        let endpoints = self.addresses(split, 0, version);
        (
            format!("{}/{name}", slices_path()),
            json!({ "endpoints": endpoints }),
        )
    }
}

/// The name of a root Service and of the object that splits it.
fn root(split: usize) -> String {
    format!("shop-{split}")
}

/// The number of the split whose name an object's name begins with.
pub(crate) fn split_of(name: &str) -> Option<usize> {
    name.split('-').nth(1)?.parse().ok()
}

/// The frontend of a split.
pub(crate) fn frontend(split: usize) -> Frontend {
    Frontend {
        address: (cluster_ip(split), PORT).into(),
        protocol: Protocol::Tcp,
        clients: ClientScope::EVERYONE,
    }
}

fn cluster_ip(split: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_CLUSTER_IP + split as u32)
}

pub(crate) fn slices_path() -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices")
}

fn service(split: usize) -> Creation {
    let spec = json!({
        "clusterIP": cluster_ip(split),
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
    });
    service_of(&root(split), &spec)
}

/// Leaves need no address, and the API server is quicker without.
fn headless(name: &str) -> Creation {
    let spec = json!({
        "clusterIP": "None",
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
    });
    service_of(name, &spec)
}

fn service_of(name: &str, spec: &Value) -> Creation {
    Creation {
        path: format!("/api/v1/namespaces/{NAMESPACE}/services"),
        object: manifests::service(NAMESPACE, name, spec),
    }
}

fn slice(service: &str, endpoints: &[Value]) -> Creation {
    let content = json!({
        "metadata": {"labels": {
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    });
    Creation {
        path: slices_path(),
        object: manifests::endpoint_slice(NAMESPACE, &format!("{service}-0"), service, &content),
    }
}
