//! What the benchmarks of the programs measure with.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every benchmark compiles this module and uses its own part of it"
)]

#[path = "../../tests/attach/foreign.rs"]
pub mod foreign;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use aya::programs::{ProgramInfo, loaded_programs};
use foreign::Foreign;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, sockopt};

/// Connections that may wait for a listener: all of a round.
const BACKLOG: i32 = 4096;

/// The middle of some numbers, and the quarters around it.
pub struct Spread {
    pub first_quarter: f64,
    pub median: f64,
    pub third_quarter: f64,
}

impl Spread {
    pub fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let at = |part: usize| numbers[(numbers.len() - 1) * part / 4];
        Self {
            first_quarter: at(1),
            median: at(2),
            third_quarter: at(3),
        }
    }
}

pub fn median(numbers: Vec<f64>) -> f64 {
    Spread::of(numbers).median
}

/// Nanoseconds of a run of a program between two looks at it, by the kernel's own clock.
pub fn time_of_run(before: &ProgramInfo, after: &ProgramInfo) -> f64 {
    let time = (after.run_time() - before.run_time()).as_nanos() as f64;
    time / (after.run_count() - before.run_count()) as f64
}

/// What the kernel says of an empty program.
pub fn info(empty: &Foreign) -> ProgramInfo {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|it| it.id() == empty.id)
        .expect("the empty program")
}

/// Listens on all addresses for ever. Accepts what has come now and then, so that it does
/// not compete with a client that is being timed more than it has to.
pub fn listen(ports: &[u16], ready: impl FnOnce()) -> io::Result<()> {
    let listeners = ports.iter().map(|port| {
        let listener = TcpListener::bind(("::", *port))?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    ready();
    loop {
        for listener in &listeners {
            while listener.accept().is_ok() {}
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A socket for a target, which leaves no busy port behind.
pub fn socket(target: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if target.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket(family, kind, None)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    Ok(socket)
}
