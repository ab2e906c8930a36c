//! VirtualServices, and rules of them, that are in force or not: nothing is refused for what no
//! connection comes to.

use serde_json::{Value, json};
use splitter_agent::compile::Severity;
use splitter_agent::plan::Decision;
use splitter_common::layout::Reason;

use crate::fixtures::{Outcome, compiled, leaf, service_of, with};
use crate::istio::{
    ACCEPTED, REVIEWS, bookinfo, destination_rule, reviews, said, to, virtual_service,
};

fn route(subset: &str) -> Value {
    json!([to("reviews", subset, 1)])
}

fn with_rules(rules: &Value) -> Outcome {
    let spec = json!({"hosts": ["reviews"], "gateways": ["mesh", "g"], "http": rules});
    bookinfo([virtual_service("it", &spec)])
}

/// Case: ISTIO-HOSTS-OTHER
#[test]
fn of_one_that_is_about_no_service_nothing_is_refused() {
    let l7 = json!({"match": [{"uri": {"exact": "/x"}}], "route": route("v1"), "timeout": "5s"});
    let tls = json!({"match": [{"sniHosts": ["*.example.org"]}], "route": [to("x", "v1", 1)]});
    let hosts = || json!(["api.example.org", "*.example.com"]);
    for spec in [
        json!({"hosts": hosts(), "http": [l7]}),
        json!({"hosts": hosts(), "tls": [tls]}),
    ] {
        let outcome = bookinfo([virtual_service("it", &spec)]);
        let expected = ["spec.hosts[0]", "spec.hosts[1]"]
            .map(|field| (Severity::Inactive, "HostNotFound", field));
        assert_eq!(said(&outcome), expected, "{spec}");
        assert_eq!(outcome.at(REVIEWS), None);
    }
}

/// Case: ISTIO-HOSTS-OTHER
#[test]
fn a_name_with_a_final_dot_is_a_full_one() {
    for host in ["reviews.", "reviews.shop."] {
        let spec = json!({"hosts": [host], "http": [{"route": route("v1")}]});
        let outcome = bookinfo([virtual_service("it", &spec)]);
        let expected = [(Severity::Inactive, "HostNotFound", "spec.hosts[0]")];
        assert_eq!(said(&outcome), expected);
        assert_eq!(outcome.at(REVIEWS), None);
    }
}

/// Case: ISTIO-NO-RULE
#[test]
fn one_without_rules_for_any_client_is_not_in_force() {
    let spec = |more: Value| {
        with(
            json!({"hosts": ["reviews"], "gateways": ["mesh", "g"]}),
            &more,
        )
    };
    let from = |matches: Value| json!([{"match": matches, "route": route("v1")}]);
    for (spec, field) in [
        (
            spec(json!({"http": from(json!([{"gateways": ["g"]}]))})),
            "spec",
        ),
        (
            spec(json!({"tcp": from(json!([{"gateways": ["g"]}]))})),
            "spec",
        ),
        (
            spec(json!({"exportTo": ["."], "http": from(json!([{"sourceNamespace": "x"}]))})),
            "spec.exportTo",
        ),
    ] {
        let outcome = bookinfo([virtual_service("it", &spec)]);
        assert_eq!(
            said(&outcome),
            [(Severity::Inactive, "NoRule", field)],
            "{spec}"
        );
        assert_eq!(outcome.at(REVIEWS), None);
    }
}

/// Case: ISTIO-UNREADABLE
#[test]
fn what_cannot_be_the_name_of_a_namespace_is_refused() {
    for name in ["~", "", "Team A", "a.b", "-"] {
        let spec = json!({
            "hosts": ["reviews"], "exportTo": [".", name], "http": [{"route": route("v1")}],
        });
        let outcome = bookinfo([virtual_service("it", &spec)]);
        let expected = [(Severity::Refused, "InvalidSpec", "spec.exportTo[1]")];
        assert_eq!(said(&outcome), expected, "{name}");
    }
    let outcome = with_rules(&json!([
        {"match": [{"port": 80}, {"sourceNamespace": "Team_A"}], "route": route("v1")}
    ]));
    let field = "spec.http[0].match[1].sourceNamespace";
    assert_eq!(said(&outcome), [(Severity::Refused, "InvalidSpec", field)]);
}

