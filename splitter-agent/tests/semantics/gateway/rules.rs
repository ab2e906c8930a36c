//! What rules may say: a row for each field that there is.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{self, Note, Refused, Warning};
use splitter_agent::plan::Decision;
use splitter_common::layout::Reason;

use super::{KINDS, backends, canary, faults, ninety_ten, outcome, parent, plan, route, shares};
use crate::fixtures::with;

/// A rule with backends, and with these fields.
fn rule(mut fields: Value) -> Value {
    fields["backendRefs"] = backends(&[("web-1", 90), ("web-2", 10)]);
    fields
}

/// Asserts that a route is refused at exactly this field, and nothing is split.
#[track_caller]
fn assert_refused(object: Value, reason: &str, field: &str) {
    let text = object.to_string();
    let outcome = outcome([object]);
    assert_eq!(faults(&outcome), [(Refused, reason, field)], "{text}");
    let decision = plan(&outcome).map(|plan| plan.decision);
    assert_eq!(
        decision,
        Some(Decision::PassThrough(Reason::ObjectRefused)),
        "{text}"
    );
}

/// Asserts that a route splits 90 to 10, and that this is said of it.
#[track_caller]
fn assert_split(object: Value, said: &[(Severity, &str, &str)]) {
    let text = object.to_string();
    let outcome = outcome([object]);
    assert_eq!(faults(&outcome), said, "{text}");
    assert_eq!(shares(&outcome), [("web-1", 9), ("web-2", 1)], "{text}");
}

const IGNORE: &str = "splitter.dev/unsupported";

fn ignoring(object: Value) -> Value {
    with(
        object,
        &json!({"metadata": {"annotations": {IGNORE: "ignore"}}}),
    )
}

/// Case: GATEWAY-ROUTE
#[test]
fn a_route_of_each_kind_and_version_splits_its_service() {
    for (kind, versions) in [
        ("GRPCRoute", &["v1"][..]),
        ("HTTPRoute", &["v1", "v1beta1"]),
        ("TLSRoute", &["v1", "v1alpha3", "v1alpha2"]),
        ("TCPRoute", &["v1", "v1alpha2"]),
    ] {
        for version in versions {
            let api_version = format!("gateway.networking.k8s.io/{version}");
            let object = with(ninety_ten(kind), &json!({"apiVersion": api_version}));
            let outcome = outcome([object]);
            outcome.assert_accepted();
            assert_eq!(shares(&outcome), [("web-1", 9), ("web-2", 1)]);
            assert_eq!(plan(&outcome).map(|plan| plan.origin.kind), Some(kind));
        }
    }
}

/// What takes every request, as the definitions write it out and as people do.
fn matches_of_all(kind: &str) -> Vec<Value> {
    match kind {
        "HTTPRoute" => vec![
            json!(null),
            json!([]),
            json!([{}]),
            json!([{"path": null}]),
            json!([{"path": {}}]),
            json!([{"path": {"type": "PathPrefix", "value": "/"}}]),
            json!([{"path": {"value": "/"}}]),
            json!([{"path": {"type": "PathPrefix"}}]),
            json!([{"path": {"type": "PathPrefix", "value": "/"}, "headers": [], "queryParams": []}]),
            json!([{"path": {"type": "PathPrefix", "value": "/"}}, {}]),
        ],
        _ => vec![
            json!(null),
            json!([]),
            json!([{}]),
            json!([{"method": null, "headers": []}]),
            json!([{"method": {}}]),
            json!([{"method": {"type": "Exact"}}]),
        ],
    }
}

