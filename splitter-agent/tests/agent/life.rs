//! The agent's life: ended, killed, replaced, gone, cleaned up.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use splitter_api::{Explanation, Status};
use testbed::lab::{Process, client, server};

use crate::bookstore::{Bookstore, VIP};
use crate::common::agent::{BINARY, PATIENCE, stderr, stdout, text, weights};

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
    successor.wait_for_log("waiting for it to exit");
    agent.kill();
    successor.wait_for_log("programs attached");

    assert!(
        clients.iter_mut().all(Process::is_running),
        "a connection failed"
    );
    drop(clients);
    let split = store.site.wait_for_weights(&[3, 1]);
    let (all, v1) = (split.connections, split.leaves[0].connections);
    assert!(all > 100, "{split:?}");
    assert_eq!(
        split.generation, 1,
        "the split was published again: {split:?}"
    );
    assert!((v1 as f64 - all as f64 * 0.75).abs() <= 2.5, "{split:?}");
    assert_eq!(split.leaves[0].lifetime, v1);
}

#[test]
fn another_capacity_is_applied_by_a_restart_whenever_it_is_killed_and_no_connection_fails() {
    let store = Bookstore::new("resize");
    store.site.write("split.yaml", &weights(3, 1));
    let _first = store.site.start(&[]);
    let mut clients = [store.hammer(), store.hammer()];
    drop(_first);
    let sizes = ["1024", "2048", "4096"];
    for round in 0..12 {
        let agent = store
            .site
            .spawn(&["--max-endpoints", sizes[round % sizes.len()]]);
        std::thread::sleep(Duration::from_millis(20 * round as u64));
        agent.kill();
        let status = store.site.status();
        assert!(status.node.attachment.attached, "{status:?}");
        assert_eq!(status.splits.len(), 1, "{status:?}");
    }
    // Not the size of the first one, nor that of the last one that was killed.
    let mut agent = store.site.start(&["--max-endpoints", "9000"]);
    agent.wait_for_log("removed the maps of another layout");
    let status = store.site.wait_for_weights(&[3, 1]);
    let before = status.connections;
    store
        .site
        .wait_for_split("used", |split| split.connections > before + 20);
    assert!(
        clients.iter_mut().all(Process::is_running),
        "a connection failed"
    );
    drop(clients);
    let pins = fs::read_dir(store.site.lab.pin_directory()).unwrap();
    let names: Vec<_> = pins
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('v'))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");

    agent.kill();
    let cleaned = store.site.command(&["cleanup"]);
    assert_eq!(cleaned.status.code(), Some(0), "{cleaned:?}");
    assert!(!store.site.lab.pin_directory().exists());
}

/// `setpriv` is part of util-linux, which every Debian has.
#[test]
fn without_the_right_to_use_bpf_nothing_is_said_about_the_kernel() {
    let site = crate::common::agent::Site::new("capabilities");
    for (dropped, capability) in [
        ("-cap_39,-sys_admin,-perfmon", "CAP_BPF"),
        ("-net_admin,-cap_39,-sys_admin", "CAP_NET_ADMIN"),
    ] {
        let output = Command::new("setpriv")
            .args(["--bounding-set", &dropped.replace("-perfmon", "-cap_38")])
            .arg(BINARY)
            .args(["run", "--manifests"])
            .arg(site.manifests.path())
            .arg("--pin-dir")
            .arg(site.lab.pin_directory())
            .output()
            .unwrap();
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{error}");
        assert!(error.contains(capability), "{error}");
        assert!(
            error.contains("does not let this process use BPF"),
            "{error}"
        );
        // The error alone: the time in a line of the log may have any digits.
        let error = error
            .lines()
            .find(|line| line.starts_with("splitter-agent: "))
            .expect("an error");
        for word in ["kernel lacks", "6.1", "ECONNREFUSED"] {
            assert!(!error.contains(word), "{word}: {error}");
        }
        assert!(!site.lab.pin_directory().exists());
    }
}

