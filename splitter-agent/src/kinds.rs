//! The list of kinds that are read. Everything that differs from kind to kind goes by the entries
//! named here: the sources, the compiler, reports, the names in the maps, and `check`.

use std::sync::OnceLock;

use crate::objects::istio::{destination_rule, virtual_service};
use crate::objects::{Entry, Kind, endpoint_slice, gateway, node, pod, service, traffic_split};

impl Kind {
    /// Service (`v1`).
    pub const SERVICE: Self = Self::new(&service::ENTRY);
    /// EndpointSlice (`discovery.k8s.io/v1`).
    pub const ENDPOINT_SLICE: Self = Self::new(&endpoint_slice::ENTRY);
    /// TrafficSplit (SMI, `split.smi-spec.io`).
    pub const TRAFFIC_SPLIT: Self = Self::new(&traffic_split::ENTRY);
    /// GRPCRoute (Gateway API, `gateway.networking.k8s.io`).
    pub const GRPC_ROUTE: Self = Self::new(&gateway::GRPC_ROUTE);
    /// HTTPRoute (Gateway API).
    pub const HTTP_ROUTE: Self = Self::new(&gateway::HTTP_ROUTE);
    /// TLSRoute (Gateway API).
    pub const TLS_ROUTE: Self = Self::new(&gateway::TLS_ROUTE);
    /// TCPRoute (Gateway API).
    pub const TCP_ROUTE: Self = Self::new(&gateway::TCP_ROUTE);
    /// UDPRoute (Gateway API).
    pub const UDP_ROUTE: Self = Self::new(&gateway::UDP_ROUTE);
    /// Pod (`v1`).
    pub const POD: Self = Self::new(&pod::ENTRY);
    /// DestinationRule (Istio, `networking.istio.io`).
    pub const DESTINATION_RULE: Self = Self::new(&destination_rule::ENTRY);
    /// VirtualService (Istio, `networking.istio.io`).
    pub const VIRTUAL_SERVICE: Self = Self::new(&virtual_service::ENTRY);
    /// ReferenceGrant (Gateway API). Not read unless it is [added](add).
    pub const REFERENCE_GRANT: Self = Self::new(&gateway::reference_grant::ENTRY);
    /// Node (`v1`).
    pub const NODE: Self = Self::new(&node::ENTRY);
}

/// What a split depends on comes first.
const BUILT_IN: &[Kind] = &[
    Kind::SERVICE,
    Kind::ENDPOINT_SLICE,
    Kind::POD,
    Kind::DESTINATION_RULE,
    Kind::TRAFFIC_SPLIT,
    Kind::GRPC_ROUTE,
    Kind::HTTP_ROUTE,
    Kind::TLS_ROUTE,
    Kind::TCP_ROUTE,
    Kind::UDP_ROUTE,
    Kind::VIRTUAL_SERVICE,
    Kind::NODE,
];

static ADDED: OnceLock<Vec<Kind>> = OnceLock::new();
static LEFT_OUT: OnceLock<Vec<&'static str>> = OnceLock::new();

/// The kinds are in use already, so that no more can be added or left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kinds can only be added or left out before any object is read, and once")]
pub struct InUse;