/// Case: ISTIO-UNREADABLE
#[test]
fn a_port_of_a_destination_has_a_number() {
    for port in [json!({}), json!({"name": "http"}), json!({"numbr": 80})] {
        let mut destination = to("reviews", "v1", 1);
        destination["destination"]["port"] = port.clone();
        let outcome = bookinfo([reviews(&json!({"route": [destination]}))]);
        let told = said(&outcome);
        let field = "spec.http[0].route[0].destination.port";
        let number = format!("{field}.number");
        assert!(
            told.contains(&(Severity::Refused, "InvalidBackend", &number)),
            "{told:?}"
        );
        for name in port.as_object().unwrap().keys() {
            let unknown = format!("{field}.{name}");
            assert!(
                told.contains(&(Severity::Warning, "UnknownField", &unknown)),
                "{told:?}"
            );
        }
        let refused = Decision::PassThrough(Reason::ObjectRefused);
        assert_eq!(outcome.decision(REVIEWS), Some(refused));
    }
}

/// Case: ISTIO-RULE-ORDER
#[test]
fn rules_that_no_connection_comes_to_refuse_nothing() {
    let at = |port: u16, more: Value| with(json!({"port": port}), &more);
    let path = || json!({"uri": {"exact": "/x"}});
    let broken = || json!({"route": [to("reviews", "v2", -1)]});
    let gateway = |more: Value| with(json!({"gateways": ["g"]}), &more);
    for rules in [
        // All connections to its port have a rule.
        json!([
            {"match": [at(9080, json!({}))], "route": route("v1")},
            {"match": [at(9080, path())], "route": route("v2"), "timeout": "5s"},
            {"route": route("v3")},
        ]),
        json!([
            {"match": [at(9080, json!({}))], "route": route("v1")},
            {"match": [at(9080, path()), at(81, json!({}))], "route": route("v2")},
        ]),
        json!([{"route": route("v1")}, broken()]),
        json!([with(broken(), &json!({"match": [gateway(path())]})), {"route": route("v1")}]),
        // The path makes no difference to what comes to the port.
        json!([
            {"match": [at(9080, path())], "route": route("v1")},
            {"match": [at(9080, json!({}))], "route": route("v1")},
        ]),
    ] {
        let outcome = with_rules(&rules);
        assert!(
            !said(&outcome)
                .iter()
                .any(|said| said.0 == Severity::Refused),
            "{:?}",
            said(&outcome)
        );
        assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)], "{rules}");
    }
}

/// Case: ISTIO-TOO-LARGE
#[test]
fn rules_that_no_connection_comes_to_do_not_count_as_too_many() {
    let many = |block: &dyn Fn(usize) -> Value| {
        let blocks: Vec<Value> = (1..=300).map(block).collect();
        json!({"match": blocks, "route": route("v2")})
    };
    let all = || json!({"route": route("v1")});
    let gateways = many(&|number| json!({"gateways": ["g"], "uri": {"exact": number.to_string()}}));
    let ports = many(&|number| json!({"port": number}));
    for rules in [json!([gateways, all()]), json!([all(), ports])] {
        let outcome = with_rules(&rules);
        assert_eq!(said(&outcome), ACCEPTED);
        assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
    }
    let outcome = with_rules(&json!([ports, all()]));
    assert_eq!(said(&outcome), [(Severity::Refused, "InvalidSpec", "spec")]);
}

/// Case: ISTIO-HOST-UNKNOWN
#[test]
fn of_a_host_that_is_no_service_and_has_no_weight_nothing_is_refused() {
    let rule =
        json!({"route": [to("reviews", "v1", 1), to("reviews.example.org", Value::Null, 0)]});
    let outcome = bookinfo([reviews(&rule)]);
    let field = "spec.http[0].route[1].destination.host";
    let expected = [ACCEPTED[0], (Severity::Note, "HostNotFound", field)];
    assert_eq!(said(&outcome), expected);
    let message = &outcome.0.diagnostics.last().unwrap().message;
    assert!(message.contains("its weight is 0"), "{message}");
}

