//! Which Services a route is about, which of their ports, and for whom.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Inactive, Note, Refused, Warning};
use splitter_agent::compile::{Diagnostics, Everything, Settings};
use splitter_agent::objects::{Object, ObjectName, Objects, decode};
use splitter_agent::route::{Claim, ClientSelector, Clients, Context, Ports, Route};
use splitter_common::layout::Protocol;

use super::{KINDS, backends, faults, outcome, parent, plan, route};
use crate::fixtures::{service_of, with, world};

/// A route with these parents.
fn with_parents(kind: &str, parents: Value) -> Value {
    let rules = json!([{"backendRefs": backends(&[("web-1", 90), ("web-2", 10)])}]);
    let mut spec = json!({ "rules": rules });
    spec["parentRefs"] = parents;
    route(kind, "canary", spec)
}

/// The claims of a route.
fn claims(object: Value) -> Vec<Claim> {
    let Ok(Some(Object::Route(object))) = decode(object) else {
        panic!("not a route");
    };
    let domain = Settings::default().cluster_domain;
    let none = Objects::default();
    let context = Context {
        cluster_domain: &domain,
        requires_grants: false,
        others: &Everything::of(&none),
    };
    Route::translate(&object, context, &mut Diagnostics::default()).claims
}

/// Case: GATEWAY-PARENT
#[test]
fn a_parent_is_a_service_with_its_ports_by_number_by_name_or_by_both() {
    let ports = |number: Option<u16>, name: Option<&str>| Ports {
        numbers: number.map(|number| [number].into()),
        name: name.map(str::to_owned),
        transport: Some(Protocol::Tcp),
        ..Ports::ALL
    };
    let all = || ports(None, None);
    for (kind, _) in KINDS {
        for (fields, expected) in [
            (json!({}), all()),
            (json!({"group": "core"}), all()),
            (json!({"namespace": "shop"}), all()),
            (json!({"port": 80}), ports(Some(80), None)),
            (json!({"sectionName": "http"}), ports(None, Some("http"))),
            (
                json!({"port": 80, "sectionName": "http"}),
                ports(Some(80), Some("http")),
            ),
            (json!({"port": null, "sectionName": ""}), all()),
        ] {
            let claims = claims(with_parents(kind, json!([with(parent(), &fields)])));
            let [claim] = &claims[..] else {
                panic!("{claims:?}");
            };
            assert_eq!(claim.root, ObjectName::new("shop", "web"));
            assert_eq!(claim.ports, expected, "{fields}");
            assert_eq!(claim.clients, Clients::Everyone);
            assert_eq!(claim.root_field, "spec.parentRefs[0]");
            assert!(claim.split.is_some());
        }
    }
}

/// Case: GATEWAY-PARENT
#[test]
fn a_port_by_name_is_that_of_the_root_whatever_its_number() {
    let root = service_of(
        "web",
        &json!({"clusterIP": "10.96.0.1", "ports": [
            {"name": "http", "port": 80}, {"name": "admin", "port": 8080},
        ]}),
    );
    let mut objects = world();
    objects.retain(|object| object["metadata"]["name"] != "web");
    objects.push(root);
    for (fields, split) in [
        (json!({"sectionName": "http"}), [true, false]),
        (json!({"sectionName": "admin"}), [false, true]),
        (json!({"port": 8080, "sectionName": "admin"}), [false, true]),
        (json!({}), [true, true]),
    ] {
        let object = with_parents("TCPRoute", json!([with(parent(), &fields)]));
        let outcome = crate::fixtures::compiled(objects.iter().cloned().chain([object]));
        let is_split = ["10.96.0.1:80", "10.96.0.1:8080"].map(|it| outcome.at(it).is_some());
        assert_eq!(is_split, split, "{fields}");
    }
    for fields in [
        json!({"sectionName": "grpc"}),
        json!({"port": 81}),
        json!({"port": 80, "sectionName": "admin"}),
    ] {
        let object = with_parents("TCPRoute", json!([with(parent(), &fields)]));
        let outcome = crate::fixtures::compiled(objects.iter().cloned().chain([object]));
        let expected = [(Inactive, "RootPortMissing", "spec.parentRefs[0]")];
        assert_eq!(faults(&outcome), expected, "{fields}");
    }
}

