//! EndpointSlices that cannot be used, and why a leaf has no ready endpoint.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::Warning;
use splitter_common::layout::LeafState;

use crate::fixtures::{
    Outcome, VIP, canary, compiled, root, service, service_of, slice, slice_of, with, world,
    world_with, world_without,
};

fn with_canary(objects: Vec<Value>) -> Outcome {
    compiled(objects.into_iter().chain([canary(9, 1)]))
}

/// The only message about an object.
#[track_caller]
fn message_of<'a>(outcome: &'a Outcome, name: &str) -> &'a str {
    let said: Vec<_> = outcome
        .0
        .diagnostics
        .iter()
        .filter(|said| said.object.name.name == name)
        .collect();
    match said.as_slice() {
        [said] => &said.message,
        other => panic!("{other:#?}"),
    }
}

/// Case: SLICE-NO-SERVICE
#[test]
fn a_slice_without_the_label_is_told_and_why_the_leaf_is_empty() {
    for label in [json!(null), json!("")] {
        let labels = json!({"metadata": {"labels": {"kubernetes.io/service-name": label}}});
        let outcome = with_canary(world_with(with(slice("web-2", &["10.0.0.2"]), &labels)));
        assert_eq!(
            outcome.said_of("web-2-0"),
            [(
                Warning,
                "SliceWithoutService",
                "metadata.labels[kubernetes.io/service-name]"
            )]
        );
        assert_eq!(
            outcome.said(),
            [(Warning, "LeafNotReady", "spec.backends[1]")]
        );
        assert!(
            message_of(&outcome, "canary")
                .contains("no EndpointSlice has the label kubernetes.io/service-name: web-2"),
        );
    }
}

/// Case: SLICE-NO-SERVICE
#[test]
fn a_slice_without_the_label_that_a_controller_manages_is_left_alone() {
    let own = |metadata| {
        let without = json!({"metadata": {"labels": {"kubernetes.io/service-name": null}}});
        let endpoints = with(slice("other", &["10.0.0.9"]), &without);
        with(endpoints, &json!({ "metadata": metadata }))
    };
    let owner = json!({"apiVersion": "multicluster.example/v1", "kind": "Import", "name": "other", "uid": "7"});
    for metadata in [
        json!({"labels": {"endpointslice.kubernetes.io/managed-by": "mesh.example"}}),
        json!({"ownerReferences": [owner]}),
    ] {
        let outcome = with_canary([world(), vec![own(metadata)]].concat());
        assert_eq!(outcome.said_of("other-0"), []);
        outcome.assert_accepted();
    }
    for metadata in [
        json!({}),
        json!({"labels": {"endpointslice.kubernetes.io/managed-by": ""}}),
        json!({"labels": {"endpointslice.kubernetes.io/managed-by": 7}}),
        json!({"ownerReferences": []}),
        json!({"ownerReferences": "nobody"}),
    ] {
        let outcome = with_canary([world(), vec![own(metadata.clone())]].concat());
        assert_eq!(outcome.said_of("other-0").len(), 1, "{metadata}");
    }
}

/// Case: SLICE-OWNER
#[test]
fn slices_that_no_split_needs_are_not_judged() {
    let labels = json!({"metadata": {"labels": null, "namespace": "bank"}});
    let elsewhere = with(slice("web-2", &["10.0.0.2"]), &labels);
    let of_another = slice("other", &["bad"]);
    let outcome = with_canary([world(), vec![elsewhere, of_another]].concat());
    assert_eq!(outcome.0.diagnostics.len(), 1);
    outcome.assert_accepted();
}