/// In a mount namespace of its own, where the BPF file system is not mounted.
#[test]
fn the_bpf_file_system_is_mounted_for_root_alone_where_it_is_missing() {
    let site = crate::common::agent::Site::new("bpffs");
    let pins = format!("/sys/fs/bpf/{}-mounted", site.lab.name());
    let script = format!(
        "umount -l /sys/fs/bpf && ! mountpoint -q /sys/fs/bpf || exit 9
         '{BINARY}' run --manifests '{}' --pin-dir '{pins}' --cgroup '{}' --max-frontends 64 &
         agent=$!
         for _ in $(seq 1000); do [ -e '{pins}/links/connect6' ] && break; sleep 0.02; done
         findmnt -n -o FSTYPE,OPTIONS /sys/fs/bpf; stat -c %a '{pins}'
         kill $agent; wait $agent
         '{BINARY}' cleanup --pin-dir '{pins}' > /dev/null",
        text(site.manifests.path()),
        text(site.lab.cgroup()),
    );
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .output()
        .unwrap();
    let found = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    for option in ["bpf", "nosuid", "nodev", "noexec", "mode=700"] {
        assert!(found.contains(option), "{option}: {found}");
    }
    assert!(found.ends_with("700\n"), "{found}");
}

#[test]
fn without_an_agent_splits_go_on_and_status_and_explain_still_work() {
    let store = Bookstore::new("gone");
    store.site.write("split.yaml", &weights(9, 1));
    store.site.start(&[]).kill();

    assert_eq!(store.count(50), (45, 5, 0));
    let status: Status = store.site.json_of_no(&["status"]);
    assert!(!status.node.agent);
    assert!(status.node.attachment.attached);
    assert_eq!(status.splits[0].connections, 50);
    assert_eq!(status.splits[0].leaves[1].observed, Some(0.1));

    // `explain` runs the kernel's own code: what it foretells comes true.
    let explained: Explanation = store
        .site
        .json_of_no(&["explain", "bookstore.bookstore:14001"]);
    assert!(!explained.node.agent);
    let next = &explained.frontends[0].next;
    assert_eq!(next.len(), 10);
    for prediction in next {
        let answer = store.client.run(|| client::read_tag(VIP).ok()).unwrap();
        let expected = if prediction.service == "bookstore-v1" {
            "v1"
        } else {
            "v2"
        };
        assert_eq!(answer.as_deref(), Some(expected));
    }
}

#[test]
fn a_cgroup_that_is_removed_and_made_anew_is_split_again() {
    let store = Bookstore::new("cgroup");
    store.site.write("split.yaml", &weights(1, 1));
    // As systemd does with a unit's cgroup.
    let unit = store.site.lab.cgroup().join("unit");
    fs::create_dir(&unit).unwrap();
    let agent = store.site.start(&["--cgroup", text(&unit)]);

    fs::remove_dir(&unit).unwrap();
    fs::create_dir(&unit).unwrap();
    // A client that moves there is split, whether the agent has seen the cgroup missing or not.
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
        assert!(start.elapsed() < PATIENCE, "not split: {}", agent.log());
    }
}

#[test]
fn cleanup_leaves_nothing_and_refuses_while_an_agent_runs() {
    let store = Bookstore::new("cleanup");
    store.site.write("split.yaml", &weights(1, 1));
    let agent = store.site.start(&[]);

    let refused = store.site.command(&["cleanup"]);
    assert_eq!(refused.status.code(), Some(3));
    let said = stderr(&refused);
    assert!(said.contains("another splitter-agent"), "{said}");
    assert!(!said.contains("run the command again"), "{said}");
    assert_eq!(store.count(2), (1, 1, 0));

    agent.kill();
    let cleaned = store.site.command(&["cleanup"]);
    assert_eq!(cleaned.status.code(), Some(0), "{cleaned:?}");
    assert!(stdout(&cleaned).contains("links/connect4"), "{cleaned:?}");
    assert!(!store.site.lab.pin_directory().exists());

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
    for command in [&["status"][..], &["explain", "bookstore.bookstore"]] {
        let output = store.site.command(command);
        assert_eq!(output.status.code(), Some(3));
        assert!(stderr(&output).contains("nothing is pinned"), "{output:?}");
    }
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
        // Lines of many nodes and versions come together in one place.
        assert_eq!(record["node"], "test", "{line}");
        assert_eq!(record["version"], splitter_agent::VERSION, "{line}");
        if record["message"] == "programmed" {
            assert!(record["took_seconds"].is_f64(), "{line}");
        }
    }
    assert!(agent.log().contains("took_seconds"), "{}", agent.log());

    agent.kill();
    let quiet = store.site.start(&[]);
    store.count(2);
    assert!(!quiet.log().contains("->"), "{}", quiet.log());
}
