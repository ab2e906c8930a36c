//! What the programs cost: nanoseconds of each run, and of a connect() as a client sees
//! it, with and without them.
//!
//! Three clients dial the same listener: one without programs, one whose programs
//! store no original destination, and one whose programs do. The latter two have a scope of
//! clients: some frontends have a split for it, some for another one. All cases take turns, round by
//! round, and what is printed is the median of the rounds: so what else the machine does
//! falls on all of them alike, and ratios are taken within a round.
//!
//! Run as root: `cargo bench -p splitter-agent --bench connect`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{CgroupSockAddr, ProgramInfo};
use aya::sys::{Stats, enable_stats};
use common::{decided, frontend, leaf, plan, root, small, split};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use splitter_agent::datapath::{
    EbpfLogLevel, Hierarchy, LoadSettings, PROGRAMS, PinDirectory, PodGroup, Programs, Publisher,
    Refusal,
};
use splitter_agent::plan::{Decision, Frontend};
use splitter_common::layout::{ClientScope, Reason};
use testbed::lab::{Lab, Pod, Process};

/// The scope of the clients, and one that they do not have.
const OWN: ClientScope = ClientScope(1);
const OTHER: ClientScope = ClientScope(2);

/// The port that the listener has.
const LISTENER: u16 = 80;

/// Connections that may wait for the listener: all of a round.
const BACKLOG: i32 = 4096;

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// Calls of each case in a round.
    calls: usize,
}

fn main() {
    // `cargo test` builds and runs benchmarks too, to see that they work: briefly.
    let effort = if std::env::args().any(|argument| argument == "--bench") {
        Effort {
            rounds: 21,
            calls: 500,
        }
    } else {
        Effort {
            rounds: 2,
            calls: 10,
        }
    };
    let mut site = Site::new();
    println!(
        "median of {} rounds of {} calls\n",
        effort.rounds, effort.calls
    );
    print_programs(&mut site);
    print_runs(&mut site, effort);
    print_calls(&site, effort);
}

/// A pod that dials.
struct Client {
    pod: Pod,
    /// `None` where nothing is attached.
    programs: Option<Programs>,
}

impl Client {
    fn new(lab: &Lab, name: &str) -> Self {
        Self {
            pod: lab.pod(name).expect("a pod"),
            programs: None,
        }
    }

    /// A client with programs of its own, and the same frontends as any other.
    fn with_programs(lab: &Lab, name: &str, keep_original_dst: bool, targets: &Targets) -> Self {
        let mut client = Self::new(lab, name);
        let pins = PinDirectory::new(lab.pin_directory().join(name));
        let mut programs = Programs::load(&LoadSettings {
            pins: pins.clone(),
            capacity: small(),
            log_level: EbpfLogLevel::Off,
            keep_original_dst,
            refusal: Refusal::Best,
        })
        .expect("programs that load");
        programs
            .attach(client.pod.cgroup())
            .expect("programs that can be attached");
        let mut publisher = Publisher::open(&pins, 0).expect("maps to publish to");
        let to = |endpoint| split(vec![leaf("v1", 9, &[endpoint]), leaf("v2", 1, &[endpoint])]);
        let scoped = |address: SocketAddr, clients| Frontend {
            clients,
            ..frontend(&address.to_string())
        };
        let everyone = ClientScope::EVERYONE;
        let report = publisher.publish(&plan(&[
            (scoped(targets.own, everyone), to(targets.endpoint)),
            (scoped(targets.own, OWN), to(targets.endpoint)),
            (scoped(targets.others, everyone), to(targets.endpoint)),
            (scoped(targets.others, OTHER), to(targets.endpoint)),
            (root(), to(targets.endpoint)),
            (
                frontend(&targets.vip_ipv6.to_string()),
                to(targets.endpoint_ipv6),
            ),
            (
                frontend(&targets.refused.to_string()),
                decided(Decision::Refuse(Reason::AllWeightsZero), vec![]),
            ),
        ]));
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        let cgroup = client.pod.cgroup();
        let hierarchy = Hierarchy::find().expect("a hierarchy");
        let group = PodGroup {
            id: fs::metadata(cgroup).expect("a cgroup").ino(),
            level: hierarchy.level_of(cgroup).expect("its level"),
        };
        publisher.set_client(group, OWN).expect("a pod that fits");
        publisher.synchronize();
        client.programs = Some(programs);
        client
    }

