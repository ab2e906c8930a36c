//! Istio's VirtualServices and DestinationRules.

use serde_json::{Value, json};
use splitter_agent::compile::Severity;
use splitter_agent::plan::Decision;
use splitter_common::layout::{LeafState, Reason};

use crate::fixtures::{NAMESPACE, Outcome, compiled, service_of, slice_of, with};

/// The cluster IP of `reviews`.
pub(crate) const REVIEWS: &str = "10.96.1.1:9080";

/// A VirtualService of this spec.
pub(crate) fn virtual_service(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": NAMESPACE, "generation": 1},
        "spec": spec,
    })
}

/// A DestinationRule of this spec.
pub(crate) fn destination_rule(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("rule-{name}")},
        "spec": spec,
    })
}

/// A Pod with these labels, whose uid is `uid-NAME`.
pub(crate) fn pod(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "labels": labels},
    })
}

/// An endpoint of an EndpointSlice that is a Pod.
pub(crate) fn endpoint(pod: &str, address: &str) -> Value {
    json!({
        "addresses": [address], "conditions": {"ready": true},
        "targetRef": {"kind": "Pod", "name": pod, "namespace": NAMESPACE, "uid": format!("uid-{pod}")},
    })
}

/// A destination of a rule.
pub(crate) fn to(host: &str, subset: impl Into<Value>, weight: impl Into<Value>) -> Value {
    json!({"destination": {"host": host, "subset": subset.into()}, "weight": weight.into()})
}

/// A VirtualService `reviews` for Service reviews, with one rule.
pub(crate) fn reviews(rule: &Value) -> Value {
    virtual_service("reviews", &json!({"hosts": ["reviews"], "http": [rule]}))
}

/// The subsets v1, v2 and v3 of Service reviews.
pub(crate) fn reviews_rule() -> Value {
    let subset = |version: &str| json!({"name": version, "labels": {"version": version}});
    let subsets = json!([subset("v1"), subset("v2"), subset("v3")]);
    destination_rule("reviews", &json!({"host": "reviews", "subsets": subsets}))
}

/// Service reviews, and a Pod of each of its three versions.
pub(crate) fn versions() -> Vec<Value> {
    let ports = json!([{"name": "http", "port": 9080}]);
    let service = service_of(
        "reviews",
        &json!({"clusterIP": "10.96.1.1", "ports": ports}),
    );
    let pods = ["v1", "v2", "v3"].map(|version| {
        let labels = json!({"app": "reviews", "version": version});
        pod(&format!("reviews-{version}"), &labels)
    });
    let endpoints = json!([
        endpoint("reviews-v1", "10.0.1.1"),
        endpoint("reviews-v2", "10.0.1.2"),
        endpoint("reviews-v3", "10.0.1.3"),
    ]);
    let content = json!({"ports": [{"name": "http", "port": 9080}], "endpoints": endpoints});
    let slice = slice_of("reviews-0", "reviews", &content);
    [vec![service, slice], pods.into()].concat()
}

/// The versions of reviews with their subsets, and these objects.
pub(crate) fn bookinfo(objects: impl IntoIterator<Item = Value>) -> Outcome {
    let world = versions().into_iter().chain([reviews_rule()]);
    compiled(world.chain(objects))
}

/// How severe, why, and of which field.
pub(crate) type Said<'a> = (Severity, &'static str, &'a str);

/// What is said of VirtualServices.
pub(crate) fn said(outcome: &Outcome) -> Vec<Said<'_>> {
    let diagnostics = outcome.0.diagnostics.iter();
    diagnostics
        .filter(|said| said.object.kind == "VirtualService")
        .map(|said| (said.severity, said.reason, said.field.as_str()))
        .collect()
}

