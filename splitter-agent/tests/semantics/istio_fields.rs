//! Every field of a VirtualService, and what becomes of it.

use serde_json::{Value, json};
use splitter_agent::compile::Severity;
use splitter_agent::plan::Decision;
use splitter_common::layout::Reason;

use crate::fixtures::with;
use crate::istio::{ACCEPTED, REVIEWS, bookinfo, reviews, said, to, virtual_service};

/// Asserts that a VirtualService is refused for one field, or accepted.
#[track_caller]
fn assert_verdict(object: &Value, expected: Option<(&'static str, &str)>) {
    let outcome = bookinfo([object.clone()]);
    match expected {
        None => {
            assert_eq!(said(&outcome), ACCEPTED, "{object}");
            assert_eq!(outcome.decision(REVIEWS), Some(Decision::Split), "{object}");
        }
        Some((reason, field)) => {
            assert_eq!(
                said(&outcome),
                [(Severity::Refused, reason, field)],
                "{object}"
            );
            let refused = Decision::PassThrough(Reason::ObjectRefused);
            assert_eq!(outcome.decision(REVIEWS), Some(refused), "{object}");
        }
    }
}

fn route(subset: &str) -> Value {
    json!([to("reviews", subset, 1)])
}

const IGNORE: &str = "ignore";

fn annotated(object: Value, value: &str) -> Value {
    with(
        object,
        &json!({"metadata": {"annotations": {"splitter.dev/unsupported": value}}}),
    )
}

/// Case: ISTIO-MATCH
#[test]
fn every_choice_by_request_is_refused_wherever_it_stands() {
    let matches = [
        ("uri", json!({"exact": "/a"})),
        ("uri", json!({"prefix": "/a"})),
        ("uri", json!({"prefix": "/", "exact": "/a"})),
        ("uri", json!({"regex": ".+"})),
        ("uri", json!("/")),
        ("scheme", json!({"exact": "http"})),
        ("method", json!({"exact": "GET"})),
        ("authority", json!({"prefix": "web"})),
        ("headers", json!({"a": {"exact": "b"}})),
        ("headers", json!({"a": {}})),
        ("withoutHeaders", json!({"a": {"exact": "b"}})),
        ("queryParams", json!({"a": {"exact": "b"}})),
        ("cookie", json!({"exact": "x"})),
        ("header", json!({"a": {"exact": "b"}})),
    ];
    for (name, value) in &matches {
        for rule in 0..2 {
            for place in 0..2 {
                for version in ["v1", "v1beta1", "v1alpha3"] {
                    // Before it, what is only for some.
                    let mut blocks = vec![json!({"sourceNamespace": "x"}); place];
                    blocks.push(json!({*name: value}));
                    let mut rules = vec![
                        json!({"match": [{"sourceLabels": {"a": "b"}}], "route": route("v1")});
                        rule
                    ];
                    rules.push(json!({"match": blocks, "route": route("v2")}));
                    rules.push(json!({"route": route("v3")}));
                    let object =
                        virtual_service("it", &json!({"hosts": ["reviews"], "http": rules}));
                    let version = json!({"apiVersion": format!("networking.istio.io/{version}")});
                    let field = format!("spec.http[{rule}].match[{place}].{name}");
                    let expected = Some(("MatchesUnsupported", field.as_str()));
                    assert_verdict(&with(object.clone(), &version), expected);
                    assert_verdict(&annotated(object, IGNORE), expected);
                }
            }
        }
    }
}

/// Case: ISTIO-MATCH-ALL
#[test]
fn what_every_request_meets_is_no_choice() {
    for matches in [
        json!(null),
        json!([]),
        json!([{}]),
        json!([{"name": "x"}]),
        json!([{"statPrefix": "x", "ignoreUriCase": true}]),
        json!([{"uri": {"prefix": "/"}}]),
        json!([{"uri": {"regex": ".*"}}]),
        json!([{"uri": {}}, {"headers": {}}]),
        json!([{"uri": null, "port": 0, "sourceLabels": {}, "sourceNamespace": "", "gateways": []}]),
        json!([{"gateways": ["mesh"]}]),
        // In an HTTP rule a gateway stands for the client.
        json!([{"gateways": ["mesh"], "sourceLabels": {"a": "b"}, "sourceNamespace": "x"}]),
        json!([{"uri": {"exact": "/a"}}, {}]),
        json!([{"gateways": ["ingress"], "uri": {"exact": "/a"}}, {}]),
    ] {
        let rule = json!({"match": matches, "route": route("v1")});
        assert_verdict(&reviews(&rule), None);
    }
}

/// Case: ISTIO-MATCH-GATEWAYS
#[test]
fn rules_for_gateways_alone_do_not_count() {
    let ingress = json!({
        "match": [{"gateways": ["ingress"], "uri": {"prefix": "/a"}}], "redirect": {"uri": "/"},
    });
    let spec = json!({
        "hosts": ["reviews"], "gateways": ["ingress", "mesh"],
        "http": [ingress, {"route": route("v1")}],
    });
    assert_verdict(&virtual_service("it", &spec), None);
}

/// Case: ISTIO-MATCH
#[test]
fn rules_that_leave_requests_without_a_destination_are_refused() {
    let path = json!({"match": [{"uri": {"prefix": "/a"}}], "route": route("v1")});
    let field = Some(("MatchesUnsupported", "spec.http[0].match[0].uri"));
    assert_verdict(&reviews(&path), field);
    let spec = json!({"hosts": ["reviews"], "http": [
        {"match": [{"uri": {"prefix": "/a"}}], "route": route("v1")},
        {"match": [{"port": 9080}], "route": route("v1")},
    ]});
    assert_verdict(&virtual_service("it", &spec), field);
}

/// Case: ISTIO-ACTION
#[test]
fn what_changes_where_a_request_goes_is_always_refused() {
    for (name, field, value) in [
        ("redirect", "redirect", json!({"uri": "/"})),
        ("directResponse", "directResponse", json!({"status": 503})),
        ("rewrite", "rewrite", json!({"uri": "/"})),
        (
            "fault",
            "fault.delay",
            json!({"delay": {"percentage": {"value": 0.1}, "fixedDelay": "5s"}}),
        ),
        (
            "fault",
            "fault.delay",
            json!({"delay": {"percent": 10, "fixedDelay": "5s"}}),
        ),
        (
            "fault",
            "fault.abort",
            json!({"abort": {"percentage": {"value": 100}, "httpStatus": 500}}),
        ),
        ("fault", "fault", json!("all")),
    ] {
        let rule = with(json!({"route": route("v1")}), &json!({name: value}));
        let field = format!("spec.http[0].{field}");
        let expected = Some(("UnsupportedField", field.as_str()));
        assert_verdict(&reviews(&rule), expected);
        assert_verdict(&annotated(reviews(&rule), IGNORE), expected);
    }
}

/// Case: ISTIO-REQUEST-HANDLING, ISTIO-IGNORE
#[test]
fn what_changes_how_a_request_is_handled_is_refused_unless_it_may_be_ignored() {
    let edits = json!({"request": {"set": {"a": "b"}}});
    for (fields, field) in [
        (json!({"timeout": "5s"}), "timeout"),
        (json!({"timeout": "0.002s"}), "timeout"),
        (json!({"timeout": 7}), "timeout"),
        (json!({"timeout": ""}), "timeout"),
        (
            json!({"retries": {"attempts": 2, "perTryTimeout": "2s"}}),
            "retries",
        ),
        (json!({"retries": 7}), "retries"),
        (json!({"mirror": {"host": "x"}}), "mirror"),
        (
            json!({"mirror": {"host": "x"}, "mirrorPercentage": {"value": 10}}),
            "mirror",
        ),
        (
            json!({"mirror": {"host": "x"}, "mirrorPercent": 10}),
            "mirror",
        ),
        (
            json!({"mirror": {"host": "x"}, "mirror_percent": 10}),
            "mirror",
        ),
        (
            json!({"mirrors": [{"destination": {"host": "x"}}]}),
            "mirrors[0]",
        ),
        (
            json!({"mirrors": [{"percentage": {"value": 1}}]}),
            "mirrors[0]",
        ),
        (json!({"mirrors": 7}), "mirrors"),
        (json!({"corsPolicy": {"maxAge": "1s"}}), "corsPolicy"),
        (json!({"headers": edits}), "headers"),
        (
            json!({"headers": {"response": {"remove": ["a"]}}}),
            "headers",
        ),
        (
            json!({"route": [with(to("reviews", "v1", 1), &json!({"headers": edits}))]}),
            "route[0].headers",
        ),
    ] {
        let rule = with(json!({"route": route("v1")}), &fields);
        let field = format!("spec.http[0].{field}");
        let expected = Some(("UnsupportedField", field.as_str()));
        assert_verdict(&reviews(&rule), expected);
        let outcome = bookinfo([annotated(reviews(&rule), IGNORE)]);
        let ignored = [(Severity::Warning, "UnsupportedIgnored", field.as_str())];
        assert_eq!(said(&outcome), ignored, "{rule}");
        assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
    }
}

/// Case: ISTIO-ANNOTATION
#[test]
fn another_value_of_the_annotation_is_told_and_ignores_nothing() {
    let rule = json!({"route": route("v1"), "timeout": "5s"});
    let outcome = bookinfo([annotated(reviews(&rule), "Ignore")]);
    let field = "metadata.annotations[splitter.dev/unsupported]";
    let expected = [
        (Severity::Warning, "InvalidAnnotation", field),
        (
            Severity::Refused,
            "UnsupportedField",
            "spec.http[0].timeout",
        ),
    ];
    assert_eq!(said(&outcome), expected);
}

/// Case: ISTIO-NOTHING
#[test]
fn what_asks_for_nothing_is_accepted() {
    for fields in [
        json!({"timeout": "0s"}),
        json!({"timeout": "0"}),
        json!({"timeout": "0.0s"}),
        json!({"timeout": "0ms"}),
        json!({"timeout": null, "retries": null, "fault": null, "mirror": null, "headers": null}),
        json!({"retries": {"attempts": 0}}),
        json!({"retries": {"attempts": 0, "perTryTimeout": "2s"}}),
        json!({"retries": {}}),
        json!({"retries": {"attempts": null, "retryOn": "5xx"}}),
        json!({"corsPolicy": {}}),
        json!({"corsPolicy": {"allowOrigins": []}}),
        json!({"fault": {}}),
        json!({"fault": {"delay": {"fixedDelay": "5s"}}}),
        json!({"fault": {"delay": {"percentage": {"value": 0}, "fixedDelay": "5s"}}}),
        json!({"fault": {"delay": {"percentage": {}, "fixedDelay": "5s"}}}),
        json!({"fault": {"abort": {"httpStatus": 500}}}),
        json!({"fault": {"abort": {"percentage": {"value": 0.0}, "httpStatus": 500}}}),
        json!({"mirror": {"host": "x"}, "mirrorPercentage": {"value": 0}}),
        json!({"mirror": {"host": "x"}, "mirrorPercent": 0}),
        json!({"mirrorPercentage": {"value": 50}}),
        json!({"mirrors": []}),
        json!({"mirrors": [{"percentage": {"value": 0}}]}),
        json!({"headers": {}}),
        json!({"headers": {"request": {}, "response": {"set": {}, "remove": []}}}),
        json!({"name": "primary"}),
    ] {
        let rule = with(json!({"route": route("v1")}), &fields);
        assert_verdict(&reviews(&rule), None);
    }
}

/// Case: ISTIO-WEIGHTS
#[test]
fn weights_are_relative_and_one_destination_gets_everything() {
    let weights = |weights: &[Value]| {
        let subsets = ["v1", "v2", "v3"].iter().zip(weights);
        let route: Vec<Value> = subsets
            .map(|(subset, weight)| to("reviews", *subset, weight.clone()))
            .collect();
        reviews(&json!({"route": route}))
    };
    for (written, expected) in [
        (vec![json!(99), json!(1)], vec![99, 1]),
        (vec![json!(1), json!(1)], vec![1, 1]),
        (vec![json!(999), json!(1)], vec![999, 1]),
        (vec![json!(0), json!(100)], vec![0, 1]),
        (vec![json!(100), json!(null)], vec![1, 0]),
        (vec![json!(100), json!(null), json!(0)], vec![1, 0, 0]),
        (vec![json!(2), json!(3), json!(5)], vec![2, 3, 5]),
        (vec![json!(i32::MAX), json!(i32::MAX)], vec![1, 1]),
        (vec![json!(50.0), json!(150)], vec![1, 3]),
        (vec![json!(0)], vec![1]),
        (vec![json!(null)], vec![1]),
        (vec![json!(7)], vec![1]),
    ] {
        let object = weights(&written);
        let outcome = bookinfo([object.clone()]);
        assert_eq!(said(&outcome), ACCEPTED, "{object}");
        let shares: Vec<u32> = outcome
            .shares(REVIEWS)
            .iter()
            .map(|(_, share)| *share)
            .collect();
        assert_eq!(shares, expected, "{object}");
    }
    for (written, field) in [
        (vec![json!(-1), json!(1)], "route[0].weight"),
        (vec![json!(1), json!(-100)], "route[1].weight"),
        (vec![json!(-1)], "route[0].weight"),
        (vec![json!(0.5), json!(1)], "route[0].weight"),
        (vec![json!("1"), json!(1)], "route[0].weight"),
        (vec![json!(1), json!(1i64 << 31)], "route[1].weight"),
        (vec![json!(0), json!(0)], "route"),
        (vec![json!(null), json!(null)], "route"),
        (vec![json!(0), json!(null), json!(0)], "route"),
    ] {
        let field = format!("spec.http[0].{field}");
        assert_verdict(&weights(&written), Some(("InvalidWeight", &field)));
    }
}

/// Case: ISTIO-DUPLICATE
#[test]
fn the_weights_of_a_destination_that_is_there_twice_are_added() {
    let rule = json!({"route": [
        to("reviews", "v1", 1), to("reviews.shop.svc.cluster.local", "v1", 2), to("reviews", "v2", 1),
    ]});
    let outcome = bookinfo([reviews(&rule)]);
    let field = "spec.http[0].route[1].destination";
    assert_eq!(
        said(&outcome),
        [(Severity::Warning, "DuplicateBackend", field)]
    );
    assert_eq!(
        outcome.shares(REVIEWS),
        [("reviews/v1", 3), ("reviews/v2", 1)]
    );
}

/// Case: ISTIO-UNREADABLE
#[test]
fn what_cannot_be_read_is_refused_with_its_field() {
    let good = json!({"hosts": ["reviews"], "http": [{"route": route("v1")}]});
    for (spec, reason, field) in [
        (json!({"gateways": "mesh"}), "InvalidSpec", "spec.gateways"),
        (json!({"gateways": [7]}), "InvalidSpec", "spec.gateways[0]"),
        (json!({"exportTo": {}}), "InvalidSpec", "spec.exportTo"),
        (json!({"http": {}}), "InvalidSpec", "spec.http"),
        (json!({"http": [7]}), "InvalidSpec", "spec.http[0]"),
        (json!({"tcp": 7}), "InvalidSpec", "spec.tcp"),
        (json!({"tls": [[]]}), "InvalidSpec", "spec.tls[0]"),
        (
            json!({"http": [{}]}),
            "InvalidBackend",
            "spec.http[0].route",
        ),
        (
            json!({"http": [{"route": []}]}),
            "InvalidBackend",
            "spec.http[0].route",
        ),
        (
            json!({"http": [{"route": {}}]}),
            "InvalidBackend",
            "spec.http[0].route",
        ),
        (
            json!({"http": [{"route": [7]}]}),
            "InvalidSpec",
            "spec.http[0].route[0]",
        ),
        (
            json!({"http": [{"route": [{"weight": 1}]}]}),
            "InvalidBackend",
            "spec.http[0].route[0].destination",
        ),
        (
            json!({"http": [{"route": [{"destination": {}}]}]}),
            "InvalidBackend",
            "spec.http[0].route[0].destination.host",
        ),
        (
            json!({"http": [{"route": [{"destination": {"host": 7}}]}]}),
            "InvalidBackend",
            "spec.http[0].route[0].destination.host",
        ),
        (
            json!({"http": [{"route": [{"destination": {"host": "reviews", "subset": 1}}]}]}),
            "InvalidSpec",
            "spec.http[0].route[0].destination.subset",
        ),
        (
            json!({"http": [{"route": [{"destination": {"host": "reviews", "port": {"number": 0}}}]}]}),
            "InvalidBackend",
            "spec.http[0].route[0].destination.port.number",
        ),
        (
            json!({"http": [{"match": {}, "route": route("v1")}]}),
            "InvalidSpec",
            "spec.http[0].match",
        ),
        (
            json!({"http": [{"match": [7], "route": route("v1")}]}),
            "InvalidSpec",
            "spec.http[0].match[0]",
        ),
        (
            json!({"http": [{"match": [{"port": 65536}], "route": route("v1")}]}),
            "InvalidSpec",
            "spec.http[0].match[0].port",
        ),
        (
            json!({"http": [{"match": [{"sourceLabels": 7}], "route": route("v1")}]}),
            "InvalidSpec",
            "spec.http[0].match[0].sourceLabels",
        ),
        (
            json!({"http": [{"match": [{"sourceLabels": {"a": 7}}], "route": route("v1")}]}),
            "InvalidSpec",
            "spec.http[0].match[0].sourceLabels.a",
        ),
        (
            json!({"http": [{"match": [{"sourceNamespace": 7}], "route": route("v1")}]}),
            "InvalidSpec",
            "spec.http[0].match[0].sourceNamespace",
        ),
    ] {
        let mut object = virtual_service("it", &good);
        for (name, value) in spec.as_object().unwrap() {
            object["spec"][name] = value.clone();
        }
        assert_verdict(&object, Some((reason, field)));
    }
    for (spec, field) in [
        (json!(null), "spec"),
        (json!(7), "spec"),
        (json!({"hosts": 7}), "spec.hosts"),
        (json!({"hosts": [7]}), "spec.hosts[0]"),
    ] {
        let outcome = bookinfo([virtual_service("it", &spec)]);
        let told = said(&outcome);
        assert_eq!(
            (told.len(), told[0].0, told[0].2),
            (1, Severity::Refused, field),
            "{spec}"
        );
    }
}

/// Case: ISTIO-FIELD-UNKNOWN
#[test]
fn fields_that_there_are_not_are_told_of_and_ignored() {
    let destination = with(
        to("reviews", "v1", 1),
        &json!({"wait": 1, "destination": {"hosts": "x"}}),
    );
    let rule = json!({"route": [destination], "timeOut": "5s"});
    let object = with(reviews(&rule), &json!({"spec": {"host": "x"}}));
    let outcome = bookinfo([object]);
    let fields = [
        "spec.host",
        "spec.http[0].route[0].destination.hosts",
        "spec.http[0].route[0].wait",
        "spec.http[0].timeOut",
    ];
    let expected = fields.map(|field| (Severity::Warning, "UnknownField", field));
    assert_eq!(said(&outcome), expected);
    assert_eq!(outcome.shares(REVIEWS), [("reviews/v1", 1)]);
}

/// Case: ISTIO-TCP-MATCH
#[test]
fn tcp_rules_choose_by_port_and_client_alone() {
    let spec = |matches: Value| json!({"hosts": ["reviews"], "tcp": [{"match": matches, "route": route("v1")}]});
    for (matches, field) in [
        (
            json!([{"destinationSubnets": ["10.0.0.0/8"]}]),
            "destinationSubnets",
        ),
        (json!([{"sourceSubnet": "10.0.0.0/8"}]), "sourceSubnet"),
        (json!([{"sniHosts": ["reviews"]}]), "sniHosts"),
        (json!([{"uri": {"prefix": "/"}}]), "uri"),
    ] {
        let field = format!("spec.tcp[0].match[0].{field}");
        let outcome = bookinfo([virtual_service("it", &spec(matches))]);
        assert_eq!(
            said(&outcome),
            [(Severity::Refused, "MatchesUnsupported", field.as_str())]
        );
    }
}

/// Case: ISTIO-TLS
#[test]
fn tls_rules_are_a_split_if_the_name_makes_no_difference() {
    let rule = |names: Value, subset: &str| json!({"match": [{"sniHosts": names}], "route": route(subset)});
    let object =
        |hosts: Value, rules: Value| virtual_service("it", &json!({"hosts": hosts, "tls": rules}));
    let refused = |field| vec![(Severity::Refused, "MatchesUnsupported", field)];
    let host = || json!(["reviews"]);
    const NAME: &str = "spec.tls[0].match[0].sniHosts";
    for (rules, expected) in [
        (json!([rule(json!(["reviews"]), "v1")]), None),
        (
            json!([rule(json!(["REVIEWS"]), "v1"), rule(json!(["x"]), "v1")]),
            None,
        ),
        (json!([rule(json!(["x"]), "v1")]), Some(refused(NAME))),
        (
            json!([rule(json!(["reviews"]), "v1"), rule(json!(["x"]), "v2")]),
            Some([refused(NAME), refused("spec.tls[1].match[0].sniHosts")].concat()),
        ),
        (
            json!([{"route": route("v1")}]),
            Some(vec![(
                Severity::Refused,
                "InvalidSpec",
                "spec.tls[0].match",
            )]),
        ),
        (
            json!([rule(json!([]), "v1")]),
            Some(vec![(Severity::Refused, "InvalidSpec", NAME)]),
        ),
    ] {
        let outcome = bookinfo([object(host(), rules.clone())]);
        let told = said(&outcome);
        match expected {
            Some(expected) => assert_eq!(told, expected, "{rules}"),
            None => assert!(
                told.contains(&(Severity::Note, "Approximated", NAME)),
                "{told:?}"
            ),
        }
    }
}
