//! The agent as its users meet it: a process, its files, its signals and its commands.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use common::agent::{
    BINARY, Site, bookstore, is_installed, service, slice, stderr, stdout, text, traffic_split,
    weights,
};
use common::{exists, serve};
use rustix::process::Signal;
use serde_json::Value;
use xtask::lab::{Pod, Process, client, server};

const VIP: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10)),
    14001,
);

/// A site with a client and two leaves that answer `v1` and `v2`.
struct Bookstore {
    servers: [(Process, SocketAddr); 2],
    client: Pod,
    _shop: Pod,
    site: Site,
}

impl Bookstore {
    fn new(name: &str) -> Self {
        let site = Site::new(name);
        let (client, shop) = (
            site.lab.pod("client").unwrap(),
            site.lab.pod("shop").unwrap(),
        );
        let servers = [serve(&shop, 1001, "v1"), serve(&shop, 1002, "v2")];
        let bookstore = Self {
            servers,
            client,
            _shop: shop,
            site,
        };
        bookstore.site.write(
            "services.yaml",
            &common::agent::bookstore(bookstore.v1(), bookstore.v2()),
        );
        bookstore
    }

    fn v1(&self) -> SocketAddr {
        self.servers[0].1
    }

    fn v2(&self) -> SocketAddr {
        self.servers[1].1
    }

    /// Connects so many times: answers of v1 and of v2, and failures.
    fn count(&self, connections: u64) -> (u64, u64, u64) {
        let tags = self
            .client
            .run(|| client::count_tags(VIP, connections))
            .unwrap();
        (tags.of("v1"), tags.of("v2"), tags.failed())
    }

    /// Connects without pause until the result is dropped; a failure ends the process.
    fn hammer(&self) -> Process {
        self.client
            .start(|| {
                loop {
                    client::read_tag(VIP).expect("a connection that does not fail");
                }
            })
            .unwrap()
    }
}

#[test]
fn the_canary_of_the_readme_goes_through_its_steps_exactly() {
    let store = Bookstore::new("canary");
    store.site.write("split.yaml", &weights(100, 0));
    let _agent = store.site.start(&[]);
    for (v1, v2) in [(100, 0), (50, 50), (90, 10), (0, 100)] {
        store.site.write("split.yaml", &weights(v1, v2));
        store.site.wait_for_weights(&[v1, v2]);
        assert_eq!(store.count(100), (v1, v2, 0));
        let status = store.site.wait_for_weights(&[v1, v2]);
        assert_eq!(status["connections"], 100);
        assert_eq!(status["leaves"][0]["connections"], v1);
        assert_eq!(status["leaves"][1]["observed"], v2 as f64 / 100.0);
    }
}

#[test]
fn killing_ending_and_replacing_the_agent_under_load_fails_no_connection_and_loses_no_count() {
    let store = Bookstore::new("restart");
    store.site.write("split.yaml", &weights(3, 1));
    let mut agent = store.site.start(&[]);
    let mut clients = [store.hammer(), store.hammer()];
    for signal in [Signal::KILL, Signal::TERM, Signal::INT, Signal::KILL] {
        std::thread::sleep(Duration::from_millis(100));
        agent.signal(signal);
        let code = agent.wait();
        assert_eq!(
            code,
            if signal == Signal::KILL {
                None
            } else {
                Some(0)
            }
        );
        std::thread::sleep(Duration::from_millis(50));
        agent = store.site.start(&[]);
        assert!(agent.log().contains("Replaced"), "{}", agent.log());
    }
    // And one that takes over while the one before still runs.
    let mut successor = store.site.spawn(&[]);
    successor.wait_for_log("waiting for it to end");
    agent.kill();
    successor.wait_for_log("programs attached");

    assert!(
        clients.iter_mut().all(Process::is_running),
        "a connection failed"
    );
    drop(clients);
    let split = store.site.wait_for_weights(&[3, 1]);
    let (all, v1) = (&split["connections"], &split["leaves"][0]["connections"]);
    let (all, v1) = (all.as_u64().unwrap(), v1.as_u64().unwrap());
    assert!(all > 100, "{split}");
    assert_eq!(
        split["generation"], 1,
        "the split was published again: {split}"
    );
    assert!((v1 as f64 - all as f64 * 0.75).abs() <= 2.5, "{split}");
    assert_eq!(split["leaves"][0]["lifetime"], v1);
}