    /// What the kernel says about a program of this client.
    fn program(&mut self, name: &str) -> ProgramInfo {
        let programs = self.programs.as_mut().expect("a client with programs");
        let program = programs.object().program_mut(name).expect("a program");
        let program: &mut CgroupSockAddr = program.try_into().expect("a cgroup program");
        program.info().expect("a program that can be examined")
    }

    /// Makes a call so often, and gives the median of its times in nanoseconds.
    fn time(&self, call: Call, calls: usize) -> f64 {
        self.pod
            .run(|| call.make(calls).map_err(|error| error.to_string()))
            .expect("a process in the pod")
            .expect("calls that come out as they should")
    }
}

/// What is dialled.
struct Targets {
    endpoint: SocketAddr,
    endpoint_ipv6: SocketAddr,
    vip: SocketAddr,
    vip_ipv6: SocketAddr,
    refused: SocketAddr,
    /// Has a split for the client's scope beside that for everyone.
    own: SocketAddr,
    /// Has a split for another scope beside that for everyone.
    others: SocketAddr,
}

/// The lab with its three clients.
struct Site {
    targets: Targets,
    without: Client,
    plain: Client,
    named: Client,
    // Dropped in this order: clients and listener before the lab that they are in.
    _listener: Process,
    _shop: Pod,
    _lab: Lab,
}

impl Site {
    fn new() -> Self {
        let lab = Lab::new("bench-connect").expect("a lab");
        let shop = lab.pod("shop").expect("a pod");
        let (listener, ()) = shop
            .start_ready(|ready| listen(|| ready.signal(&())).expect("a listener"))
            .expect("a listener");
        let targets = Targets {
            endpoint: (shop.ipv4(), LISTENER).into(),
            endpoint_ipv6: (shop.ipv6(), LISTENER).into(),
            vip: root().address,
            vip_ipv6: frontend("[fd96::10]:14001").address,
            refused: frontend("10.96.0.11:14001").address,
            own: frontend("10.96.0.12:14001").address,
            others: frontend("10.96.0.13:14001").address,
        };
        Self {
            without: Client::new(&lab, "without"),
            plain: Client::with_programs(&lab, "plain", false, &targets),
            named: Client::with_programs(&lab, "named", true, &targets),
            targets,
            _listener: listener,
            _shop: shop,
            _lab: lab,
        }
    }
}

/// Listens on all addresses for ever. Accepts what has come now and then, so that it does
/// not compete with a client that is being timed more than it has to.
fn listen(ready: impl FnOnce()) -> io::Result<()> {
    let listener = TcpListener::bind(("::", LISTENER))?;
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    ready();
    loop {
        while listener.accept().is_ok() {}
        thread::sleep(Duration::from_millis(10));
    }
}

/// A system call to be timed.
#[derive(Clone, Copy)]
enum Call {
    /// connect() of a fresh TCP socket.
    Connect(SocketAddr),
    /// connect() of a fresh TCP socket that is refused.
    Refused(SocketAddr),
    /// connect() of a fresh UDP socket: sends nothing.
    ConnectUdp(SocketAddr),
    /// getpeername() of one socket that is connected to this address.
    PeerName(SocketAddr),
}

