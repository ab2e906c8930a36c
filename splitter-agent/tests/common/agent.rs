//! The agent as a process, and manifests for it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use splitter_api::{Split, Status};
use tempfile::TempDir;
use testbed::fixtures::manifests::{self, documents, service_at};
use testbed::fixtures::read_exactly;
use testbed::lab::Lab;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_splitter-agent");

/// How long anything may take that takes milliseconds on an idle machine; an emulated one is a
/// hundred times as slow.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A lab with a directory of manifests, and agents that watch it.
pub struct Site {
    pub manifests: TempDir,
    logs: TempDir,
    started: std::cell::Cell<u32>,
    pub lab: Lab,
}

/// A running agent.
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Site {
    pub fn new(name: &str) -> Self {
        Self {
            lab: Lab::new(name).expect("a lab"),
            manifests: tempfile::tempdir().expect("a directory"),
            logs: tempfile::tempdir().expect("a directory"),
            started: std::cell::Cell::new(0),
        }
    }

    /// Replaces a manifest as an editor does: whole.
    pub fn write(&self, name: &str, text: &str) {
        let hidden = self.manifests.path().join(format!(".{name}.new"));
        fs::write(&hidden, text).expect("a file that can be written");
        fs::rename(hidden, self.manifests.path().join(name)).expect("a file that can be renamed");
    }

    /// Starts an agent for the lab's cgroup; it need not be ready when this returns.
    pub fn spawn(&self, extra: &[&str]) -> Agent {
        let mut command = self.lab.command(BINARY).expect("a place for the agent");
        command.env("SPLITTER_CGROUP", self.lab.cgroup());
        self.launch(command, &self.lab.pin_directory(), extra)
    }

    /// Starts an agent by a command to which its arguments are added.
    pub fn launch(&self, mut command: Command, pins: &Path, extra: &[&str]) -> Agent {
        let number = self.started.get();
        self.started.set(number + 1);
        let log = self.logs.path().join(format!("{number}.log"));
        let file = fs::File::create(&log).expect("a log file");
        let child = command
            .arg("run")
            .arg("--manifests")
            .arg(self.manifests.path())
            .arg("--pin-dir")
            .arg(pins)
            .args(["--node-name", "test"])
            .args(extra)
            .env("SPLITTER_MAX_FRONTENDS", "64")
            .env("SPLITTER_MAX_LEAVES", "256")
            .env("SPLITTER_MAX_ENDPOINTS", "1024")
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("an agent that can be started");
        Agent { child, log }
    }

    /// Starts an agent and waits until it splits.
    pub fn start(&self, extra: &[&str]) -> Agent {
        let mut agent = self.spawn(extra);
        agent.wait_for_log("programs attached");
        agent
    }

    /// Runs another command of the agent.
    pub fn command(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY)
            .args(arguments)
            .arg("--pin-dir")
            .arg(self.lab.pin_directory())
            .output()
            .expect("a command that can be started")
    }

    /// The same, for a command that prints JSON of a type and nothing else, whatever its answer is:
    /// it may be "no", of `status` while no agent is at work, say.
    pub fn json<T: DeserializeOwned + Serialize>(&self, arguments: &[&str]) -> T {
        let output = self.command(&[arguments, &["-o", "json"]].concat());
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        read_exactly(&output.stdout)
    }

    /// The same, for a command that answers "no".
    pub fn json_of_no<T: DeserializeOwned + Serialize>(&self, arguments: &[&str]) -> T {
        let output = self.command(&[arguments, &["-o", "json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        read_exactly(&output.stdout)
    }

    /// What `status` says.
    pub fn status(&self) -> Status {
        self.json(&["status"])
    }

    /// Polls `status` until one of its splits is as wanted.
    pub fn wait_for_split(&self, what: &str, wanted: impl Fn(&Split) -> bool) -> Split {
        let start = Instant::now();
        loop {
            let output = self.command(&["status", "-o", "json"]);
            // Until something is pinned, it fails.
            let status = match output.status.code() {
                Some(0 | 1) => Some(read_exactly::<Status>(&output.stdout)),
                _ => None,
            };
            let mut splits = status.iter().flat_map(|status| &status.splits);
            if let Some(split) = splits.find(|split| wanted(split)) {
                return split.clone();
            }
            assert!(start.elapsed() < PATIENCE, "never {what}: {status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Polls `status` until the weights of the only split are these.
    pub fn wait_for_weights(&self, weights: &[u64]) -> Split {
        self.wait_for_split(&format!("weights {weights:?}"), |split| {
            let leaves = split.leaves.iter();
            leaves.map(|leaf| leaf.weight).eq(weights.iter().copied())
        })
    }
}

impl Agent {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Every line that is written to its end.
    pub fn log(&self) -> String {
        let mut log = fs::read_to_string(&self.log).expect("a log");
        log.truncate(log.rfind('\n').map_or(0, |end| end + 1));
        log
    }

    pub fn wait_for_log(&mut self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the agent ended with {status}:\n{}", self.log());
            }
            assert!(
                start.elapsed() < PATIENCE,
                "never `{text}`:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn signal(&mut self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("an agent that runs");
    }

    /// Waits for the end; gives back the exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().expect("an agent to wait for").code()
    }

    pub fn kill(mut self) {
        self.child.kill().expect("an agent that can be killed");
        self.child.wait().expect("an agent to wait for");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Service of the namespace `bookstore`, as a document.
pub fn service(name: &str, cluster_ip: &str) -> String {
    documents(&[service_at("bookstore", name, cluster_ip, 14001)])
}

/// An EndpointSlice of a Service, with these endpoints ready, as a document.
pub fn slice(service: &str, endpoints: &[SocketAddr]) -> String {
    documents(&[manifests::endpoints("bookstore", service, endpoints)])
}

/// The TrafficSplit `bookstore-split`, as a document. A weight is JSON, so that it can be odd.
pub fn traffic_split(backends: &[(&str, &str)]) -> String {
    let weight = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let backends: Vec<(&str, Value)> = backends
        .iter()
        .map(|(service, text)| (*service, weight(text)))
        .collect();
    let (namespace, root) = ("bookstore", "bookstore.bookstore");
    let split = manifests::traffic_split("v1alpha2", namespace, "bookstore-split", root, &backends);
    documents(&[split])
}

/// Root and leaf Services of the bookstore, with one endpoint for each leaf.
pub fn bookstore(v1: SocketAddr, v2: SocketAddr) -> String {
    [
        service("bookstore", "10.96.0.10"),
        service("bookstore-v1", "10.96.0.11"),
        service("bookstore-v2", "10.96.0.12"),
        slice("bookstore-v1", &[v1]),
        slice("bookstore-v2", &[v2]),
    ]
    .concat()
}

/// The split between the two leaves.
pub fn weights(v1: u64, v2: u64) -> String {
    traffic_split(&[
        ("bookstore-v1", &v1.to_string()),
        ("bookstore-v2", &v2.to_string()),
    ])
}

/// Puts something in the place of something else that has to be there.
pub fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from} in {text}");
    text.replace(from, to)
}

/// The split between the two leaves, under another name and of another root.
pub fn weights_of(name: &str, root: &str, v1: u64, v2: u64) -> String {
    let split = replaced(&weights(v1, v2), "bookstore-split", name);
    replaced(&split, "bookstore.bookstore", root)
}

/// Whether a program can be started.
pub fn is_installed(program: &str) -> bool {
    Command::new(program)
        .arg("version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Standard output of a command, as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error of a command, as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}
