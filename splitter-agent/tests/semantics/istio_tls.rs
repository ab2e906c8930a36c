//! TLS rules of VirtualServices: where the name that a client asks for makes no difference.

use serde_json::{Value, json};
use splitter_agent::compile::Severity;
use splitter_agent::plan::Decision;

use crate::fixtures::{Outcome, compiled, leaf, service_of};
use crate::istio::{to, virtual_service};

const SECURE: &str = "10.96.2.1:443";
const OTHER: &str = "10.96.2.1:8443";

type Said<'a> = (Severity, &'static str, &'a str);

/// Service secure with two ports where TLS is spoken, two leaves, and a VirtualService with these rules.
fn with_rules(extra: &Value, rules: &Value) -> Outcome {
    let ports = json!([{"name": "https", "port": 443}, {"name": "tls-b", "port": 8443}]);
    let service = service_of("secure", &json!({"clusterIP": "10.96.2.1", "ports": ports}));
    let mut spec = json!({"hosts": ["secure"], "tls": rules});
    for (name, value) in extra.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    let a = leaf("a", "10.96.2.2", &["10.0.2.2"]);
    let b = leaf("b", "10.96.2.3", &["10.0.2.3"]);
    compiled(
        [
            vec![service],
            a.into(),
            b.into(),
            vec![virtual_service("it", &spec)],
        ]
        .concat(),
    )
}

fn said(outcome: &Outcome) -> Vec<Said<'_>> {
    outcome.said_of("it")
}

/// A rule that is met by clients that ask for these names, with more conditions, to a leaf.
fn rule(names: &Value, more: &Value, host: &str) -> Value {
    let mut block = json!({"sniHosts": names});
    for (name, value) in more.as_object().into_iter().flatten() {
        block[name] = value.clone();
    }
    let mut destination = to(host, Value::Null, 1);
    destination["destination"]["port"] = json!({"number": 80});
    json!({"match": [block], "route": [destination]})
}

/// The only leaf at a frontend, if it is split.
fn leaf_at(outcome: &Outcome, address: &str) -> Option<String> {
    let split = outcome.at(address)?;
    let is_split = split.decision == Decision::Split;
    is_split.then(|| split.leaves[0].service.clone())
}

fn short() -> Value {
    json!(["secure"])
}

/// Case: ISTIO-TLS
#[test]
fn a_rule_with_the_name_of_every_host_is_a_split_whatever_else_it_asks_for() {
    const NAME: &str = "spec.tls[0].match[0].sniHosts";
    for names in [
        short(),
        json!(["secure.shop.svc.cluster.local"]),
        json!(["SECURE", "x"]),
        json!(["Secure.shop.svc.cluster.local."]),
    ] {
        for more in [
            json!({}),
            json!({"gateways": ["mesh"]}),
            json!({"gateways": ["mesh", "g"]}),
        ] {
            let outcome = with_rules(&json!({}), &json!([rule(&names, &more, "a")]));
            let expected = [(Severity::Note, "Approximated", NAME)];
            assert_eq!(said(&outcome)[1..], expected, "{names} {more}");
            assert_eq!(leaf_at(&outcome, SECURE).as_deref(), Some("a"));
            assert_eq!(leaf_at(&outcome, OTHER).as_deref(), Some("a"));
        }
    }
    let hosts = json!({"hosts": ["secure.shop.svc.cluster.local"]});
    let outcome = with_rules(&hosts, &json!([rule(&short(), &json!({}), "a")]));
    assert_eq!(leaf_at(&outcome, SECURE).as_deref(), Some("a"));
}

