//! What the programs cost: nanoseconds of each run, and of system calls as a client sees
//! them, with and without them.
//!
//! Five clients dial the same listener: one without programs, one with an empty one, and three whose
//! programs keep no original destination, keep it in the table of live sockets, or on the sockets
//! themselves. The last three have a scope of clients: some frontends have a split for it, some for
//! another one. All cases take turns, round by round, and what is printed is the median of the
//! rounds: so what else the machine does falls on all of them alike, and ratios are taken within a
//! round. Deaths of sockets are seen whosever they are, so the program that sees them is detached
//! while what has to do without it is timed.
//!
//! Run as root: `cargo bench -p splitter-agent --bench connect`.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "measure/mod.rs"]
mod measure;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{BtfTracePoint, CgroupSockAddr, ProgramInfo};
use aya::sys::{Stats, enable_stats};
use common::{decided, frontend, leaf, plan, root, small, split};
use measure::foreign::{Foreign, MULTI};
use measure::{Spread, info, listen, median, socket, time_of_run};
use rustix::io::Errno;
use rustix::net::{SocketType, sockopt};
use splitter_agent::datapath::{
    EbpfLogLevel, Hierarchy, LoadSettings, Outcomes, PROGRAMS, PinDirectory, PodGroup, Programs,
    Publisher, Refusal, SocketMemory,
};
use splitter_agent::plan::{Decision, Frontend};
use splitter_common::layout::{ClientScope, Reason};
use testbed::lab::{Lab, Pod, Process};

/// The scope of the clients, and one that they do not have.
const OWN: ClientScope = ClientScope(1);
const OTHER: ClientScope = ClientScope(2);

/// The port that the listener has.
const LISTENER: u16 = 80;

/// A port that nobody listens on.
const NOBODY: u16 = 9;

/// The program that sees sockets die.
const TRACEPOINT: &str = "tcp_destroy_sock";

/// The link of that which sees those that die while it runs.
const NESTED: &str = "tcp_destroy_sock_nested-";

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
    print_calls(&mut site, effort);
    print_rates(&mut site, effort);
    if fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|on| on.trim() != "0") {
        println!(
            "kernel.bpf_stats_enabled is on: the system calls above include the time that it takes"
        );
    }
}

/// A pod that dials.
struct Client {
    pod: Pod,
    pins: PinDirectory,
    /// `None` where none of ours are attached.
    programs: Option<Programs>,
    /// The empty program, where it is attached.
    empty: Option<Foreign>,
}

/// One of the clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Nothing is attached.
    Without,
    /// A program of two instructions is.
    Empty,
    /// No original destinations.
    Plain,
    /// Original destinations in the table of live sockets.
    Table,
    /// Original destinations on the sockets.
    Storage,
}

impl Client {
    fn new(lab: &Lab, name: &str) -> Self {
        Self {
            pod: lab.pod(name).expect("a pod"),
            pins: PinDirectory::new(lab.pin_directory().join(name)),
            programs: None,
            empty: None,
        }
    }

    fn with_empty_program(lab: &Lab, name: &str) -> Self {
        let mut client = Self::new(lab, name);
        client.empty = Some(Foreign::attach(client.pod.cgroup(), MULTI));
        client
    }

