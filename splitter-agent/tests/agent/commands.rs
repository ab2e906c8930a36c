//! What the commands say, and with which exit code.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use crate::bookstore::Bookstore;
use crate::common::agent::{
    BINARY, Site, bookstore, is_installed, replaced, service, stderr, stdout, text, traffic_split,
    weights,
};
use crate::common::layout_name;

/// Case: PORT-SCTP
#[test]
fn sctp_ports_of_a_root_pass_through_and_status_says_so() {
    let store = Bookstore::new("sctp");
    let root = replaced(
        &service("bookstore", "10.96.0.10"),
        r#""protocol":"TCP"}]"#,
        r#""protocol":"TCP"}, {"name":"sig","port":53,"protocol":"SCTP"}]"#,
    );
    let rest = bookstore(store.v1(), store.v2());
    let services = replaced(&rest, &service("bookstore", "10.96.0.10"), &root);
    store.site.write("services.yaml", &services);
    store.site.write("split.yaml", &weights(1, 1));
    let _agent = store.site.start(&[]);

    let output = store.site.command(&["status"]);
    let status = stdout(&output);
    assert!(
        status.contains("10.96.0.10:53/SCTP  pass-through"),
        "{status}"
    );
    assert!(
        status.contains("ProtocolNotSplit: only TCP and UDP are split"),
        "{status}"
    );
    assert!(status.contains("10.96.0.10:14001/TCP  split"), "{status}");
}

#[test]
fn check_judges_files_and_says_so_with_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.yaml");
    let bad = directory.path().join("bad.yaml");
    let [v1, v2] = ["10.244.0.9:80", "10.244.0.10:80"];
    let [v1, v2]: [SocketAddr; 2] = [v1.parse().unwrap(), v2.parse().unwrap()];
    fs::write(&good, [bookstore(v1, v2), weights(1, 1)].concat()).unwrap();
    fs::write(
        &bad,
        replaced(&weights(1, 1), r#""weight":1"#, r#""weight":"much""#),
    )
    .unwrap();
    let check = |file: &std::path::Path, output: &str| {
        Command::new(BINARY)
            .args(["check", text(file), "-o", output])
            .output()
            .unwrap()
    };

    let accepted = check(&good, "text");
    assert_eq!(accepted.status.code(), Some(0), "{accepted:?}");
    assert!(stdout(&accepted).contains("accepted"), "{accepted:?}");

    let refused = check(&bad, "text");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = stdout(&refused);
    assert!(
        said.contains("TrafficSplit bookstore/bookstore-split: refused"),
        "{said}"
    );
    assert!(said.contains("spec.backends[0].weight"), "{said}");

    let json: Value = serde_json::from_slice(&check(&bad, "json").stdout).unwrap();
    assert_eq!(json["refused"], true);
    let mut diagnostics = json["diagnostics"].as_array().unwrap().iter();
    assert!(diagnostics.any(|it| it["severity"] == "refused"), "{json}");

    let missing = check(&directory.path().join("missing.yaml"), "text");
    assert_eq!(missing.status.code(), Some(3));
    assert!(stderr(&missing).contains("missing.yaml"), "{missing:?}");
}

#[test]
fn explain_says_why_something_is_not_split() {
    let store = Bookstore::new("explain");
    let wrong = replaced(&weights(1, 1), "bookstore.bookstore", "nowhere");
    store.site.write("split.yaml", &wrong);
    let _agent = store.site.start(&[]);
    let manifests = text(store.site.manifests.path());

    let output = store.site.command(&["explain", "10.96.0.10:14001"]);
    assert!(
        stdout(&output).contains("10.96.0.10:14001 is not split"),
        "{output:?}"
    );

    let output = store
        .site
        .command(&["explain", "nowhere.bookstore", "--manifests", manifests]);
    let said = stdout(&output);
    assert!(
        said.contains("Service bookstore/nowhere is not split"),
        "{said}"
    );
    assert!(said.contains("RootMissing"), "{said}");
}