/// Adds kinds of the program that uses this library. Possible once, before any object is read: what
/// has been read would otherwise have to be read again.
///
/// # Errors
///
/// If kinds are in use already.
pub fn add(entries: &[&'static Entry]) -> Result<(), InUse> {
    let kinds = entries.iter().map(|entry| Kind::new(entry)).collect();
    ADDED.set(kinds).map_err(|_| InUse)
}

/// Leaves out every kind of these groups, as if there were none of it. Possible once, before any
/// object is read.
///
/// # Errors
///
/// If kinds are in use already.
pub fn leave_out(groups: Vec<&'static str>) -> Result<(), InUse> {
    LEFT_OUT.set(groups).map_err(|_| InUse)
}

/// Every kind that is read.
pub(crate) fn all() -> impl Iterator<Item = Kind> + Clone {
    let added = ADDED.get_or_init(Vec::new);
    let left_out = LEFT_OUT.get_or_init(Vec::new);
    let all = BUILT_IN.iter().chain(added).copied();
    all.filter(|kind| left_out.is_empty() || !left_out.contains(&kind.resource.group))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::objects::{Availability, Purpose, Resource};

    /// What a rule of a role allows: verbs on a resource of a group, or on some objects of it.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Right {
        group: String,
        resource: String,
        names: Vec<String>,
        verbs: Vec<String>,
    }

    impl Right {
        fn new(group: &str, resource: &str, names: &[String], verbs: &[&str]) -> Self {
            Self {
                group: group.to_owned(),
                resource: resource.to_owned(),
                names: names.to_vec(),
                verbs: verbs.iter().map(ToString::to_string).collect(),
            }
        }
    }

    fn rights(role: &str) -> BTreeSet<Right> {
        let role: Value = serde_saphyr::from_str(role).expect("YAML");
        let texts = |value: &Value| -> Vec<String> {
            let texts = value.as_array().into_iter().flatten();
            texts
                .map(|text| text.as_str().expect("text").to_owned())
                .collect()
        };
        let mut rights = BTreeSet::new();
        for rule in role["rules"].as_array().expect("rules") {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    rights.insert(Right {
                        group: group.clone(),
                        resource,
                        names: texts(&rule["resourceNames"]),
                        verbs: texts(&rule["verbs"]),
                    });
                }
            }
        }
        rights
    }

    const CLUSTER_ROLE: &str = include_str!("../../deploy/base/cluster-role.yaml");
    const ROLE: &str = include_str!("../../deploy/base/role.yaml");

    /// A template of the chart without what only Helm understands.
    fn plain(template: &str) -> String {
        let lines = template.lines().filter(|line| !line.contains("{{"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// Every right that the kinds ask for, by what the documentation calls it.
    fn needed() -> Vec<(String, Right)> {
        let mut needed = Vec::new();
        for kind in Kind::all() {
            let Resource { plural, group, .. } = kind.resource;
            let verbs: &[&str] = match kind.purpose {
                Purpose::OwnNode => &["get"],
                Purpose::Route | Purpose::Dependency | Purpose::OnDemand => &["list", "watch"],
            };
            needed.push((format!("{kind}s"), Right::new(group, plural, &[], verbs)));
            if kind.has_status() {
                let status = format!("{plural}/status");
                let right = Right::new(group, &status, &[], &["patch"]);
                needed.push((format!("status of {kind}s"), right));
            }
        }
        let optional = Kind::all().filter(|kind| kind.availability == Availability::Optional);
        let names: Vec<String> = optional.clone().map(Kind::definition_name).collect();
        let kinds: Vec<String> = optional.map(|kind| format!("{kind}s")).collect();
        needed.push((
            format!("the CRDs of {}, and no others", listed(&kinds)),
            Right::new(
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                &names,
                &["get", "list", "watch"],
            ),
        ));
        needed.push((
            "Events".to_owned(),
            Right::new("events.k8s.io", "events", &[], &["create", "patch"]),
        ));
        needed
    }

    /// What reading ReferenceGrants needs.
    fn grants() -> [Right; 2] {
        let kind = Kind::REFERENCE_GRANT;
        let Resource { plural, group, .. } = kind.resource;
        let definition = [kind.definition_name()];
        [
            Right::new(group, plural, &[], &["list", "watch"]),
            Right::new(
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                &definition,
                &["get", "list", "watch"],
            ),
        ]
    }

    fn listed(names: &[String]) -> String {
        match names {
            [first @ .., one, last] => [first, &[format!("{one} and {last}")]].concat().join(", "),
            names => names.concat(),
        }
    }

    #[test]
    fn the_cluster_role_grants_what_the_kinds_need_and_nothing_else() {
        let needed: BTreeSet<Right> = needed().into_iter().map(|(_, right)| right).collect();
        assert_eq!(rights(CLUSTER_ROLE), needed);
        let chart = include_str!("../../deploy/chart/templates/cluster-role.yaml");
        assert_eq!(rights(&plain(chart)), needed);
        // With a value of the chart, or a component, one kind more is read.
        let chart = include_str!("../../deploy/chart/templates/reference-grants.yaml");
        let (chart, _binding) = chart.split_once("---").expect("two documents");
        let component = include_str!("../../deploy/components/reference-grants/cluster-role.yaml");
        for role in [&plain(chart), component] {
            assert_eq!(rights(role), BTreeSet::from(grants()));
        }
    }

    #[test]
    fn the_documented_rights_are_those_of_the_roles() {
        let documentation = include_str!("../../docs/operations.md");
        let (_, table) = documentation
            .split_once("| in the API | verbs | for |\n|---|---|---|\n")
            .expect("the table of rights");
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        let documented: BTreeSet<(String, String)> = rows
            .map(|row| {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                assert!(cells.len() == 5 && !cells[3].is_empty(), "{row}: no reason");
                (cells[1].to_owned(), cells[2].to_owned())
            })
            .collect();
        let mut granted: BTreeSet<(String, String)> = needed()
            .into_iter()
            .map(|(name, right)| (name, right.verbs.join(", ")))
            .collect();
        let leases: Vec<String> = rights(ROLE)
            .into_iter()
            .map(|right| {
                assert_eq!(right.resource, "leases");
                let own = if right.names.is_empty() {
                    ""
                } else {
                    " of its own one"
                };
                format!("{}{own}", right.verbs.join(", "))
            })
            .collect();
        granted.insert(("Leases in its own namespace".to_owned(), leases.join("; ")));
        assert_eq!(documented, granted);
    }
}
