//! VirtualServices, and rules of them, that are in force or not: nothing is refused for what no
//! connection comes to.

use serde_json::{Value, json};
use splitter_agent::compile::Severity;
use splitter_agent::plan::Decision;
use splitter_common::layout::Reason;

use crate::fixtures::{Outcome, with};
use crate::istio::{REVIEWS, bookinfo, reviews, to, virtual_service};

type Said<'a> = (Severity, &'static str, &'a str);

const ACCEPTED: [Said<'_>; 1] = [(Severity::Accepted, "Accepted", "")];

fn said(outcome: &Outcome) -> Vec<Said<'_>> {
    let diagnostics = outcome.0.diagnostics.iter();
    diagnostics
        .filter(|said| said.object.kind == "VirtualService")
        .map(|said| (said.severity, said.reason, said.field.as_str()))
        .collect()
}

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
