//! Roots and leaves that are not there, or not what they should be.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Accepted, Inactive, Note, Warning};
use splitter_agent::compile::{Settings, compile};
use splitter_agent::objects::{ObjectName, ObjectReference};
use splitter_agent::plan::Decision;
use splitter_common::layout::{LeafState, Reason};

use crate::fixtures::{
    Outcome, VIP, canary, compiled, compiled_world, leaf, read, root, service_of, slice, split,
    with, world_with, world_without,
};

#[track_caller]
fn assert_inactive(root: Option<Value>, reason: &str) {
    let mut objects = world_without("Service", "web");
    objects.extend(root);
    objects.push(canary(9, 1));
    let outcome = compiled(objects);
    assert_eq!(outcome.said(), [(Inactive, reason, "spec.service")]);
    assert!(outcome.0.plan.frontends.is_empty());
}

/// Case: ROOT-MISSING, ROOT-HEADLESS, ROOT-EXTERNAL-NAME, ROOT-NO-CLUSTER-IP, ROOT-NO-PORTS
#[test]
fn a_root_that_cannot_be_dialled_leaves_the_split_inactive() {
    let port = json!([{"port": 80}]);
    assert_inactive(None, "RootMissing");
    for (spec, reason) in [
        (json!({"clusterIP": "None", "ports": port}), "RootHeadless"),
        (
            json!({"clusterIPs": ["None"], "ports": port}),
            "RootHeadless",
        ),
        (
            json!({"type": "ExternalName", "externalName": "example.org", "ports": port}),
            "RootExternalName",
        ),
        (json!({"ports": port}), "RootWithoutClusterIP"),
        (
            json!({"clusterIP": "", "ports": port}),
            "RootWithoutClusterIP",
        ),
        (json!({"clusterIP": "10.96.0.1"}), "RootWithoutPorts"),
    ] {
        assert_inactive(Some(service_of("web", &spec)), reason);
    }
}

/// Only the refusal is reported.
///
/// Case: ROOT-MISSING
#[test]
fn a_refused_split_without_a_root_is_refused() {
    let mut objects = world_without("Service", "web");
    objects.push(canary(9, -1));
    let outcome = compiled(objects);
    let reasons: Vec<_> = outcome.said().iter().map(|said| said.1).collect();
    assert_eq!(reasons, ["InvalidWeight"]);
    assert!(outcome.0.plan.frontends.is_empty());
}

/// There is no warning for a leaf with weight 0.
///
/// Case: LEAF-MISSING
#[test]
fn a_missing_leaf_leaves_its_share_to_the_others() {
    let mut objects = world_without("Service", "web-2");
    objects.push(canary(9, 1));
    let outcome = compiled(objects);
    assert_eq!(outcome.shares(VIP), [("web-1", 1), ("web-2", 0)]);
    assert_eq!(
        outcome.states(VIP),
        [LeafState::Ready, LeafState::ServiceMissing]
    );
    assert_eq!(
        outcome.said(),
        [(Warning, "LeafServiceMissing", "spec.backends[1]")]
    );
    assert!(
        outcome
            .message()
            .contains("Service shop/web-2 does not exist")
    );

    let mut objects = world_without("Service", "web-2");
    objects.push(canary(9, 0));
    compiled(objects).assert_accepted();
}

/// Case: LEAF-MISSING
#[test]
fn the_others_share_in_proportion() {
    let backends = [
        ("web-1", json!(60)),
        ("web-2", json!(20)),
        ("gone", json!(20)),
    ];
    let outcome = compiled_world(split("canary", "web", &backends));
    assert_eq!(
        outcome.shares(VIP),
        [("web-1", 3), ("web-2", 1), ("gone", 0)]
    );
    let weights: Vec<u64> = outcome
        .at(VIP)
        .unwrap()
        .leaves
        .iter()
        .map(|l| l.weight)
        .collect();
    assert_eq!(weights, [60, 20, 20], "as configured");
}

/// Case: LEAF-EXTERNAL-NAME
#[test]
fn an_external_name_is_left_out_as_a_leaf() {
    let spec = json!({"type": "ExternalName", "externalName": "e.org", "ports": [{"port": 80}]});
    let mut objects = world_with(service_of("web-2", &spec));
    objects.push(canary(9, 1));
    let outcome = compiled(objects);
    assert_eq!(
        outcome.states(VIP),
        [LeafState::Ready, LeafState::ServiceMissing]
    );
    assert_eq!(
        outcome.said(),
        [(Warning, "LeafServiceMissing", "spec.backends[1]")]
    );
    assert!(outcome.message().contains("ExternalName"));
}

/// A headless Service has endpoints like any other.
///
/// Case: LEAF-HEADLESS
#[test]
fn a_headless_leaf_takes_its_share() {
    let headless = json!({"clusterIP": "None", "ports": [{"port": 80}]});
    let mut objects = world_with(service_of("web-2", &headless));
    objects.push(canary(9, 1));
    let outcome = compiled(objects);
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    outcome.assert_accepted();
}