/// Case: ISTIO-TLS
#[test]
fn rules_for_other_ports_and_clients_are_judged_apart() {
    let at = |port: u16| json!({"port": port});
    let rules = json!([
        rule(&short(), &at(443), "a"),
        rule(&short(), &at(8443), "b")
    ]);
    let outcome = with_rules(&json!({}), &rules);
    assert_eq!(leaf_at(&outcome, SECURE).as_deref(), Some("a"));
    assert_eq!(leaf_at(&outcome, OTHER).as_deref(), Some("b"));

    // The rest is for another rule.
    let rules = json!([
        rule(&short(), &at(443), "a"),
        rule(&short(), &json!({}), "b")
    ]);
    let outcome = with_rules(&json!({}), &rules);
    assert_eq!(leaf_at(&outcome, SECURE).as_deref(), Some("a"));
    assert_eq!(leaf_at(&outcome, OTHER).as_deref(), Some("b"));
    // Or for none.
    let outcome = with_rules(&json!({}), &json!([rule(&short(), &at(443), "a")]));
    assert_eq!(leaf_at(&outcome, OTHER), None);

    let labels = json!({"sourceLabels": {"a": "b"}});
    let rules = json!([
        rule(&short(), &labels, "a"),
        rule(&short(), &json!({}), "b")
    ]);
    let outcome = with_rules(&json!({}), &rules);
    assert_eq!(leaf_at(&outcome, SECURE).as_deref(), Some("b"));
    let named: Vec<_> = said(&outcome).iter().map(|said| said.1).collect();
    assert_eq!(named, ["Accepted", "Approximated", "Approximated"]);
}

/// Case: ISTIO-TLS
#[test]
fn rules_for_gateways_alone_do_not_count() {
    let gateway = json!({"gateways": ["g"]});
    let mesh = json!({"gateways": ["mesh"]});
    let extra = json!({"gateways": ["mesh", "g"]});
    for rules in [
        json!([rule(&short(), &gateway, "a"), rule(&short(), &mesh, "b")]),
        // Not even if nobody could read it.
        json!([rule(&json!([]), &gateway, "a"), rule(&short(), &mesh, "b")]),
        json!([
            rule(&short(), &mesh, "b"),
            rule(&json!(["y"]), &gateway, "a")
        ]),
    ] {
        let outcome = with_rules(&extra, &rules);
        assert_eq!(leaf_at(&outcome, SECURE).as_deref(), Some("b"), "{rules}");
    }
}

/// Case: ISTIO-TLS
#[test]
fn each_cause_for_which_the_name_matters_has_its_own_message() {
    let at = |port: u16| json!({"port": port});
    let none = || json!({});
    let two = json!({"hosts": ["secure", "a"]});
    for (extra, rules, fields, says) in [
        (
            none(),
            json!([rule(&json!(["x"]), &at(443), "a")]),
            vec!["spec.tls[0].match[0].sniHosts"],
            "leaves out host \"secure\"",
        ),
        (
            two.clone(),
            json!([rule(&short(), &none(), "a")]),
            vec!["spec.tls[0].match[0].sniHosts"],
            "leaves out host \"a\"",
        ),
        (
            two.clone(),
            json!([
                rule(&short(), &none(), "a"),
                rule(&json!(["a"]), &none(), "b")
            ]),
            vec![
                "spec.tls[0].match[0].sniHosts",
                "spec.tls[1].match[0].sniHosts",
            ],
            "the same destinations",
        ),
        // To port 443, either of the two may be meant.
        (
            two,
            json!([
                rule(&short(), &at(443), "a"),
                rule(&json!(["a", "secure"]), &none(), "b")
            ]),
            vec![
                "spec.tls[0].match[0].sniHosts",
                "spec.tls[1].match[0].sniHosts",
            ],
            "the same destinations",
        ),
    ] {
        let outcome = with_rules(&extra, &rules);
        let diagnostics = outcome.0.diagnostics.iter();
        let refused: Vec<_> = diagnostics
            .filter(|it| it.severity == Severity::Refused)
            .inspect(|it| assert!(it.message.contains(says), "{}", it.message))
            .map(|it| (it.reason, it.field.as_str()))
            .collect();
        let expected: Vec<_> = fields
            .iter()
            .map(|field| ("MatchesUnsupported", *field))
            .collect();
        assert_eq!(refused, expected, "{rules}");
        assert_eq!(leaf_at(&outcome, SECURE), None);
    }
}
