//! What the programs cost UDP: nanoseconds of each run, and of sendto() and recvfrom() with and
//! without them. What is printed is the median of the rounds, in which all cases take turns.
//!
//! Run as root: `cargo bench -p splitter-agent --bench datagrams`.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "measure/mod.rs"]
mod measure;

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use aya::programs::{CgroupSockAddr, ProgramInfo};
use aya::sys::{Stats, enable_stats};
use common::{frontend, leaf, load, plan, small, split};
use measure::foreign::{Foreign, MULTI};
use measure::{info, median, time_of_run};
use splitter_agent::datapath::{PinDirectory, Programs, Publisher, View};
use splitter_agent::plan::Frontend;
use splitter_common::layout::Protocol;
use testbed::lab::{Lab, Pod, Process};

/// Sockets of which each has a flow.
const SOCKETS: usize = 500;

/// Endpoints of each leaf, of which one is there.
const ENDPOINTS: u16 = 1000;

fn main() {
    // `cargo test` builds and runs benchmarks too, to see that they work: briefly.
    let is_benchmark = std::env::args().any(|argument| argument == "--bench");
    let rounds = if is_benchmark { 21 } else { 2 };
    let mut site = Site::new();
    println!("median of {rounds} rounds of {SOCKETS} calls\n");
    print_runs(&mut site, rounds);
    print_calls(&site, rounds);
}

struct Site {
    pins: PinDirectory,
    programs: Programs,
    publisher: Publisher,
    client: Pod,
    without: Pod,
    empty: Pod,
    empty_program: Foreign,
    endpoint: SocketAddr,
    vip: Frontend,
    /// Has the same endpoint among many others, which change.
    crowd: Frontend,
    changes: u8,
    // Dropped last: pods before the lab that they are in.
    _server: Process,
    _shop: Pod,
    _lab: Lab,
}

impl Site {
    fn new() -> Self {
        let lab = Lab::new("bench-udp").expect("a lab");
        let pod = |name: &str| lab.pod(name).expect("a pod");
        let [client, without, empty, shop] = ["client", "without", "empty", "shop"].map(pod);
        let endpoint = SocketAddr::from((shop.ipv4(), 80));
        let (server, ()) = shop
            .start_ready(|ready| {
                let socket = UdpSocket::bind(endpoint).expect("a free port");
                ready.signal(&());
                let mut buffer = [0; 512];
                while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    // What only is to be sent is not answered.
                    if length > 1 {
                        let _ = socket.send_to(&buffer[..length], client);
                    }
                }
            })
            .expect("a server");
        let pins = PinDirectory::new(lab.pin_directory());
        let mut programs = load(&pins, small()).expect("programs that load");
        programs
            .attach(client.cgroup())
            .expect("programs that can be attached");
        let udp = |address| Frontend {
            protocol: Protocol::Udp,
            ..frontend(address)
        };
        let mut site = Self {
            programs,
            publisher: Publisher::open(&pins, 0).expect("maps to publish to"),
            pins,
            empty_program: Foreign::attach(empty.cgroup(), MULTI),
            client,
            without,
            empty,
            endpoint,
            vip: udp("10.96.0.10:14001"),
            crowd: udp("10.96.0.11:14001"),
            changes: 0,
            _server: server,
            _shop: shop,
            _lab: lab,
        };
        site.publish(&[endpoint]);
        site
    }

    /// Changes all endpoints of the crowd but the one that is there.
    fn change(&mut self) {
        self.changes += 1;
        let change = self.changes;
        let others = (1..ENDPOINTS).map(|number| {
            let [high, low] = number.to_be_bytes();
            SocketAddr::from((Ipv4Addr::new(10, change, high, low), 80))
        });
        let endpoints: Vec<SocketAddr> = others.chain([self.endpoint]).collect();
        self.publish(&endpoints);
    }

    fn publish(&mut self, crowd: &[SocketAddr]) {
        let report = self.publisher.publish(&plan(&[
            (self.vip, split(vec![leaf("v1", 1, &[self.endpoint])])),
            (self.crowd, split(vec![leaf("v1", 1, crowd)])),
        ]));
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        self.publisher.synchronize();
    }

    fn program(&mut self, name: &str) -> ProgramInfo {
        let programs = self.programs.object();
        let program = programs.program_mut(name).expect("a program");
        let program: &mut CgroupSockAddr = program.try_into().expect("a cgroup program");
        program.info().expect("a program that can be examined")
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(socket)
}

/// Connects fresh sockets.
fn connect(target: SocketAddr) -> io::Result<()> {
    (0..SOCKETS).try_for_each(|_| socket()?.connect(target))
}

/// Sends from fresh sockets, or so often from one.
fn send(target: SocketAddr, is_fresh: bool) -> io::Result<Vec<f64>> {
    let one = socket()?;
    one.send_to(b"x", target)?;
    let mut times = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        let fresh = is_fresh.then(socket).transpose()?;
        let socket = fresh.as_ref().unwrap_or(&one);
        let start = Instant::now();
        socket.send_to(b"x", target)?;
        times.push(start.elapsed().as_nanos() as f64);
    }
    Ok(times)
}