/// Matches that leave a request out, and the field that does.
fn matches_of_some(kind: &str) -> Vec<(Value, &'static str)> {
    let header = json!({"name": "x-user", "value": "test"});
    match kind {
        "HTTPRoute" => vec![
            (
                json!({"path": {"type": "PathPrefix", "value": "/v1"}}),
                "path",
            ),
            (json!({"path": {"value": "/v1"}}), "path"),
            (json!({"path": {"type": "Exact", "value": "/"}}), "path"),
            (json!({"path": {"type": "Exact"}}), "path"),
            (
                json!({"path": {"type": "RegularExpression", "value": ".*"}}),
                "path",
            ),
            (json!({"path": {"value": ""}}), "path"),
            (
                json!({"path": {"value": "/", "caseInsensitive": true}}),
                "path",
            ),
            (json!({"path": "/"}), "path"),
            (json!({"headers": [header]}), "headers"),
            (json!({"queryParams": [header]}), "queryParams"),
            (json!({"method": "GET"}), "method"),
        ],
        _ => vec![
            (json!({"method": {"service": "shop.Cart"}}), "method"),
            (json!({"method": {"method": "Get"}}), "method"),
            (
                json!({"method": {"type": "RegularExpression", "service": ".*"}}),
                "method",
            ),
            (json!({"method": {"verb": "Get"}}), "method"),
            (json!({"method": "Get"}), "method"),
            (json!({"headers": [header]}), "headers"),
        ],
    }
}

/// Case: GATEWAY-MATCHES-ALL
#[test]
fn a_rule_that_takes_every_request_takes_every_connection() {
    for kind in ["HTTPRoute", "GRPCRoute"] {
        for matches in matches_of_all(kind) {
            assert_split(
                canary(kind, json!([rule(json!({"matches": matches}))])),
                &[],
            );
        }
    }
}

/// Case: GATEWAY-MATCHES
#[test]
fn a_match_that_leaves_a_request_out_refuses_the_route_wherever_it_stands() {
    for kind in ["HTTPRoute", "GRPCRoute"] {
        for (some, field) in matches_of_some(kind) {
            for (rules, place) in [
                (
                    json!([rule(json!({"matches": [some]}))]),
                    "rules[0].matches[0]",
                ),
                (
                    json!([rule(json!({"matches": [{}, some]}))]),
                    "rules[0].matches[1]",
                ),
            ] {
                let field = format!("spec.{place}.{field}");
                assert_refused(canary(kind, rules), "MatchesUnsupported", &field);
            }
            // The more specific rule wins, even if it comes last.
            let rules = json!([rule(json!({})), rule(json!({"matches": [some]}))]);
            let outcome = outcome([ignoring(canary(kind, rules))]);
            let field = format!("spec.rules[1].matches[0].{field}");
            let faults = faults(&outcome);
            assert!(
                faults.contains(&(Refused, "MatchesUnsupported", &field)),
                "{faults:?}"
            );
        }
        for matches in [json!("/"), json!({"path": "/"}), json!([7])] {
            let field = if matches.is_array() { "[0]" } else { "" };
            assert_refused(
                canary(kind, json!([rule(json!({"matches": matches}))])),
                "InvalidSpec",
                &format!("spec.rules[0].matches{field}"),
            );
        }
    }
}