/// Case: SLICE-PORT-UNKNOWN
#[test]
fn a_port_by_another_name_is_told() {
    let spec = |ip| json!({"clusterIP": ip, "ports": [{"name": "http", "port": 80}]});
    let content = json!({"ports": [{"name": "web", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.2"]}]});
    let mut objects = world_without("Service", "web-2");
    objects.retain(|object| object["metadata"]["name"] != "web-2-0");
    objects.push(service_of("web-2", &spec("10.96.0.12")));
    objects.push(slice_of("web-2-0", "web-2", &content));
    let outcome = with_canary(objects);
    assert_eq!(
        outcome.said_of("web-2-0"),
        [(Warning, "SlicePortUnknown", "ports")]
    );
    assert!(message_of(&outcome, "web-2-0").contains("port \"web\""));
    assert_eq!(
        outcome.states(VIP),
        [LeafState::Ready, LeafState::NoReadyEndpoints]
    );
    assert!(
        message_of(&outcome, "canary")
            .contains("do not have port \"http\" (they have port \"web\")"),
        "{}",
        message_of(&outcome, "canary")
    );
}

/// Case: SLICE-CONTENT
#[test]
fn content_that_is_left_out_is_told_in_one_line_for_each_sort() {
    let addresses: Vec<String> = (0..1000).map(|number| format!("bad-{number}")).collect();
    let content = json!({"ports": [{"port": 8080}, {"name": "x", "port": "8080"}],
        "endpoints": [{"addresses": addresses}]});
    let outcome = with_canary(world_with(slice_of("web-2-0", "web-2", &content)));
    assert_eq!(
        outcome.said_of("web-2-0"),
        [
            (Warning, "SliceContentIgnored", "endpoints[0].addresses[0]"),
            (Warning, "SliceContentIgnored", "ports[1].port"),
        ]
    );
    let told = &outcome.0.diagnostics[0].message;
    assert!(
        told.contains("bad-0") && told.contains("999 more"),
        "{told}"
    );
    assert!(message_of(&outcome, "canary").contains("its endpoints have no IPv4 addresses"));
}

/// Case: LEAF-EMPTY-WHY
#[test]
fn an_empty_leaf_says_why() {
    let not_ready = json!({"ports": [{"port": 8080}], "endpoints": [
        {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
        {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
    ]});
    let six = json!({"addressType": "IPv6", "ports": [{"port": 8080}]});
    let no_port = json!({"ports": [{"port": "8080"}], "endpoints": [{"addresses": ["10.0.0.2"]}]});
    let empty = json!({"ports": [{"port": 8080}]});
    // What the control plane writes of a Service whose pods are scaled to 0.
    let scaled_down = json!({"ports": null, "endpoints": null});
    for (content, why) in [
        (not_ready, "none of its 2 endpoints is ready"),
        (six, "its EndpointSlices have no IPv4 addresses"),
        (
            no_port,
            "do not have an unnamed port (they have none that can be used)",
        ),
        (empty, "it has no endpoints: its pods are scaled to 0"),
        (scaled_down, "it has no endpoints: its pods are scaled to 0"),
    ] {
        let outcome = with_canary(world_with(slice_of("web-2-0", "web-2", &content)));
        let message = message_of(&outcome, "canary");
        assert!(
            message.contains("share its connections until it has"),
            "{message}"
        );
        assert!(message.contains(why), "{message}");
    }
}

/// Case: LEAF-EMPTY-WHY
#[test]
fn refused_connections_say_why_of_each_leaf_and_that_nobody_shares() {
    let objects = vec![
        root(),
        service("web-1", "10.96.0.11"),
        slice("web-2", &["10.0.0.2"]),
    ];
    let outcome = with_canary(objects);
    assert_eq!(
        outcome.said(),
        [
            (Warning, "LeafServiceMissing", "spec.backends[1]"),
            (Warning, "NoReadyEndpoints", "spec.backends"),
        ]
    );
    let messages: Vec<_> = outcome.0.diagnostics.iter().map(|d| &d.message).collect();
    assert!(
        messages[1].contains("web-1: no EndpointSlice has the label kubernetes.io/service-name"),
        "{messages:?}"
    );
    assert!(
        messages.iter().all(|message| !message.contains("share")),
        "{messages:?}"
    );
}
