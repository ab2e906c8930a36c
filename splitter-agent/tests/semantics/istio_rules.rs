//! DestinationRules: which one holds, and what their policies come to.

use serde_json::{Value, json};
use splitter_agent::compile::Severity;
use splitter_agent::plan::Decision;
use splitter_common::layout::Reason;

use crate::fixtures::{Outcome, compiled, with};
use crate::istio::{REVIEWS, bookinfo, destination_rule, reviews, reviews_rule, to, versions};

/// What is said of the DestinationRule of a name.
fn said_of<'a>(outcome: &'a Outcome, name: &str) -> Vec<(Severity, &'static str, &'a str)> {
    let diagnostics = outcome.0.diagnostics.iter();
    diagnostics
        .filter(|said| said.object.kind == "DestinationRule" && said.object.name.name == name)
        .map(|said| (said.severity, said.reason, said.field.as_str()))
        .collect()
}

fn to_v1() -> Value {
    reviews(&json!({"route": [to("reviews", "v1", 1)]}))
}

/// The versions of reviews, VirtualService reviews to v1, and these DestinationRules.
fn with_rules(rules: impl IntoIterator<Item = Value>) -> Outcome {
    compiled(versions().into_iter().chain([to_v1()]).chain(rules))
}

fn rule_in(namespace: &str, name: &str, version: &str) -> Value {
    let host = "reviews.shop.svc.cluster.local";
    let subsets = json!([{"name": "v1", "labels": {"version": version}}]);
    let rule = destination_rule(name, &json!({"host": host, "subsets": subsets}));
    with(rule, &json!({"metadata": {"namespace": namespace}}))
}

/// Case: ISTIO-RULE-LOOKUP
#[test]
fn the_rule_of_the_services_namespace_comes_before_that_of_the_root_namespace() {
    let outcome = with_rules([
        rule_in("istio-system", "root", "v3"),
        rule_in("shop", "own", "v2"),
    ]);
    assert_eq!(outcome.endpoints(REVIEWS, 0), ["10.0.1.2:9080"]);
    let outcome = with_rules([rule_in("istio-system", "root", "v3")]);
    assert_eq!(outcome.endpoints(REVIEWS, 0), ["10.0.1.3:9080"]);
}

/// Case: ISTIO-RULE-CLIENTS
#[test]
fn a_rule_for_some_clients_is_not_used_and_told_so() {
    let outcome = with_rules([
        rule_in("team", "theirs", "v3"),
        rule_in("shop", "own", "v2"),
    ]);
    assert_eq!(outcome.endpoints(REVIEWS, 0), ["10.0.1.2:9080"]);
    let expected = [(Severity::Warning, "RuleNotUsed", "metadata.namespace")];
    assert_eq!(said_of(&outcome, "theirs"), expected);

    let selector = json!({"spec": {"workloadSelector": {"matchLabels": {"app": "x"}}}});
    let outcome = with_rules([
        with(rule_in("shop", "a", "v3"), &selector),
        rule_in("shop", "b", "v2"),
    ]);
    assert_eq!(outcome.endpoints(REVIEWS, 0), ["10.0.1.2:9080"]);
    let expected = [(Severity::Warning, "RuleNotUsed", "spec.workloadSelector")];
    assert_eq!(said_of(&outcome, "a"), expected);
}

/// Case: ISTIO-RULE-MERGE
#[test]
fn rules_of_one_host_are_one_and_of_subsets_of_one_name_the_first_counts() {
    let created =
        |rule: Value, time: &str| with(rule, &json!({"metadata": {"creationTimestamp": time}}));
    let first = created(rule_in("shop", "z", "v2"), "2026-01-01T00:00:00Z");
    let subsets = json!([
        {"name": "v1", "labels": {"version": "v1"}}, {"name": "other", "labels": {"version": "v3"}},
    ]);
    let second = destination_rule("a", &json!({"host": "reviews", "subsets": subsets}));
    let second = created(second, "2026-01-02T00:00:00Z");
    let rule = json!({"route": [to("reviews", "v1", 1), to("reviews", "other", 1)]});
    let outcome = compiled(
        versions()
            .into_iter()
            .chain([reviews(&rule), first, second]),
    );
    assert_eq!(outcome.endpoints(REVIEWS, 0), ["10.0.1.2:9080"]);
    assert_eq!(outcome.endpoints(REVIEWS, 1), ["10.0.1.3:9080"]);
    let expected = [(Severity::Warning, "RuleNotUsed", "spec.subsets[0].name")];
    assert_eq!(said_of(&outcome, "a"), expected);
    assert_eq!(said_of(&outcome, "z"), []);
}