/// All that is said of one that is accepted as it is written.
pub(crate) const ACCEPTED: [Said<'_>; 1] = [(Severity::Accepted, "Accepted", "")];

#[track_caller]
fn assert_refused(outcome: &Outcome, reason: &str, field: &str) {
    assert_eq!(said(outcome), [(Severity::Refused, reason, field)]);
    let split = outcome.at(REVIEWS).expect("a record of why");
    assert_eq!(split.decision, Decision::PassThrough(Reason::ObjectRefused));
}

/// Case: ISTIO-WEIGHTS, ISTIO-SUBSET
#[test]
fn bookinfo_goes_from_one_version_to_two_to_another() {
    let all_v1 = reviews(&json!({"route": [{"destination": {"host": "reviews", "subset": "v1"}}]}));
    let outcome = bookinfo([all_v1]);
    assert_eq!(said(&outcome), ACCEPTED);
    assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
    assert_eq!(outcome.endpoints(REVIEWS, 0), ["10.0.1.1:9080"]);

    let half = json!({"route": [to("reviews", "v1", 50), to("reviews", "v3", 50)]});
    let outcome = bookinfo([reviews(&half)]);
    assert_eq!(said(&outcome), ACCEPTED);
    assert_eq!(
        outcome.shares(REVIEWS),
        [("reviews/v1", 1), ("reviews/v3", 1)]
    );
    assert_eq!(outcome.endpoints(REVIEWS, 1), ["10.0.1.3:9080"]);

    let all_v3 = json!({"route": [{"destination": {"host": "reviews", "subset": "v3"}}]});
    let outcome = bookinfo([reviews(&all_v3)]);
    assert_eq!(outcome.endpoints(REVIEWS, 0), ["10.0.1.3:9080"]);
}

/// Case: ISTIO-REQUEST-HANDLING
#[test]
fn a_timeout_refuses_with_its_field_what_was_accepted_without() {
    let routes = json!([to("reviews", "v1", 70), to("reviews", "v2", 30)]);
    let outcome = bookinfo([reviews(&json!({"route": routes}))]);
    assert_eq!(
        outcome.shares(REVIEWS),
        [("reviews/v1", 7), ("reviews/v2", 3)]
    );
    let rule = json!({"route": routes, "timeout": "0.002s"});
    let outcome = bookinfo([reviews(&rule)]);
    assert_refused(&outcome, "UnsupportedField", "spec.http[0].timeout");
    let message = &outcome.0.diagnostics.last().unwrap().message;
    assert!(
        message.contains("0.002s") && message.contains("splitter.dev/unsupported"),
        "{message}"
    );
}

/// Case: ISTIO-IGNORE
#[test]
fn what_changes_only_how_a_request_is_handled_may_be_ignored() {
    let rule = json!({
        "route": [to("reviews", "v1", 70), to("reviews", "v2", 30)],
        "timeout": "2s", "retries": {"attempts": 3}, "mirror": {"host": "reviews", "subset": "v3"},
        "corsPolicy": {"allowOrigins": [{"exact": "x"}]}, "headers": {"request": {"set": {"a": "b"}}},
    });
    let ignore = json!({"metadata": {"annotations": {"splitter.dev/unsupported": "ignore"}}});
    let outcome = bookinfo([with(reviews(&rule), &ignore)]);
    let fields = ["corsPolicy", "headers", "mirror", "retries", "timeout"];
    let expected = fields.map(|field| format!("spec.http[0].{field}"));
    let expected: Vec<_> = expected
        .iter()
        .map(|field| (Severity::Warning, "UnsupportedIgnored", field.as_str()))
        .collect();
    assert_eq!(said(&outcome), expected);
    assert_eq!(
        outcome.shares(REVIEWS),
        [("reviews/v1", 7), ("reviews/v2", 3)]
    );

    let fault = with(
        rule,
        &json!({"fault": {"abort": {"percentage": {"value": 1}, "httpStatus": 500}}}),
    );
    let outcome = bookinfo([with(reviews(&fault), &ignore)]);
    assert_refused(&outcome, "UnsupportedField", "spec.http[0].fault.abort");
}

/// Case: ISTIO-MATCH
#[test]
fn a_choice_by_request_is_refused_with_its_field() {
    let jason = json!({
        "match": [{"headers": {"end-user": {"exact": "jason"}}}], "route": [to("reviews", "v2", 1)],
    });
    let rest = json!({"route": [to("reviews", "v3", 1)]});
    let spec = json!({"hosts": ["reviews"], "http": [jason, rest]});
    let outcome = bookinfo([virtual_service("reviews", &spec)]);
    assert_refused(
        &outcome,
        "MatchesUnsupported",
        "spec.http[0].match[0].headers",
    );
    assert!(outcome.0.diagnostics[0].message.contains("end-user"));
}

/// Case: ISTIO-MATCH-SAME
#[test]
fn a_choice_by_request_that_makes_no_difference_is_none() {
    let route = |first, second| json!([to("reviews", "v1", first), to("reviews", "v2", second)]);
    let path = json!({"match": [{"uri": {"prefix": "/api"}}], "route": route(10, 30)});
    let rest = json!({"route": route(1, 3)});
    let spec = json!({"hosts": ["reviews"], "http": [path, rest]});
    let outcome = bookinfo([virtual_service("reviews", &spec)]);
    assert_eq!(said(&outcome), ACCEPTED);
    assert_eq!(
        outcome.shares(REVIEWS),
        [("reviews/v1", 1), ("reviews/v2", 3)]
    );
}

/// Case: ISTIO-SUBSET-MISSING
#[test]
fn the_share_of_a_subset_that_nobody_defines_is_refused_and_said() {
    let rule = json!({"route": [to("reviews", "v1", 3), to("reviews", "v9", 1)]});
    let outcome = bookinfo([reviews(&rule)]);
    let field = "spec.http[0].route[1].destination.subset";
    assert_eq!(
        said(&outcome),
        [(Severity::Warning, "SubsetNotFound", field)]
    );
    assert_eq!(
        outcome.shares(REVIEWS),
        [("reviews/v1", 3), ("reviews/v9", 1)]
    );
    assert_eq!(outcome.endpoints(REVIEWS, 1), [""; 0]);
    assert_eq!(outcome.states(REVIEWS)[1], LeafState::NoReadyEndpoints);
}

/// Case: ISTIO-HOST-UNKNOWN
#[test]
fn the_share_of_a_host_that_is_no_service_is_refused_and_said() {
    let rule = json!({"route": [to("reviews", "v1", 3), to("reviews.prod", null(), 1)]});
    let outcome = bookinfo([reviews(&rule)]);
    let field = "spec.http[0].route[1].destination.host";
    assert_eq!(said(&outcome), [(Severity::Warning, "HostNotFound", field)]);
    assert_eq!(
        outcome.shares(REVIEWS),
        [("reviews/v1", 3), ("reviews.prod", 1)]
    );
    let message = &outcome.0.diagnostics.last().unwrap().message;
    assert!(
        message.contains("reviews.prod.svc.cluster.local"),
        "{message}"
    );
}

fn null() -> Value {
    Value::Null
}

/// Case: ISTIO-MATCH-CLIENTS
#[test]
fn a_rule_for_some_clients_is_a_split_for_those() {
    let canary = json!({
        "match": [{"sourceLabels": {"team": "a"}, "sourceNamespace": "team-a"}],
        "route": [to("reviews", "v3", 1)],
    });
    let rest = json!({"route": [to("reviews", "v1", 1)]});
    let spec = json!({"hosts": ["reviews"], "http": [canary, rest]});
    let outcome = bookinfo([virtual_service("reviews", &spec)]);
    assert_eq!(said(&outcome), ACCEPTED);
    assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
}

/// Case: ISTIO-MATCH-CLIENTS
#[test]
fn clients_that_no_rule_is_for_are_not_split() {
    let canary =
        json!({"match": [{"sourceLabels": {"team": "a"}}], "route": [to("reviews", "v3", 1)]});
    let outcome = bookinfo([reviews(&canary)]);
    assert_eq!(said(&outcome), ACCEPTED);
    let decision = outcome.decision(REVIEWS);
    assert_eq!(decision, Some(Decision::PassThrough(Reason::OtherClients)));
}

/// Case: ISTIO-GATEWAYS
#[test]
fn a_virtual_service_for_gateways_alone_splits_nothing_and_says_so() {
    for gateways in [json!(["ingress"]), json!(["istio-system/a", "b"])] {
        let spec = json!({
            "hosts": ["reviews"], "gateways": gateways, "http": [{"route": [to("reviews", "v1", 1)]}],
        });
        let outcome = bookinfo([virtual_service("reviews", &spec)]);
        let told = said(&outcome);
        assert!(
            told.contains(&(Severity::Inactive, "NotMeshBound", "spec.gateways")),
            "{told:?}"
        );
        assert_eq!(outcome.at(REVIEWS), None);
    }
    let spec = json!({
        "hosts": ["reviews", "www.example.org"], "gateways": ["ingress", "mesh"],
        "http": [{"route": [to("reviews", "v1", 1)]}],
    });
    let outcome = bookinfo([virtual_service("reviews", &spec)]);
    assert!(said(&outcome).contains(&(Severity::Note, "HostNotFound", "spec.hosts[1]")));
    assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
}

/// Case: ISTIO-HOSTS
#[test]
fn each_host_that_is_a_service_is_a_root() {
    let other = service_of(
        "ratings",
        &json!({"clusterIP": "10.96.1.2", "ports": [{"name": "http", "port": 9080}]}),
    );
    let spec = json!({
        "hosts": ["reviews", "ratings.shop.svc.cluster.local", "reviews.shop.svc.cluster.local"],
        "http": [{"route": [to("reviews", "v2", 1)]}],
    });
    let outcome = bookinfo([other, virtual_service("reviews", &spec)]);
    assert_eq!(said(&outcome), ACCEPTED);
    for address in [REVIEWS, "10.96.1.2:9080"] {
        assert_eq!(outcome.shares(address), [("reviews/v2", 1)]);
    }
}

/// Case: ISTIO-HOSTS
#[test]
fn a_virtual_service_may_be_in_another_namespace_than_its_hosts() {
    let spec = json!({
        "hosts": ["reviews.shop.svc.cluster.local"],
        "http": [{"route": [to("reviews.shop.svc.cluster.local", "v2", 1)]}],
    });
    let elsewhere = json!({"metadata": {"namespace": "mesh"}});
    let outcome = bookinfo([with(virtual_service("reviews", &spec), &elsewhere)]);
    assert_eq!(said(&outcome), ACCEPTED);
    assert_eq!(outcome.shares(REVIEWS), [("reviews.shop/v2", 1)]);
}

/// Case: ISTIO-HOSTS-OTHER
#[test]
fn hosts_that_are_no_service_are_told_of() {
    for host in [
        "*",
        "*.shop.svc.cluster.local",
        "www.example.org",
        "reviews.shop",
        "10.0.0.1",
    ] {
        let spec = json!({"hosts": [host], "http": [{"route": [to("reviews", "v1", 1)]}]});
        let outcome = bookinfo([virtual_service("reviews", &spec)]);
        assert_eq!(
            said(&outcome),
            [(Severity::Inactive, "HostNotFound", "spec.hosts[0]")],
            "{host}"
        );
        assert_eq!(outcome.at(REVIEWS), None);
        let spec =
            json!({"hosts": [host, "reviews"], "http": [{"route": [to("reviews", "v1", 1)]}]});
        let outcome = bookinfo([virtual_service("reviews", &spec)]);
        assert_eq!(
            said(&outcome),
            [(Severity::Warning, "HostNotFound", "spec.hosts[0]")],
            "{host}"
        );
        assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
    }
}

/// Case: ISTIO-HOSTS-API-SERVER
#[test]
fn the_api_server_is_never_split() {
    let spec = json!({
        "hosts": ["reviews", "kubernetes.default.svc.cluster.local"],
        "http": [{"route": [to("reviews", "v1", 1)]}],
    });
    let outcome = bookinfo([virtual_service("reviews", &spec)]);
    let expected = (Severity::Refused, "RootProtected", "spec.hosts[1]");
    assert!(said(&outcome).contains(&expected));
    let decision = outcome.decision(REVIEWS);
    assert_eq!(decision, Some(Decision::PassThrough(Reason::ObjectRefused)));
}

/// Case: ISTIO-NO-ENDPOINTS
#[test]
fn the_share_of_a_subset_without_pods_is_refused() {
    let gone = |value: &Value| value["metadata"]["name"] != "reviews-v3";
    let world = versions().into_iter().filter(gone).chain([reviews_rule()]);
    let half = json!({"route": [to("reviews", "v1", 50), to("reviews", "v3", 50)]});
    let outcome = compiled(world.chain([reviews(&half)]));
    assert_eq!(
        said(&outcome),
        [(Severity::Warning, "LeafNotReady", "spec.http[0].route[1]")]
    );
    let message = &outcome.0.diagnostics[0].message;
    assert!(
        message.contains("subset v3") && message.contains("refused"),
        "{message}"
    );
    assert_eq!(
        outcome.shares(REVIEWS),
        [("reviews/v1", 1), ("reviews/v3", 1)]
    );
    assert_eq!(outcome.endpoints(REVIEWS, 1), [""; 0]);
}

/// Case: ISTIO-DESTINATION-PORT
#[test]
fn a_destination_port_is_the_one_named_or_the_only_one_or_the_dialled_one() {
    let canary = |ports: &Value| {
        let service = service_of("canary", &json!({"clusterIP": "10.96.1.9", "ports": ports}));
        let slice_ports: Vec<Value> = ports
            .as_array()
            .unwrap()
            .iter()
            .map(
                |port| json!({"name": port["name"], "port": port["port"].as_u64().unwrap() + 1000}),
            )
            .collect();
        let content = json!({"ports": slice_ports, "endpoints": [{"addresses": ["10.0.1.9"]}]});
        [service, slice_of("canary-0", "canary", &content)]
    };
    let only = json!([{"name": "http", "port": 80}]);
    let two = json!([{"name": "a", "port": 80}, {"name": "b", "port": 9080}]);
    for (ports, named, expected) in [
        (&only, Value::Null, "10.0.1.9:1080"),
        (&two, Value::Null, "10.0.1.9:10080"),
        (&two, json!({"number": 80}), "10.0.1.9:1080"),
        (&only, json!({"number": 80}), "10.0.1.9:1080"),
    ] {
        let rule = json!({"route": [{"destination": {"host": "canary", "port": named}}]});
        let outcome = bookinfo(canary(ports).into_iter().chain([reviews(&rule)]));
        assert_eq!(said(&outcome), ACCEPTED, "{ports} {named}");
        assert_eq!(outcome.endpoints(REVIEWS, 0), [expected], "{ports} {named}");
    }
    let rule = json!({"route": [
        {"destination": {"host": "canary", "port": {"number": 81}}, "weight": 1}, to("reviews", "v1", 1),
    ]});
    let outcome = bookinfo(canary(&two).into_iter().chain([reviews(&rule)]));
    let expected = (
        Severity::Warning,
        "LeafPortMissing",
        "spec.http[0].route[0]",
    );
    assert_eq!(said(&outcome), [expected]);
}

/// Case: ISTIO-PROTOCOL
#[test]
fn each_list_of_rules_is_for_the_ports_of_its_protocol() {
    let world = |port: &Value| {
        let service = service_of(
            "reviews",
            &json!({"clusterIP": "10.96.1.1", "ports": [port]}),
        );
        let mut world = versions();
        world[0] = service;
        world.into_iter().chain([reviews_rule()])
    };
    let http = json!([{"route": [to("reviews", "v1", 1)]}]);
    let tcp = json!([{"route": [to("reviews", "v2", 1)]}]);
    let of_http = Some("reviews/v1");
    let of_tcp = Some("reviews/v2");
    for (port, lists, expected) in [
        (json!({"name": "http"}), json!({"http": http}), of_http),
        (json!({"name": "grpc-x"}), json!({"http": http}), of_http),
        (json!({"name": "web"}), json!({"http": http}), of_http),
        (json!({"name": "tcp"}), json!({"http": http}), None),
        (json!({"name": "https"}), json!({"http": http}), None),
        (json!({"name": "http"}), json!({"tcp": tcp}), None),
        (json!({"name": "web"}), json!({"tcp": tcp}), of_tcp),
        (json!({"name": "redis"}), json!({"tcp": tcp}), of_tcp),
        (json!({"name": "https"}), json!({"tcp": tcp}), None),
        (
            json!({"name": "http", "appProtocol": "tcp"}),
            json!({"tcp": tcp}),
            of_tcp,
        ),
        (
            json!({"name": "http"}),
            json!({"http": http, "tcp": tcp}),
            of_http,
        ),
        (
            json!({"name": "mysql"}),
            json!({"http": http, "tcp": tcp}),
            of_tcp,
        ),
        (
            json!({"name": "web"}),
            json!({"http": http, "tcp": http}),
            of_http,
        ),
    ] {
        let port = with(port, &json!({"port": 9080}));
        let spec = with(json!({"hosts": ["reviews"]}), &lists);
        let objects = world(&port).chain([virtual_service("reviews", &spec)]);
        let outcome = compiled(objects);
        let leaf = outcome
            .at(REVIEWS)
            .map(|split| split.leaves[0].service.as_str());
        assert_eq!(leaf, expected, "{port} {lists}");
        if expected.is_none() {
            let told = (Severity::Inactive, "RootPortMissing", "spec.hosts[0]");
            assert_eq!(said(&outcome), [told], "{port} {lists}");
        }
    }
}

/// Case: ISTIO-PROTOCOL-AMBIGUOUS
#[test]
fn a_port_that_declares_nothing_is_not_split_if_the_lists_differ() {
    let mut world = versions();
    let ports = json!([{"name": "web", "port": 9080}, {"name": "http", "port": 80}]);
    world[0] = service_of(
        "reviews",
        &json!({"clusterIP": "10.96.1.1", "ports": ports}),
    );
    let spec = json!({
        "hosts": ["reviews"],
        "http": [{"route": [to("reviews", "v1", 1)]}], "tcp": [{"route": [to("reviews", "v2", 1)]}],
    });
    let objects = world
        .into_iter()
        .chain([reviews_rule(), virtual_service("reviews", &spec)]);
    let outcome = compiled(objects);
    assert_eq!(outcome.at(REVIEWS), None);
    assert!(outcome.at("10.96.1.1:80").is_some());
    assert!(said(&outcome).contains(&(Severity::Warning, "AmbiguousProtocol", "spec.tcp")));
}

/// Case: ISTIO-RULE-ORDER
#[test]
fn the_first_rule_that_is_met_counts_and_rules_after_the_one_for_all_do_not() {
    let mut world = versions();
    let ports = json!([{"name": "http", "port": 9080}, {"name": "http-b", "port": 9081}]);
    world[1]["ports"] = json!([{"name": "http", "port": 9080}, {"name": "http-b", "port": 9081}]);
    world[0] = service_of(
        "reviews",
        &json!({"clusterIP": "10.96.1.1", "ports": ports}),
    );
    let rule =
        |port: Value, subset: &str| json!({"match": port, "route": [to("reviews", subset, 1)], });
    let broken = json!({"match": [{"uri": {"exact": "/x"}}], "redirect": {"uri": "/"}});
    let spec = json!({"hosts": ["reviews"], "http": [
        rule(json!([{"port": 9081}]), "v1"), rule(json!([{"port": 9081}]), "v2"),
        rule(Value::Null, "v3"), broken, rule(Value::Null, "v2"),
    ]});
    let objects = world
        .into_iter()
        .chain([reviews_rule(), virtual_service("reviews", &spec)]);
    let outcome = compiled(objects);
    assert_eq!(said(&outcome), ACCEPTED);
    assert_eq!(
        outcome.at("10.96.1.1:9081").unwrap().leaves[0].service,
        "reviews/v1"
    );
    assert_eq!(outcome.at(REVIEWS).unwrap().leaves[0].service, "reviews/v3");
}

/// Case: ISTIO-NO-RULE
#[test]
fn a_virtual_service_without_rules_is_told_of() {
    let outcome = bookinfo([virtual_service("reviews", &json!({"hosts": ["reviews"]}))]);
    assert_eq!(said(&outcome), [(Severity::Inactive, "NoRule", "spec")]);
    assert_eq!(outcome.at(REVIEWS), None);
}

/// Case: ISTIO-EXPORT
#[test]
fn one_that_is_exported_to_some_namespaces_is_for_their_clients_alone() {
    let spec = json!({
        "hosts": ["reviews"], "exportTo": ["."], "http": [{"route": [to("reviews", "v3", 1)]}],
    });
    let own = virtual_service("own", &spec);
    let outcome = bookinfo([own.clone()]);
    assert_eq!(said(&outcome), ACCEPTED);
    let decision = outcome.decision(REVIEWS);
    assert_eq!(decision, Some(Decision::PassThrough(Reason::OtherClients)));
    let all = reviews(&json!({"route": [to("reviews", "v1", 1)]}));
    let outcome = bookinfo([own, all]);
    assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
    assert!(
        outcome
            .0
            .diagnostics
            .iter()
            .all(|said| said.severity == Severity::Accepted)
    );
}

/// Case: ISTIO-TWO-FOR-ONE-HOST
#[test]
fn of_two_for_one_host_the_older_one_is_in_force() {
    let created = |name: &str, time: &str, subset: &str| {
        let spec = json!({"hosts": ["reviews"], "http": [{"route": [to("reviews", subset, 1)]}]});
        let created = json!({"metadata": {"creationTimestamp": time}});
        with(virtual_service(name, &spec), &created)
    };
    let outcome = bookinfo([
        created("a", "2026-01-02T00:00:00Z", "v1"),
        created("b", "2026-01-01T00:00:00Z", "v2"),
    ]);
    assert_eq!(outcome.shares(REVIEWS), [("reviews/v2", 1)]);
    let loser = outcome.said_of("a");
    assert_eq!(loser, [(Severity::Inactive, "Superseded", "spec.hosts[0]")]);
}
