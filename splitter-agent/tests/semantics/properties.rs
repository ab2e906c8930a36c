//! What holds for any set of objects.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use splitter_agent::compile::{Compiled, Compiler, Settings, Severity, compile};
use splitter_agent::objects::{Kind, ObjectReference, Objects, decode};
use splitter_agent::plan::Decision;
use splitter_common::layout::{LeafState, Protocol};

use crate::fixtures::{service_of, slice_of, with};

/// Few names, so that objects meet.
fn name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["web", "web-1", "web-2", "api", "kubernetes"])
}

fn namespaced(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let namespace = proptest::sample::select(vec!["shop", "shop", "shop", "default"]);
    (value, namespace)
        .prop_map(|(value, namespace)| with(value, &json!({"metadata": {"namespace": namespace}})))
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = proptest::sample::select(vec![None, Some("TCP"), Some("UDP"), Some("SCTP")]);
    let name = proptest::sample::select(vec![None, Some(""), Some("http"), Some("metrics")]);
    let number = proptest::sample::select(vec![80, 81, 9090]);
    (name, number, protocol).prop_map(
        |(name, port, protocol)| json!({"name": name, "port": port, "protocol": protocol}),
    )
}

fn service() -> impl Strategy<Value = Value> {
    let ip = proptest::sample::select(vec![
        "10.96.0.1",
        "10.96.0.2",
        "10.96.0.3",
        "fd00::1",
        "fd00::2",
        "None",
        "",
    ]);
    let kind = proptest::sample::select(vec![None, None, Some("ClusterIP"), Some("ExternalName")]);
    let affinity = proptest::sample::select(vec![None, Some("None"), Some("ClientIP")]);
    let ports = proptest::collection::vec(port(), 0..4);
    let ips = proptest::collection::vec(ip, 0..3);
    let policy = proptest::sample::select(vec![None, None, Some("Cluster"), Some("Local")]);
    let selector = proptest::option::of(Just(json!({"app": "web"})));
    (name(), ips, kind, ports, (affinity, policy, selector)).prop_map(
        |(name, ips, kind, ports, rest)| {
            let (affinity, policy, selector) = rest;
            let spec = json!({"clusterIPs": ips, "type": kind, "ports": ports, "selector": selector,
            "sessionAffinity": affinity, "internalTrafficPolicy": policy});
            service_of(name, &spec)
        },
    )
}

fn place(names: &[&'static str]) -> impl Strategy<Value = Option<&'static str>> + use<> {
    proptest::option::weighted(0.8, proptest::sample::select(names.to_vec()))
}

fn node() -> impl Strategy<Value = Value> {
    let name = proptest::sample::select(vec!["n1", "n2"]);
    (name, place(&["a", "b", ""])).prop_map(|(name, zone)| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "labels": {"topology.kubernetes.io/zone": zone}}})
    })
}

fn slice() -> impl Strategy<Value = Value> {
    let address = proptest::sample::select(vec![
        "10.0.0.1", "10.0.0.2", "fd01::1", "fd01::2", "0.0.0.0", "name",
    ]);
    let condition = || proptest::option::of(any::<bool>());
    let pod = proptest::option::of(proptest::sample::select(vec!["p1", "p2", "p3"]));
    let endpoint = (
        (proptest::collection::vec(address, 0..3), pod),
        (condition(), condition(), condition()),
        place(&["n1", "n2"]),
        place(&["n1", "n2"]),
        place(&["a", "b"]),
    )
        .prop_map(
            |((addresses, pod), (ready, serving, terminating), node, for_node, zone)| {
                let hints = |name: Option<&str>| name.map(|name| json!([{ "name": name }]));
                let target = pod.map(|pod| json!({"kind": "Pod", "name": pod, "uid": pod}));
                json!({"addresses": addresses, "nodeName": node, "targetRef": target, "conditions":
                {"ready": ready, "serving": serving, "terminating": terminating},
                "hints": {"forNodes": hints(for_node), "forZones": hints(zone)}})
            },
        );
    let family = proptest::sample::select(vec!["IPv4", "IPv6", "FQDN"]);
    let endpoints = proptest::collection::vec(endpoint, 0..4);
    let ports = proptest::collection::vec(port(), 0..3);
    (name(), 0..3, family, ports, endpoints).prop_map(|(name, number, family, ports, endpoints)| {
        let content = json!({"addressType": family, "ports": ports, "endpoints": endpoints});
        slice_of(&format!("{name}-{number}"), name, &content)
    })
}

