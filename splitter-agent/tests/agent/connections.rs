//! `connections`: which live connections there are, and whose.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use splitter_api::{Connection, ConnectionPod, Connections, Status};
use testbed::lab::{Pod, Process};

use crate::bookstore::{Bookstore, VIP};
use crate::clients::pod;
use crate::common::agent::{PATIENCE, weights};
use crate::common::hold;

#[test]
fn connections_are_listed_while_they_live_and_failures_are_shown() {
    let store = Bookstore::new("connections");
    store.site.write("split.yaml", &weights(1, 1));
    let _agent = store.site.start(&[]);
    let list = |arguments: &[&str]| -> Connections {
        store.site.json(&[&["connections"], arguments].concat())
    };
    assert_eq!(list(&[]).connections, []);
    let connect = || TcpStream::connect(VIP).expect("a connection");
    let held = hold(&store.client, || [(); 4].map(|()| connect()));

    let listed = list(&[]);
    assert_eq!((listed.connections.len(), listed.omitted), (4, 0));
    for connection in &listed.connections {
        assert_eq!(connection.namespace.as_deref(), Some("bookstore"));
        assert_eq!(connection.root.as_deref(), Some("bookstore"));
        assert_eq!(connection.dialled, VIP.to_string());
        let is_v1 = connection.leaf.as_deref() == Some("bookstore-v1");
        let endpoint = if is_v1 { store.v1() } else { store.v2() };
        assert_eq!(connection.endpoint, endpoint.to_string());
        assert!(
            connection.age_seconds.is_some_and(|age| age < 120),
            "{connection:?}"
        );
    }
    let leaf = ["bookstore/bookstore-split", "--leaf", "bookstore-v1"];
    assert_eq!(list(&leaf).connections.len(), 2);
    assert_eq!(list(&["--leaf", "bookstore-v3"]).connections, []);
    assert_eq!(list(&["elsewhere"]).connections, []);
    assert_eq!(list(&["--older-than", "1h"]).connections, []);
    let limited = list(&["--limit", "1"]);
    assert_eq!((limited.connections.len(), limited.omitted), (1, 3));
    let text = store.site.command(&["connections"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("SERVICE "), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
    let open = |status: &Status| {
        status.splits[0]
            .leaves
            .iter()
            .map(|leaf| leaf.open)
            .sum::<u64>()
    };
    assert_eq!(open(&store.site.status()), 4);
    drop(held);
    store
        .site
        .wait_for_split("without an open connection", |split| {
            split.leaves.iter().all(|leaf| leaf.open == 0)
        });
    assert_eq!(list(&[]).connections, []);
}

const UID: &str = "0c3c9dc2-3c5a-4d0b-8f0a-3a3b5b1f4f10";

/// Holds a connection that it makes in a cgroup, and is in another one afterwards.
fn connected(pod: &Pod, group: &Path, afterwards: &Path) -> Process {
    let enter = |group: &Path| {
        let number = std::process::id().to_string();
        fs::write(group.join("cgroup.procs"), number).expect("a group to be in");
    };
    hold(pod, || {
        enter(group);
        let connection = TcpStream::connect(VIP).expect("a connection");
        enter(afterwards);
        connection
    })
}

#[test]
fn connections_are_told_apart_by_their_pods() {
    let store = Bookstore::new("whose");
    let own = store.site.lab.pod(&format!("pod{UID}")).expect("a pod");
    store.site.write("split.yaml", &weights(1, 0));
    let agent = store.site.start(&[]);
    let list = |arguments: &[&str]| -> Vec<Connection> {
        let arguments = [&["connections"], arguments].concat();
        store.site.json::<Connections>(&arguments).connections
    };
    let text = |arguments: &[&str]| {
        let arguments = [&["connections"], arguments].concat();
        String::from_utf8(store.site.command(&arguments).stdout).unwrap()
    };
    let groups = ["a", "b"].map(|name| own.cgroup().join(name));
    groups
        .iter()
        .for_each(|group| fs::create_dir_all(group.join("deep")).unwrap());
    // A container's process, one in a group that the container has made, and one of no pod.
    let container = connected(&own, &groups[0], &groups[0]);
    let nested = connected(&own, &groups[1].join("deep"), &groups[1].join("deep"));
    let foreign = connected(&store.client, store.client.cgroup(), store.client.cgroup());

    // Nobody has told the pod's name.
    let unnamed = ConnectionPod {
        namespace: None,
        name: None,
        uid: UID.to_owned(),
    };
    let whose: Vec<_> = list(&[])
        .into_iter()
        .map(|it| (it.pod, it.cgroup))
        .collect();
    let path = |path: &Path| Some(path.display().to_string());
    let mut expected = vec![
        (Some(unnamed.clone()), path(&groups[0])),
        (Some(unnamed.clone()), path(&groups[1].join("deep"))),
        (None, path(store.client.cgroup())),
    ];
    assert_eq!(whose.len(), 3, "{whose:?}");
    for one in &whose {
        assert!(expected.contains(one), "{one:?}");
        expected.retain(|it| it != one);
    }
    assert_eq!(list(&["--pod", UID]).len(), 2);
    let said = text(&[]);
    assert_eq!(said.matches(UID).count(), 2, "{said}");
    assert!(
        said.contains(&store.client.cgroup().display().to_string()),
        "{said}"
    );
    let said = text(&["--pod", "team/nobody"]);
    assert!(said.contains("no pod team/nobody is known"), "{said}");

    // A manifest tells it.
    store
        .site
        .write("pod.yaml", &pod(UID, &json!("test"), &json!({})));
    let name = format!("team/client-{UID}");
    let start = Instant::now();
    while list(&["--pod", &name]).is_empty() {
        assert!(start.elapsed() < PATIENCE, "{}", text(&[]));
    }
    let named = ConnectionPod {
        namespace: Some("team".to_owned()),
        name: Some(format!("client-{UID}")),
        uid: UID.to_owned(),
    };
    let pods: Vec<_> = list(&["--pod", &name])
        .into_iter()
        .map(|it| it.pod)
        .collect();
    assert_eq!(pods, [Some(named.clone()), Some(named.clone())]);
    assert_eq!(list(&["--pod", UID]).len(), 2);
    let said = text(&["--pod", &name]);
    assert_eq!(said.matches(&*name).count(), 2, "{said}");

    // No agent is needed for any of it, and what is gone has no pod.
    agent.kill();
    assert_eq!(list(&["--pod", &name]).len(), 2);
    drop(container);
    let moved = connected(&own, &groups[0].join("deep"), own.cgroup());
    fs::remove_dir(groups[0].join("deep")).unwrap();
    assert_eq!(list(&["--pod", &name]).len(), 1);
    let gone = |it: &&Connection| it.pod.is_none() && it.cgroup.is_none();
    assert_eq!(list(&[]).iter().filter(gone).count(), 1);
    assert!(text(&[]).contains("  -  "), "{}", text(&[]));

    for wrong in ["web", "a/b/c", "/"] {
        let output = store.site.command(&["connections", "--pod", wrong]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    drop((nested, foreign, moved));
    drop(own);
}