/// Case: GATEWAY-PARENTS
#[test]
fn each_parent_is_a_claim_of_its_own() {
    let other = json!({"group": "", "kind": "Service", "name": "other", "port": 81});
    let again = with(parent(), &json!({"port": 80}));
    let gateway = json!({"name": "gate"});
    let claims = claims(with_parents(
        "HTTPRoute",
        json!([gateway, other, parent(), again, parent()]),
    ));
    let summary: Vec<_> = claims
        .iter()
        .map(|it| (&*it.root.name, &*it.root_field))
        .collect();
    // Those too that another one covers: each has a status of its own.
    assert_eq!(
        summary,
        [
            ("other", "spec.parentRefs[1]"),
            ("web", "spec.parentRefs[2]"),
            ("web", "spec.parentRefs[3]"),
            ("web", "spec.parentRefs[4]"),
        ]
    );
}

/// Case: GATEWAY-CONSUMER
#[test]
fn a_route_of_another_namespace_is_for_the_clients_of_its_own() {
    for (kind, _) in KINDS {
        let elsewhere = with(parent(), &json!({"namespace": "bank", "port": 80}));
        let claims = claims(with_parents(kind, json!([elsewhere])));
        assert_eq!(claims.len(), 1);
        assert_eq!(claims[0].root, ObjectName::new("bank", "web"));
        assert_eq!(
            claims[0].clients,
            Clients::Some(ClientSelector {
                namespaces: Some(["shop".to_owned()].into()),
                labels: [].into(),
                is_consumer: true,
            })
        );
        // The backends are those of its own namespace, named as seen from the root.
        let split = claims[0].split.as_ref().expect("a split");
        assert_eq!(
            split.leaves[0].service,
            Some(ObjectName::new("shop", "web-1"))
        );
        assert_eq!(split.leaves[0].name, "web-1.shop");
    }
}

/// Case: GATEWAY-PARENT-OTHER
#[test]
fn a_route_for_others_is_not_even_mentioned() {
    for (kind, _) in KINDS {
        for parents in [
            json!(null),
            json!([]),
            json!("web"),
            json!([7]),
            json!([{"name": "gate"}]),
            json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gate"}]),
            json!([{"group": "", "kind": "Pod", "name": "web"}]),
            json!([{"group": "", "name": "web"}]),
            json!([{"group": "serving.knative.dev", "kind": "Service", "name": "web"}]),
            json!([{"group": 7, "kind": "Service", "name": "web"}]),
        ] {
            let object = with(
                with_parents(kind, parents.clone()),
                &json!({"spec": {"rules": [{"matches": [{"x": 1}], "backendRefs": 7}]}}),
            );
            let outcome = outcome([object]);
            assert_eq!(outcome.0.diagnostics, [], "{parents}");
            assert_eq!(outcome.0.plan.frontends.len(), 0);
        }
        let without_spec = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
            "metadata": {"name": "canary"},
        });
        assert_eq!(outcome([without_spec]).0.diagnostics, []);
    }
}

/// Case: GATEWAY-PARENT-GROUP
#[test]
fn a_parent_that_is_almost_a_service_is_told() {
    for (kind, _) in KINDS {
        for fields in [
            json!({"kind": "Service", "name": "web"}),
            json!({"group": null, "kind": "Service", "name": "web"}),
            json!({"group": "gateway.networking.k8s.io", "kind": "Service", "name": "web"}),
            json!({"group": "v1", "kind": "Service", "name": "web"}),
        ] {
            let expected = [(Warning, "InvalidParent", "spec.parentRefs[0].group")];
            let one = outcome([with_parents(kind, json!([fields]))]);
            assert_eq!(one.said(), expected, "{fields}");
            assert!(plan(&one).is_none());
            // The other parents are as they are.
            let both = outcome([with_parents(kind, json!([fields, parent()]))]);
            assert_eq!(both.said(), expected, "{fields}");
            assert!(plan(&both).is_some());
        }
    }
}