/// Case: GATEWAY-DESTINATION
#[test]
fn what_decides_where_a_request_goes_refuses_the_route_whatever_the_annotation_says() {
    let filters = [
        json!({"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}),
        json!({"type": "URLRewrite", "urlRewrite": {"hostname": "x"}}),
        json!({"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC"}}),
        json!({"type": "ExtensionRef", "extensionRef": {"group": "x", "kind": "Y", "name": "z"}}),
    ];
    for kind in ["HTTPRoute", "GRPCRoute"] {
        for filter in &filters {
            for (rule, field) in everywhere(filter) {
                let object = canary(kind, json!([rule]));
                assert_refused(object.clone(), "UnsupportedField", &field);
                assert_refused(ignoring(object), "UnsupportedField", &field);
            }
        }
        for filter in [json!({}), json!({"type": "Other"}), json!({"type": 7})] {
            for (rule, field) in everywhere(&filter) {
                let field = format!("{field}.type");
                assert_refused(canary(kind, json!([rule])), "UnsupportedField", &field);
            }
        }
        let session = rule(json!({"sessionPersistence": {"sessionName": "x"}}));
        assert_refused(
            canary(kind, json!([session])),
            "UnsupportedField",
            "spec.rules[0].sessionPersistence",
        );
    }
}

/// A rule with a filter of its own, and one with a filter of a backend; each with its field.
fn everywhere(filter: &Value) -> [(Value, String); 2] {
    let of_rule = rule(json!({"filters": [filter]}));
    let mut of_backend = rule(json!({}));
    of_backend["backendRefs"][1]["filters"] = json!([filter]);
    [
        (of_rule, "spec.rules[0].filters[0]".to_owned()),
        (
            of_backend,
            "spec.rules[0].backendRefs[1].filters[0]".to_owned(),
        ),
    ]
}

/// What is done to requests on their way, with the kinds that have it.
fn handling() -> Vec<(&'static str, Value, String)> {
    let filters = [
        json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}}),
        json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x", "value": "y"}]}}),
        json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "x", "value": "y"}]}}),
        json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web-2", "port": 80}}}),
        json!({"type": "RequestMirror", "requestMirror": {"percent": 10}}),
        json!({"type": "RequestMirror", "requestMirror": {"fraction": {"numerator": 1}}}),
        json!({"type": "CORS", "cors": {"allowOrigins": ["*"]}}),
    ];
    let mut rows = Vec::new();
    for kind in ["HTTPRoute", "GRPCRoute"] {
        for filter in &filters {
            for (rule, field) in everywhere(filter) {
                rows.push((kind, rule, field));
            }
        }
    }
    for (fields, field) in [
        (json!({"timeouts": {"request": "10s"}}), "timeouts.request"),
        (json!({"timeouts": {"request": "1ms"}}), "timeouts.request"),
        (json!({"timeouts": {"request": 10}}), "timeouts.request"),
        (
            json!({"timeouts": {"request": "0s", "backendRequest": "1h2m"}}),
            "timeouts.backendRequest",
        ),
        (json!({"timeouts": {"idle": "1s"}}), "timeouts.idle"),
        (json!({"retry": {"codes": [500]}}), "retry"),
        (json!({"retry": {"attempts": 3}}), "retry"),
    ] {
        rows.push(("HTTPRoute", rule(fields), format!("spec.rules[0].{field}")));
    }
    rows
}

/// Case: GATEWAY-HANDLING
#[test]
fn what_is_done_to_requests_refuses_the_route_by_default() {
    for (kind, rule, field) in handling() {
        assert_refused(canary(kind, json!([rule])), "UnsupportedField", &field);
    }
}

/// Case: GATEWAY-HANDLING-IGNORED
#[test]
fn what_is_done_to_requests_is_ignored_and_named_if_the_annotation_says_so() {
    for (kind, rule, field) in handling() {
        assert_split(
            ignoring(canary(kind, json!([rule]))),
            &[(Warning, "UnsupportedIgnored", &field)],
        );
    }
}

/// Case: GATEWAY-HANDLING-NONE
#[test]
fn what_does_nothing_to_requests_is_no_reason_to_refuse() {
    for fields in [
        json!({"name": "all"}),
        json!({"filters": []}),
        json!({"filters": null}),
        json!({"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": []}}]}),
        json!({"filters": [{"type": "ResponseHeaderModifier"}]}),
        json!({"filters": [{"type": "RequestMirror", "requestMirror": {"percent": 0}}]}),
        json!({"filters": [{"type": "RequestMirror", "requestMirror": {"fraction": {"numerator": 0, "denominator": 1000}}}]}),
        json!({"timeouts": {}}),
        json!({"timeouts": {"request": "0s"}}),
        json!({"timeouts": {"request": "0h0m", "backendRequest": null}}),
        json!({"retry": {}}),
        json!({"retry": {"attempts": 0}}),
        json!({"sessionPersistence": {}}),
    ] {
        assert_split(canary("HTTPRoute", json!([rule(fields)])), &[]);
    }
}