/// Case: ISTIO-ANNOTATION
#[test]
fn the_value_for_what_is_done_anyway_is_one() {
    let annotation = json!({"metadata": {"annotations": {"splitter.dev/unsupported": "refuse"}}});
    let rule = json!({"route": route("v1")});
    let outcome = bookinfo([with(reviews(&rule), &annotation)]);
    assert_eq!(said(&outcome), ACCEPTED);
    let rule = json!({"route": route("v1"), "timeout": "5s"});
    let outcome = bookinfo([with(reviews(&rule), &annotation)]);
    let expected = [(
        Severity::Refused,
        "UnsupportedField",
        "spec.http[0].timeout",
    )];
    assert_eq!(said(&outcome), expected);
}

/// A Service with these ports, each by name and number.
fn service_with(name: &str, address: &str, ports: &[(&str, u16)]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port)| json!({"name": name, "port": port}))
        .collect();
    service_of(name, &json!({"clusterIP": address, "ports": ports}))
}

/// Services one and two with these ports, leaves a and b, and a VirtualService.
fn two_roots(one: &[(&str, u16)], two: &[(&str, u16)], spec: &Value) -> Outcome {
    let a = leaf("a", "10.96.3.3", &["10.0.3.3"]);
    let b = leaf("b", "10.96.3.4", &["10.0.3.4"]);
    let roots = vec![
        service_with("one", "10.96.3.1", one),
        service_with("two", "10.96.3.2", two),
        virtual_service("it", spec),
    ];
    compiled([roots, a.into(), b.into()].concat())
}

/// A destination's list of one leaf.
fn only(leaf: &str) -> Value {
    let mut destination = to(leaf, Value::Null, 1);
    destination["destination"]["port"] = json!({"number": 80});
    json!([destination])
}

fn rule_for(port: u16, leaf: &str) -> Value {
    json!({"match": [{"port": port}], "route": only(leaf)})
}

/// The only leaf at a frontend, if it is split.
fn leaf_at<'a>(outcome: &'a Outcome, address: &str) -> Option<&'a str> {
    let split = outcome.at(address)?;
    let is_split = split.decision == Decision::Split;
    is_split.then(|| split.leaves[0].service.as_str())
}

/// Case: ISTIO-PARTLY
#[test]
fn one_that_is_in_force_somewhere_is_not_inactive_for_the_rest() {
    const HTTP: &[(&str, u16)] = &[("http", 80)];
    let all = || json!({"route": only("a")});
    let field = "spec.http[0].match[0].port";
    // A port that is nowhere.
    let spec = json!({"hosts": ["one"], "http": [rule_for(81, "b"), all()]});
    let outcome = two_roots(HTTP, HTTP, &spec);
    assert_eq!(
        said(&outcome),
        [(Severity::Warning, "RootPortMissing", field)]
    );
    assert_eq!(leaf_at(&outcome, "10.96.3.1:80"), Some("a"));
    // Nothing else is there.
    let spec = json!({"hosts": ["one"], "http": [rule_for(81, "b")]});
    let outcome = two_roots(HTTP, HTTP, &spec);
    assert_eq!(
        said(&outcome),
        [(Severity::Inactive, "RootPortMissing", field)]
    );
    // A port that another host has.
    let rules = json!([rule_for(80, "a"), rule_for(7000, "b")]);
    let spec = json!({"hosts": ["one", "two"], "http": rules});
    let outcome = two_roots(HTTP, &[("http", 7000)], &spec);
    let note = |index: usize| format!("spec.http[{index}].match[0].port");
    let (first, second) = (note(0), note(1));
    let expected = [
        ACCEPTED[0],
        (Severity::Note, "RootPortMissing", &first),
        (Severity::Note, "RootPortMissing", &second),
    ];
    assert_eq!(said(&outcome), expected);
    assert_eq!(leaf_at(&outcome, "10.96.3.1:80"), Some("a"));
    assert_eq!(leaf_at(&outcome, "10.96.3.2:7000"), Some("b"));
    // A host that is missing.
    let spec = json!({"hosts": ["one", "gone"], "http": [all()]});
    let outcome = two_roots(HTTP, HTTP, &spec);
    assert_eq!(
        said(&outcome),
        [(Severity::Warning, "RootMissing", "spec.hosts[1]")]
    );
    let spec = json!({"hosts": ["lost", "gone"], "http": [all()]});
    let outcome = two_roots(HTTP, HTTP, &spec);
    let inactive = |field| (Severity::Inactive, "RootMissing", field);
    assert_eq!(
        said(&outcome),
        [inactive("spec.hosts[0]"), inactive("spec.hosts[1]")]
    );
}

