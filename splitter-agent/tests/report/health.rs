//! Alive, and ready: a real connection is split.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use splitter_agent::datapath::PinDirectory;
use splitter_agent::plan::Frontend;
use splitter_agent::report::self_test::VIP;
use splitter_api::Explanation;
use splitter_common::index::Place;
use splitter_common::layout::{ClientScope, Protocol};
use testbed::lab::cgroup::mount_point;

use crate::bookstore::Bookstore;
use crate::common::agent::{BINARY, PATIENCE, Site, service, stderr, text, weights, weights_of};
use crate::http::{LISTEN, get, start, wait_for, wait_until};

/// The cgroups of self-tests in a cgroup.
fn leftovers(cgroup: &Path) -> Vec<String> {
    fs::read_dir(cgroup)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("splitter-self-test-"))
        .collect()
}

#[test]
fn an_agent_below_the_cgroup_is_ready_once_its_own_connection_is_split() {
    let store = Bookstore::new("ready");
    store.site.write("split.yaml", &weights(1, 1));
    let (_agent, server) = start(&store.site, &[]);
    let ready = wait_for(server, "/readyz", 200);
    assert_eq!(ready.json()["healthy"], true);
    assert_eq!(ready.failing(), [""; 0]);
    assert_eq!(get(server, "/livez").status, 200);

    // The connection is in the kernel's books, but not among the splits that people asked for.
    let status = store.site.status();
    assert!(status.verdicts.split >= 1, "{status:?}");
    assert_eq!(status.splits.len(), 1, "{status:?}");
    let explained: Explanation = store.site.json(&["explain", &VIP.to_string()]);
    assert_eq!(explained.frontends[0].split.kind, "SelfTest");
    assert_eq!(store.count(10), (5, 5, 0));
}

#[test]
fn an_agent_elsewhere_connects_from_a_cgroup_that_it_makes_and_removes() {
    let site = Site::new("elsewhere");
    let unit = site.lab.cgroup().join("unit");
    fs::create_dir(&unit).unwrap();
    // What an agent left that was killed; no process has such a number.
    fs::create_dir(unit.join("splitter-self-test-99999999")).unwrap();
    let (mut agent, server) = start(&site, &["--cgroup", text(&unit)]);
    wait_for(server, "/readyz", 200);
    agent.wait_for_log("a connection was split");
    // The next self-test may be under way.
    let start = Instant::now();
    while !leftovers(&unit).is_empty() {
        assert!(start.elapsed() < PATIENCE, "{:?}", leftovers(&unit));
    }
}

