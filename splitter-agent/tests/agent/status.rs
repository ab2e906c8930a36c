//! What `status` shows, and of what.

use std::fs;

use splitter_api::{Explanation, NextConnection, Severity, SplitState, Status};

use crate::bookstore::Bookstore;
use crate::common::agent::{Site, replaced, service, stderr, stdout, text, weights};

/// A root Service, its two leaves and their split, in a namespace of its own. Nothing is behind
/// the leaves.
fn shop(namespace: &str, number: u32) -> String {
    let service = |name: &str, last: u32| {
        service(
            name,
            &format!("10.{}.{}.{last}", 96 + number / 200, number % 200),
        )
    };
    let slice = |leaf: &str| {
        crate::common::agent::slice(leaf, &["10.244.0.9:80".parse().expect("an address")])
    };
    let text = [
        service("bookstore", 10),
        service("bookstore-v1", 11),
        service("bookstore-v2", 12),
        slice("bookstore-v1"),
        slice("bookstore-v2"),
        weights(1, 1),
    ]
    .concat();
    let ours = format!(r#""namespace":"{namespace}""#);
    let text = replaced(&text, r#""namespace":"bookstore""#, &ours);
    replaced(&text, "bookstore.bookstore", "bookstore")
}

/// Takes programs off, as an administrator would with `rm`.
fn unpin(site: &Site, programs: &[&str]) {
    for entry in fs::read_dir(site.lab.pin_directory().join("links")).expect("links") {
        let path = entry.expect("a link").path();
        let name = path.file_name().and_then(|name| name.to_str());
        // A link's name is that of its program, and of its cgroup.
        let name = name
            .and_then(|name| name.split('-').next())
            .expect("a name");
        if programs.contains(&name) {
            fs::remove_file(path).expect("a link that can be removed");
        }
    }
}

#[test]
fn what_no_program_looks_up_is_not_programmed() {
    let store = Bookstore::new("detached");
    store.site.write("split.yaml", &weights(9, 1));
    store.site.start(&[]).kill();

    // Connections of the other family are none of this frontend's business.
    unpin(&store.site, &["connect6", "getpeername6"]);
    let status: Status = store.site.json_of_no(&["status"]);
    assert!(!status.node.attachment.attached);
    assert_eq!(
        status.splits[0].state,
        SplitState::AsConfigured,
        "{status:?}"
    );
    assert_eq!(store.count(10), (9, 1, 0));

    let datagrams = ["sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6"];
    unpin(&store.site, &["connect4", "getpeername4"]);
    unpin(&store.site, &datagrams);
    for command in [&["status"][..], &["explain", "bookstore.bookstore"]] {
        let output = store.site.command(command);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = stdout(&output);
        assert!(
            said.contains("none attached, so nothing is split"),
            "{said}"
        );
        assert!(said.contains("agent     none at work"), "{said}");
        assert!(
            said.contains("not programmed: no program is attached"),
            "{said}"
        );
        assert!(!said.contains("90.00%    90.00%"), "{said}");
    }
    let status: Status = store.site.json_of_no(&["status"]);
    let split = &status.splits[0];
    assert_eq!(split.state, SplitState::NotProgrammed, "{split:?}");
    assert_eq!(split.leaves[0].configured, 0.9, "{split:?}");
    assert_eq!(split.leaves[0].programmed, 0.0, "{split:?}");
    // What the maps would say is not what happens.
    assert_eq!(store.count(2), (0, 0, 2));
}

#[test]
fn status_tells_its_node_its_version_and_whether_an_agent_is_at_work() {
    let site = Site::new("at-work");
    let agent = site.start(&[]);
    let status: Status = site.json(&["status", "--node-name", "worker-7"]);
    assert_eq!(status.node.node, "worker-7");
    assert_eq!(status.node.version, splitter_agent::VERSION);
    assert!(status.node.agent);
    // Without a name it is the machine's.
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let status: Status = site.json(&["status", "--node-name", ""]);
    assert_eq!(status.node.node, name.trim());

    agent.kill();
    let output = site.command(&["status"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stdout(&output);
    assert!(said.contains("nothing follows changes"), "{said}");
}

/// `namespace/name` of what `status` shows.
fn shown(status: &Status) -> Vec<String> {
    let splits = status.splits.iter();
    splits
        .map(|split| format!("{}/{}", split.namespace, split.name))
        .collect()
}

#[test]
fn status_shows_what_is_asked_for_sorted_by_name() {
    let site = Site::new("selection");
    // Their addresses are in another order than their names.
    for (number, namespace) in ["cellar", "attic", "barn"].into_iter().enumerate() {
        site.write(
            &format!("{namespace}.yaml"),
            &shop(namespace, number as u32),
        );
    }
    let _agent = site.start(&[]);
    let split = "bookstore-split";
    let status = site.status();
    let all = ["attic", "barn", "cellar"].map(|namespace| format!("{namespace}/{split}"));
    assert_eq!(shown(&status), all);

    for arguments in [
        &["status", "barn"][..],
        &["status", "--namespace", "barn"],
        &["status", "-n", "barn", "bookstore"],
        &["status", "-n", "barn", split],
        &["status", "barn/bookstore"],
        &["status", "barn/bookstore-split"],
    ] {
        let status: Status = site.json(arguments);
        assert_eq!(shown(&status), [format!("barn/{split}")], "{arguments:?}");
    }
    for nothing in ["house", "barn/bookstore-v1"] {
        let status: Status = site.json_of_no(&["status", nothing]);
        assert_eq!(shown(&status), [""; 0]);
        let said = stdout(&site.command(&["status", nothing]));
        assert!(said.contains("no split"), "{said}");
    }
    for wrong in [
        &["a/b/c"][..],
        &["Barn"],
        &["/"],
        &["-n", "barn", "attic/bookstore"],
    ] {
        let output = site.command(&[&["status"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!stderr(&output).is_empty());
    }
}

#[test]
fn many_splits_are_summed_up() {
    let site = Site::new("many");
    let count = 25;
    for number in 0..count {
        let namespace = format!("shop-{number:02}");
        let text = shop(&namespace, number);
        let text = match number {
            7 => replaced(&text, r#""weight":1"#, r#""weight":0"#),
            9 => replaced(&text, r#""service":"bookstore-v2""#, r#""service":"none""#),
            _ => text,
        };
        site.write(&format!("{namespace}.yaml"), &text);
    }
    let _agent = site.start(&[]);
    let said = stdout(&site.command(&["status"]));
    assert!(
        said.contains("25 splits: 1 refused, 1 a leaf cannot take its share, 23 as configured"),
        "{said}"
    );
    assert!(said.contains("24 without a connection"), "{said}");
    assert!(said.contains("docs/not-split.md"), "{said}");
    let objects = said
        .lines()
        .filter_map(|line| line.strip_prefix("TrafficSplit  "));
    let names: Vec<_> = objects.map(|object| &object[..7]).collect();
    assert_eq!(names.len(), count as usize, "{said}");
    assert!(names.is_sorted(), "{said}");
    assert!(!said.contains("LEAF"), "{said}");

    let all = stdout(&site.command(&["status", "--all"]));
    assert_eq!(all.matches("LEAF").count(), count as usize, "{all}");
    let one = stdout(&site.command(&["status", "shop-07"]));
    assert!(one.contains("AllWeightsZero"), "{one}");
    assert_eq!(shown(&site.status()).len(), count as usize);
}

#[test]
fn a_split_that_no_connection_uses_says_where_to_look() {
    let store = Bookstore::new("idle");
    store.site.write("split.yaml", &weights(1, 1));
    let _agent = store.site.start(&[]);
    let status = || stdout(&store.site.command(&["status"]));
    let said = status();
    assert!(said.contains("no connection on this node so far"), "{said}");
    assert!(said.contains("docs/not-split.md"), "{said}");

    assert_eq!(store.count(2), (1, 1, 0));
    let said = status();
    assert!(!said.contains("docs/not-split.md"), "{said}");

    // Clients that keep their connections open have nothing to do with the new shares.
    store.site.write("split.yaml", &weights(3, 1));
    store.site.wait_for_weights(&[3, 1]);
    let said = status();
    assert!(
        said.contains("no new connection since the shares changed"),
        "{said}"
    );
    assert!(said.contains("docs/not-split.md"), "{said}");
}

#[test]
fn what_status_and_explain_print_is_described_by_their_types() {
    let store = Bookstore::new("described");
    store.site.write("split.yaml", &weights(3, 1));
    let wrong = replaced(&weights(1, 1), "bookstore-split", "wrong-split");
    let wrong = replaced(&wrong, "bookstore.bookstore", "nowhere");
    store.site.write("wrong.yaml", &wrong);
    let _agent = store.site.start(&[]);
    assert_eq!(store.count(4), (3, 1, 0));

    // Each is compared, field by field, with what its type makes of it.
    let status: Status = store.site.json(&["status"]);
    assert!(status.node.is_at_work(), "{status:?}");
    let [split] = &status.splits[..] else {
        panic!("not one split: {status:?}");
    };
    assert_eq!(split.leaves[0].observed, Some(0.75), "{split:?}");

    let manifests = text(store.site.manifests.path());
    let arguments = ["explain", "bookstore.bookstore", "--manifests", manifests];
    let explained: Explanation = store.site.json(&arguments);
    let [frontend] = &explained.frontends[..] else {
        panic!("not one frontend: {explained:?}");
    };
    let v1 = NextConnection {
        service: "bookstore-v1".to_owned(),
        endpoint: Some(store.v1().to_string()),
    };
    assert!(frontend.next.contains(&v1), "{frontend:?}");
    assert_eq!(frontend.endpoints[0].addresses, [v1.endpoint.unwrap()]);
    let accepted = &explained.diagnostics[0];
    assert_eq!(accepted.object.name, "bookstore-split", "{explained:?}");
    assert_eq!(accepted.severity, Severity::Accepted, "{explained:?}");

    let arguments = ["explain", "nowhere.bookstore", "--manifests", manifests];
    let explained: Explanation = store.site.json(&arguments);
    assert!(explained.frontends.is_empty(), "{explained:?}");
    assert_eq!(explained.diagnostics[0].reason, "RootMissing");
}

#[test]
fn status_says_when_sockets_that_end_stay_in_the_table_and_a_restart_mends_it() {
    let store = Bookstore::new("unfreed-status");
    store.site.write("split.yaml", &weights(9, 1));
    let is_warned_of = |status: &Status| {
        let mut warnings = status.node.attachment.warnings.iter();
        warnings.any(|warning| warning.contains("tcp_destroy_sock"))
    };
    let agent = store.site.start(&[]);
    let status = store.site.status();
    let table = status.node.attachment.socket_table.expect("a table");
    assert_eq!(table.slots, 131_072);
    assert!(table.attached && !is_warned_of(&status), "{status:?}");
    agent.kill();

    unpin(&store.site, &["tcp_destroy_sock"]);
    let status: Status = store.site.json_of_no(&["status"]);
    let table = status.node.attachment.socket_table.expect("a table");
    assert!(!table.attached && is_warned_of(&status), "{status:?}");
    // Connections are split all the same.
    assert!(status.node.attachment.attached);
    assert_eq!(store.count(10), (9, 1, 0));

    let _agent = store.site.start(&[]);
    let status = store.site.status();
    let table = status.node.attachment.socket_table.expect("a table");
    assert!(table.attached && !is_warned_of(&status), "{status:?}");
}