impl Call {
    /// Makes it so often, and gives the median of its times in nanoseconds.
    fn make(self, calls: usize) -> io::Result<f64> {
        let mut times = Vec::with_capacity(calls);
        match self {
            Self::PeerName(target) => {
                let socket = socket(target, SocketType::STREAM)?;
                rustix::net::connect(&socket, &target)?;
                // All together: one takes hardly longer than reading the clock.
                let start = Instant::now();
                for _ in 0..calls {
                    rustix::net::getpeername(&socket)?;
                }
                return Ok(start.elapsed().as_nanos() as f64 / calls as f64);
            }
            Self::Connect(target) | Self::Refused(target) | Self::ConnectUdp(target) => {
                let (kind, expected) = match self {
                    Self::ConnectUdp(_) => (SocketType::DGRAM, Ok(())),
                    Self::Refused(_) => (SocketType::STREAM, Err(Errno::CONNREFUSED)),
                    _ => (SocketType::STREAM, Ok(())),
                };
                for _ in 0..calls {
                    let socket = socket(target, kind)?;
                    let start = Instant::now();
                    let result = rustix::net::connect(&socket, &target);
                    times.push(start.elapsed());
                    if result != expected {
                        return Err(io::Error::other(format!(
                            "connect() to {target}: {result:?}"
                        )));
                    }
                }
            }
        }
        let times = times.iter().map(|time| time.as_nanos() as f64).collect();
        Ok(Spread::of(times).median)
    }
}

/// A socket for a target, which leaves no busy port behind.
fn socket(target: SocketAddr, kind: SocketType) -> io::Result<rustix::fd::OwnedFd> {
    let family = if target.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket(family, kind, None)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    Ok(socket)
}

/// The middle of some numbers, and the quarters around it.
struct Spread {
    first_quarter: f64,
    median: f64,
    third_quarter: f64,
}

impl Spread {
    fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let at = |part: usize| numbers[(numbers.len() - 1) * part / 4];
        Self {
            first_quarter: at(1),
            median: at(2),
            third_quarter: at(3),
        }
    }
}

/// The size of each program.
fn print_programs(site: &mut Site) {
    println!(
        "{:<28}{:>14}{:>14}{:>14}",
        "program", "verified", "bytecode", "machine code"
    );
    println!(
        "{:<28}{:>14}{:>14}{:>14}",
        "", "instructions", "bytes", "bytes"
    );
    for (client, suffix) in [(&mut site.plain, ""), (&mut site.named, ", original dst")] {
        for name in PROGRAMS {
            let info = client.program(name);
            println!(
                "{:<28}{:>14}{:>14}{:>14}",
                format!("{name}{suffix}"),
                known(info.verified_instruction_count()),
                known(info.size_translated()),
                info.size_jitted()
            );
        }
    }
    println!();
}

fn known(number: Option<u32>) -> String {
    number.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
}

/// The time of one run of a program, by the kernel's own clock.
fn print_runs(site: &mut Site, effort: Effort) {
    let targets = &site.targets;
    // The first is what all others are compared with: the program leaves at its first
    // branch, so that this is the price of the kernel's clock.
    let cases = [
        (
            "connect4, not TCP",
            "connect4",
            false,
            Call::ConnectUdp(targets.endpoint),
        ),
        (
            "connect4 miss",
            "connect4",
            false,
            Call::Connect(targets.endpoint),
        ),
        (
            "connect4 miss, original dst",
            "connect4",
            true,
            Call::Connect(targets.endpoint),
        ),
        (
            "connect4 hit",
            "connect4",
            false,
            Call::Connect(targets.vip),
        ),
        (
            "connect4 hit, original dst",
            "connect4",
            true,
            Call::Connect(targets.vip),
        ),
        (
            "connect4 hit, asks",
            "connect4",
            false,
            Call::Connect(targets.others),
        ),
        (
            "connect4 hit, own split",
            "connect4",
            false,
            Call::Connect(targets.own),
        ),
        (
            "connect4 refuse",
            "connect4",
            false,
            Call::Refused(targets.refused),
        ),
        (
            "connect6 miss",
            "connect6",
            false,
            Call::Connect(targets.endpoint_ipv6),
        ),
        (
            "connect6 miss, original dst",
            "connect6",
            true,
            Call::Connect(targets.endpoint_ipv6),
        ),
        (
            "connect6 hit",
            "connect6",
            false,
            Call::Connect(targets.vip_ipv6),
        ),
        (
            "connect6 hit, original dst",
            "connect6",
            true,
            Call::Connect(targets.vip_ipv6),
        ),
        (
            "getpeername4 miss",
            "getpeername4",
            true,
            Call::PeerName(targets.endpoint),
        ),
        (
            "getpeername4 hit",
            "getpeername4",
            true,
            Call::PeerName(targets.vip),
        ),
        (
            "getpeername6 hit",
            "getpeername6",
            true,
            Call::PeerName(targets.vip_ipv6),
        ),
    ];
    let _stats = enable_stats(Stats::RunTime).expect("a kernel that times its programs");
    let mut rounds = vec![Vec::new(); cases.len()];
    for _ in 0..effort.rounds {
        for ((_, program, keep_original_dst, call), results) in cases.iter().zip(&mut rounds) {
            let client = if *keep_original_dst {
                &mut site.named
            } else {
                &mut site.plain
            };
            let before = client.program(program);
            client.time(*call, effort.calls);
            let after = client.program(program);
            let time = (after.run_time() - before.run_time()).as_nanos() as f64;
            results.push(time / (after.run_count() - before.run_count()) as f64);
        }
    }
    println!(
        "{:<28}{:>10}{:>14}{:>16}",
        "run of a program", "ns", "quarters", "above not TCP"
    );
    let least = Spread::of(rounds[0].clone()).median;
    for ((name, ..), results) in cases.iter().zip(rounds) {
        let spread = Spread::of(results);
        println!(
            "{name:<28}{:>10.0}{:>14}{:>16.0}",
            spread.median,
            format!("{:.0}..{:.0}", spread.first_quarter, spread.third_quarter),
            spread.median - least
        );
    }
    println!();
}