fn weight() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => (0..100u64).prop_map(Value::from),
        2 => proptest::sample::select(vec![
            json!("500m"), json!("1"), json!(2.0), json!(i64::MAX), json!("1n"), json!("3k"),
        ]),
        1 => proptest::sample::select(vec![json!(-1), json!(0.5), json!("x"), json!(null)]),
    ]
}

fn split() -> impl Strategy<Value = Value> {
    let written = || {
        prop_oneof![
            6 => name().prop_map(str::to_owned),
            2 => name().prop_map(|name| format!("{name}.shop.svc.cluster.local")),
            1 => name().prop_map(|name| format!("{name}.default:80")),
            2 => name().prop_map(|name| format!("{name}:80")),
            1 => name().prop_map(|name| format!("{name}:81")),
            1 => ".{0,10}",
        ]
    };
    let created = proptest::sample::select(vec![
        None,
        Some("2026-01-01T00:00:00Z"),
        Some("2026-01-02T00:00:00Z"),
        Some("soon"),
    ]);
    let policy =
        proptest::sample::select(vec![None, Some("passthrough"), Some("refuse"), Some("?")]);
    let backends = proptest::collection::vec((written(), weight()), 0..5);
    let matches = prop_oneof![
        9 => Just(json!({})),
        1 => Just(json!({"matches": [{"kind": "x"}]})),
        1 => Just(json!({"match": [{"kind": "x"}]})),
        1 => Just(json!({"mirror": true})),
    ];
    let name = proptest::sample::select(vec!["a", "b", "c", "d"]);
    (name, written(), backends, matches, created, policy).prop_map(
        |(name, root, backends, matches, created, policy)| {
            let backends: Vec<Value> = backends
                .into_iter()
                .map(|(service, weight)| json!({"service": service, "weight": weight}))
                .collect();
            json!({
                "apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit",
                "metadata": {"name": name, "creationTimestamp": created,
                    "annotations": {"splitter.dev/on-no-endpoints": policy}},
                "spec": with(json!({"service": root, "backends": backends}), &matches),
            })
        },
    )
}

fn pod() -> impl Strategy<Value = Value> {
    let name = proptest::sample::select(vec!["p1", "p2", "p3"]);
    let version = proptest::sample::select(vec![None, Some("v1"), Some("v2")]);
    let uid = proptest::option::weighted(0.8, Just(()));
    (name, version, uid).prop_map(|(name, version, uid)| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name,
            "uid": uid.map(|()| name), "labels": {"app": "web", "version": version}}})
    })
}

fn created() -> impl Strategy<Value = Option<&'static str>> {
    proptest::sample::select(vec![
        None,
        Some("2026-01-01T00:00:00Z"),
        Some("2026-01-02T00:00:00Z"),
        Some("soon"),
    ])
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => name().prop_map(str::to_owned),
        3 => name().prop_map(|name| format!("{name}.shop.svc.cluster.local")),
        1 => name().prop_map(|name| format!("{name}.default.svc.cluster.local")),
        1 => name().prop_map(|name| format!("{name}.shop")),
        1 => proptest::sample::select(vec!["*", "*.shop.svc.cluster.local"]).prop_map(str::to_owned),
    ]
}

fn subset_name() -> impl Strategy<Value = Option<&'static str>> {
    proptest::sample::select(vec![None, Some("v1"), Some("v2"), Some("all")])
}

