//! Where the time goes in `connect4`: what each call and each atomic operation on its way costs, with the
//! plain instructions that follow it.
//!
//! The program is loaded as often as it has such steps on its way, each time with an end before another one of
//! them, and all take turns, round by round. A row is the median of the differences between two neighbours. They are
//! measured twice: with connections that are made, whose packets push all of it out of the processor's
//! caches, and with a connect() that ends where the program does, since there is no route.
//!
//! Run as root, on Linux 6.1 or later: `cargo bench -p splitter-agent --bench parts`.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../measure/mod.rs"]
mod measure;

mod code;

use std::fs::File;
use std::io;
use std::net::SocketAddr;

use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramInfo};
use aya::sys::{Stats, enable_stats};
use code::{Change, Code, Step, reported};
use common::{frontend, leaf, load_settings, plan, small, split};
use measure::foreign::{Foreign, MULTI};
use measure::{info, listen, median, socket, time_of_run};
use rustix::net::SocketType;
use splitter_agent::datapath::{PinDirectory, Programs, Publisher};
use testbed::lab::{Lab, Pod};

const PROGRAM: &str = "connect4";

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// Calls of each program in a round.
    calls: usize,
    /// Every how many steps the program ends in one of its copies.
    every: usize,
}

/// A program on a client's cgroup.
enum Attached {
    Empty(Foreign),
    Ours(Box<Programs>),
}

fn main() {
    // `cargo test` builds and runs benchmarks too, to see that they work: briefly.
    let effort = if std::env::args().any(|argument| argument == "--bench") {
        Effort {
            rounds: 41,
            calls: 200,
            every: 1,
        }
    } else {
        Effort {
            rounds: 2,
            calls: 10,
            every: 8,
        }
    };
    println!(
        "median of {} rounds of {} calls\n",
        effort.rounds, effort.calls
    );
    let lab = Lab::new("bench-parts").expect("a lab");
    let shop = lab.pod("shop").expect("a pod");
    let client = lab.pod("client").expect("a pod");
    let bystander = lab.pod("bystander").expect("a pod");
    let address = |port| SocketAddr::from((shop.ipv4(), port));
    // Without a split these reach a listener as well, so that a program may end anywhere.
    let (dialled, endpoint, elsewhere) = (address(81), address(80), address(82));
    let (_listener, ()) = shop
        .start_ready(|ready| listen(&[80, 81, 82], || ready.signal(&())).expect("listeners"))
        .expect("listeners");
    // connect() of TCP to a group finds no route.
    let group = |last| SocketAddr::from(([224, 0, 0, last], 80));
    let pins = PinDirectory::new(lab.pin_directory());
    let settings = load_settings(&pins, small());
    let mut programs = Programs::load(&settings).expect("programs that load");
    // These see the deaths of sockets, which free their slots. The others only connect.
    programs
        .attach(bystander.cgroup())
        .expect("programs that can be attached");
    let mut publisher = Publisher::open(&pins, 0).expect("maps to publish to");
    let to = |endpoint| split(vec![leaf("v1", 9, &[endpoint]), leaf("v2", 1, &[endpoint])]);
    let report = publisher.publish(&plan(&[
        (frontend(&dialled.to_string()), to(endpoint)),
        (frontend(&group(10).to_string()), to(group(11))),
    ]));
    assert!(report.failed.is_empty(), "{:?}", report.failed);

    let code = Code::find(Programs::object_file(), "cgroup/connect4", PROGRAM).expect("an object");
    let load = |changes: &[(&Step, Change)]| {
        let object = code.changed(changes);
        Programs::load_object(&object, &settings).expect("a changed program that loads")
    };
    let _stats = enable_stats(Stats::RunTime).expect("a kernel that times its programs");
    for (title, made, unmade) in [
        ("connection that is split", dialled, group(10)),
        ("connection that is not", elsewhere, group(12)),
    ] {
        let way = way(&client, &code, unmade, &load);
        let ends: Vec<&Step> = way.iter().step_by(effort.every).copied().collect();
        let mut copies: Vec<Attached> = ends
            .iter()
            .map(|step| Attached::Ours(Box::new(load(&[(step, Change::End)]))))
            .collect();
        copies.push(Attached::Ours(Box::new(load(&[]))));
        let times = [(made, true), (unmade, false)]
            .map(|(target, is_made)| measure(effort, &client, &mut copies, target, is_made));
        print(title, &ends, &times);
    }
}