/// The time of a whole system call, as the client sees it.
fn print_calls(site: &Site, effort: Effort) {
    let targets = &site.targets;
    let connect = |case: &'static str, client, target| (case, client, Call::Connect(target));
    let groups = [
        (
            "connect(), IPv4",
            vec![
                connect("no programs", &site.without, targets.endpoint),
                connect("miss", &site.plain, targets.endpoint),
                connect("miss, original dst", &site.named, targets.endpoint),
                connect("hit", &site.plain, targets.vip),
                connect("hit, original dst", &site.named, targets.vip),
                connect("own split, original dst", &site.named, targets.own),
            ],
        ),
        (
            "connect(), IPv6",
            vec![
                connect("no programs", &site.without, targets.endpoint_ipv6),
                connect("miss, original dst", &site.named, targets.endpoint_ipv6),
                connect("hit, original dst", &site.named, targets.vip_ipv6),
            ],
        ),
        (
            "getpeername(), IPv4",
            vec![
                (
                    "no programs",
                    &site.without,
                    Call::PeerName(targets.endpoint),
                ),
                (
                    "miss, original dst",
                    &site.named,
                    Call::PeerName(targets.endpoint),
                ),
                (
                    "hit, original dst",
                    &site.named,
                    Call::PeerName(targets.vip),
                ),
            ],
        ),
    ];
    for (title, cases) in groups {
        let mut rounds = vec![Vec::new(); cases.len()];
        for _ in 0..effort.rounds {
            for ((_, client, call), results) in cases.iter().zip(&mut rounds) {
                results.push(client.time(*call, effort.calls));
            }
        }
        println!("{title:<28}{:>10}{:>14}{:>16}", "ns", "quarters", "ratio");
        for ((name, ..), results) in cases.iter().zip(&rounds) {
            let ratios = results
                .iter()
                .zip(&rounds[0])
                .map(|(with, without)| with / without);
            let ratio = Spread::of(ratios.collect()).median;
            let spread = Spread::of(results.clone());
            println!(
                "{name:<28}{:>10.0}{:>14}{ratio:>16.3}",
                spread.median,
                format!("{:.0}..{:.0}", spread.first_quarter, spread.third_quarter),
            );
        }
        println!();
    }
    if fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|on| on.trim() != "0") {
        println!(
            "kernel.bpf_stats_enabled is on: the system calls above include the time that it takes"
        );
    }
}
