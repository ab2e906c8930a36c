//! The agent's HTTP server, as its clients see it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::common::agent::{Agent, PATIENCE, Site};

/// Lets the agent choose a port.
pub(crate) const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// What the server answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Whether it is that of a probe in which a check fails.
    pub(crate) fn fails(&self, check: &str) -> bool {
        self.status == 503 && self.failing().iter().any(|name| name == check)
    }

    /// Names of the checks that do not pass.
    pub(crate) fn failing(&self) -> Vec<String> {
        let json = self.json();
        let checks = json["checks"].as_array().expect("checks").iter();
        checks
            .filter(|check| check["healthy"] == false)
            .map(|check| {
                assert!(check["failing_for_seconds"].is_f64(), "{check}");
                check["name"].as_str().expect("a name").to_owned()
            })
            .collect()
    }
}

/// Sends a request over a connection of its own.
pub(crate) fn request(server: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: agent\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = Vec::new();
    // The server ends the connection; it may do so before it has read a body that is too long.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(!answer.is_empty(), "no answer: {error}");
    }
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    Answer {
        status: head[9..12].parse().expect("a status"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

pub(crate) fn get(server: SocketAddr, path: &str) -> Answer {
    request(server, "GET", path, "")
}

/// Starts an agent with a server, and waits until it splits.
pub(crate) fn start(site: &Site, extra: &[&str]) -> (Agent, SocketAddr) {
    let mut agent = site.start(&[&LISTEN, extra].concat());
    let server = address(&mut agent);
    (agent, server)
}

/// The address that an agent says it answers at.
pub(crate) fn address(agent: &mut Agent) -> SocketAddr {
    agent.wait_for_log("answering HTTP requests");
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("answering HTTP"));
    let (_, address) = line.expect("a line").split_once("address=").expect("one");
    address.trim().parse().expect("an address")
}

/// Asks until the status is the wanted one.
pub(crate) fn wait_for(server: SocketAddr, path: &str, status: u16) -> Answer {
    wait_until(server, path, |answer| answer.status == status)
}

/// Asks until the answer is as wanted. An agent that becomes unready says of one check after
/// another that it fails, so wait for everything that is looked at.
pub(crate) fn wait_until(
    server: SocketAddr,
    path: &str,
    wanted: impl Fn(&Answer) -> bool,
) -> Answer {
    let start = Instant::now();
    loop {
        let answer = get(server, path);
        if wanted(&answer) {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "never as wanted: {answer:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