/// Case: ISTIO-SUBSET
#[test]
fn a_subset_without_labels_is_all_endpoints() {
    let spec = json!({"host": "reviews", "subsets": [{"name": "v1"}]});
    let outcome = with_rules([destination_rule("reviews", &spec)]);
    assert_eq!(outcome.endpoints(REVIEWS, 0).len(), 3);
}

/// Case: ISTIO-RULE-UNUSABLE
#[test]
fn a_subset_that_cannot_be_read_is_told_of_and_its_neighbours_are_used() {
    for bad in [
        json!(7),
        json!({}),
        json!({"name": "x", "labels": 7}),
        json!({"name": ""}),
    ] {
        let subsets = json!([bad, {"name": "v1", "labels": {"version": "v2"}}]);
        let spec = json!({"host": "reviews", "subsets": subsets});
        let outcome = with_rules([destination_rule("reviews", &spec)]);
        assert_eq!(outcome.endpoints(REVIEWS, 0), ["10.0.1.2:9080"]);
        let told = said_of(&outcome, "reviews");
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].0, told[0].1), (Severity::Warning, "RuleNotUsed"));
        assert!(told[0].2.starts_with("spec.subsets[0]"), "{}", told[0].2);
    }
}

/// Case: ISTIO-POLICY-REFUSED
#[test]
fn what_cannot_be_done_to_a_connection_refuses_the_splits_that_use_it() {
    let tls = |mode: &str| json!({"tls": {"mode": mode}});
    let at_port = |port: u16, policy: Value| {
        let level = with(policy, &json!({"port": {"number": port}}));
        json!({"portLevelSettings": [level]})
    };
    let top = |policy: Value| (policy, Value::Null);
    let sub = |policy: Value| (Value::Null, policy);
    const TOP: &str = "spec.trafficPolicy";
    const SUB: &str = "spec.subsets[0].trafficPolicy";
    let mut rows = Vec::new();
    for mode in ["SIMPLE", "MUTUAL", "ISTIO_MUTUAL", "unheard"] {
        rows.push((top(tls(mode)), Some(format!("{TOP}.tls.mode"))));
        rows.push((sub(tls(mode)), Some(format!("{SUB}.tls.mode"))));
        let field = |level: &str| Some(format!("{level}.portLevelSettings[0].tls.mode"));
        rows.push((top(at_port(9080, tls(mode))), field(TOP)));
        rows.push((sub(at_port(9080, tls(mode))), field(SUB)));
        rows.push((top(at_port(80, tls(mode))), None));
        rows.push((sub(at_port(80, tls(mode))), None));
        // A subset, or a port, has its own way.
        rows.push(((tls(mode), tls("DISABLE")), None));
        rows.push((top(with(tls(mode), &at_port(9080, tls("DISABLE")))), None));
        rows.push((top(with(tls(mode), &at_port(9080, json!({})))), None));
    }
    rows.push((top(tls("DISABLE")), None));
    rows.push((top(json!({"tls": {}})), None));
    for (name, value) in [
        ("proxyProtocol", json!({"version": "V2"})),
        ("tunnel", json!({"targetHost": "x", "targetPort": 1})),
    ] {
        rows.push((top(json!({name: value})), Some(format!("{TOP}.{name}"))));
        rows.push((sub(json!({name: value})), Some(format!("{SUB}.{name}"))));
    }
    let passthrough = json!({"loadBalancer": {"simple": "PASSTHROUGH"}});
    rows.push((
        top(passthrough.clone()),
        Some(format!("{TOP}.loadBalancer.simple")),
    ));
    rows.push((
        (passthrough, json!({"loadBalancer": {"simple": "RANDOM"}})),
        None,
    ));
    for ((of_host, of_subset), expected) in rows {
        let subset = json!({"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": of_subset});
        let spec = json!({"host": "reviews", "trafficPolicy": of_host, "subsets": [subset]});
        let outcome = with_rules([destination_rule("reviews", &spec)]);
        let said = outcome
            .0
            .diagnostics
            .iter()
            .find(|said| said.object.kind == "VirtualService");
        let said = said.unwrap();
        match &expected {
            None => {
                assert_eq!(said.severity, Severity::Accepted, "{spec}");
                assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
            }
            Some(field) => {
                assert_eq!(
                    (said.severity, said.reason),
                    (Severity::Refused, "PolicyUnsupported")
                );
                assert_eq!(said.field, "spec.http[0].route[0].destination");
                assert!(said.message.starts_with(field), "{field}: {}", said.message);
                let refused = Decision::PassThrough(Reason::ObjectRefused);
                assert_eq!(outcome.decision(REVIEWS), Some(refused), "{spec}");
            }
        }
    }
}