/// Asks and is answered.
fn ask(target: SocketAddr) -> io::Result<Vec<f64>> {
    let socket = socket()?;
    // A server that was flooded by another case loses some.
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 64];
    let mut times = Vec::with_capacity(SOCKETS);
    let mut losses = 0;
    while times.len() < SOCKETS {
        let start = Instant::now();
        socket.send_to(b"question", target)?;
        match socket.recv_from(&mut buffer) {
            Ok((_, source)) if source == target => {
                times.push(start.elapsed().as_nanos() as f64);
            }
            Ok((_, source)) => return Err(io::Error::other(format!("answered by {source}"))),
            Err(_) if losses < 100 => losses += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(times)
}

fn in_pod<T: serde::Serialize + serde::de::DeserializeOwned>(
    pod: &Pod,
    body: impl FnOnce() -> io::Result<T>,
) -> T {
    pod.run(|| body().map_err(|error| error.to_string()))
        .expect("a process in the pod")
        .expect("calls that come out as they should")
}

/// Many sockets that send once each whenever they are told to.
struct Senders {
    _process: Process,
    tell: io::PipeWriter,
    done: io::PipeReader,
}

impl Senders {
    fn new(pod: &Pod, target: SocketAddr) -> Self {
        let (mut told, tell) = io::pipe().expect("a pipe");
        let (done, mut say) = io::pipe().expect("a pipe");
        let (process, ()) = pod
            .start_ready(move |ready| {
                let sockets: Vec<_> = (0..SOCKETS).map(|_| socket().expect("a socket")).collect();
                ready.signal(&());
                while told.read_exact(&mut [0]).is_ok() {
                    for socket in &sockets {
                        socket
                            .send_to(b"x", target)
                            .expect("a datagram that is sent");
                    }
                    say.write_all(&[0]).expect("a reader");
                }
            })
            .expect("senders");
        Self {
            _process: process,
            tell,
            done,
        }
    }

    fn send(&mut self) {
        self.tell.write_all(&[0]).expect("senders that run");
        self.done.read_exact(&mut [0]).expect("senders that run");
    }
}

/// The time of one run of a program, by the kernel's own clock.
fn print_runs(site: &mut Site, rounds: usize) {
    let _stats = enable_stats(Stats::RunTime).expect("a kernel that times its programs");
    let (vip, endpoint) = (site.vip.address, site.endpoint);
    let mut senders = Senders::new(&site.client, site.crowd.address);
    senders.send();
    let mut empty = Vec::new();
    let mut cases: Vec<(&str, &str, Vec<f64>)> = [
        ("connect4, UDP, miss", "connect4"),
        ("connect4, UDP, hit", "connect4"),
        ("sendmsg4, miss", "sendmsg4"),
        ("sendmsg4, new flow", "sendmsg4"),
        ("sendmsg4, known flow", "sendmsg4"),
        ("sendmsg4, of many flows", "sendmsg4"),
        ("sendmsg4, after a change", "sendmsg4"),
        ("recvmsg4, miss", "recvmsg4"),
        ("recvmsg4, hit", "recvmsg4"),
    ]
    .map(|(name, program)| (name, program, Vec::new()))
    .into();
    for _ in 0..rounds {
        let before = info(&site.empty_program);
        in_pod(&site.empty, || connect(endpoint));
        empty.push(time_of_run(&before, &info(&site.empty_program)));
        for (name, program, results) in &mut cases {
            if name.ends_with("a change") {
                site.change();
            }
            let before = site.program(program);
            match *name {
                "connect4, UDP, miss" => in_pod(&site.client, || connect(endpoint)),
                "connect4, UDP, hit" => in_pod(&site.client, || connect(vip)),
                "sendmsg4, miss" => drop(in_pod(&site.client, || send(endpoint, false))),
                "sendmsg4, new flow" => drop(in_pod(&site.client, || send(vip, true))),
                "sendmsg4, known flow" => drop(in_pod(&site.client, || send(vip, false))),
                "recvmsg4, miss" => drop(in_pod(&site.client, || ask(endpoint))),
                "recvmsg4, hit" => drop(in_pod(&site.client, || ask(vip))),
                _ => senders.send(),
            }
            results.push(time_of_run(&before, &site.program(program)));
        }
    }
    let empty = median(empty);
    println!(
        "{:<28}{:>10}{:>16}",
        "run of a program", "ns", "above empty"
    );
    println!("{:<28}{empty:>10.0}{:>16.0}", "empty program", 0);
    for (name, _, results) in cases {
        let time = median(results);
        println!("{name:<28}{time:>10.0}{:>16.0}", time - empty);
    }
    println!();
    let view = View::open(&site.pins).expect("maps to look at");
    let crowd = &view.frontends[&site.crowd];
    assert_eq!(
        crowd.connections, SOCKETS as u64,
        "flows that were chosen anew"
    );
}

/// What system calls take.
fn print_calls(site: &Site, rounds: usize) {
    let (vip, endpoint) = (site.vip.address, site.endpoint);
    let (with, without) = (&site.client, &site.without);
    type Call = fn(SocketAddr) -> io::Result<Vec<f64>>;
    let send_one: Call = |target| send(target, false);
    let cases: [(&str, &Pod, SocketAddr, Call); 6] = [
        ("sendto(), no programs", without, endpoint, send_one),
        ("sendto(), miss", with, endpoint, send_one),
        ("sendto(), hit", with, vip, send_one),
        ("question, no programs", without, endpoint, ask),
        ("question, miss", with, endpoint, ask),
        ("question, hit", with, vip, ask),
    ];
    let mut results = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for ((_, pod, target, call), results) in cases.iter().zip(&mut results) {
            results.push(median(in_pod(pod, || call(*target))));
        }
    }
    println!("{:<28}{:>10}", "system calls, IPv4", "ns");
    for ((name, ..), results) in cases.iter().zip(results) {
        println!("{name:<28}{:>10.0}", median(results));
    }
}
