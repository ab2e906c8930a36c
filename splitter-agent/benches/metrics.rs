//! What reading `/metrics` costs a node with many splits: the time to read the maps and to write
//! the text, and how long that is.
//!
//! The maps are real, and so are the connections. There is no API server, and no agent that
//! publishes meanwhile.
//!
//! Run as root: `cargo bench -p splitter-agent --bench metrics [-- --splits N]`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Scene, leaf};
use splitter_agent::compile::{Diagnostic, Severity};
use splitter_agent::datapath::Capacity;
use splitter_agent::objects::{Identity, Kind, ObjectName, ObjectReference};
use splitter_agent::plan::{Decision, Frontend, FrontendPlan, Origin};
use splitter_agent::report::metrics::Metrics;
use splitter_agent::report::{AgentState, DiagnosticStore, Producer, Programmed, Telemetry};
use splitter_common::layout::{ClientScope, Protocol};
use testbed::lab::Pod;

const PORT: u16 = 80;
const NAMESPACE: &str = "scale";
/// Readings of each case.
const READINGS: usize = 20;
const ENDPOINTS: u32 = 5;

fn main() {
    // `cargo test` builds and runs benchmarks too, to see that they work: briefly.
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse().ok()
    };
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let splits = number("--splits").unwrap_or(if is_bench { 10_000 } else { 20 });

    let mut scene = Scene::with("bench-metrics", Capacity::default(), true);
    let plan: Vec<_> = (0..splits).map(split).collect();
    scene.publish(&plan);
    let client = scene.lab.pod("client").expect("a pod");
    let (progress, store) = (AgentState::default(), DiagnosticStore::default());
    progress.set_programmed((0..splits).map(|number| {
        let programmed = Programmed {
            seen: 3,
            programmed: 3,
        };
        (object(number), Some(programmed))
    }));
    accept(&store, splits);
    let metrics = Metrics::new(Telemetry::new(scene.pins.clone(), progress, store));

    println!("{splits} splits of two leaves with {ENDPOINTS} endpoints each\n");
    println!(
        "{:<36}{:>12}{:>12}{:>12}{:>12}",
        "", "series", "size", "median", "longest"
    );
    measure("the first reading", &metrics, 1, || {});
    measure("no connections", &metrics, READINGS, || {});
    let some = (splits / 100).max(1);
    measure(
        "one in a hundred has connections",
        &metrics,
        READINGS,
        || {
            connect(&client, some);
        },
    );
    measure("each has connections", &metrics, READINGS.min(5), || {
        connect(&client, splits);
    });
    measure("each had connections", &metrics, READINGS, || {});
    let mut weight = 90;
    measure("a tenth was changed", &metrics, READINGS, || {
        weight -= 1;
        let mut changed = plan.clone();
        for (_, split) in changed.iter_mut().take(splits / 10) {
            split.leaves[0].weight = weight;
            split.leaves[0].share = u32::try_from(weight).unwrap_or(1);
        }
        scene.publish(&changed);
    });
}

fn measure(what: &str, metrics: &Metrics, readings: usize, mut before_each: impl FnMut()) {
    let mut text = String::new();
    let mut times: Vec<Duration> = (0..readings)
        .map(|_| {
            before_each();
            let start = Instant::now();
            text = metrics.encode().expect("text");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    let size = format!("{:.1} kB", text.len() as f64 / 1000.0);
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what:<36}{series:>12}{size:>12}{median:>12.2?}{longest:>12.2?}");
}

fn root(number: usize) -> String {
    format!("shop-{number}")
}

fn address(number: usize) -> SocketAddr {
    let first = u32::from(Ipv4Addr::new(10, 96, 1, 0));
    (Ipv4Addr::from(first + number as u32), PORT).into()
}

fn split(number: usize) -> (Frontend, FrontendPlan) {
    let endpoints: Vec<SocketAddr> = (0..ENDPOINTS)
        // Nobody listens, so that every connection is over at once.
        .map(|endpoint| (Ipv4Addr::LOCALHOST, 1 + endpoint as u16).into())
        .collect();
    let frontend = Frontend {
        address: address(number),
        protocol: Protocol::Tcp,
        clients: ClientScope::EVERYONE,
    };
    let root = root(number);
    let split = FrontendPlan {
        origin: Origin {
            kind: "TrafficSplit",
            namespace: NAMESPACE.to_owned(),
            name: root.clone(),
            generation: 3,
        },
        decision: Decision::Split,
        leaves: vec![
            leaf(&format!("{root}-a"), 90, &endpoints),
            leaf(&format!("{root}-b"), 10, &endpoints),
        ],
        root: ObjectName::new(NAMESPACE, root),
    };
    (frontend, split)
}

fn object(number: usize) -> ObjectReference {
    ObjectReference::new(
        Kind::TRAFFIC_SPLIT,
        ObjectName::new(NAMESPACE, root(number)),
    )
}

/// Notes of every split that it is accepted.
fn accept(store: &DiagnosticStore, splits: usize) {
    let mut edit = store.edit();
    for number in 0..splits {
        let object = object(number);
        let identity = Identity {
            uid: format!("00000000-0000-4000-8000-{number:012}"),
            api_version: "split.smi-spec.io/v1alpha4".to_owned(),
            generation: 3,
        };
        edit.describe(&object, identity, "shop-a:90,shop-b:10".into());
        let diagnostic = Diagnostic {
            object: object.clone(),
            severity: Severity::Accepted,
            reason: "Accepted",
            field: String::new(),
            message: "accepted as written".to_owned(),
        };
        edit.set(Producer::Compiler, &object, [diagnostic]);
    }
    let _: Vec<_> = edit.commit();
}

/// Makes two connections to each of the first splits.
fn connect(client: &Pod, splits: usize) {
    client
        .run(|| {
            for number in (0..splits).chain(0..splits) {
                let refused = TcpStream::connect(address(number));
                assert!(refused.is_err(), "nobody listens");
            }
        })
        .expect("a process in the pod");
}
