//! Whatever a VirtualService or a DestinationRule says, nothing breaks, and nothing that it does not
//! name is touched.

use proptest::prelude::*;
use serde_json::{Value, json};
use splitter_agent::compile::{Settings, Severity, compile};
use splitter_agent::objects::{Objects, decode};

use crate::fixtures::{canary, compiled, leaf, service, with};
use crate::istio::{destination_rule, reviews, reviews_rule, to, versions, virtual_service};

/// Any JSON, most of it made of Istio's words.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        4 => proptest::sample::select(vec![
            "", "reviews", "v1", "v2", "shop", "mesh", "*", ".", "/", ".*", "0s", "10s", "SIMPLE",
            "DISABLE", "RANDOM", "PASSTHROUGH", "reviews.shop.svc.cluster.local", "*.local",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let key = prop_oneof![
        9 => proptest::sample::select(vec![
            "hosts", "host", "gateways", "exportTo", "http", "tls", "tcp", "match", "route", "uri",
            "prefix", "regex", "exact", "headers", "port", "number", "sourceLabels", "sourceNamespace",
            "sniHosts", "destination", "subset", "weight", "timeout", "retries", "attempts", "fault",
            "abort", "delay", "percentage", "value", "mirror", "mirrors", "mirrorPercentage", "rewrite",
            "redirect", "delegate", "subsets", "name", "labels", "version", "trafficPolicy",
            "loadBalancer", "simple", "mode", "portLevelSettings", "workloadSelector", "matchLabels",
            "tunnel", "proxyProtocol", "connectionPool", "outlierDetection",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        proptest::sample::select(vec![0, 1, 50, 80, 9080, 65_535, 65_536]).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|fields| fields.into_iter().collect::<Value>()),
        ]
    })
}

/// A spec that is right up to some field.
fn almost(spec: Value, places: Vec<&'static str>) -> impl Strategy<Value = Value> {
    (proptest::sample::select(places), anything()).prop_map(move |(place, value)| {
        let mut spec = spec.clone();
        *spec.pointer_mut(place).expect("a place") = value;
        spec
    })
}

fn object() -> impl Strategy<Value = Value> {
    let rule = json!({
        "match": [{"uri": null, "port": null, "sourceLabels": null}], "timeout": null, "retries": null,
        "fault": null, "mirror": null, "headers": null, "delegate": null,
        "route": [to("reviews", "v1", 1), to("reviews", "v2", 1)],
    });
    let spec = json!({"hosts": ["reviews", null], "gateways": null, "exportTo": null,
        "http": [rule], "tcp": [rule], "tls": null});
    let mut good = spec.clone();
    good["hosts"] = json!(["reviews"]);
    let places = vec![
        "/hosts",
        "/hosts/0",
        "/hosts/1",
        "/gateways",
        "/exportTo",
        "/http",
        "/http/0",
        "/http/0/match",
        "/http/0/match/0",
        "/http/0/match/0/uri",
        "/http/0/match/0/port",
        "/http/0/match/0/sourceLabels",
        "/http/0/timeout",
        "/http/0/retries",
        "/http/0/fault",
        "/http/0/mirror",
        "/http/0/headers",
        "/http/0/delegate",
        "/http/0/route",
        "/http/0/route/1",
        "/http/0/route/1/destination",
        "/http/0/route/1/destination/host",
        "/http/0/route/1/destination/subset",
        "/http/0/route/1/weight",
        "/tcp",
        "/tcp/0/match",
        "/tls",
    ];
    let in_good = places
        .iter()
        .copied()
        .filter(|place| *place != "/hosts/1")
        .collect();
    let spec = prop_oneof![1 => anything(), 2 => almost(spec, places), 3 => almost(good, in_good)];
    let services = spec.prop_map(|spec| virtual_service("fuzz", &spec));
    let rule = json!({"host": "reviews", "exportTo": null, "workloadSelector": null,
        "trafficPolicy": {"tls": null, "loadBalancer": null, "portLevelSettings": null},
        "subsets": [{"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": null}, null]});
    let places = vec![
        "/host",
        "/exportTo",
        "/workloadSelector",
        "/trafficPolicy",
        "/trafficPolicy/tls",
        "/trafficPolicy/loadBalancer",
        "/trafficPolicy/portLevelSettings",
        "/subsets",
        "/subsets/0",
        "/subsets/0/name",
        "/subsets/0/labels",
        "/subsets/0/labels/version",
        "/subsets/0/trafficPolicy",
        "/subsets/1",
    ];
    let rules = prop_oneof![1 => anything(), 3 => almost(rule, places)];
    let rules = rules.prop_map(|spec| destination_rule("fuzz", &spec));
    prop_oneof![2 => services, 1 => rules]
}

/// A split of another Service by each API, which nothing here names.
fn neighbours() -> Vec<Value> {
    let split = with(
        canary(1, 1),
        &json!({
            "metadata": {"name": "far"},
            "spec": {"service": "far", "backends": [{"service": "far-1", "weight": 1}]},
        }),
    );
    let spec = json!({"hosts": ["near"], "http": [{"route": [to("far-1", Value::Null, 1)]}]});
    let services = [service("far", "10.96.2.1"), service("near", "10.96.2.2")];
    let leaf = leaf("far-1", "10.96.2.3", &["10.0.2.1"]);
    [services, leaf, [split, virtual_service("near", &spec)]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_that_is_written_panics_or_touches_a_neighbour(
        object in object(),
        metadata in anything(),
    ) {
        let world = || {
            let reviews = reviews(&json!({"route": [to("reviews", "v1", 1)]}));
            versions().into_iter().chain(neighbours()).chain([reviews, reviews_rule()])
        };
        let mut object = object;
        if let Value::Object(fields) = metadata {
            object["metadata"]["annotations"] = Value::Object(fields);
        }
        let alone = compiled(world());
        let mut objects: Objects = crate::fixtures::read(world());
        match decode(object) {
            Ok(object) => objects.insert(object.expect("of interest")).map_or((), drop),
            Err(error) => {
                prop_assert!(!error.message.contains(char::is_control), "{}", error);
                return Ok(());
            }
        }
        let both = compile(&objects, &Settings::default());
        let is_far = |address: &str| address.starts_with("10.96.2.");
        // Wildcards, and names of the neighbours, are not made up by chance.
        for (frontend, plan) in &alone.0.plan.frontends {
            if is_far(&frontend.address.ip().to_string()) {
                let other = both.plan.frontends.get(frontend);
                let is_mesh_wide = objects.destination_rules.values().any(|it| it.host.contains('*'));
                prop_assert!(is_mesh_wide || other == Some(plan));
            }
        }
        for diagnostic in &both.diagnostics {
            let is_plain = !diagnostic.message.contains(char::is_control);
            prop_assert!(is_plain && diagnostic.message.len() < 2000, "{diagnostic}");
            let is_neighbour = matches!(&*diagnostic.object.name.name, "far" | "near");
            let is_mesh_wide = objects.destination_rules.values().any(|it| it.host.contains('*'));
            prop_assert!(
                !is_neighbour || is_mesh_wide || diagnostic.severity < Severity::Warning,
                "{diagnostic}"
            );
        }
    }
}
