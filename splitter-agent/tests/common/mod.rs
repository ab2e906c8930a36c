//! A lab with the programs at work in it, and plans to publish there.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary compiles this module and uses its own part of it"
)]

pub mod agent;

use std::net::SocketAddr;

use splitter_agent::datapath::{
    Capacity, EbpfLogLevel, FrontendView, LoadError, LoadSettings, Outcomes, PinDirectory,
    Programs, PublishSummary, Publisher, Refusal, SocketMemory, View,
};
use splitter_agent::objects::ObjectName;
use splitter_agent::plan::{Decision, Frontend, FrontendPlan, Origin, Plan, PlannedLeaf};
use splitter_common::layout::{ClientScope, LAYOUT_VERSION, LeafState, Protocol};
use testbed::lab::{Lab, Pod, Process, Ready, server};

/// The port of every root Service in these tests.
pub const PORT: u16 = 14001;

/// A lab with the programs attached to its cgroup, and the owner of the maps.
pub struct Scene {
    pub publisher: Publisher,
    pub programs: Programs,
    pub pins: PinDirectory,
    pub lab: Lab,
}

impl Scene {
    pub fn new(name: &str) -> Self {
        Self::with(name, small(), true)
    }

    pub fn with(name: &str, capacity: Capacity, keep_original_dst: bool) -> Self {
        Self::made(name, |settings| {
            settings.capacity = capacity;
            settings.keep_original_dst = keep_original_dst;
        })
    }

    /// A scene whose programs refuse as those of old kernels do.
    pub fn refusing_by_rewrite(name: &str) -> Self {
        Self::made(name, |settings| settings.refusal = Refusal::Rewrite)
    }

    /// A scene whose sockets keep their original destination there.
    pub fn with_socket_memory(name: &str, memory: SocketMemory) -> Self {
        Self::made(name, |settings| settings.socket_memory = memory)
    }

    /// A scene that counts this of what comes of connections.
    pub fn with_outcomes(name: &str, outcomes: Outcomes) -> Self {
        Self::made(name, |settings| settings.outcomes = outcomes)
    }

    fn made(name: &str, change: impl FnOnce(&mut LoadSettings)) -> Self {
        let lab = Lab::new(name).expect("a lab");
        let pins = PinDirectory::new(lab.pin_directory());
        let mut settings = load_settings(&pins, small());
        change(&mut settings);
        let mut programs = Programs::load(&settings).expect("programs that load");
        programs
            .attach(lab.cgroup())
            .expect("programs that can be attached");
        let publisher = Publisher::open(&pins, 0).expect("maps to publish to");
        Self {
            publisher,
            programs,
            pins,
            lab,
        }
    }

    /// Two pods: one to connect from, and one to connect to.
    pub fn pods(&self) -> (Pod, Pod) {
        let pod = |name| self.lab.pod(name).expect("a pod");
        (pod("client"), pod("shop"))
    }

    /// Publishes these splits and no others, and waits until nothing else can be met.
    pub fn publish(&mut self, splits: &[(Frontend, FrontendPlan)]) -> PublishSummary {
        let summary = self.publisher.publish(&plan(splits));
        assert!(summary.failed.is_empty(), "{:?}", summary.failed);
        self.publisher.synchronize();
        summary
    }

    /// What is programmed for a frontend.
    pub fn view(&self, frontend: Frontend) -> FrontendView {
        View::open(&self.pins)
            .expect("maps to look at")
            .frontends
            .remove(&frontend)
            .expect("a frontend that is programmed")
    }