    /// A client with programs of its own, and the same frontends as any other.
    fn with_programs(lab: &Lab, name: &str, who: Who, targets: &Targets) -> Self {
        let mut client = Self::new(lab, name);
        let pins = client.pins.clone();
        let mut programs = Programs::load(&LoadSettings {
            pins: pins.clone(),
            capacity: small(),
            log_level: EbpfLogLevel::Off,
            keep_original_dst: who != Who::Plain,
            socket_memory: match who {
                Who::Storage => SocketMemory::Storage,
                _ => SocketMemory::Best,
            },
            outcomes: Outcomes::default(),
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
            (
                frontend(&targets.closed.to_string()),
                to((targets.endpoint.ip(), NOBODY).into()),
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
        if let Some(empty) = &self.empty {
            return info(empty);
        }
        let programs = self.programs.as_mut().expect("a client with programs");
        let program = programs.object().program_mut(name).expect("a program");
        if name == TRACEPOINT {
            let program: &mut BtfTracePoint = program.try_into().expect("it");
            return program.info().expect("a program that can be examined");
        }
        let program: &mut CgroupSockAddr = program.try_into().expect("a cgroup program");
        program.info().expect("a program that can be examined")
    }

    /// Attaches the program that sees sockets die, or takes it off.
    fn see_deaths(&mut self, is_seeing: bool) {
        let id = self.program(TRACEPOINT).id();
        let programs = self.programs.as_mut().expect("a client with programs");
        if is_seeing {
            programs
                .attach_beside(self.pod.cgroup())
                .expect("programs that can be attached");
            return;
        }
        let links = self.pins.path().join("links");
        fs::remove_file(links.join(format!("{TRACEPOINT}-{id}"))).expect("a link");
        for link in fs::read_dir(&links).expect("links") {
            let link = link.expect("a link");
            if link.file_name().to_string_lossy().starts_with(NESTED) {
                fs::remove_file(link.path()).expect("a link that can be removed");
            }
        }
        // Detached by a worker of the kernel's.
        thread::sleep(Duration::from_millis(20));
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
    /// Is split to an endpoint where nobody listens.
    closed: SocketAddr,
    /// Has a split for the client's scope beside that for everyone.
    own: SocketAddr,
    /// Has a split for another scope beside that for everyone.
    others: SocketAddr,
}

/// The lab with its clients.
struct Site {
    targets: Targets,
    without: Client,
    empty: Client,
    plain: Client,
    table: Client,
    storage: Client,
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
            .start_ready(|ready| listen(&[LISTENER], || ready.signal(&())).expect("a listener"))
            .expect("a listener");
        let targets = Targets {
            endpoint: (shop.ipv4(), LISTENER).into(),
            endpoint_ipv6: (shop.ipv6(), LISTENER).into(),
            vip: root().address,
            vip_ipv6: frontend("[fd96::10]:14001").address,
            refused: frontend("10.96.0.11:14001").address,
            own: frontend("10.96.0.12:14001").address,
            others: frontend("10.96.0.13:14001").address,
            closed: frontend("10.96.0.14:14001").address,
        };
        Self {
            without: Client::new(&lab, "without"),
            empty: Client::with_empty_program(&lab, "empty"),
            plain: Client::with_programs(&lab, "plain", Who::Plain, &targets),
            table: Client::with_programs(&lab, "table", Who::Table, &targets),
            storage: Client::with_programs(&lab, "storage", Who::Storage, &targets),
            targets,
            _listener: listener,
            _shop: shop,
            _lab: lab,
        }
    }
}

impl Site {
    fn client(&mut self, who: Who) -> &mut Client {
        match who {
            Who::Without => &mut self.without,
            Who::Empty => &mut self.empty,
            Who::Plain => &mut self.plain,
            Who::Table => &mut self.table,
            Who::Storage => &mut self.storage,
        }
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
    /// connect() of a fresh TCP socket, getpeername() and close().
    Life(SocketAddr),
    /// socket(), connect() and close() of TCP sockets, one after the other: the time that one takes of
    /// the time of all.
    Whole(SocketAddr),
    /// close() of a TCP socket that was never connected, and whether it has a cookie.
    Close(bool),
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
            Self::Whole(target) => {
                let start = Instant::now();
                for _ in 0..calls {
                    let socket = socket(target, SocketType::STREAM)?;
                    rustix::net::connect(&socket, &target)?;
                }
                return Ok(start.elapsed().as_nanos() as f64 / calls as f64);
            }
            Self::Life(target) => {
                for _ in 0..calls {
                    let socket = socket(target, SocketType::STREAM)?;
                    let start = Instant::now();
                    rustix::net::connect(&socket, &target)?;
                    rustix::net::getpeername(&socket)?;
                    drop(socket);
                    times.push(start.elapsed());
                }
            }
            Self::Close(has_cookie) => {
                let any = SocketAddr::from(([127, 0, 0, 1], NOBODY));
                for _ in 0..calls {
                    let socket = socket(any, SocketType::STREAM)?;
                    if has_cookie {
                        sockopt::socket_cookie(&socket)?;
                    }
                    let start = Instant::now();
                    drop(socket);
                    times.push(start.elapsed());
                }
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
        Ok(median(times))
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
    for (client, suffix, tracepoint) in [
        (&mut site.plain, "", None),
        (&mut site.table, ", table", Some(TRACEPOINT)),
        (&mut site.storage, ", storage", None),
    ] {
        for name in PROGRAMS.into_iter().chain(tracepoint) {
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
    let Targets {
        endpoint,
        endpoint_ipv6,
        vip,
        vip_ipv6,
        refused,
        own,
        others,
        closed,
    } = site.targets;
    let connect = Call::Connect;
    // Name, program, whose it is, who calls, and what. The first is what all others are compared
    // with: a program that does nothing, so that this is the price of the kernel's clock.
    let run = |name: &'static str, program, who, call| (name, program, who, who, call);
    let (v4, v6) = ("connect4", "connect6");
    let cases = [
        run("empty program", v4, Who::Empty, connect(endpoint)),
        run(
            "connect4 miss, UDP",
            v4,
            Who::Plain,
            Call::ConnectUdp(endpoint),
        ),
        run("connect4 miss", v4, Who::Plain, connect(endpoint)),
        run("connect4 miss, table", v4, Who::Table, connect(endpoint)),
        run(
            "connect4 miss, storage",
            v4,
            Who::Storage,
            connect(endpoint),
        ),
        run("connect4 hit", v4, Who::Plain, connect(vip)),
        run("connect4 hit, table", v4, Who::Table, connect(vip)),
        run("connect4 hit, storage", v4, Who::Storage, connect(vip)),
        run("connect4 hit, asks", v4, Who::Plain, connect(others)),
        run("connect4 hit, own split", v4, Who::Plain, connect(own)),
        run("connect4 refuse", v4, Who::Plain, Call::Refused(refused)),
        run("connect6 miss", v6, Who::Plain, connect(endpoint_ipv6)),
        run(
            "connect6 miss, table",
            v6,
            Who::Table,
            connect(endpoint_ipv6),
        ),
        run("connect6 hit", v6, Who::Plain, connect(vip_ipv6)),
        run("connect6 hit, table", v6, Who::Table, connect(vip_ipv6)),
        run("connect6 hit, storage", v6, Who::Storage, connect(vip_ipv6)),
        run(
            "getpeername4 miss, table",
            "getpeername4",
            Who::Table,
            Call::PeerName(endpoint),
        ),
        run(
            "getpeername4 hit, table",
            "getpeername4",
            Who::Table,
            Call::PeerName(vip),
        ),
        run(
            "getpeername4 hit, storage",
            "getpeername4",
            Who::Storage,
            Call::PeerName(vip),
        ),
        run(
            "getpeername6 hit, table",
            "getpeername6",
            Who::Table,
            Call::PeerName(vip_ipv6),
        ),
        (
            "death, no cookie",
            TRACEPOINT,
            Who::Table,
            Who::Without,
            Call::Close(false),
        ),
        (
            "death, cookie, no slot",
            TRACEPOINT,
            Who::Table,
            Who::Without,
            Call::Close(true),
        ),
        // Refused, so that no socket of the server's dies as well.
        run("death, slot", TRACEPOINT, Who::Table, Call::Refused(closed)),
    ];
    let _stats = enable_stats(Stats::RunTime).expect("a kernel that times its programs");
    let mut rounds = vec![Vec::new(); cases.len()];
    for _ in 0..effort.rounds {
        for ((_, program, whose, who, call), results) in cases.iter().zip(&mut rounds) {
            let before = site.client(*whose).program(program);
            site.client(*who).time(*call, effort.calls);
            let after = site.client(*whose).program(program);
            results.push(time_of_run(&before, &after));
        }
    }
    println!(
        "{:<28}{:>10}{:>14}{:>16}",
        "run of a program", "ns", "quarters", "above empty"
    );
    for ((name, ..), results) in cases.iter().zip(&rounds) {
        let above = results.iter().zip(&rounds[0]);
        let above = above.map(|(time, empty)| time - empty).collect();
        let spread = Spread::of(results.clone());
        println!(
            "{name:<28}{:>10.0}{:>14}{:>16.0}",
            spread.median,
            format!("{:.0}..{:.0}", spread.first_quarter, spread.third_quarter),
            median(above)
        );
    }
    println!();
}

/// A group of system calls: its title, and the cases, of which all are compared with the first. A
/// case is who calls, and whether deaths of sockets are seen meanwhile.
type Group = (&'static str, Vec<(&'static str, Who, bool, Call)>);

/// The time of a whole system call, as the client sees it.
fn print_calls(site: &mut Site, effort: Effort) {
    let Targets {
        endpoint,
        endpoint_ipv6,
        vip,
        vip_ipv6,
        own,
        ..
    } = site.targets;
    let connects = |to, vip| {
        vec![
            ("no programs", Who::Without, false, Call::Connect(to)),
            ("empty program", Who::Empty, true, Call::Connect(to)),
            ("miss", Who::Plain, true, Call::Connect(to)),
            ("miss, table", Who::Table, true, Call::Connect(to)),
            ("hit", Who::Plain, true, Call::Connect(vip)),
            ("hit, table", Who::Table, true, Call::Connect(vip)),
            ("hit, storage", Who::Storage, true, Call::Connect(vip)),
        ]
    };
    let mut ipv4 = connects(endpoint, vip);
    ipv4.push(("own split, table", Who::Table, true, Call::Connect(own)));
    let ipv6 = connects(endpoint_ipv6, vip_ipv6);
    let groups: [Group; 5] = [
        ("connect(), IPv4", ipv4),
        (
            "connect(), IPv6",
            ipv6.into_iter().filter(|it| it.1 != Who::Empty).collect(),
        ),
        (
            "getpeername(), IPv4",
            vec![
                ("no programs", Who::Without, true, Call::PeerName(endpoint)),
                ("miss, table", Who::Table, true, Call::PeerName(endpoint)),
                ("hit, table", Who::Table, true, Call::PeerName(vip)),
                ("hit, storage", Who::Storage, true, Call::PeerName(vip)),
            ],
        ),
        (
            "close(), never connected",
            vec![
                ("no programs", Who::Without, false, Call::Close(false)),
                ("seen", Who::Without, true, Call::Close(false)),
                ("seen, has a cookie", Who::Without, true, Call::Close(true)),
            ],
        ),
        (
            "whole life, IPv4",
            vec![
                ("no programs", Who::Without, false, Call::Life(endpoint)),
                ("empty program", Who::Empty, false, Call::Life(endpoint)),
                ("miss, table", Who::Table, true, Call::Life(endpoint)),
                ("hit, table", Who::Table, true, Call::Life(vip)),
                ("hit, storage", Who::Storage, false, Call::Life(vip)),
            ],
        ),
    ];
    for (title, mut cases) in groups {
        // So that it changes twice in a round.
        cases.sort_by_key(|(_, _, sees_deaths, _)| *sees_deaths);
        let mut rounds = vec![Vec::new(); cases.len()];
        let mut is_seeing = true;
        for _ in 0..effort.rounds {
            for ((_, who, sees_deaths, call), results) in cases.iter().zip(&mut rounds) {
                if is_seeing != *sees_deaths {
                    is_seeing = *sees_deaths;
                    site.table.see_deaths(is_seeing);
                }
                results.push(site.client(*who).time(*call, effort.calls));
            }
        }
        println!(
            "{title:<28}{:>10}{:>14}{:>16}{:>10}",
            "ns", "quarters", "above first", "ratio"
        );
        for ((name, ..), results) in cases.iter().zip(&rounds) {
            let within = |ratio: fn(f64, f64) -> f64| {
                let pairs = results.iter().zip(&rounds[0]);
                median(
                    pairs
                        .map(|(with, without)| ratio(*with, *without))
                        .collect(),
                )
            };
            let spread = Spread::of(results.clone());
            println!(
                "{name:<28}{:>10.0}{:>14}{:>16.0}{:>10.3}",
                spread.median,
                format!("{:.0}..{:.0}", spread.first_quarter, spread.third_quarter),
                within(|with, without| with - without),
                within(|with, without| with / without),
            );
        }
        println!();
    }
}

/// How many connections a client makes in a second, with and without programs.
fn print_rates(site: &mut Site, effort: Effort) {
    let Targets { endpoint, vip, .. } = site.targets;
    let cases = [
        ("no programs", Who::Without, false, endpoint),
        ("deaths are seen", Who::Without, true, endpoint),
        ("empty program", Who::Empty, true, endpoint),
        ("miss, table", Who::Table, true, endpoint),
        ("hit, table", Who::Table, true, vip),
        ("hit, storage", Who::Storage, true, vip),
    ];
    let mut rounds = vec![Vec::new(); cases.len()];
    let mut is_seeing = true;
    for _ in 0..effort.rounds {
        for ((_, who, sees_deaths, target), results) in cases.iter().zip(&mut rounds) {
            if is_seeing != *sees_deaths {
                is_seeing = *sees_deaths;
                site.table.see_deaths(is_seeing);
            }
            let time = site.client(*who).time(Call::Whole(*target), effort.calls);
            results.push(1e9 / time);
        }
    }
    println!(
        "{:<28}{:>10}{:>14}{:>10}",
        "connections a second", "", "quarters", "ratio"
    );
    for ((name, ..), results) in cases.iter().zip(&rounds) {
        let ratios = results.iter().zip(&rounds[0]);
        let ratios = ratios.map(|(with, without)| with / without).collect();
        let spread = Spread::of(results.clone());
        println!(
            "{name:<28}{:>10.0}{:>14}{:>10.3}",
            spread.median,
            format!("{:.0}..{:.0}", spread.first_quarter, spread.third_quarter),
            median(ratios),
        );
    }
    println!();
}
