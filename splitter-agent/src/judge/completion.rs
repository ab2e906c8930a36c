//! What a cluster adds to manifests: cluster IPs of Services, and their EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use serde_json::{Value, json};

use super::written;
use crate::compile::{Diagnostics, Everything, Settings, destination_service};
use crate::objects::{
    AddressFamily, Kind, Object, ObjectName, Objects, SERVICE_NAME, Service, ServiceKind,
};
use crate::plan::protocol_name;
use crate::route::{Claim, Context, Route};

/// What was taken to be there although the manifests do not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Assumed {
    /// Services that were given a cluster IP.
    pub cluster_ips: Vec<ObjectName>,
    /// Services that were given a ready endpoint.
    pub endpoints: Vec<ObjectName>,
}

/// Adds what a cluster would: to each root a cluster IP, and to each Service that selects
/// pods and has no EndpointSlice a ready endpoint.
pub(super) fn complete(objects: &mut Objects, settings: &Settings) -> Assumed {
    let mut addresses = Addresses::default();
    let mut assumed = Assumed::default();
    let family = family_of_slices(objects);
    for root in roots(objects, settings) {
        let Some(service) = objects.services.get_mut(&root) else {
            continue;
        };
        if service.kind == ServiceKind::ClusterIp && service.cluster_ips.is_empty() {
            service.cluster_ips = Box::new([addresses.next(family)]);
            assumed.cluster_ips.push(root);
        }
    }
    let has_slice: BTreeSet<ObjectName> = objects
        .endpoint_slices
        .values()
        .filter_map(|slice| {
            let service = slice.service.as_ref()?;
            Some(ObjectName::new(&*slice.name.namespace, &**service))
        })
        .collect();
    let uncertain = namespaces_of_refused_slices(objects);
    let mut subsets = subsets(objects, settings);
    let bare: Vec<Service> = objects
        .services
        .values()
        .filter(|service| {
            // Of one without a selector, somebody else writes the EndpointSlices.
            service.has_selector
                && service.kind != ServiceKind::ExternalName
                && !has_slice.contains(&service.name)
                && !uncertain.contains(&service.name.namespace)
        })
        .cloned()
        .collect();
    for service in bare {
        let mut families: BTreeSet<AddressFamily> =
            service.cluster_ips.iter().map(AddressFamily::of).collect();
        if families.is_empty() || assumed.cluster_ips.contains(&service.name) {
            families.extend([AddressFamily::Ipv4, AddressFamily::Ipv6]);
        }
        let subsets = subsets.remove(&service.name).unwrap_or_default();
        for (number, labels) in subsets.iter().enumerate() {
            if let Some(pod) = written(pod(&service, number, labels)) {
                objects.insert(pod);
            }
        }
        for family in families {
            let number = subsets.len().max(1);
            let addresses: Vec<IpAddr> = (0..number).map(|_| addresses.next(family)).collect();
            if let Some(slice) = written(slice(&service, family, &addresses)) {
                objects.insert(slice);
            }
        }
        assumed.endpoints.push(service.name);
    }
    assumed
}

/// Makes every root one that can be dialled, so that its leaves can be judged.
pub(super) fn supply_roots(objects: &mut Objects, settings: &Settings) {
    let mut addresses = Addresses::from(1 << 16);
    for claim in claims(objects, settings) {
        let root = claim.root;
        let leaves = claim.split.iter().flat_map(|split| &split.leaves);
        let leaf_ports: BTreeSet<u16> = leaves
            .filter_map(|leaf| objects.services.get(leaf.service.as_ref()?))
            .flat_map(|leaf| leaf.ports.iter().map(|port| port.port))
            .collect();
        let ports = leaf_ports.into_iter().chain([80]).take(1);
        let ports: Vec<Value> = ports.map(|port| json!({"port": port})).collect();
        let supplied = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": root.name, "namespace": root.namespace},
            "spec": {"ports": ports, "clusterIP": addresses.next(AddressFamily::Ipv4)},
        });
        let Some(Object::Service(supplied)) = written(supplied) else {
            continue;
        };
        let service = objects.services.entry(root);
        let service = service.or_insert_with(|| supplied.clone());
        if service.kind != ServiceKind::ClusterIp || service.cluster_ips.is_empty() {
            service.kind = ServiceKind::ClusterIp;
            service.cluster_ips = supplied.cluster_ips;
        }
        if service.ports.is_empty() {
            service.ports = supplied.ports;
        }
    }
}

