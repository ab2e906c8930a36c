//! The definition of TrafficSplits: late, gone, back, in other versions, or not to be read.

use std::time::Duration;

use serde_json::{Value, json};
use splitter_agent::objects::{Kind, Object, TrafficSplit};
use testbed::fixtures::manifests::{self, Version, traffic_split};

use super::observer::Observer;
use super::server::Server;

/// The definition with these versions served; the first is the one that is stored.
pub(crate) fn definition(served: &[&str]) -> Value {
    let versions = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"].map(|name| Version {
        served: served.contains(&name),
        has_status: name == "v1alpha4",
        ..Version::permissive(name)
    });
    manifests::definition(&versions, "v1alpha1")
}

/// A split that sends everything to `web-v1`.
pub(crate) fn split(version: &str, name: &str) -> Value {
    traffic_split(version, "default", name, name, &[("web-v1", 100)])
}

#[tokio::test]
async fn splits_are_followed_from_when_they_are_defined() {
    let server = Server::start().await;
    let client = server.client.clone();
    let mut observer = Observer::of(client);
    observer.until_complete().await;
    assert_eq!(observer.version(), None);

    server.apply(&definition(&["v1alpha2"])).await;
    server.apply(&split("v1alpha2", "web")).await;
    observer
        .until("told of the split", |it| {
            it.names("TrafficSplit") == ["web"]
        })
        .await;
    assert_eq!(observer.version().as_deref(), Some("v1alpha2"));

    server.delete(&definition(&["v1alpha2"])).await;
    observer
        .until("told that it is gone", |it| !it.deleted.is_empty())
        .await;
    assert_eq!(observer.deleted, ["TrafficSplit default/web"]);

    // Until the server has let go of the old one, this changes the old one.
    let gone = |it: &Observer| it.version().is_none();
    for _ in 0..100 {
        observer.wait(Duration::from_millis(100)).await;
        if gone(&observer) {
            break;
        }
    }
    assert_eq!(observer.version(), None);
    server.apply(&definition(&["v1alpha4"])).await;
    server.apply(&split("v1alpha4", "other")).await;
    observer
        .until("told of the new split", |it| {
            it.names("TrafficSplit") == ["other"]
        })
        .await;
    assert_eq!(observer.version().as_deref(), Some("v1alpha4"));
    assert_eq!(observer.completes, 1);
    // Nothing was asked for that is not there.
    assert!(
        !observer.metrics().contains("code=\"404\""),
        "{}",
        observer.metrics()
    );
}

#[tokio::test]
async fn another_version_is_switched_to_without_a_deletion() {
    let server = Server::start().await;
    server.apply(&definition(&["v1alpha1", "v1alpha2"])).await;
    server.apply(&split("v1alpha1", "web")).await;
    let mut observer = Observer::of(server.client.clone());
    observer.until_complete().await;
    assert_eq!(observer.version().as_deref(), Some("v1alpha2"));
    let version = |it: &Observer| match &it.known["TrafficSplit default/web"] {
        Ok(Object::Route(route)) => route.identity.api_version.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(version(&observer), "split.smi-spec.io/v1alpha2");

    let mut versions = observer.watch.served_versions();
    for (served, best, has_status) in [
        (&["v1alpha1", "v1alpha2", "v1alpha4"][..], "v1alpha4", true),
        (&["v1alpha1"][..], "v1alpha1", false),
        (&["v1alpha1", "v1alpha3"][..], "v1alpha3", false),
    ] {
        versions.mark_unchanged();
        server.apply(&definition(served)).await;
        observer.until(best, |it| version(it).ends_with(best)).await;
        let in_use = versions.borrow_and_update()[&Kind::TRAFFIC_SPLIT].clone();
        assert_eq!(
            (in_use.version.as_str(), in_use.has_status),
            (best, has_status)
        );
    }
    // It goes on in the last one.
    server.apply(&split("v1alpha3", "other")).await;
    observer
        .until("told of another", |it| it.names("TrafficSplit").len() == 2)
        .await;
    assert_eq!(observer.deleted, [""; 0]);
    assert_eq!(observer.completes, 1);
}

#[tokio::test]
async fn weights_may_be_text() {
    let server = Server::start().await;
    server.apply(&definition(&["v1alpha1", "v1alpha2"])).await;
    let mut text = split("v1alpha1", "web");
    text["spec"]["backends"] = json!([
        {"service": "web-v1", "weight": "500m"}, {"service": "web-v2", "weight": "1"},
    ]);
    server.apply(&text).await;
    let mut observer = Observer::of(server.client.clone());
    observer.until_complete().await;
    let split = match &observer.known["TrafficSplit default/web"] {
        Ok(Object::Route(route)) => route.content_as::<TrafficSplit>().expect("a TrafficSplit"),
        other => panic!("{other:?}"),
    };
    let split = split.spec.as_ref().expect("a spec that can be read");
    let weights: Vec<_> = split
        .backends
        .iter()
        .map(|backend| backend.weight.to_string())
        .collect();
    assert_eq!(weights, ["0.5", "1"]);
}

#[tokio::test]
async fn bad_splits_leave_good_ones_alone() {
    let server = Server::start().await;
    server.apply(&definition(&["v1alpha2"])).await;
    let bad = |name: &str, spec: Value| {
        let mut split = split("v1alpha2", name);
        split["spec"] = spec;
        split
    };
    let mut deep = json!([]);
    for _ in 0..500 {
        deep = json!([deep]);
    }
    let all = [
        split("v1alpha2", "a-good"),
        bad("b-text", json!("text")),
        bad(
            "c-numbers",
            json!({"service": 7, "backends": {"weight": []}}),
        ),
        bad("d-deep", json!({"service": "web", "matches": deep})),
        bad("e-null", json!({"service": "web", "backends": null})),
        split("v1alpha2", "f-good"),
    ];
    // The first of them are listed, all of them are watched.
    for split in &all[..3] {
        server.apply(split).await;
    }
    let mut observer = Observer::of(server.client.clone());
    observer.until_complete().await;
    assert_eq!(observer.names("TrafficSplit").len(), 3);
    for split in &all {
        server.apply(split).await;
    }
    let are_told_of = |it: &Observer| it.names("TrafficSplit").len() == all.len();
    observer.until("told of all", are_told_of).await;
    let judge = |it: &Observer| -> Vec<bool> {
        let splits = it.known.iter();
        let splits = splits.filter(|(name, _)| name.starts_with("TrafficSplit"));
        splits
            .map(|(_, object)| match object {
                Ok(Object::Route(route)) => {
                    let split = route.content_as::<TrafficSplit>().expect("a TrafficSplit");
                    split.spec.is_ok()
                }
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(judge(&observer), [true, false, false, false, false, true]);
    assert!(
        !observer.metrics().contains("watch_errors_total{"),
        "{}",
        observer.metrics()
    );

    // All of them in a list.
    let mut observer = Observer::of(server.client.clone());
    observer.until_complete().await;
    assert_eq!(judge(&observer), [true, false, false, false, false, true]);
}