fn destination_rule() -> impl Strategy<Value = Value> {
    let policy = || {
        let policies = vec![
            json!(null),
            json!(null),
            json!({"tls": {"mode": "SIMPLE"}}),
            json!({"tls": {"mode": "DISABLE"}}),
            json!({"loadBalancer": {"simple": "RANDOM"}, "connectionPool": {}}),
            json!({"portLevelSettings": [{"port": {"number": 80}, "tls": {"mode": "SIMPLE"}}]}),
            json!(7),
        ];
        proptest::sample::select(policies)
    };
    let version = proptest::sample::select(vec![
        json!({}),
        json!({"version": "v1"}),
        json!({"version": "v2", "app": "web"}),
        json!(7),
    ]);
    let subset = (subset_name(), version, policy()).prop_map(
        |(name, labels, policy)| json!({"name": name, "labels": labels, "trafficPolicy": policy}),
    );
    let subsets = proptest::collection::vec(subset, 0..4);
    let selector = proptest::sample::select(vec![
        json!(null),
        json!(null),
        json!({"matchLabels": {"app": "x"}}),
    ]);
    let name = proptest::sample::select(vec!["r1", "r2", "r3"]);
    (name, host(), subsets, (policy(), selector, created())).prop_map(
        |(name, host, subsets, (policy, selector, created))| {
            json!({
                "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
                "metadata": {"name": name, "uid": name, "creationTimestamp": created},
                "spec": {"host": host, "subsets": subsets, "trafficPolicy": policy,
                    "workloadSelector": selector},
            })
        },
    )
}

fn virtual_service() -> impl Strategy<Value = Value> {
    let weight =
        proptest::sample::select(vec![json!(null), json!(0), json!(1), json!(9), json!(-1)]);
    let port = proptest::sample::select(vec![json!(null), json!(null), json!({"number": 81})]);
    let destination = (host(), subset_name(), port, weight).prop_map(|(host, subset, port, weight)| {
        json!({"destination": {"host": host, "subset": subset, "port": port}, "weight": weight})
    });
    let block = proptest::sample::select(vec![
        json!({}),
        json!({"port": 80}),
        json!({"sourceLabels": {"team": "a"}}),
        json!({"sourceNamespace": "shop"}),
        json!({"port": 81, "sourceNamespace": "default"}),
        json!({"gateways": ["x"]}),
        json!({"uri": {"prefix": "/a"}}),
    ]);
    let extra = proptest::sample::select(vec![
        json!({}),
        json!({}),
        json!({}),
        json!({}),
        json!({"timeout": "1s"}),
        json!({"fault": {"abort": {"percentage": {"value": 1}}}}),
    ]);
    let blocks = proptest::collection::vec(block, 0..3).boxed();
    let delegate = (
        blocks.clone(),
        proptest::sample::select(vec!["a", "b", "c", "d"]),
    );
    let delegating =
        delegate.prop_map(|(blocks, name)| json!({"match": blocks, "delegate": {"name": name}}));
    let rule = (blocks, proptest::collection::vec(destination, 0..4), extra)
        .prop_map(|(blocks, route, extra)| with(json!({"match": blocks, "route": route}), &extra))
        .boxed();
    let http = prop_oneof![3 => rule.clone(), 2 => delegating];
    let http = proptest::collection::vec(http, 0..3);
    let tcp = proptest::collection::vec(rule, 0..2);
    let gateways = proptest::sample::select(vec![json!(null), json!(["mesh"]), json!(["x"])]);
    let export = proptest::sample::select(vec![json!(null), json!(["*"]), json!(["."])]);
    let ignore = proptest::sample::select(vec![None, Some("ignore")]);
    let name = proptest::sample::select(vec!["a", "b", "c"]);
    let hosts = proptest::collection::vec(host(), 0..3);
    (
        name,
        hosts,
        http,
        tcp,
        (gateways, export, ignore, created()),
    )
        .prop_map(
            |(name, hosts, http, tcp, (gateways, export, ignore, created))| {
                json!({
                    "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                    "metadata": {"name": name, "creationTimestamp": created,
                        "annotations": {"splitter.dev/unsupported": ignore}},
                    "spec": {"hosts": hosts, "http": http, "tcp": tcp, "gateways": gateways,
                        "exportTo": export},
                })
            },
        )
}

fn values() -> impl Strategy<Value = Vec<Value>> {
    let value = prop_oneof![
        3 => namespaced(service()),
        3 => namespaced(slice()),
        2 => namespaced(split()),
        2 => namespaced(virtual_service()),
        2 => namespaced(destination_rule()),
        2 => namespaced(pod()),
        1 => node(),
    ];
    proptest::collection::vec(value, 0..24)
}

fn objects(values: &[Value]) -> Objects {
    let mut objects = Objects::default();
    for value in values {
        if let Ok(Some(object)) = decode(value.clone()) {
            objects.insert(object);
        }
    }
    objects
}

fn compiled(objects: &Objects) -> Compiled {
    compile(objects, &settings())
}