/// Case: GATEWAY-ANNOTATION, ANNOTATION-UNKNOWN
#[test]
fn an_annotation_that_is_not_known_is_told() {
    let timeout = || {
        canary(
            "HTTPRoute",
            json!([rule(json!({"timeouts": {"request": "1s"}}))]),
        )
    };
    let annotated = |object: Value, fields: Value| with(object, &json!({"metadata": fields}));
    let field = "metadata.annotations[splitter.dev/unsupported]";
    let outcome = outcome([annotated(
        timeout(),
        json!({"annotations": {IGNORE: "yes"}}),
    )]);
    assert_eq!(
        faults(&outcome),
        [
            (Warning, "InvalidAnnotation", field),
            (
                Refused,
                "UnsupportedField",
                "spec.rules[0].timeouts.request"
            ),
        ]
    );
    for (fields, field) in [
        (
            json!({"annotations": {"splitter.dev/unsuported": "ignore"}}),
            "metadata.annotations[splitter.dev/unsuported]",
        ),
        (
            json!({"annotations": {"example.dev/unsupported": "ignore"}}),
            "metadata.annotations[example.dev/unsupported]",
        ),
        (
            json!({"labels": {"splitter.dev/unsupported": "ignore"}}),
            "metadata.labels[splitter.dev/unsupported]",
        ),
    ] {
        assert_split(
            annotated(ninety_ten("HTTPRoute"), fields),
            &[(Warning, "UnknownAnnotation", field)],
        );
    }
    assert_refused(
        annotated(timeout(), json!({"annotations": {IGNORE: "refuse"}})),
        "UnsupportedField",
        "spec.rules[0].timeouts.request",
    );
}

/// Case: GATEWAY-FIELD-UNKNOWN
#[test]
fn a_field_that_is_not_known_refuses_the_route_unless_it_is_empty() {
    for (kind, _) in KINDS {
        let place = |path: &[&str]| -> (Value, String) {
            let mut object = ninety_ten(kind);
            let mut field = String::new();
            {
                let mut value = &mut object;
                for step in path {
                    value = match step.parse::<usize>() {
                        Ok(index) => {
                            field += &format!("[{index}]");
                            &mut value[index]
                        }
                        Err(_) => {
                            field += &format!("{}{step}", if field.is_empty() { "" } else { "." });
                            &mut value[*step]
                        }
                    };
                }
                *value = json!({"x": 1});
            }
            (object, field)
        };
        for path in [
            &["spec", "clients"][..],
            &["spec", "parentRefs", "0", "subset"],
            &["spec", "rules", "0", "when"],
            &["spec", "rules", "0", "backendRefs", "0", "subset"],
        ] {
            let (object, field) = place(path);
            assert_refused(object, "UnknownRestriction", &field);
        }
        let empty = json!({"spec": {"clients": {}, "subset": null, "when": [], "x": ""}});
        assert_split(with(ninety_ten(kind), &empty), &[]);
    }
    // In a rule that another seems to leave nothing: it may well come first.
    for kind in ["HTTPRoute", "GRPCRoute"] {
        let mut object = ninety_ten(kind);
        let rules = object["spec"]["rules"].as_array_mut().unwrap();
        let later = with(rules[0].clone(), &json!({"clientSelector": {"app": "x"}}));
        rules.push(later);
        assert_refused(object, "UnknownRestriction", "spec.rules[1].clientSelector");
    }
    // Of one kind, and not of the other.
    for (kind, fields) in [
        ("TCPRoute", json!({"matches": [{}]})),
        ("TCPRoute", json!({"filters": [{}]})),
        ("TLSRoute", json!({"timeouts": {"request": "1s"}})),
        ("GRPCRoute", json!({"timeouts": {"request": "1s"}})),
    ] {
        let name = fields.as_object().unwrap().keys().next().unwrap().clone();
        assert_refused(
            canary(kind, json!([rule(fields)])),
            "UnknownRestriction",
            &format!("spec.rules[0].{name}"),
        );
    }
    assert_split(
        with(
            ninety_ten("HTTPRoute"),
            &json!({"spec": {"useDefaultGateways": "None"}}),
        ),
        &[],
    );
}

