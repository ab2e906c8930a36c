//! What is wrong with EndpointSlices: said of the slices themselves, and of the leaves that
//! have no ready endpoint because of it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::diagnostics::{Diagnostics, Severity};
use super::endpoints::is_same_port;
use super::store::Store;
use crate::objects::{
    AddressFamily, EndpointSlice, Kind, ObjectName, ObjectReference, SERVICE_NAME, Service,
    ServicePort, SlicePort, shown,
};
use crate::reason;
use crate::route::Claim;

/// Says what is wrong with the slices of the leaves of these claims, and with slices of nobody
/// beside them. Of other slices nobody asked.
pub(super) fn judge(store: &Store, claims: &[&Claim], diagnostics: &mut Diagnostics) {
    let leaves: BTreeSet<&ObjectName> = claims
        .iter()
        .filter_map(|claim| claim.split.as_ref())
        .flat_map(|split| &split.leaves)
        .filter_map(|leaf| leaf.service.as_ref())
        .collect();
    let namespaces: BTreeSet<&str> = leaves.iter().map(|leaf| leaf.namespace.as_str()).collect();
    for slice in namespaces
        .into_iter()
        .flat_map(|namespace| store.stray_slices(namespace))
        .filter(|slice| !slice.is_managed)
    {
        emit(
            slice,
            reason::SLICE_WITHOUT_SERVICE,
            &format!("metadata.labels[{SERVICE_NAME}]"),
            "is missing, so the slice belongs to no Service; write the name of one there, or who \
             manages the slice in the label endpointslice.kubernetes.io/managed-by",
            diagnostics,
        );
    }
    for leaf in leaves {
        for slice in store.slices(leaf) {
            for ignored in &slice.ignored {
                let (field, message) = (&ignored.field, &ignored.message);
                emit(
                    slice,
                    reason::SLICE_CONTENT_IGNORED,
                    field,
                    message,
                    diagnostics,
                );
            }
            if let Some(service) = store.service(leaf) {
                judge_ports(slice, service, diagnostics);
            }
        }
    }
}

/// A port that the Service does not have is a mistake if one that it has is not there.
fn judge_ports(slice: &EndpointSlice, service: &Service, diagnostics: &mut Diagnostics) {
    let lacking: Vec<&ServicePort> = service
        .ports
        .iter()
        .filter(|port| {
            !slice
                .ports
                .iter()
                .any(|of_slice| is_same_port(of_slice, port))
        })
        .collect();
    let unknown: Vec<&SlicePort> = slice
        .ports
        .iter()
        .filter(|of_slice| {
            !service
                .ports
                .iter()
                .any(|port| is_same_port(of_slice, port))
        })
        .collect();
    if lacking.is_empty() || unknown.is_empty() {
        return;
    }
    let message = format!(
        "has {}, which Service {} does not have, so endpoints are ignored; call each port as the \
         Service does: {}",
        names(unknown.iter().map(|port| port.name.as_str())),
        service.name,
        names(lacking.iter().map(|port| port.name.as_str())),
    );
    emit(
        slice,
        reason::SLICE_PORT_UNKNOWN,
        "ports",
        &message,
        diagnostics,
    );
}

fn emit(
    slice: &EndpointSlice,
    reason: &'static str,
    field: &str,
    message: &str,
    diagnostics: &mut Diagnostics,
) {
    diagnostics.emit_for(
        ObjectReference::new(Kind::ENDPOINT_SLICE, slice.name.clone()),
        Severity::Warning,
        reason,
        field,
        message,
    );
}

/// What is said of a Service without endpoints.
const NO_ENDPOINTS: &str =
    "it has no endpoints: its pods are scaled to 0, or its selector matches none";

/// Why a port of a Service has no ready endpoint.
pub(super) fn why_none_is_ready(
    store: &Store,
    service: &Service,
    port: &ServicePort,
    family: AddressFamily,
) -> String {
    let slices: Vec<&EndpointSlice> = store.slices(&service.name).collect();
    if slices.is_empty() {
        let refused = store.refused_slice(&service.name.namespace);
        let refused = refused.map_or_else(String::new, |object| {
            format!(" ({object} was refused, see above)")
        });
        let name = &service.name.name;
        return format!("no EndpointSlice has the label {SERVICE_NAME}: {name}{refused}");
    }
    let of_family: Vec<_> = slices
        .iter()
        .filter(|slice| slice.address_family == Some(family))
        .collect();
    if of_family.is_empty() {
        return format!("its EndpointSlices have no {} addresses", family.name());
    }
    // Of a Service that is scaled to nothing, the slices have no ports either.
    let is_empty = |slice: &&EndpointSlice| slice.endpoints.len() + slice.without_address == 0;
    if of_family.iter().all(|slice| is_empty(slice)) {
        return NO_ENDPOINTS.to_owned();
    }
    let with_port: Vec<_> = of_family
        .iter()
        .filter(|slice| {
            slice
                .ports
                .iter()
                .any(|candidate| is_same_port(candidate, port))
        })
        .collect();
    if with_port.is_empty() {
        let there: BTreeSet<&str> = of_family
            .iter()
            .flat_map(|slice| &slice.ports)
            .map(|port| port.name.as_str())
            .collect();
        let there = if there.is_empty() {
            "none that can be used".to_owned()
        } else {
            names(there.into_iter())
        };
        let wanted = names([port.name.as_str()].into_iter());
        return format!("its EndpointSlices do not have {wanted} (they have {there})");
    }
    let (mut with_address, mut without) = (0, 0);
    for slice in with_port {
        with_address += slice.endpoints.len();
        without += slice.without_address;
    }
    match (with_address + without, with_address > 0) {
        (0, _) => NO_ENDPOINTS.to_owned(),
        (_, false) => format!("its endpoints have no {} addresses", family.name()),
        (1, true) => "its one endpoint is not ready".to_owned(),
        (count, true) => format!("none of its {count} endpoints is ready"),
    }
}

/// Names of ports for people, not longer than a line.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 3;
    let mut all: Vec<String> = names
        .map(|name| match name {
            "" => "an unnamed port".to_owned(),
            name => format!("port {}", shown(&Value::from(name))),
        })
        .collect();
    let more = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    let mut text = all.join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