#[test]
fn what_is_wrong_with_the_command_line_or_the_machine_is_said_with_the_remedy() {
    let site = Site::new("usage");
    let usage = Command::new(BINARY).arg("explain").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    let usage = site.command(&["explain", "web.shop:99999"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(stderr(&usage).contains("1 to 65535"), "{usage:?}");

    let missing = site.command(&["run", "--manifests", "/nonexistent/manifests"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(
        stderr(&missing).contains("/nonexistent/manifests"),
        "{missing:?}"
    );

    let no_cgroup = site.command(&["run", "--manifests", "/tmp", "--cgroup", "/nonexistent"]);
    assert_eq!(no_cgroup.status.code(), Some(3));
    assert!(stderr(&no_cgroup).contains("--cgroup"), "{no_cgroup:?}");

    // A path that is there, and is no cgroup, is not said to be missing.
    let no_cgroup = site.command(&["run", "--manifests", "/tmp", "--cgroup", "/tmp"]);
    assert_eq!(no_cgroup.status.code(), Some(3));
    let said = stderr(&no_cgroup);
    assert!(said.contains("/tmp is not a cgroup"), "{said}");

    for filter in ["loud", "splitter_agent=loud", ""] {
        let wrong = site.command(&["run", "--manifests", "/tmp", "--log-level", filter]);
        assert_eq!(wrong.status.code(), Some(2), "{filter}: {wrong:?}");
        let said = stderr(&wrong);
        assert!(said.contains("--log-level"), "{said}");
        assert!(said.contains("is not a log filter"), "{said}");
    }

    // Not root: from a directory that everybody can read.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("splitter-agent");
    // By another process: one that this one forks meanwhile would hold the file open for
    // writing, and then nobody can execute it.
    let copied = Command::new("cp").arg(BINARY).arg(&copy).status().unwrap();
    assert!(copied.success());
    let not_root = Command::new(&copy)
        .args(["run", "--manifests", "/tmp"])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(not_root.status.code(), Some(3), "{not_root:?}");
    assert!(stderr(&not_root).contains("sudo"), "{not_root:?}");

    // Nor is it told that nothing is there, when it may not look.
    let _agent = site.start(&[]);
    for command in [&["status"][..], &["explain", "10.96.0.10:80"], &["cleanup"]] {
        let denied = Command::new(&copy)
            .args(command)
            .arg("--pin-dir")
            .arg(site.lab.pin_directory())
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        assert_eq!(denied.status.code(), Some(3), "{denied:?}");
        assert!(stderr(&denied).contains("root"), "{denied:?}");
    }
}

#[test]
fn the_examples_are_accepted() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/manifests");
    let checked = Command::new(BINARY)
        .args(["check", examples, "-o", "json"])
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let diagnostics = report["diagnostics"].as_array().unwrap();
    assert!(!diagnostics.is_empty());
    for diagnostic in diagnostics {
        assert_eq!(diagnostic["severity"], "accepted", "{diagnostic}");
    }
}

#[test]
fn check_keeps_its_verdict_when_its_reader_has_read_enough() {
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.yaml");
    fs::write(&bad, traffic_split(&[("a", "-1")]).repeat(3000)).unwrap();
    let mut check = Command::new(BINARY)
        .args(["check", text(&bad)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(check.stdout.take());
    assert_eq!(check.wait().unwrap().code(), Some(1));
}

#[test]
fn bpftool_shows_named_fields() {
    if !is_installed("bpftool") {
        eprintln!("skipped: bpftool is not installed");
        return;
    }
    let store = Bookstore::new("bpftool");
    store.site.write("split.yaml", &weights(90, 10));
    let _agent = store.site.start(&[]);
    store.count(10);
    let maps = store.site.lab.pin_directory().join(layout_name(1));
    let dump = |map: &str| {
        let output = Command::new("bpftool")
            .args(["map", "dump", "pinned"])
            .arg(maps.join(map))
            .output()
            .unwrap();
        assert!(output.status.success(), "{map}: {output:?}");
        stdout(&output)
    };
    let expect = |map: &str, fields: &[&str]| {
        let dump = dump(map);
        for field in fields {
            assert!(dump.contains(field), "{map} lacks {field}:\n{dump:.2000}");
        }
    };
    expect(
        "FRONTENDS",
        &[
            "\"port\": 14001",
            "\"protocol\": \"Tcp\"",
            "255,255,10,96,0,10",
        ],
    );
    expect(
        "SPLITS",
        &[
            "\"verdict\": \"Split\"",
            "\"leaf_count\": 2",
            "\"size\": 10",
        ],
    );
    expect("LEAVES", &["\"weight\": 90", "\"state\": \"Ready\""]);
    expect("ENDPOINTS", &["\"port\": 1001", "255,255,10,244"]);
    expect("COUNTERS", &["\"counts\": [10,9,1,"]);
    expect("LEAF_STATS", &["\"connections\":"]);
    expect(
        "FRONTEND_NAMES",
        &["\"name\": \"bookstore-split\"", "\"root\": \"bookstore\""],
    );
    expect("LEAF_NAMES", &["\"leaf\": \"bookstore-v2\""]);
}

/// What a second run cannot mend is not said to need one.
#[test]
fn a_place_that_is_no_pin_directory_is_refused_with_its_own_remedy() {
    let directory = tempfile::tempdir().unwrap();
    for place in [text(directory.path()), "/", "/sys/fs/bpf"] {
        let output = Command::new(BINARY)
            .args(["cleanup", "--pin-dir", place])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{place}");
        let said = stderr(&output);
        assert!(said.contains("--pin-dir"), "{said}");
        assert!(!said.contains("run the command again"), "{said}");
    }
}