/// Case: LEAVES-NONE
#[test]
fn without_any_leaf_service_the_root_behaves_as_before() {
    for (first, second) in [(9, 1), (9, 0), (0, 0)] {
        let outcome = compiled([root(), canary(first, second)]);
        let passed = Decision::PassThrough(Reason::NoLeafService);
        assert_eq!(outcome.decision(VIP), Some(passed));
        assert_eq!(
            outcome.said(),
            [(Warning, "NoLeafService", "spec.backends")]
        );
    }
}

/// The message does not call a Service missing that exists.
///
/// Case: LEAVES-NONE
#[test]
fn an_external_name_exists_but_has_no_endpoints() {
    let spec = json!({"type": "ExternalName", "externalName": "e.org", "ports": [{"port": 80}]});
    let outcome = compiled([root(), service_of("web-1", &spec), canary(9, 1)]);
    let passed = Decision::PassThrough(Reason::NoLeafService);
    assert_eq!(outcome.decision(VIP), Some(passed));
    assert!(
        outcome.message().starts_with(
            "no backend is a Service with endpoints of its own (Service shop/web-1 is an \
             ExternalName)"
        ),
        "{}",
        outcome.message()
    );
}

/// A Service that was refused exists, and to create it would be no remedy.
///
/// Case: ROOT-MISSING, LEAF-MISSING
#[test]
fn a_refused_service_is_not_said_to_be_missing() {
    for (refused, said) in [
        ("web", (Inactive, "RootMissing", "spec.service")),
        ("web-2", (Warning, "LeafServiceMissing", "spec.backends[1]")),
    ] {
        let mut objects = read(
            world_without("Service", refused)
                .into_iter()
                .chain([canary(9, 1)]),
        );
        objects.refused.insert(ObjectReference {
            kind: "Service".to_owned(),
            name: ObjectName::new("shop", refused),
        });
        let outcome = Outcome(compile(&objects, &Settings::default()));
        assert_eq!(outcome.said(), [said]);
        let wanted = format!("Service shop/{refused} was refused, see above");
        assert!(
            outcome.message().starts_with(&wanted),
            "{}",
            outcome.message()
        );
    }
}

/// Case: BACKEND-ROOT
#[test]
fn a_root_among_its_own_backends_means_its_own_endpoints() {
    let objects = [
        vec![root(), slice("web", &["10.0.0.9"])],
        leaf("web-2", "10.96.0.12", &["10.0.0.2"]).into(),
        vec![split(
            "canary",
            "web",
            &[("web", json!(3)), ("web-2", json!(1))],
        )],
    ];
    let outcome = compiled(objects.concat());
    assert_eq!(outcome.shares(VIP), [("web", 3), ("web-2", 1)]);
    assert_eq!(outcome.endpoints(VIP, 0), ["10.0.0.9:8080"]);
    outcome.assert_accepted();
}

/// Splits do not nest.
///
/// Case: BACKEND-ROOT
#[test]
fn a_leaf_that_is_the_root_of_another_split_means_its_own_endpoints() {
    let other = split("other", "web-1", &[("web-2", json!(1))]);
    let back = split("back", "web-2", &[("web", json!(1)), ("web-1", json!(1))]);
    let outcome = compiled(
        crate::fixtures::world()
            .into_iter()
            .chain([canary(9, 1), other, back]),
    );
    assert_eq!(outcome.endpoints(VIP, 0), ["10.0.0.1:8080"]);
    assert_eq!(outcome.endpoints("10.96.0.11:80", 0), ["10.0.0.2:8080"]);
    outcome.assert_accepted();
}

/// Session affinity is a promise that a split does not keep.
///
/// Case: ROOT-AFFINITY
#[test]
fn session_affinity_of_the_root_is_warned_of() {
    let sticky = with(root(), &json!({"spec": {"sessionAffinity": "ClientIP"}}));
    let outcome = compiled(world_with(sticky).into_iter().chain([canary(9, 1)]));
    assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
    assert_eq!(
        outcome.said(),
        [(Warning, "SessionAffinityIgnored", "spec.service")]
    );
}

/// A root that chooses no pods has nobody behind it for clients that are not split.
///
/// Case: ROOT-NO-ENDPOINTS
#[test]
fn a_root_without_anybody_behind_it_is_noted_and_accepted() {
    let bare = with(root(), &json!({"spec": {"selector": null}}));
    let noted = [
        (Accepted, "Accepted", ""),
        (Note, "RootWithoutEndpoints", "spec.service"),
    ];
    let mut empty = bare.clone();
    empty["spec"]["selector"] = json!({});
    for bare in [bare.clone(), empty] {
        let outcome = compiled(world_with(bare).into_iter().chain([canary(9, 1)]));
        assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)]);
        assert_eq!(outcome.said(), noted);
    }
    // A slice without endpoints is nobody, one that somebody wrote by hand is fine.
    let objects = || world_with(bare.clone()).into_iter().chain([canary(9, 1)]);
    let outcome = compiled(objects().chain([slice("web", &[])]));
    assert_eq!(outcome.said(), noted);
    compiled(objects().chain([slice("web", &["10.0.0.7"])])).assert_accepted();
}
