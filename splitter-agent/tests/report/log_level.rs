//! The log's level, changed while the agent runs.

use std::fs::File;
use std::net::SocketAddr;

use testbed::lab::Lab;

use crate::common::agent::{BINARY, PATIENCE, Site, bookstore, text, weights};
use crate::http::{get, request, start};

#[test]
fn the_log_level_changes_at_once_and_what_is_no_filter_changes_nothing() {
    let site = Site::new("log-level");
    let (mut agent, server) = start(&site, &[]);
    assert_eq!(get(server, "/log-level").json()["filter"], "info");
    assert!(!agent.log().contains("DEBUG"), "{}", agent.log());

    let changed = request(server, "PUT", "/log-level", "info,splitter_agent=debug\n");
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json()["filter"], "info,splitter_agent=debug");
    // Endpoints that change are told at this level only.
    let address: SocketAddr = "10.244.0.9:80".parse().unwrap();
    let other: SocketAddr = "10.244.0.10:80".parse().unwrap();
    site.write("split.yaml", &weights(1, 1));
    site.write("services.yaml", &bookstore(address, address));
    agent.wait_for_log("programmed frontend=10.96.0.10:14001/TCP");
    site.write("services.yaml", &bookstore(address, other));
    agent.wait_for_log("endpoints changed");

    let refused = request(server, "PUT", "/log-level", "loud");
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(
        refused.json()["error"].as_str().unwrap().contains("`loud`"),
        "{refused:?}"
    );
    let too_long = request(server, "PUT", "/log-level", &"a".repeat(5000));
    assert_eq!(too_long.status, 413, "{too_long:?}");
    assert_eq!(
        get(server, "/log-level").json()["filter"],
        "info,splitter_agent=debug"
    );
    assert_eq!(request(server, "POST", "/log-level", "info").status, 405);
}

#[test]
fn only_the_agents_own_pod_may_change_the_log_level() {
    let lab = Lab::new("peer").unwrap();
    let (pod, other) = (lab.pod("agent").unwrap(), lab.pod("other").unwrap());
    let manifests = tempfile::tempdir().unwrap();
    let log = manifests.path().join(".log");
    let server = SocketAddr::from((pod.ipv4(), 9464));
    let mut child = pod
        .command(BINARY)
        .args(["run", "--manifests", text(manifests.path())])
        .args(["--pin-dir", text(&lab.pin_directory())])
        .args(["--cgroup", text(lab.cgroup())])
        .env("SPLITTER_LISTEN", "0.0.0.0:9464")
        .env("SPLITTER_MAX_FRONTENDS", "64")
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let start = std::time::Instant::now();
    let ready = |address: SocketAddr| {
        std::net::TcpStream::connect(address).is_ok() && get(address, "/readyz").status == 200
    };
    while !other.run(|| ready(server)).unwrap() {
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(start.elapsed() < PATIENCE, "never ready: {said}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    let put = |server| request(server, "PUT", "/log-level", "debug");
    let refused = other.run(|| put(server)).unwrap();
    let accepted = pod.run(|| put(([127, 0, 0, 1], 9464).into())).unwrap();
    let told = other.run(|| get(server, "/log-level")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.body.contains("kubectl port-forward"), "{refused:?}");
    assert_eq!(accepted.status, 200, "{accepted:?}");
    assert_eq!(told.json()["filter"], "debug");
}