/// Case: ISTIO-PARTLY
#[test]
fn a_rule_for_a_port_of_another_protocol_is_told_of() {
    let ports: &[(&str, u16)] = &[("http", 80), ("tcp-x", 9000)];
    let rules = json!([rule_for(9000, "a"), rule_for(80, "b")]);
    let spec = json!({"hosts": ["one"], "http": rules});
    let outcome = two_roots(ports, ports, &spec);
    let field = "spec.http[0].match[0].port";
    assert_eq!(
        said(&outcome),
        [(Severity::Warning, "RootPortMissing", field)]
    );
    let message = &outcome.0.diagnostics.last().unwrap().message;
    assert!(
        message.contains("port 9000 of Service shop/one"),
        "{message}"
    );
    assert_eq!(leaf_at(&outcome, "10.96.3.1:80"), Some("b"));
    assert_eq!(leaf_at(&outcome, "10.96.3.1:9000"), None);
    let spec = json!({"hosts": ["one"], "tcp": [rule_for(80, "a")]});
    let outcome = two_roots(ports, ports, &spec);
    let field = "spec.tcp[0].match[0].port";
    assert_eq!(
        said(&outcome),
        [(Severity::Inactive, "RootPortMissing", field)]
    );
}

/// Case: ISTIO-PROTOCOL-AMBIGUOUS
#[test]
fn what_is_ambiguous_is_told_of_the_ports_that_declare_nothing() {
    let both = |http: Value, tcp: Value| json!({"hosts": ["one"], "http": http, "tcp": tcp});
    let all = |leaf: &str| json!([{"route": only(leaf)}]);
    let ambiguous = [(Severity::Warning, "AmbiguousProtocol", "spec.tcp")];
    // Every port declares something, but for one that is not TCP.
    let declared: &[(&str, u16)] = &[("http", 80), ("tcp-x", 9000)];
    let outcome = two_roots(declared, declared, &both(all("a"), all("b")));
    assert_eq!(said(&outcome), ACCEPTED);
    assert_eq!(leaf_at(&outcome, "10.96.3.1:80"), Some("a"));
    assert_eq!(leaf_at(&outcome, "10.96.3.1:9000"), Some("b"));
    // Each list is for other ports.
    let three: &[(&str, u16)] = &[("http", 80), ("x", 7000), ("tcp-x", 9000)];
    let tcp = json!([rule_for(9000, "b"), rule_for(7000, "b")]);
    let outcome = two_roots(three, three, &both(json!([rule_for(80, "a")]), tcp));
    assert_eq!(said(&outcome), ACCEPTED);
    assert_eq!(leaf_at(&outcome, "10.96.3.1:7000"), Some("b"));
    // Of one port it is not clear.
    let four: &[(&str, u16)] = &[("x", 7000), ("y", 7001), ("tcp-x", 9000)];
    let http = json!([rule_for(7000, "a"), {"route": only("b")}]);
    let outcome = two_roots(four, four, &both(http, all("b")));
    assert_eq!(said(&outcome), ambiguous);
    let message = &outcome.0.diagnostics.last().unwrap().message;
    assert!(
        message.contains("port x (7000) of Service shop/one"),
        "{message}"
    );
    assert_eq!(leaf_at(&outcome, "10.96.3.1:7000"), None);
    assert_eq!(leaf_at(&outcome, "10.96.3.1:7001"), Some("b"));
    // Of one port alone it is.
    let same = |rest: &str| json!([rule_for(7000, "a"), {"route": only(rest)}]);
    let outcome = two_roots(four, four, &both(same("a"), same("b")));
    assert_eq!(said(&outcome), ambiguous);
    assert_eq!(leaf_at(&outcome, "10.96.3.1:7000"), Some("a"));
    assert_eq!(leaf_at(&outcome, "10.96.3.1:7001"), None);
    assert_eq!(leaf_at(&outcome, "10.96.3.1:9000"), Some("b"));
}