#[test]
fn an_agent_becomes_ready_though_the_maps_are_full_and_what_waits_gets_in_when_there_is_room() {
    let store = Bookstore::new("full");
    store.site.write("split.yaml", &weights(1, 1));
    store.site.write(
        "other.yaml",
        &[
            service("library", "10.96.0.20"),
            weights_of("library-split", "library", 1, 1),
        ]
        .concat(),
    );
    // The maps are full before this agent has its own entry in them.
    drop(store.site.start(&["--max-frontends", "1"]));
    let (mut agent, server) = start(&store.site, &["--max-frontends", "1"]);
    wait_for(server, "/readyz", 200);
    agent.wait_for_log("FRONTENDS is full");
    agent.wait_for_log("--max-frontends");
    let failed = |count: u32| {
        let line = format!("\nsplitter_publish_failed_frontends {count}\n");
        let start = Instant::now();
        while !get(server, "/metrics").body.contains(&line) {
            assert!(start.elapsed() < PATIENCE, "never {line}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    failed(1);
    assert_eq!(store.count(4), (2, 2, 0));

    fs::remove_file(store.site.manifests.path().join("split.yaml")).unwrap();
    store
        .site
        .wait_for_split("the other", |split| split.root == "library");
    failed(0);
    agent.wait_for_log("condition cleared");
}

#[test]
fn without_original_destinations_the_self_test_passes_too() {
    let site = Site::new("nameless");
    let (_agent, server) = start(&site, &["--keep-original-dst", "false"]);
    wait_for(server, "/readyz", 200);
}

#[test]
fn an_agent_whose_connections_are_no_longer_split_is_not_ready_but_alive() {
    let site = Site::new("unsplit");
    let (_agent, server) = start(&site, &[]);
    wait_for(server, "/readyz", 200);

    // Something the agent does not see: its programs are attached, and split nothing.
    let pins = PinDirectory::new(site.lab.pin_directory());
    let layout = pins.layout_at_work().unwrap().unwrap();
    let map = MapData::from_pin(layout.map("FRONTEND_INDEX")).unwrap();
    let mut index: Array<_, u64> = Array::try_from(Map::Array(map)).unwrap();
    let frontend = Frontend {
        address: VIP,
        protocol: Protocol::Tcp,
        clients: ClientScope::EVERYONE,
    };
    index.set(Place::of(&frontend.key()).slot, 0, 0).unwrap();

    let answer = wait_for(server, "/readyz", 503);
    assert_eq!(answer.failing(), ["self-test"], "{answer:?}");
    assert!(answer.body.contains("was not split"), "{answer:?}");
    assert_eq!(get(server, "/livez").status, 200);
    assert!(
        get(server, "/metrics")
            .body
            .contains("\nsplitter_self_test_success 0\n")
    );
}

#[test]
fn programs_that_are_detached_are_named_until_they_are_attached_again() {
    let site = Site::new("detached");
    let unit = site.lab.cgroup().join("unit");
    fs::create_dir(&unit).unwrap();
    let (_agent, server) = start(&site, &["--cgroup", text(&unit)]);
    wait_for(server, "/readyz", 200);

    // With the cgroup goes everything that is attached to it. A test may be there just now.
    let start = Instant::now();
    while let Err(error) = fs::remove_dir(&unit) {
        assert!(start.elapsed() < PATIENCE, "{error}");
    }
    wait_until(server, "/readyz", |answer| answer.fails("programs"));
    assert_eq!(get(server, "/livez").status, 200);
    // The kernel takes them off one after another.
    wait_until(server, "/metrics", |answer| {
        answer.body.contains("\nsplitter_programs_attached 0\n")
    });

    fs::create_dir(&unit).unwrap();
    wait_for(server, "/readyz", 200);
}

#[test]
fn where_no_cgroup_can_be_made_the_agent_says_what_it_needs() {
    let site = Site::new("read-only");
    let unit = site.lab.cgroup().join("unit");
    fs::create_dir(&unit).unwrap();
    let log = site.manifests.path().join(".log");
    let script = "mount --bind $0 $0 && mount -o remount,bind,ro $0 && exec \"$@\"";
    let mut child = site
        .lab
        .command("unshare")
        .unwrap()
        .args(["--mount", "sh", "-c", script])
        .arg(mount_point().unwrap())
        .args([BINARY, "run", "--manifests", text(site.manifests.path())])
        .args(["--pin-dir", text(&site.lab.pin_directory())])
        .args(["--cgroup", text(&unit)])
        .args(LISTEN)
        .env("SPLITTER_MAX_FRONTENDS", "64")
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let line = loop {
        let said = fs::read_to_string(&log).unwrap();
        if let Some(line) = said.lines().find(|line| line.contains("self-test: ")) {
            break line.to_owned();
        }
        assert!(start.elapsed() < PATIENCE, "never: {said}");
        std::thread::sleep(Duration::from_millis(10));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        line.contains("mount the cgroup file system writable"),
        "{line}"
    );
    assert!(line.contains("Read-only file system"), "{line}");
}

#[test]
fn an_address_in_use_is_named_with_the_remedy() {
    let site = Site::new("in-use");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(BINARY)
        .args(["run", "--manifests", text(site.manifests.path())])
        .args(["--pin-dir", text(&site.lab.pin_directory())])
        .args(["--cgroup", text(site.lab.cgroup())])
        .args(["--listen", &address])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = stderr(&output);
    assert!(
        said.contains(&address) && said.contains("--listen"),
        "{said}"
    );
}