fn roots(objects: &Objects, settings: &Settings) -> BTreeSet<ObjectName> {
    let claims = claims(objects, settings).into_iter();
    claims.map(|claim| claim.root).collect()
}

fn claims(objects: &Objects, settings: &Settings) -> Vec<Claim> {
    let context = Context {
        cluster_domain: &settings.cluster_domain,
        requires_grants: settings.requires_grants,
        others: &Everything::of(objects),
    };
    let mut diagnostics = Diagnostics::default();
    let routes = objects.routes.values();
    routes
        .flat_map(|object| Route::translate(object, context, &mut diagnostics).claims)
        .collect()
}

/// The family of the EndpointSlices, where there are some and they are all of one.
fn family_of_slices(objects: &Objects) -> AddressFamily {
    let mut families = objects
        .endpoint_slices
        .values()
        .filter_map(|slice| slice.address_family);
    match families.next() {
        Some(first) if families.all(|family| family == first) => first,
        _ => AddressFamily::Ipv4,
    }
}

/// The namespaces with an EndpointSlice that cannot be read: it might be that of any Service.
fn namespaces_of_refused_slices(objects: &Objects) -> BTreeSet<String> {
    let refused = objects.refused.iter();
    let slices = refused.filter(|object| object.is(Kind::ENDPOINT_SLICE));
    slices.map(|slice| slice.name.namespace.clone()).collect()
}

/// The labels of the subsets of each Service, each once.
fn subsets(
    objects: &Objects,
    settings: &Settings,
) -> BTreeMap<ObjectName, BTreeSet<BTreeMap<String, String>>> {
    let mut subsets: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for rule in objects.destination_rules.values() {
        if let Some(service) = destination_service(rule, &settings.cluster_domain) {
            let labels = rule.subsets.iter().map(|subset| subset.labels.clone());
            subsets.entry(service).or_default().extend(labels);
        }
    }
    subsets
}

/// A Pod of a subset of a Service.
fn pod(service: &Service, number: usize, labels: &BTreeMap<String, String>) -> Value {
    let name = pod_name(service, number);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": service.name.namespace, "labels": labels},
    })
}

fn pod_name(service: &Service, number: usize) -> String {
    format!("{}-assumed-{number}", service.name.name)
}

/// An EndpointSlice as the cluster's controller makes it, with ready endpoints.
fn slice(service: &Service, family: AddressFamily, addresses: &[IpAddr]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .enumerate()
        .map(|(number, address)| {
            json!({
                "addresses": [address], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": pod_name(service, number)},
            })
        })
        .collect();
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            json!({
                "name": port.name, "port": port.port, "protocol": protocol_name(port.protocol),
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-assumed-{}", service.name.name, family.name().to_lowercase()),
            "namespace": service.name.namespace,
            "labels": {SERVICE_NAME: service.name.name},
        },
        "addressType": family.name(),
        "ports": ports,
        "endpoints": endpoints,
    })
}

/// Addresses that no cluster uses: of the benchmarking range (RFC 2544) and of the documentation
/// prefix (RFC 3849), each once.
#[derive(Default)]
struct Addresses(u32);

impl Addresses {
    fn from(first: u32) -> Self {
        Self(first)
    }

    fn next(&mut self, family: AddressFamily) -> IpAddr {
        self.0 += 1;
        match family {
            AddressFamily::Ipv4 => IpAddr::from(
                u32::from(Ipv4Addr::new(198, 18, 0, 0))
                    .wrapping_add(self.0)
                    .to_be_bytes(),
            ),
            AddressFamily::Ipv6 => {
                let first = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));
                IpAddr::from(first.wrapping_add(self.0.into()).to_be_bytes())
            }
        }
    }
}