    /// What a command of the agent's prints about the maps. No agent is at work, which its exit
    /// code tells.
    pub fn command(&self, arguments: &[&str]) -> String {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_splitter-agent"))
            .arg("--pin-dir")
            .arg(self.pins.path())
            .args(arguments)
            .output()
            .expect("a command that runs");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn verdict_count(&self, name: &str) -> u64 {
        View::open(&self.pins).expect("maps to look at").verdicts[name]
    }
}

/// The directory of the maps of this version; `number` counts those of several capacities from 1.
pub fn layout_name(number: u32) -> String {
    match number {
        1 => format!("v{LAYOUT_VERSION}"),
        _ => format!("v{LAYOUT_VERSION}-{number}"),
    }
}

pub fn load_settings(pins: &PinDirectory, capacity: Capacity) -> LoadSettings {
    LoadSettings {
        pins: pins.clone(),
        capacity,
        log_level: EbpfLogLevel::Off,
        keep_original_dst: true,
        socket_memory: SocketMemory::Best,
        outcomes: Outcomes::default(),
        refusal: Refusal::Best,
    }
}

/// Loads the programs, with maps of this capacity.
pub fn load(pins: &PinDirectory, capacity: Capacity) -> Result<Programs, LoadError> {
    Programs::load(&load_settings(pins, capacity))
}

/// Maps that are large enough for a test, and quick to make.
pub fn small() -> Capacity {
    Capacity {
        frontends: 64,
        leaves: 512,
        endpoints: 4096,
    }
}

pub fn frontend(address: &str) -> Frontend {
    Frontend {
        address: address.parse().expect("an address with a port"),
        protocol: Protocol::Tcp,
        clients: ClientScope::EVERYONE,
    }
}

/// The root Service of most tests.
pub fn root() -> Frontend {
    frontend("10.96.0.10:14001")
}

pub fn plan(splits: &[(Frontend, FrontendPlan)]) -> Plan {
    Plan {
        frontends: splits.iter().cloned().collect(),
    }
}

/// A leaf with a share of `share`.
pub fn leaf(service: &str, share: u32, endpoints: &[SocketAddr]) -> PlannedLeaf {
    let mut endpoints = endpoints.to_vec();
    endpoints.sort_unstable();
    PlannedLeaf {
        service: service.to_owned(),
        weight: share.into(),
        share,
        state: if share == 0 {
            LeafState::WeightZero
        } else {
            LeafState::Ready
        },
        endpoints,
    }
}

/// A split among these leaves.
pub fn split(leaves: Vec<PlannedLeaf>) -> FrontendPlan {
    decided(Decision::Split, leaves)
}

pub fn decided(decision: Decision, leaves: Vec<PlannedLeaf>) -> FrontendPlan {
    FrontendPlan {
        origin: Origin {
            kind: "TrafficSplit",
            namespace: "bookstore".to_owned(),
            name: "bookstore-split".to_owned(),
            generation: 1,
        },
        root: ObjectName::new("bookstore", "bookstore"),
        decision,
        leaves,
    }
}

/// A server that says who it is, at the pod's IPv4 address.
pub fn serve(pod: &Pod, port: u16, identity: &str) -> (Process, SocketAddr) {
    let (process, _) = pod
        .start_ready(|ready| server::tag(port, identity, ready))
        .expect("a server");
    (process, SocketAddr::from((pod.ipv4(), port)))
}

/// A process in a pod that makes something and keeps it until the process is dropped.
pub fn hold<T>(pod: &Pod, make: impl FnOnce() -> T) -> Process {
    let keep = |ready: Ready<()>| {
        let _held = make();
        ready.signal(&());
        loop {
            std::thread::park();
        }
    };
    pod.start_ready(keep).expect("something to hold").0
}

/// How many of the first `n` connections each leaf of a split gets, by the shared code.
pub fn expected(view: &FrontendView, n: u64) -> Vec<u64> {
    let mut counts = vec![0; view.plan.leaves.len()];
    for connection in 0..n {
        counts[view
            .leaf_of(connection)
            .expect("a leaf for every connection")] += 1;
    }
    counts
}

/// The error that the shares promise not to exceed after any number of connections.
pub fn bound(size: u32) -> f64 {
    2.0 + f64::from(size).log2() / 4.0
}