/// Case: GATEWAY-PARENT-INVALID
#[test]
fn a_parent_that_cannot_be_read_is_refused() {
    for (kind, _) in KINDS {
        for (fields, field) in [
            (json!({"name": null}), "name"),
            (json!({"name": ""}), "name"),
            (json!({"name": 7}), "name"),
            (json!({"name": "Web"}), "name"),
            (json!({"name": "web.shop"}), "name"),
            (json!({"namespace": "Shop"}), "namespace"),
            (json!({"namespace": 7}), "namespace"),
            (json!({"port": 0}), "port"),
            (json!({"port": 65536}), "port"),
            (json!({"port": "http"}), "port"),
            (json!({"sectionName": 80}), "sectionName"),
        ] {
            let outcome = outcome([with_parents(kind, json!([with(parent(), &fields)]))]);
            let field = format!("spec.parentRefs[0].{field}");
            assert_eq!(
                outcome.said(),
                [(Refused, "InvalidRoot", &*field)],
                "{fields}"
            );
        }
    }
}

/// Case: GATEWAY-ROOT-API-SERVER
#[test]
fn the_api_server_is_never_split() {
    for (kind, _) in KINDS {
        for namespace in ["default", "shop"] {
            let object = with_parents(
                kind,
                json!([{"group": "", "kind": "Service", "name": "kubernetes", "namespace": "default"}]),
            );
            let object = with(object, &json!({"metadata": {"namespace": namespace}}));
            let outcome = outcome([object]);
            let expected = [(Refused, "RootProtected", "spec.parentRefs[0]")];
            assert_eq!(faults(&outcome), expected);
        }
    }
}

/// Case: ROOT-MISSING, ROOT-HEADLESS, ROOT-EXTERNAL-NAME
#[test]
fn each_parent_is_judged_by_itself() {
    let services = [
        service_of(
            "headless",
            &json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        ),
        service_of(
            "elsewhere",
            &json!({"type": "ExternalName", "externalName": "x.example"}),
        ),
    ];
    let names = ["web", "headless", "elsewhere", "nowhere"];
    let parents: Vec<Value> = names
        .iter()
        .map(|name| with(parent(), &json!({"name": name})))
        .collect();
    let object = with_parents("HTTPRoute", json!(parents));
    let outcome = outcome(services.into_iter().chain([object]));
    assert_eq!(
        faults(&outcome),
        [
            (Inactive, "RootExternalName", "spec.parentRefs[2]"),
            (Inactive, "RootHeadless", "spec.parentRefs[1]"),
            (Inactive, "RootMissing", "spec.parentRefs[3]"),
        ]
    );
    assert!(plan(&outcome).is_some());
}

/// Case: GATEWAY-STATUS-ABANDONED
#[test]
fn a_status_that_is_no_longer_ours_is_noted_until_it_is_gone() {
    let gateway = json!([{"name": "gate"}]);
    let entry = |controller: &str| json!({"controllerName": controller, "parentRef": parent()});
    let status = |entries: Value| {
        with(
            with_parents("HTTPRoute", gateway.clone()),
            &json!({"status": {"parents": entries}}),
        )
    };
    let left = status(json!([
        entry("example.com/x"),
        entry("splitter.dev/controller")
    ]));
    assert_eq!(
        outcome([left]).said(),
        [(Note, "StatusAbandoned", "status.parents")]
    );
    for other in [json!([entry("example.com/x")]), json!([]), json!(7)] {
        assert_eq!(outcome([status(other)]).said(), []);
    }
}
