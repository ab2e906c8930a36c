//! What roots and backends are called.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::{Refused, Warning};
use splitter_agent::compile::{Settings, compile};
use splitter_common::layout::LeafState;

use crate::fixtures::{Outcome, VIP, canary, compiled, compiled_world, read, split, with, world};

fn named(root: impl Into<Value>) -> Value {
    with(canary(9, 1), &json!({"spec": {"service": root.into()}}))
}

/// Case: SMI-ROOT-NAME
#[test]
fn every_form_of_the_roots_name_is_the_same_root() {
    for form in [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
        "web:80",
        "web.shop.svc.cluster.local:80",
        "WEB.Shop.SVC.Cluster.Local",
    ] {
        let outcome = compiled_world(named(form));
        assert_eq!(outcome.shares(VIP), [("web-1", 9), ("web-2", 1)], "{form}");
        outcome.assert_accepted();
    }
}

/// Case: SMI-ROOT-DOMAIN
#[test]
fn the_clusters_own_domain_is_known() {
    let objects = read(
        world()
            .into_iter()
            .chain([named("web.shop.svc.k8s.example.org")]),
    );
    let settings = Settings {
        cluster_domain: "k8s.example.org".to_owned(),
        ..Settings::default()
    };
    let outcome = Outcome(compile(&objects, &settings));
    outcome.assert_accepted();
    let outcome = Outcome(compile(&objects, &Settings::default()));
    assert_eq!(outcome.said(), [(Refused, "InvalidRoot", "spec.service")]);
    let message = outcome.message();
    assert!(
        message.contains("--cluster-domain k8s.example.org"),
        "{message}"
    );
}

/// Case: SMI-ROOT-NAMESPACE
#[test]
fn a_root_in_another_namespace_is_refused_and_not_touched() {
    let elsewhere = json!({"metadata": {"namespace": "bank"}});
    let other = with(crate::fixtures::service("till", "10.96.9.9"), &elsewhere);
    for form in ["till.bank", "till.bank.svc.cluster.local:80"] {
        let objects = world().into_iter().chain([other.clone(), named(form)]);
        let outcome = compiled(objects);
        assert_eq!(
            outcome.said(),
            [(Refused, "RootInOtherNamespace", "spec.service")]
        );
        assert!(outcome.0.plan.frontends.is_empty(), "no frontends at all");
    }
}

/// Case: SMI-ROOT-NAME-INVALID
#[test]
fn a_root_that_is_no_service_is_refused() {
    for form in [
        "",
        ".",
        "www.example.org",
        "web_",
        "http://web",
        "web:http",
        "web:99999",
    ] {
        let outcome = compiled_world(named(form));
        assert_eq!(
            outcome.said(),
            [(Refused, "InvalidRoot", "spec.service")],
            "{form}"
        );
        assert!(outcome.0.plan.frontends.is_empty());
    }
    for value in [
        json!(null),
        json!({"name": "web"}),
        json!(["web"]),
        json!(7),
    ] {
        let outcome = compiled_world(named(value));
        assert_eq!(outcome.said(), [(Refused, "InvalidRoot", "spec.service")]);
        assert!(outcome.0.plan.frontends.is_empty());
    }
}

/// Case: SMI-ROOT-API-SERVER
#[test]
fn the_api_server_is_never_split() {
    let home = json!({"metadata": {"namespace": "default"}});
    let at_home = |value: Value| with(value, &home);
    let objects = [
        at_home(crate::fixtures::service("kubernetes", "10.96.0.1")),
        at_home(crate::fixtures::service("web-1", "10.96.0.11")),
        at_home(crate::fixtures::slice("web-1", &["10.0.0.1"])),
        at_home(split("canary", "kubernetes", &[("web-1", json!(1))])),
    ];
    compiled(objects).assert_refused("RootProtected", "spec.service");
    // Elsewhere it is a name like any other.
    let objects = [
        crate::fixtures::service("kubernetes", "10.96.0.1"),
        crate::fixtures::service("web-1", "10.96.0.11"),
        crate::fixtures::slice("web-1", &["10.0.0.1"]),
        split("canary", "kubernetes", &[("web-1", json!(1))]),
    ];
    compiled(objects).assert_accepted();
}

/// Case: BACKEND-OTHER-NAMESPACE
#[test]
fn a_backend_in_another_namespace_is_left_out() {
    let backends = [("web-1", json!(1)), ("web-2.bank", json!(1))];
    let outcome = compiled_world(split("canary", "web", &backends));
    assert_eq!(outcome.shares(VIP), [("web-1", 1), ("web-2.bank", 0)]);
    assert_eq!(
        outcome.states(VIP),
        [LeafState::Ready, LeafState::ServiceMissing]
    );
    assert_eq!(
        outcome.said(),
        [(
            Warning,
            "BackendInOtherNamespace",
            "spec.backends[1].service"
        )]
    );
}

/// Case: BACKEND-NAME-INVALID
#[test]
fn a_backend_that_is_no_service_is_left_out() {
    for name in ["www.example.org", "web_2", "web-2:80", " web-2"] {
        let outcome = compiled_world(split(
            "canary",
            "web",
            &[("web-1", json!(1)), (name, json!(1))],
        ));
        assert_eq!(outcome.shares(VIP), [("web-1", 1), (name, 0)]);
        assert_eq!(
            outcome.said(),
            [(Warning, "InvalidBackendName", "spec.backends[1].service")]
        );
    }
}

/// A port is not part of a backend's name.
///
/// Case: BACKEND-NAME-INVALID
#[test]
fn a_backend_with_a_port_is_told_what_to_write() {
    for written in ["web-2:8080", "web-2.shop.svc:80"] {
        let backends = [("web-1", json!(1)), (written, json!(1))];
        let outcome = compiled_world(split("canary", "web", &backends));
        assert!(
            outcome.message().ends_with("; write web-2"),
            "{}",
            outcome.message()
        );
    }
}

/// No name can forge a line or control a terminal.
#[test]
fn names_are_shown_without_what_controls_a_terminal() {
    let name = "a\n\u{1b}[2J\u{9b}\u{202e}\u{2066}\u{200f}";
    let with_name = split("canary", "web", &[("web-1", json!(1)), (name, json!(1))]);
    let outcome = compiled_world(with_name);
    let hostile = |text: &str| {
        text.contains(|c: char| c.is_control() || "\u{202e}\u{2066}\u{200f}".contains(c))
    };
    assert!(!hostile(outcome.message()));
    assert!(!hostile(&outcome.at(VIP).unwrap().leaves[1].service));
    let outcome = compiled_world(named(name));
    assert!(!hostile(outcome.message()));
}

/// Names as long as an attacker likes do not make long reports.
///
/// Case: REPORT-SHORT
#[test]
fn reports_stay_short() {
    let endless = "x".repeat(100_000);
    for split in [
        named(endless.clone()),
        split("canary", "web", &[(&endless, json!(1))]),
    ] {
        for diagnostic in compiled_world(split).0.diagnostics {
            assert!(
                diagnostic.message.len() < 512,
                "{}",
                diagnostic.message.len()
            );
        }
    }
}