#[test]
fn without_an_agent_splits_go_on_and_status_and_explain_still_work() {
    let store = Bookstore::new("gone");
    store.site.write("split.yaml", &weights(9, 1));
    store.site.start(&[]).kill();

    assert_eq!(store.count(50), (45, 5, 0));
    let status = store.site.json(&["status"]);
    assert_eq!(status["attached"], true);
    assert_eq!(status["splits"][0]["connections"], 50);
    assert_eq!(status["splits"][0]["leaves"][1]["observed"], 0.1);

    // `explain` runs the kernel's own code: what it foretells comes true.
    let explained = store.site.json(&["explain", "bookstore.bookstore:14001"]);
    let next = explained["frontends"][0]["next"].as_array().unwrap();
    assert_eq!(next.len(), 10);
    for prediction in next {
        let prediction = prediction.as_str().unwrap();
        let answer = store.client.run(|| client::read_tag(VIP).ok()).unwrap();
        let expected = if prediction.starts_with("bookstore-v1") {
            "v1"
        } else {
            "v2"
        };
        assert_eq!(answer.as_deref(), Some(expected));
    }
}

#[test]
fn a_split_that_is_deleted_ends_and_its_neighbour_does_not() {
    let store = Bookstore::new("delete");
    let other = weights(1, 1)
        .replace("bookstore-split", "other-split")
        .replace("bookstore.bookstore", "other");
    store.site.write(
        "other.yaml",
        &[service("other", "10.96.0.20"), other].concat(),
    );
    store.site.write("split.yaml", &weights(1, 1));
    let _agent = store.site.start(&[]);
    assert_eq!(
        store.site.json(&["status"])["splits"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    fs::remove_file(store.site.manifests.path().join("split.yaml")).unwrap();

    let start = std::time::Instant::now();
    loop {
        let status = store.site.json(&["status"]);
        let splits = status["splits"].as_array().unwrap();
        if splits.len() == 1 {
            assert_eq!(splits[0]["name"], "other-split");
            break;
        }
        assert!(start.elapsed() < common::agent::PATIENCE, "{status}");
    }
}

#[test]
fn a_bad_object_is_refused_by_name_and_its_neighbours_in_the_file_work() {
    let store = Bookstore::new("bad-object");
    let bad = traffic_split(&[("bookstore-v1", "-5")])
        .replace("bookstore-split", "bad-split")
        .replace("bookstore.bookstore", "bad");
    let file = [service("bad", "10.96.0.30"), bad, weights(1, 1)].concat();
    store.site.write("split.yaml", &file);
    let agent = store.site.start(&[]);

    assert_eq!(store.count(10), (5, 5, 0));
    let log = agent.log();
    assert!(log.contains("bookstore/bad-split"), "{log}");
    assert!(log.contains("spec.backends[0].weight"), "{log}");
    let explained = store.site.json(&["explain", "bad.bookstore"]);
    assert_eq!(explained["frontends"][0]["verdict"], "pass-through");
    assert_eq!(explained["frontends"][0]["reason"], "ObjectRefused");
}

#[test]
fn a_broken_file_keeps_what_was_in_force_and_says_so() {
    let store = Bookstore::new("broken");
    store.site.write("split.yaml", &weights(1, 1));
    let mut agent = store.site.start(&[]);

    store
        .site
        .write("split.yaml", "kind: TrafficSplit\nspec: {backends: [\n");
    agent.wait_for_log("split.yaml");
    assert_eq!(store.count(10), (5, 5, 0));

    store.site.write("split.yaml", &weights(0, 1));
    store.site.wait_for_weights(&[0, 1]);
    assert_eq!(store.count(10), (0, 10, 0));
}

#[test]
fn a_file_that_is_broken_when_the_agent_starts_costs_nothing_that_was_in_force() {
    let store = Bookstore::new("broken-start");
    store.site.write("split.yaml", &weights(1, 1));
    store.site.start(&[]).kill();
    let services = bookstore(store.v1(), store.v2());

    // The endpoints of both leaves are in this file.
    store.site.write("services.yaml", "kind: [");
    let mut agent = store.site.start(&[]);
    agent.wait_for_log("services.yaml");
    assert_eq!(store.count(10), (5, 5, 0));

    // Readable again, with less in it: now absence means something.
    store.site.write(
        "services.yaml",
        &services.replace(&slice("bookstore-v2", &[store.v2()]), ""),
    );
    store
        .site
        .wait_for_split("a leaf without endpoints", |split| {
            split["leaves"][1]["state"] == "no-ready-endpoints"
        });
    assert_eq!(store.count(10), (10, 0, 0));
}

#[test]
fn what_does_not_fit_is_said_of_its_object_and_put_in_force_when_there_is_room() {
    let store = Bookstore::new("room");
    store.site.write("split.yaml", &weights(1, 1));
    let one_more = |name: &str, address: &str| {
        let split = weights(1, 1)
            .replace("bookstore-split", &format!("{name}-split"))
            .replace("bookstore.bookstore", name);
        store.site.write(
            &format!("{name}.yaml"),
            &[service(name, address), split].concat(),
        );
    };
    let mut agent = store.site.start(&["--max-frontends", "1"]);
    for (name, address) in [("second", "10.96.0.20"), ("third", "10.96.0.21")] {
        one_more(name, address);
        agent.wait_for_log(&format!("bookstore/{name}-split severity=refused"));
    }
    assert!(agent.log().contains("--max-frontends"), "{}", agent.log());
    assert_eq!(store.count(2), (1, 1, 0));

    fs::remove_file(store.site.manifests.path().join("split.yaml")).unwrap();
    store
        .site
        .wait_for_split("another split in its place", |split| {
            split["name"] == "second-split"
        });
}

#[test]
fn endpoints_that_leave_get_nothing_more() {
    let store = Bookstore::new("endpoints");
    store.site.write("split.yaml", &weights(1, 1));
    let _agent = store.site.start(&[]);
    assert_eq!(store.count(10), (5, 5, 0));

    let services = bookstore(store.v1(), store.v2()).replace(
        &slice("bookstore-v1", &[store.v1()]),
        &slice("bookstore-v1", &[]),
    );
    store.site.write("services.yaml", &services);
    store
        .site
        .wait_for_split("a leaf without endpoints", |split| {
            split["leaves"][0]["state"] == "no-ready-endpoints"
        });
    assert_eq!(store.count(10), (0, 10, 0));

    // And when no leaf has any: refused.
    let services = services.replace(
        &slice("bookstore-v2", &[store.v2()]),
        &slice("bookstore-v2", &[]),
    );
    store.site.write("services.yaml", &services);
    store
        .site
        .wait_for_split("refused", |split| split["verdict"] == "refuse");
    assert_eq!(store.count(3), (0, 0, 3));
}

#[test]
fn udp_ports_of_a_root_pass_through_and_status_says_so() {
    let store = Bookstore::new("udp");
    let root = service("bookstore", "10.96.0.10").replace(
        "protocol: TCP}]",
        "protocol: TCP}, {name: dns, port: 53, protocol: UDP}]",
    );
    let rest = bookstore(store.v1(), store.v2());
    let services = rest.replace(&service("bookstore", "10.96.0.10"), &root);
    store.site.write("services.yaml", &services);
    store.site.write("split.yaml", &weights(1, 1));
    let _agent = store.site.start(&[]);

    let output = store.site.command(&["status"]);
    let status = stdout(&output);
    assert!(
        status.contains("10.96.0.10:53/UDP  pass-through"),
        "{status}"
    );
    assert!(
        status.contains("ProtocolNotSplit: only TCP is split"),
        "{status}"
    );
    assert!(status.contains("10.96.0.10:14001/TCP  split"), "{status}");
}

#[test]
fn cleanup_leaves_nothing_and_refuses_while_an_agent_runs() {
    let store = Bookstore::new("cleanup");
    store.site.write("split.yaml", &weights(1, 1));
    let agent = store.site.start(&[]);

    let refused = store.site.command(&["cleanup"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        stderr(&refused).contains("another splitter-agent"),
        "{refused:?}"
    );
    assert_eq!(store.count(2), (1, 1, 0));

    agent.kill();
    let cleaned = store.site.command(&["cleanup"]);
    assert_eq!(cleaned.status.code(), Some(0), "{cleaned:?}");
    assert!(stdout(&cleaned).contains("links/connect4"), "{cleaned:?}");
    assert!(!exists(&store.site.lab.pin_directory()));

    // The Service is as before: here, something of the client's own answers.
    store.client.add_address(VIP.ip()).unwrap();
    let (_root, _) = store
        .client
        .start_ready(|ready| server::tag(VIP.port(), "root", ready))
        .unwrap();
    let answer = store.client.run(|| client::read_tag(VIP).ok()).unwrap();
    assert_eq!(answer.as_deref(), Some("root"));

    let again = store.site.command(&["cleanup"]);
    assert_eq!(again.status.code(), Some(0));
    let status = store.site.command(&["status"]);
    assert_eq!(status.status.code(), Some(3));
    assert!(stderr(&status).contains("nothing is pinned"), "{status:?}");
}

#[test]
fn check_judges_files_and_says_so_with_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.yaml");
    let bad = directory.path().join("bad.yaml");
    let address: SocketAddr = "10.244.0.9:80".parse().unwrap();
    fs::write(&good, [bookstore(address, address), weights(1, 1)].concat()).unwrap();
    fs::write(&bad, weights(1, 1).replace("weight: 1}", "weight: much}")).unwrap();
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
    assert_eq!(json["diagnostics"][0]["severity"], "refused");

    let missing = check(&directory.path().join("missing.yaml"), "text");
    assert_eq!(missing.status.code(), Some(3));
    assert!(stderr(&missing).contains("missing.yaml"), "{missing:?}");
}

#[test]
fn explain_says_why_something_is_not_split() {
    let store = Bookstore::new("explain");
    let wrong = weights(1, 1).replace("service: bookstore.bookstore", "service: nowhere");
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
fn a_cgroup_that_is_removed_and_made_anew_is_split_again() {
    let store = Bookstore::new("cgroup");
    store.site.write("split.yaml", &weights(1, 1));
    // As systemd does with a unit's cgroup.
    let unit = store.site.lab.cgroup().join("unit");
    fs::create_dir(&unit).unwrap();
    let mut agent = store.site.start(&["--cgroup", text(&unit)]);

    fs::remove_dir(&unit).unwrap();
    fs::create_dir(&unit).unwrap();
    agent.wait_for_log("attaching them again");

    // A client that moves there is split.
    let procs = unit.join("cgroup.procs");
    let start = std::time::Instant::now();
    loop {
        let answer = store
            .client
            .run(|| {
                fs::write(&procs, std::process::id().to_string()).expect("a cgroup to enter");
                client::read_tag(VIP).ok()
            })
            .unwrap();
        if answer.is_some() {
            break;
        }
        assert!(
            start.elapsed() < common::agent::PATIENCE,
            "never split again"
        );
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
fn logs_are_json_when_asked_for_and_the_kernel_programs_log_when_asked_to() {
    let store = Bookstore::new("logs");
    store.site.write("split.yaml", &weights(1, 1));
    let mut agent = store
        .site
        .start(&["-o", "json", "--ebpf-log-level", "debug"]);
    store.count(2);
    agent.wait_for_log("10.96.0.10 port 14001 ->");
    for line in agent.log().lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(record["level"].is_string(), "{line}");
    }

    agent.kill();
    let quiet = store.site.start(&[]);
    store.count(2);
    assert!(!quiet.log().contains("->"), "{}", quiet.log());
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
    let maps = store.site.lab.pin_directory().join("v1");
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
    expect("SEQUENCE", &["\"count\": 10"]);
    expect("LEAF_STATS", &["\"connections\":"]);
    expect(
        "FRONTEND_NAMES",
        &["\"name\": \"bookstore-split\"", "\"root\": \"bookstore\""],
    );
    expect("LEAF_NAMES", &["\"leaf\": \"bookstore-v2\""]);
}