/// Case: ISTIO-POLICY-WILDCARD
#[test]
fn a_rule_for_many_hosts_holds_where_there_is_none_for_one() {
    let mesh = |host: &str| {
        let policy = json!({"tls": {"mode": "ISTIO_MUTUAL"}});
        let rule = destination_rule("mesh", &json!({"host": host, "trafficPolicy": policy}));
        with(rule, &json!({"metadata": {"namespace": "istio-system"}}))
    };
    let to_all = || reviews(&json!({"route": [to("reviews", Value::Null, 1)]}));
    for (host, is_met) in [
        ("*.local", true),
        ("*", true),
        ("*.other.svc.cluster.local", false),
    ] {
        let outcome = compiled(versions().into_iter().chain([to_all(), mesh(host)]));
        let is_split = outcome.decision(REVIEWS) == Some(Decision::Split);
        assert_eq!(is_split, !is_met, "{host}");
    }
    let outcome = compiled(
        versions()
            .into_iter()
            .chain([to_all(), mesh("*"), reviews_rule()]),
    );
    assert_eq!(outcome.decision(REVIEWS), Some(Decision::Split));
}

/// Case: ISTIO-POLICY-TOLD
#[test]
fn what_becomes_of_each_policy_is_said_of_the_rule() {
    const HONOURED: (Severity, &str) = (Severity::Note, "PolicyHonoured");
    const APPROXIMATED: (Severity, &str) = (Severity::Note, "Approximated");
    const IGNORED: (Severity, &str) = (Severity::Warning, "PolicyIgnored");
    let balancer = |content: Value| json!({"loadBalancer": content});
    for (policy, field, expected) in [
        (
            balancer(json!({"simple": "RANDOM"})),
            "loadBalancer.simple",
            HONOURED,
        ),
        (
            balancer(json!({"simple": "ROUND_ROBIN"})),
            "loadBalancer.simple",
            HONOURED,
        ),
        (
            balancer(json!({"simple": "LEAST_REQUEST"})),
            "loadBalancer.simple",
            APPROXIMATED,
        ),
        (
            balancer(json!({"simple": "LEAST_CONN"})),
            "loadBalancer.simple",
            APPROXIMATED,
        ),
        (
            balancer(json!({"consistentHash": {"useSourceIp": true}})),
            "loadBalancer.consistentHash",
            IGNORED,
        ),
        (
            balancer(json!({"localityLbSetting": {"enabled": true}})),
            "loadBalancer.localityLbSetting",
            IGNORED,
        ),
        (
            balancer(json!({"warmup": {"duration": "1s"}})),
            "loadBalancer.warmup",
            IGNORED,
        ),
        (
            json!({"connectionPool": {"tcp": {"maxConnections": 1}}}),
            "connectionPool",
            IGNORED,
        ),
        (
            json!({"outlierDetection": {}}),
            "outlierDetection",
            APPROXIMATED,
        ),
        (json!({"retryBudget": {}}), "retryBudget", IGNORED),
    ] {
        let of_host = json!({"host": "reviews", "trafficPolicy": policy,
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}]});
        let subset = json!({"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": policy});
        let of_subset = json!({"host": "reviews", "subsets": [subset]});
        for (spec, at) in [(of_host, "spec"), (of_subset, "spec.subsets[0]")] {
            let outcome = with_rules([destination_rule("reviews", &spec)]);
            let field = format!("{at}.trafficPolicy.{field}");
            let (severity, reason) = expected;
            assert_eq!(
                said_of(&outcome, "reviews"),
                [(severity, reason, field.as_str())],
                "{spec}"
            );
            assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
        }
    }
    let spec = json!({"host": "reviews", "exportTo": ["."],
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}]});
    let outcome = with_rules([destination_rule("reviews", &spec)]);
    let expected = [(Severity::Note, "Approximated", "spec.exportTo")];
    assert_eq!(said_of(&outcome, "reviews"), expected);
}