/// The steps that a connect() comes by, in its order.
fn way<'a>(
    client: &Pod,
    code: &'a Code<'_>,
    target: SocketAddr,
    load: &impl Fn(&[(&Step, Change)]) -> Programs,
) -> Vec<&'a Step> {
    let mut ahead: Vec<&Step> = code.steps.iter().collect();
    let mut way = Vec::new();
    loop {
        let all: Vec<_> = ahead.iter().map(|step| (*step, Change::Report)).collect();
        let mut programs = load(&all);
        let attached = attach(client, &mut programs);
        let error = client
            .run(move || connect(target).err().and_then(|error| error.raw_os_error()))
            .expect("a process in the pod");
        detach(&mut programs, attached);
        let Some(at) = error.and_then(reported) else {
            return way;
        };
        let index = ahead.iter().position(|step| step.at == at).expect("a step");
        way.push(ahead.remove(index));
    }
}

/// Times of the runs of all copies, less those of an empty program, round by round.
fn measure(
    effort: Effort,
    client: &Pod,
    copies: &mut [Attached],
    target: SocketAddr,
    is_made: bool,
) -> Vec<Vec<f64>> {
    let mut rounds = vec![Vec::new(); copies.len()];
    for _ in 0..effort.rounds {
        let mut times = Vec::new();
        let mut empty = Attached::Empty(Foreign::attach(client.cgroup(), MULTI));
        let floor = run(effort, client, &mut empty, target, is_made);
        let Attached::Empty(program) = empty else {
            unreachable!("it is the empty one");
        };
        program.detach();
        for copy in copies.iter_mut() {
            times.push(run(effort, client, copy, target, is_made) - floor);
        }
        for (all, time) in rounds.iter_mut().zip(times) {
            all.push(time);
        }
    }
    rounds
}

/// The time of one run of a program, in nanoseconds.
fn run(
    effort: Effort,
    client: &Pod,
    copy: &mut Attached,
    target: SocketAddr,
    is_made: bool,
) -> f64 {
    let link = match copy {
        Attached::Empty(_) => None,
        Attached::Ours(programs) => Some(attach(client, programs)),
    };
    let before = look(copy);
    client
        .run(move || {
            for _ in 0..effort.calls {
                let result = connect(target);
                if result.is_ok() != is_made {
                    return Err(format!("connect() to {target}: {result:?}"));
                }
            }
            Ok(())
        })
        .expect("a process in the pod")
        .expect("connections as expected");
    let after = look(copy);
    if let (Attached::Ours(programs), Some(link)) = (copy, link) {
        detach(programs, link);
    }
    time_of_run(&before, &after)
}

fn look(copy: &mut Attached) -> ProgramInfo {
    match copy {
        Attached::Empty(empty) => info(empty),
        Attached::Ours(programs) => program(programs).info().expect("what the kernel says"),
    }
}

fn program(programs: &mut Programs) -> &mut CgroupSockAddr {
    let program = programs.object().program_mut(PROGRAM).expect("a program");
    program.try_into().expect("a cgroup program")
}

type Link = aya::programs::cgroup_sock_addr::CgroupSockAddrLinkId;

fn attach(client: &Pod, programs: &mut Programs) -> Link {
    let cgroup = File::open(client.cgroup()).expect("a cgroup");
    program(programs)
        .attach(cgroup, CgroupAttachMode::Single)
        .expect("a program that can be attached")
}

fn detach(programs: &mut Programs, link: Link) {
    program(programs).detach(link).expect("a link");
}

/// A connect() of a fresh socket.
fn connect(target: SocketAddr) -> io::Result<()> {
    Ok(rustix::net::connect(
        socket(target, SocketType::STREAM)?,
        &target,
    )?)
}

/// Prints where the time goes, with connections that are made and without.
fn print(title: &str, ends: &[&Step], times: &[Vec<Vec<f64>>; 2]) {
    println!(
        "{:<44}{:>14}{:>10}{:>14}{:>10}",
        title, "cold caches", "so far", "warm caches", "so far"
    );
    let begin = "reads the address".to_owned();
    let rows = std::iter::once((0, &begin)).chain(ends.iter().map(|step| (step.at, &step.what)));
    for (number, (at, what)) in rows.enumerate() {
        print!("{:<44}", format!("{at:>5}  {what}"));
        for rounds in times {
            let own = &rounds[number];
            let before = number.checked_sub(1).map(|before| &rounds[before]);
            let part = own
                .iter()
                .enumerate()
                .map(|(round, time)| time - before.map_or(0.0, |before: &Vec<f64>| before[round]));
            print!(
                "{:>14.0}{:>10.0}",
                median(part.collect()),
                median(own.clone())
            );
        }
        println!();
    }
    println!();
}