fn originates_tls(host: &str, port: u16) -> Value {
    let level = json!({"port": {"number": port}, "tls": {"mode": "SIMPLE"}});
    let policy = json!({"portLevelSettings": [level]});
    destination_rule("rule", &json!({"host": host, "trafficPolicy": policy}))
}

/// Case: ISTIO-POLICY-REFUSED, ISTIO-RULE-ORDER
#[test]
fn a_policy_of_a_destination_that_no_connection_comes_to_refuses_nothing() {
    let rules = json!([
        {"match": [{"port": 9080}], "route": [to("reviews", "v1", 1)]},
        {"route": [to("other", Value::Null, 1)]},
    ]);
    let other = service_with("other", "10.96.3.5", &[("http", 9080)]);
    let rule = originates_tls("other", 9080);
    let spec = json!({"hosts": ["reviews"], "http": rules});
    let outcome = bookinfo([virtual_service("it", &spec), other.clone(), rule.clone()]);
    assert_eq!(said(&outcome), ACCEPTED);
    assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
    let rules = json!([{"route": [to("other", Value::Null, 1)]}]);
    let spec = json!({"hosts": ["reviews"], "http": rules});
    let outcome = bookinfo([virtual_service("it", &spec), other, rule]);
    let field = "spec.http[0].route[0].destination";
    assert_eq!(
        said(&outcome),
        [(Severity::Refused, "PolicyUnsupported", field)]
    );
}

/// Case: ISTIO-POLICY-REFUSED
#[test]
fn a_policy_refuses_the_hosts_whose_connections_it_is_about_and_names_them() {
    let route = json!([{"destination": {"host": "both"}}]);
    let spec = json!({"hosts": ["one", "two"], "http": [{"route": route}]});
    let ports: &[(&str, u16)] = &[("http", 80), ("https", 443)];
    let endpoints = json!({
        "ports": [{"name": "http", "port": 8080}, {"name": "https", "port": 8443}],
        "endpoints": [{"addresses": ["10.0.3.5"], "conditions": {"ready": true}}],
    });
    let outcome = compiled([
        service_with("one", "10.96.3.1", &[("http", 80)]),
        service_with("two", "10.96.3.2", &[("http", 443)]),
        service_with("both", "10.96.3.5", ports),
        crate::fixtures::slice_of("both-0", "both", &endpoints),
        virtual_service("it", &spec),
        originates_tls("both", 443),
    ]);
    let field = "spec.http[0].route[0].destination";
    assert_eq!(
        said(&outcome),
        [(Severity::Refused, "PolicyUnsupported", field)]
    );
    let diagnostics = outcome.0.diagnostics.iter();
    let mut messages = diagnostics.map(|it| it.message.as_str());
    assert!(messages.any(|it| it.contains("is applied to Service shop/two;")));
    assert_eq!(leaf_at(&outcome, "10.96.3.1:80"), Some("both"));
    let refused = Decision::PassThrough(Reason::ObjectRefused);
    assert_eq!(outcome.decision("10.96.3.2:443"), Some(refused));
}

/// Case: ISTIO-WEIGHTS
#[test]
fn destinations_have_names_of_their_own_in_reports() {
    let by_port = |host: &str, port: Option<u16>, subset: Option<&str>| {
        let mut destination = to(host, subset.map_or(Value::Null, Value::from), 1);
        if let Some(port) = port {
            destination["destination"]["port"] = json!({"number": port});
        }
        destination
    };
    let route = json!([
        by_port("reviews", None, None),
        by_port("reviews", Some(9080), None),
        by_port("reviews", None, Some("9080")),
        by_port("reviews:9080", None, None),
        by_port("reviews/9080", None, None),
    ]);
    let outcome = bookinfo([reviews(&json!({"route": route}))]);
    let split = outcome.at(REVIEWS).expect("a split");
    let mut names: Vec<&str> = split.leaves.iter().map(|it| it.service.as_str()).collect();
    assert_eq!(names.len(), 5);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 5, "{names:?}");
}
