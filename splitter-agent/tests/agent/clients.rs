//! Pods of manifests as clients: found by the cgroup that has the uid.

use std::time::Instant;

use serde_json::{Value, json};
use testbed::fixtures::Tally;
use testbed::lab::{Pod, client};

use crate::bookstore::{Bookstore, VIP};
use crate::common::agent::{PATIENCE, weights};

const UID: &str = "0c3c9dc2-3c5a-4d0b-8f0a-3a3b5b1f4f10";

/// A Pod of namespace `team`.
pub(crate) fn pod(uid: &str, node: &Value, annotations: &Value) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("client-{uid}"), "namespace": "team", "uid": uid,
            "annotations": annotations,
        },
        "spec": {"nodeName": node},
    });
    format!("---\n{pod}\n")
}

/// Waits until ten connections of a pod are answered so.
fn wait_for(client: &Pod, what: &str, is_so: impl Fn(&Tally) -> bool) {
    let start = Instant::now();
    loop {
        let tally = client.run(|| client::count_tags(VIP, 10)).expect("a tally");
        if is_so(&tally) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: {tally:?}");
    }
}

/// Case: CLIENTS-ORDER
#[test]
fn pods_of_manifests_are_the_clients_that_a_route_is_for_or_are_left_alone() {
    let store = Bookstore::new("pods");
    let own = store.site.lab.pod(&format!("pod{UID}")).expect("a pod");
    let backend = json!({"name": "bookstore-v2", "namespace": "bookstore", "port": 14001});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "own", "namespace": "team"},
        "spec": {
            "parentRefs": [
                {"group": "", "kind": "Service", "name": "bookstore", "namespace": "bookstore"},
            ],
            "rules": [{"backendRefs": [backend]}],
        },
    });
    store.site.write("split.yaml", &weights(1, 0));
    store.site.write("route.yaml", &route.to_string());
    store
        .site
        .write("pod.yaml", &pod(UID, &json!("elsewhere"), &json!({})));
    let _agent = store.site.start(&[]);
    // It is on another node, whatever the uid.
    wait_for(&own, "the split for everyone", |it| it.count("v1") == 10);

    store
        .site
        .write("pod.yaml", &pod(UID, &json!("test"), &json!({})));
    wait_for(&own, "the route of its own", |it| it.count("v2") == 10);
    assert_eq!(store.count(10), (10, 0, 0));

    store.site.write(
        "pod.yaml",
        &pod(UID, &Value::Null, &json!({"splitter.dev/skip": "true"})),
    );
    // Behind the address there is nothing but splits.
    wait_for(&own, "to be left alone", |it| it.failed() == 10);
    assert_eq!(store.count(10), (10, 0, 0));
}