/// Case: ISTIO-RULE-FIELD-UNKNOWN
#[test]
fn what_nobody_knows_in_a_rule_is_told_of_with_its_field() {
    const UNKNOWN: (Severity, &str) = (Severity::Warning, "UnknownField");
    const UNUSABLE: (Severity, &str) = (Severity::Warning, "RuleNotUsed");
    let subset = json!({"name": "v1", "labels": {"version": "v1"}});
    let policy = |policy: Value| json!({"trafficPolicy": policy});
    for (fields, field, expected) in [
        (
            json!({"host": "reviews", "trafficPolcy": {}}),
            "spec.trafficPolcy",
            UNKNOWN,
        ),
        (
            json!({"subsets": [subset, {"name": "x", "label": {"version": "v1"}}]}),
            "spec.subsets[1].label",
            UNKNOWN,
        ),
        (
            policy(json!({"tsl": {"mode": "SIMPLE"}})),
            "spec.trafficPolicy.tsl",
            UNKNOWN,
        ),
        (
            policy(json!({"tls": {"mod": "SIMPLE"}})),
            "spec.trafficPolicy.tls.mod",
            UNKNOWN,
        ),
        (
            policy(json!({"loadBalancer": {"smple": "RANDOM"}})),
            "spec.trafficPolicy.loadBalancer.smple",
            UNKNOWN,
        ),
        (
            policy(json!({"loadBalancer": {"simple": "BOGUS"}})),
            "spec.trafficPolicy.loadBalancer.simple",
            UNUSABLE,
        ),
        (
            policy(json!({"portLevelSettings": {"port": 80}})),
            "spec.trafficPolicy.portLevelSettings",
            UNUSABLE,
        ),
        (
            policy(json!({"portLevelSettings": [7]})),
            "spec.trafficPolicy.portLevelSettings[0]",
            UNUSABLE,
        ),
        (
            policy(json!({"portLevelSettings": [{"port": 80}]})),
            "spec.trafficPolicy.portLevelSettings[0].port.number",
            UNUSABLE,
        ),
    ] {
        let spec = with(json!({"host": "reviews", "subsets": [subset]}), &fields);
        let outcome = with_rules([destination_rule("reviews", &spec)]);
        let (severity, reason) = expected;
        assert_eq!(
            said_of(&outcome, "reviews"),
            [(severity, reason, field)],
            "{spec}"
        );
        assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
    }
}

/// Case: ISTIO-POLICY-REFUSED
#[test]
fn what_cannot_be_done_at_a_port_that_cannot_be_read_is_not_done_at_any() {
    let level = json!({"port": 9080, "tls": {"mode": "SIMPLE"}});
    let spec = json!({"host": "reviews", "trafficPolicy": {"portLevelSettings": [level]},
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}]});
    let outcome = with_rules([destination_rule("reviews", &spec)]);
    assert_ne!(outcome.decision(REVIEWS), Some(Decision::Split));
}

/// Case: ISTIO-RULE-CLIENTS
#[test]
fn a_rule_whose_selector_cannot_be_read_may_be_for_some_clients_and_is_not_used() {
    for selector in [json!({"labels": {"app": "shop"}}), json!(7)] {
        let spec = json!({"host": "reviews", "workloadSelector": selector,
            "subsets": [{"name": "v1", "labels": {"version": "v2"}}]});
        let outcome = with_rules([reviews_rule(), destination_rule("some", &spec)]);
        assert_eq!(outcome.endpoints(REVIEWS, 0), ["10.0.1.1:9080"]);
        let expected = [(Severity::Warning, "RuleNotUsed", "spec.workloadSelector")];
        assert_eq!(said_of(&outcome, "some"), expected);
    }
}

/// Case: ISTIO-RULE-MERGE
#[test]
fn of_rules_of_one_host_the_first_with_a_policy_has_it() {
    let pool = json!({"connectionPool": {"tcp": {"maxConnections": 1}}});
    let first = json!({"host": "reviews", "trafficPolicy": pool,
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}]});
    let second = json!({"host": "reviews", "trafficPolicy": {"tls": {"mode": "SIMPLE"}}});
    let outcome = with_rules([
        destination_rule("a", &first),
        destination_rule("b", &second),
    ]);
    assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
}

/// Case: ISTIO-RULE-NAMES
#[test]
fn a_rule_touches_only_splits_that_go_to_its_host() {
    let before = bookinfo([to_v1()]);
    let policy = json!({"tls": {"mode": "SIMPLE"}, "connectionPool": {}});
    let other = destination_rule(
        "other",
        &json!({"host": "ratings", "trafficPolicy": policy}),
    );
    let after = bookinfo([to_v1(), other]);
    assert_eq!(before.0, after.0);
}