/// Case: GATEWAY-RULES
#[test]
fn of_several_rules_for_everything_the_first_decides() {
    for kind in ["HTTPRoute", "GRPCRoute"] {
        let other = json!({"backendRefs": backends(&[("web-2", 1)])});
        // What the others do to requests is done to none.
        let filtered = rule(json!({"filters": [{"type": "URLRewrite"}]}));
        assert_split(
            canary(kind, json!([rule(json!({})), other, filtered])),
            &[
                (Note, "RuleUnreachable", "spec.rules[1]"),
                (Note, "RuleUnreachable", "spec.rules[2]"),
            ],
        );
    }
}

/// Case: GATEWAY-RULES-INVALID
#[test]
fn rules_that_cannot_be_read_refuse_the_route() {
    for (kind, _) in KINDS {
        for (rules, field) in [
            (json!("all"), "spec.rules"),
            (json!({}), "spec.rules"),
            (json!([7]), "spec.rules[0]"),
            (json!([[]]), "spec.rules[0]"),
        ] {
            assert_refused(canary(kind, rules), "InvalidSpec", field);
        }
    }
    for kind in ["TCPRoute", "TLSRoute"] {
        for rules in [
            json!(null),
            json!([]),
            json!([rule(json!({})), rule(json!({}))]),
        ] {
            assert_refused(canary(kind, rules), "InvalidSpec", "spec.rules");
        }
    }
}

/// Case: GATEWAY-HOSTNAMES
#[test]
fn hostnames_are_ignored_and_named() {
    for (kind, severity) in [
        ("HTTPRoute", Warning),
        ("GRPCRoute", Warning),
        ("TLSRoute", Note),
    ] {
        let object = with(
            ninety_ten(kind),
            &json!({"spec": {"hostnames": ["web.example.com", "*.example.org"]}}),
        );
        assert_split(
            object.clone(),
            &[(severity, "HostnamesIgnored", "spec.hostnames")],
        );
        let outcome = outcome([object]);
        let messages = outcome.0.diagnostics.iter().map(|it| &it.message);
        assert!(
            messages
                .into_iter()
                .any(|it| it.contains("web.example.com"))
        );
        assert_split(
            with(ninety_ten(kind), &json!({"spec": {"hostnames": []}})),
            &[],
        );
    }
    assert_refused(
        with(
            ninety_ten("TCPRoute"),
            &json!({"spec": {"hostnames": ["x"]}}),
        ),
        "UnknownRestriction",
        "spec.hostnames",
    );
}

/// Case: GATEWAY-BACKENDS-NONE
#[test]
fn a_rule_without_backends_refuses_connections() {
    for (rules, field) in [
        (json!([{}]), "spec.rules[0].backendRefs"),
        (json!([{"backendRefs": []}]), "spec.rules[0].backendRefs"),
        (json!([{"backendRefs": null}]), "spec.rules[0].backendRefs"),
    ] {
        for (kind, _) in KINDS {
            let outcome = outcome([canary(kind, rules.clone())]);
            assert_eq!(faults(&outcome), [(Warning, "NoBackends", field)], "{kind}");
            let plan = plan(&outcome).expect("a frontend");
            assert_eq!(plan.decision, Decision::Refuse(Reason::AllWeightsZero));
            assert_eq!(plan.leaves, []);
        }
    }
    // The definition puts in a rule for everything, without backends.
    for kind in ["HTTPRoute", "GRPCRoute"] {
        for rules in [json!(null), json!([])] {
            let outcome = outcome([canary(kind, rules)]);
            assert_eq!(faults(&outcome), [(Warning, "NoBackends", "spec.rules")]);
        }
    }
    let route = route("HTTPRoute", "canary", json!({"parentRefs": [parent()]}));
    assert_eq!(
        faults(&outcome([route])),
        [(Warning, "NoBackends", "spec.rules")]
    );
}
