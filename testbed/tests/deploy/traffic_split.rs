//! What the CRD lets through, and what it keeps.

use serde_json::{Value, json};
use testbed::fixtures::ApiServer;
use testbed::fixtures::manifests::traffic_split;

fn split(version: &str, weight: &Value) -> Value {
    traffic_split(
        version,
        "default",
        "it",
        "web",
        &[("web-v1", weight.clone())],
    )
}

#[test]
fn the_crd_accepts_what_each_version_allows_and_nothing_else() {
    let server = ApiServer::start();
    server.create_crd();
    let again = server.kubectl(&["create", "-k", "deploy/crd"], "");
    assert!(!again.status.success(), "one that is there was replaced");

    let judge = |object: &Value, wanted: bool| {
        let output = server.kubectl(
            &["create", "--dry-run=server", "--filename=-"],
            &object.to_string(),
        );
        assert_eq!(output.status.success(), wanted, "{object}: {output:?}");
    };
    for weight in [
        json!(0),
        json!(90),
        json!("0"),
        json!("1"),
        json!("500m"),
        json!("1e2"),
        json!("0.5"),
    ] {
        judge(&split("v1alpha1", &weight), true);
    }
    for weight in [
        json!(-1),
        json!("-1"),
        json!(0.5),
        json!("many"),
        json!(""),
        json!(null),
    ] {
        judge(&split("v1alpha1", &weight), false);
    }
    for version in ["v1alpha2", "v1alpha3", "v1alpha4"] {
        for weight in [json!(0), json!(100), json!("100")] {
            judge(&split(version, &weight), true);
        }
        for weight in [json!(-1), json!(0.5), json!("500m"), json!(null)] {
            judge(&split(version, &weight), false);
        }
        let mut without = split(version, &json!(1));
        without["spec"]["backends"] = json!([]);
        judge(&without, false);
        without["spec"] = json!({"backends": [{"service": "web-v1", "weight": 1}]});
        judge(&without, false);
    }
    for version in ["v1alpha3", "v1alpha4"] {
        let mut some = split(version, &json!(1));
        some["spec"]["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "those"}]);
        judge(&some, true);
        some["spec"]["matches"][0]["kind"] = json!("Pod");
        judge(&some, false);
    }
    keeps_matches(&server);
    shows_weights_in_every_version(&server);
    shows_how_a_split_stands(&server);
}

fn shows_how_a_split_stands(server: &ApiServer) {
    let mut canary = split("v1alpha2", &json!(90));
    canary["metadata"]["name"] = json!("canary");
    server.succeed(&["create", "--filename=-"], &canary.to_string());
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let status = json!({"status": {
        "weights": "web-v1:90,web-v2:10",
        "conditions": [
            condition("Accepted", "True", "Accepted"),
            condition("Programmed", "False", "RootMissing"),
        ],
    }});
    let patch = status.to_string();
    let patch = [
        "patch",
        "ts",
        "canary",
        "--subresource=status",
        "--type=merge",
        "--patch",
        &patch,
    ];
    server.succeed(&patch, "");
    for version in ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"] {
        let kind = format!("trafficsplits.{version}.split.smi-spec.io");
        let table = server.succeed(&["get", &kind, "canary"], "");
        let (head, row) = table.split_once('\n').unwrap();
        let head: Vec<&str> = head.split_whitespace().collect();
        assert_eq!(
            head,
            [
                "NAME",
                "SERVICE",
                "WEIGHTS",
                "ACCEPTED",
                "PROGRAMMED",
                "AGE"
            ]
        );
        let row: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(
            row[..5],
            ["canary", "web", "web-v1:90,web-v2:10", "True", "False"]
        );
    }
    let wide = server.succeed(&["get", "ts", "canary", "--output=wide"], "");
    assert!(wide.contains("RootMissing"), "{wide}");
}

/// A split for some requests must not become one for all because a tool touched it through a version
/// that has no such thing.
fn keeps_matches(server: &ApiServer) {
    let mut some = split("v1alpha4", &json!(1));
    let matches = json!([{
        "apiGroup": "specs.smi-spec.io", "kind": "HTTPRouteGroup", "name": "those",
    }]);
    some["spec"]["matches"] = matches.clone();
    server.succeed(&["create", "--filename=-"], &some.to_string());
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        let kind = format!("trafficsplits.{version}.split.smi-spec.io");
        let patch = json!({"metadata": {"labels": {"seen": version}}}).to_string();
        server.succeed(
            &["patch", &kind, "it", "--type=merge", "--patch", &patch],
            "",
        );
        let now = server.get("trafficsplits.v1alpha4.split.smi-spec.io", "it");
        assert_eq!(now["metadata"]["labels"]["seen"], version);
        assert_eq!(now["spec"]["matches"], matches, "after {version}");
    }
    server.succeed(&["delete", "trafficsplits", "it"], "");
}

fn shows_weights_in_every_version(server: &ApiServer) {
    let old = split("v1alpha1", &json!("500m")).to_string();
    server.succeed(&["create", "--filename=-"], &old);
    for version in ["v1alpha2", "v1alpha4"] {
        let kind = format!("trafficsplits.{version}.split.smi-spec.io");
        let now = server.get(&kind, "it");
        assert_eq!(now["spec"]["backends"][0]["weight"], "500m");
    }
}
