//! What `splitter-agent health` says of a running agent.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::common::agent::{BINARY, PATIENCE, Site, stderr, stdout, text};
use crate::http::{start, wait_for, wait_until};

fn health(arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .arg("health")
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn health_prints_every_check_and_answers_with_its_exit_code() {
    let site = Site::new("health");
    let unit = site.lab.cgroup().join("unit");
    fs::create_dir(&unit).unwrap();
    let (_agent, server) = start(&site, &["--cgroup", text(&unit)]);
    wait_for(server, "/readyz", 200);
    let server_text = server.to_string();
    let listen = ["--listen", &server_text, "--node-name", "worker-7"];

    let output = health(&listen);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = stdout(&output);
    for expected in ["worker-7", "ready", "alive", "self-test", "agent-loop"] {
        assert!(said.contains(expected), "{said}");
    }
    let output = health(&[&listen[..], &["-o", "json"]].concat());
    let answer = json(&output);
    assert_eq!(answer["healthy"], true);
    assert_eq!(answer["node"], "worker-7");
    assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(answer["ready"]["checks"][0]["name"], "programs", "{answer}");

    // With the cgroup go the programs.
    let begun = Instant::now();
    while let Err(error) = fs::remove_dir(&unit) {
        assert!(begun.elapsed() < PATIENCE, "{error}");
    }
    wait_until(server, "/readyz", |answer| answer.fails("programs"));
    let output = health(&listen);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stdout(&output);
    assert!(said.contains("not ready"), "{said}");
    assert!(said.contains("programs"), "{said}");
    assert!(said.contains("fails for"), "{said}");
    // As a liveness probe that must not end an agent which only waits for its cgroup.
    let alive = health(&[&listen[..], &["--only", "alive"]].concat());
    assert_eq!(alive.status.code(), Some(0), "{alive:?}");
    assert!(!stdout(&alive).contains("self-test"), "{alive:?}");
    let ready = health(&[&listen[..], &["--only", "ready", "-o", "json"]].concat());
    assert_eq!(ready.status.code(), Some(1), "{ready:?}");
    let answer = json(&ready);
    assert!(answer["alive"].is_null(), "{answer}");
    let check = &answer["ready"]["checks"][0];
    assert!(check["failing_for_seconds"].is_f64(), "{check}");
}

#[test]
fn without_an_agent_health_fails_and_says_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let output = health(&["--listen", &address.to_string()]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = stderr(&output);
    assert!(said.contains("no agent answers at"), "{said}");
    assert!(said.contains("run --listen"), "{said}");

    let output = health(&["--listen", "nowhere"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn what_is_no_agent_is_not_taken_for_one() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        // One connection to see whether somebody is there, and one for the first request.
        for _ in 0..2 {
            let (mut stream, _) = other.accept().unwrap();
            let mut request = [0; 1024];
            if stream.read(&mut request).unwrap_or_default() > 0 {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nnginx\n";
                stream.write_all(answer).unwrap();
            }
        }
    });
    let output = health(&["--listen", &address.to_string()]);
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(
        stderr(&output).contains("is no splitter-agent"),
        "{output:?}"
    );
}

#[test]
fn a_node_that_is_cleaned_up_says_so() {
    let site = Site::new("cleaned");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let mut cleanup = Command::new(BINARY)
        .args(["cleanup", "--stay", "--listen", &address])
        .arg("--pin-dir")
        .arg(site.lab.pin_directory())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let output = loop {
        let output = health(&["--listen", &address]);
        if output.status.code() != Some(3) || begun.elapsed() > PATIENCE {
            break output;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    cleanup.kill().unwrap();
    cleanup.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = stdout(&output);
    assert!(said.contains("no agent is at work here"), "{said}");
}