/// Those of one of two nodes.
fn settings() -> Settings {
    Settings {
        node_name: Some("n1".to_owned()),
        ..Settings::default()
    }
}

/// One step of a history: an object that is put, or (by its name) removed or found unreadable.
#[derive(Clone, Debug)]
enum Step {
    Put,
    Remove,
    Refuse,
}

fn history() -> impl Strategy<Value = Vec<(Step, Value, bool)>> {
    let step = proptest::sample::select(vec![
        Step::Put,
        Step::Put,
        Step::Put,
        Step::Remove,
        Step::Refuse,
    ]);
    let value = prop_oneof![
        3 => namespaced(service()),
        3 => namespaced(slice()),
        3 => namespaced(split()),
        3 => namespaced(virtual_service()),
        2 => namespaced(destination_rule()),
        2 => namespaced(pod()),
        1 => node(),
    ];
    proptest::collection::vec((step, value, any::<bool>()), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Case: CHANGE-ORDER
    #[test]
    fn a_history_of_changes_comes_to_what_its_end_comes_to_at_once(history in history()) {
        let mut compiler = Compiler::new(settings());
        let mut objects = Objects::default();
        for (step, value, compile_now) in history {
            let Ok(Some(object)) = decode(value) else { continue };
            let reference = object.reference();
            objects.remove(&reference);
            objects.refused.remove(&reference);
            match step {
                Step::Put => {
                    compiler.apply(object.clone());
                    objects.insert(object);
                }
                Step::Remove => compiler.delete(&reference),
                Step::Refuse => {
                    compiler.refuse(reference.clone());
                    objects.refused.insert(reference);
                }
            }
            if !compile_now {
                continue;
            }
            let before = compiler.plan().clone();
            let delta = compiler.compile();
            let expected = compiled(&objects);
            prop_assert_eq!(compiler.plan(), &expected.plan);
            for diagnostic in &expected.diagnostics {
                let said = compiler.diagnostics(&diagnostic.object);
                prop_assert!(said.iter().any(|said| **said == *diagnostic));
            }
            for object in objects.routes.keys() {
                let said = expected.diagnostics.iter().filter(|said| said.object == *object);
                let found = compiler.diagnostics(object);
                prop_assert!(found.iter().map(|found| &**found).eq(said));
            }
            for rule in objects.destination_rules.values() {
                let reference = ObjectReference::new(Kind::DESTINATION_RULE, rule.name.clone());
                let said = expected.diagnostics.iter().filter(|said| said.object == reference);
                let found = compiler.diagnostics(&reference);
                prop_assert!(found.iter().map(|found| &**found).eq(said));
            }
            for frontend in before.frontends.keys().chain(expected.plan.frontends.keys()) {
                let is_other =
                    before.frontends.get(frontend) != expected.plan.frontends.get(frontend);
                prop_assert_eq!(delta.frontends.contains(frontend), is_other);
            }
        }
    }

    #[test]
    fn plans_hold_what_the_kernel_relies_on(values in values()) {
        let plan = compiled(&objects(&values)).plan;
        for (frontend, split) in &plan.frontends {
            let mut total = 0u64;
            let mut names = BTreeSet::new();
            for leaf in &split.leaves {
                prop_assert!(names.insert(&leaf.service), "each leaf once");
                total += u64::from(leaf.share);
                let takes_share = matches!(leaf.state, LeafState::Ready | LeafState::Terminating);
                let is_split = split.decision == Decision::Split;
                if split.origin.kind == Kind::TRAFFIC_SPLIT.name() {
                    prop_assert_eq!(leaf.share > 0, takes_share && is_split);
                    prop_assert!(leaf.share == 0 || !leaf.endpoints.is_empty());
                } else {
                    // Its share is refused if it cannot take it.
                    prop_assert_eq!(leaf.share > 0, is_split && leaf.weight > 0);
                    prop_assert_eq!(takes_share, !leaf.endpoints.is_empty() && leaf.weight > 0);
                }
                prop_assert!(leaf.endpoints.is_sorted());
                for endpoint in &leaf.endpoints {
                    prop_assert_eq!(endpoint.is_ipv4(), frontend.address.is_ipv4());
                }
            }
            prop_assert!(total <= u64::from(u32::MAX));
            prop_assert_eq!(total > 0, split.decision == Decision::Split);
            prop_assert!(total == 0 || frontend.protocol == Protocol::Tcp);
        }
    }

    /// Case: REPORT-SAME
    #[test]
    fn what_is_said_is_the_same_on_every_node(values in values()) {
        let objects = objects(&values);
        let here = compiled(&objects);
        for (node, zone) in [(None, None), (Some("n2"), None), (Some("n3"), Some("b"))] {
            let there = compile(&objects, &Settings {
                node_name: node.map(str::to_owned),
                zone: zone.map(str::to_owned),
                ..Settings::default()
            });
            prop_assert_eq!(&here.diagnostics, &there.diagnostics);
            prop_assert!(here.plan.frontends.keys().eq(there.plan.frontends.keys()));
        }
    }

    #[test]
    fn every_split_is_spoken_of(values in values()) {
        let objects = objects(&values);
        let diagnostics = compiled(&objects).diagnostics;
        prop_assert!(diagnostics.is_sorted());
        for object in objects.routes.keys() {
            let said: Vec<_> = diagnostics.iter().filter(|said| said.object == *object).collect();
            prop_assert!(!said.is_empty());
            let accepted = said.iter().filter(|said| said.severity == Severity::Accepted).count();
            let wrong = said.iter().any(|said| said.severity > Severity::Note);
            prop_assert_eq!(accepted, usize::from(!wrong));
        }
        for said in &diagnostics {
            prop_assert!(!said.message.is_empty());
            prop_assert!(said.reason.chars().all(char::is_alphanumeric));
        }
    }

    /// Case: CHANGE-ORDER
    #[test]
    fn the_order_of_objects_does_not_matter(
        (values, shuffled) in values().prop_flat_map(|values| {
            // Of equal names the last one counts, so here each name is there once.
            let mut seen = BTreeSet::new();
            let values: Vec<Value> = values
                .into_iter()
                .filter(|value| seen.insert(format!(
                    "{} {} {}",
                    value["kind"], value["metadata"]["namespace"], value["metadata"]["name"]
                )))
                .collect();
            (Just(values.clone()), Just(values).prop_shuffle())
        })
    ) {
        prop_assert_eq!(compiled(&objects(&values)), compiled(&objects(&shuffled)));
    }

    /// Case: OBJECT-ISOLATED
    #[test]
    fn one_bad_object_never_changes_the_plan_of_others(
        values in values(),
        root in name(),
        flaw in proptest::sample::select(vec![
            json!({"spec": {"backends": null}}),
            json!({"spec": {"backends": [{"service": "web", "weight": -1}]}}),
            json!({"spec": {"matches": [{"kind": "HTTPRouteGroup", "name": "x"}]}}),
            json!({"spec": {"service": null}}),
            json!({"spec": {"service": "web.elsewhere"}}),
            json!({"spec": 7}),
            json!({"metadata": {"name": "Not A Name"}}),
            json!({"apiVersion": "split.smi-spec.io/v9"}),
        ]),
    ) {
        let good = json!({
            "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            // The most senior of all, were it not for its flaw.
            "metadata": {"name": "0", "namespace": "shop",
                "creationTimestamp": "2000-01-01T00:00:00Z"},
            "spec": {"service": root, "backends": [{"service": "web-1", "weight": 1}]},
        });
        let before = compiled(&objects(&values));
        let after = compiled(&objects(&[values, vec![with(good, &flaw)]].concat()));
        for (frontend, split) in &after.plan.frontends {
            let refused_only = |split: &splitter_agent::plan::FrontendPlan| {
                matches!(split.decision, Decision::PassThrough(
                    splitter_common::layout::Reason::ObjectRefused))
            };
            match before.plan.frontends.get(frontend) {
                // Between records of why nothing is split it may come first.
                Some(other) if refused_only(other) => prop_assert!(refused_only(split)),
                Some(other) => prop_assert_eq!(other, split),
                None => prop_assert!(refused_only(split)),
            }
        }
        for frontend in before.plan.frontends.keys() {
            prop_assert!(after.plan.frontends.contains_key(frontend));
        }
        let others: Vec<_> = after
            .diagnostics
            .into_iter()
            .filter(|said| said.object.name.name != "0")
            .collect();
        prop_assert_eq!(before.diagnostics, others);
    }
}
