//! The agent as a process, looked at from outside.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData};
use splitter_agent::plan::Frontend;
use splitter_common::layout::{FrontendKey, LAYOUT_VERSION};
use tempfile::TempDir;
use testbed::fixtures::log_tail;
use testbed::lab::Lab;

use super::cluster::Cluster;
use super::objects::Size;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long the agent is left alone before it is taken to be at rest.
const CALM: Duration = Duration::from_secs(5);

/// A running agent. Dropping it ends it, and everything it made in the kernel.
pub(crate) struct Agent {
    child: Child,
    started: Instant,
    address: SocketAddr,
    log: PathBuf,
    _directory: TempDir,
    lab: Lab,
}

/// How long it took to start.
pub(crate) struct Start {
    /// Until the agent said that it is ready.
    pub(crate) ready: Duration,
    /// Until every split was in the maps.
    pub(crate) programmed: Duration,
}

/// Memory of a process, in KiB.
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) highest: u64,
    pub(crate) anonymous: u64,
}

/// What the agent has done so far.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    at: Instant,
    /// User and system time.
    cpu: Duration,
    /// How often it has brought changes to the maps, and the time that took in all.
    publications: f64,
    publishing: f64,
}

/// What it did between two moments.
pub(crate) struct Done {
    /// Part of one processor.
    pub(crate) cpu: f64,
    /// How often it brought changes to the maps.
    pub(crate) publications: f64,
    /// How long that took each time, on average.
    pub(crate) publication: Duration,
}

impl Work {
    /// What was done since then.
    pub(crate) fn since(&self, then: &Self) -> Done {
        let time = self.at - then.at;
        let publications = self.publications - then.publications;
        let publishing = self.publishing - then.publishing;
        Done {
            cpu: (self.cpu - then.cpu).as_secs_f64() / time.as_secs_f64(),
            publications,
            publication: Duration::from_secs_f64(publishing / publications.max(1.0)),
        }
    }
}

/// Durations and size of readings of the metrics.
pub(crate) struct Scrapes {
    pub(crate) times: Vec<Duration>,
    pub(crate) bytes: usize,
}

/// The maps from frontends to the programmed records: what a program looks up first.
pub(crate) struct Frontends {
    indexes: HashMap<MapData, KeyBytes, u32>,
    current: Array<MapData, u64>,
}

type KeyBytes = [u8; size_of::<FrontendKey>()];

impl Agent {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let lab = Lab::new("bench-scale").expect("a lab");
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("agent.log");
        let file = File::create(&log).expect("a log file");
        let address = free_address();
        let started = Instant::now();
        let child = lab
            .command(env!("CARGO_BIN_EXE_splitter-agent"))
            .expect("a place for the agent")
            .arg("run")
            .arg("--kubeconfig")
            .arg(cluster.agent_kubeconfig())
            .arg("--pin-dir")
            .arg(lab.pin_directory())
            .arg("--cgroup")
            .arg(lab.cgroup())
            .args(["--listen", &address.to_string(), "--node-name", "node-1"])
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("an agent that can be started");
        Self {
            child,
            started,
            address,
            log,
            _directory: directory,
            lab,
        }
    }

    /// Waits until it is ready, and until every split is in the maps.
    pub(crate) async fn wait_until_synced(&mut self, size: Size) -> Start {
        let (mut ready, mut programmed) = (None, None);
        loop {
            if programmed.is_none() && self.frontend_count() >= size.splits {
                programmed = Some(self.started.elapsed());
            }
            if ready.is_none() && self.get("/readyz").starts_with("HTTP/1.1 200") {
                ready = Some(self.started.elapsed());
            }
            if let (Some(ready), Some(programmed)) = (ready, programmed) {
                return Start { ready, programmed };
            }
            self.pause(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn wait_until_leader(&mut self) {
        while !self.get("/metrics").contains("\nsplitter_leader 1") {
            self.pause(Duration::from_millis(500)).await;
        }
    }

    async fn pause(&mut self, pause: Duration) {
        let ended = self.child.try_wait().expect("a process");
        assert!(
            ended.is_none() && self.started.elapsed() < PATIENCE * 3,
            "not there in time, or gone ({ended:?}):\n{}",
            log_tail(&self.log)
        );
        tokio::time::sleep(pause).await;
    }

    /// Waits until what starting set off is over.
    pub(crate) async fn calm_down(&mut self) {
        self.pause(CALM).await;
    }

    fn frontend_count(&self) -> usize {
        match self.try_frontends() {
            Some(frontends) => frontends.indexes.keys().filter(Result::is_ok).count(),
            None => 0,
        }
    }

    fn try_frontends(&self) -> Option<Frontends> {
        let layout = self.lab.pin_directory().join(format!("v{LAYOUT_VERSION}"));
        let map = |name| MapData::from_pin(layout.join(name)).ok();
        Some(Frontends {
            indexes: HashMap::try_from(Map::HashMap(map("FRONTENDS")?)).ok()?,
            current: Array::try_from(Map::Array(map("CURRENT")?)).ok()?,
        })
    }

    /// The maps that say which record is programmed.
    pub(crate) fn frontends(&self) -> Frontends {
        self.try_frontends().expect("a pinned map")
    }

    /// User and system time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("an agent that runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let fields: Vec<u64> = fields
            .split_whitespace()
            .map(|field| field.parse().unwrap_or_default())
            .collect();
        let per_second = rustix::param::clock_ticks_per_second();
        // Fields 14 and 15 of proc_pid_stat(5).
        Duration::from_millis((fields[11] + fields[12]) * 1000 / per_second)
    }

    /// What it has done until now.
    pub(crate) fn work(&self) -> Work {
        let (at, cpu) = (Instant::now(), self.cpu());
        let metrics = self.get("/metrics");
        Work {
            at,
            cpu,
            publications: value(&metrics, "splitter_sync_duration_seconds_count"),
            publishing: value(&metrics, "splitter_sync_duration_seconds_sum"),
        }
    }

    /// How many times it has compiled a root.
    pub(crate) fn compilations(&self) -> f64 {
        value(&self.get("/metrics"), "splitter_root_compilations_total")
    }

    pub(crate) fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("an agent that runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            number
                .and_then(|number| number.parse().ok())
                .unwrap_or_default()
        };
        Memory {
            resident: field("VmRSS:"),
            highest: field("VmHWM:"),
            anonymous: field("RssAnon:"),
        }
    }

    /// Reads the metrics some times.
    pub(crate) fn scrape(&self, times: usize) -> Scrapes {
        let mut bytes = 0;
        let times = (0..times)
            .map(|_| {
                let start = Instant::now();
                bytes = self.get("/metrics").len();
                start.elapsed()
            })
            .collect();
        Scrapes { times, bytes }
    }

    /// An answer as it comes; empty if there is none.
    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
            // No answer is an answer here: the agent may still be starting.
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", log_tail(&self.log));
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Frontends {
    /// The record of a frontend, and its generation, in one word.
    pub(crate) fn word(&self, frontend: &Frontend) -> u64 {
        let mut key = KeyBytes::default();
        key.copy_from_slice(bytemuck::bytes_of(&frontend.key()));
        let index = self.indexes.get(&key, 0).expect("a programmed frontend");
        self.current.get(&index, 0).expect("its record")
    }
}

/// A metric without labels.
fn value(metrics: &str, name: &str) -> f64 {
    let mut lines = metrics.lines();
    let text = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    text.and_then(|text| text.parse().ok())
        .expect("a metric of the agent")
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address")
}
