//! Under a storm of closes, resets, refusals and clients that give up or are killed, while agents are killed
//! as well: what was counted in the kernel is what clients and servers counted.
//!
//! Each kind of client has a frontend and a leaf of its own, so that the sums of one cannot make up for those of
//! another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};
use splitter_agent::datapath::LeafCounts;
use splitter_agent::plan::Frontend;
use splitter_common::outcomes::Outcome;
use testbed::lab::{Pod, Process, Ready};

use crate::common::{Scene, frontend, leaf, load, small, split};
use crate::sockets::{Random, sockets, storms, wait_for_all_free};

/// How many connections the clients make, at least. More take longer: some 100,000 a few minutes.
const CONNECTIONS: &str = "SPLITTER_STORM_CONNECTIONS";

/// The number of connections in storms.
pub(crate) fn connections() -> u64 {
    let number = std::env::var(CONNECTIONS).ok();
    number.map_or(4800, |number| number.parse().expect(CONNECTIONS))
}

/// What a server is asked for by a connection's first byte.
mod ask {
    /// Three bytes, and that it closes.
    pub(super) const CLOSE: u8 = b'c';
    /// What is sent, back.
    pub(super) const ECHO: u8 = b'e';
    /// One byte, and that it waits for the end.
    pub(super) const HOLD: u8 = b'h';
    /// A reset.
    pub(super) const RESET: u8 = b'r';
    /// How many connections it has accepted, this one not counted.
    pub(super) const COUNT: u8 = b'n';
}

/// Does what it is asked for, and counts what it accepts.
fn serve(pod: &Pod, port: u16) -> (Process, SocketAddr) {
    let address = SocketAddr::from((pod.ipv4(), port));
    let (process, ()) = pod
        .start_ready(move |ready: Ready<()>| {
            let listener = listen(address).expect("a listener");
            ready.signal(&());
            static ACCEPTED: AtomicU64 = AtomicU64::new(0);
            loop {
                let accepted = listener.accept();
                ACCEPTED.fetch_add(1, Ordering::Relaxed);
                match accepted {
                    Ok((mut connection, _)) => {
                        thread::spawn(move || {
                            let _ = answer(&mut connection, &ACCEPTED);
                        });
                    }
                    // It was established, and has ended before it was accepted.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .expect("a server");
    (process, address)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = socket(SocketFlags::empty())?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 4096)?;
    Ok(listener.into())
}

fn answer(connection: &mut TcpStream, accepted: &AtomicU64) -> io::Result<()> {
    let mut asked = [0];
    connection.read_exact(&mut asked)?;
    let [asked] = asked;
    match asked {
        ask::CLOSE => connection.write_all(b"bye"),
        ask::ECHO => {
            let mut bytes = Vec::new();
            connection.read_to_end(&mut bytes)?;
            connection.write_all(&bytes)
        }
        ask::HOLD => {
            connection.write_all(b"k")?;
            io::copy(connection, &mut io::sink()).map(|_| ())
        }
        ask::RESET => Ok(sockopt::set_socket_linger(
            &*connection,
            Some(Duration::ZERO),
        )?),
        ask::COUNT => {
            let before = accepted.fetch_sub(1, Ordering::Relaxed) - 1;
            connection.write_all(&before.to_ne_bytes())
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// How many connections a server has accepted.
fn accepted(client: &Pod, server: SocketAddr) -> u64 {
    let ask = move || {
        let mut connection = TcpStream::connect(server).expect("a server");
        connection.write_all(&[ask::COUNT]).expect("a question");
        let mut number = [0; 8];
        connection.read_exact(&mut number).expect("an answer");
        u64::from_ne_bytes(number)
    };
    client.run(ask).expect("a number")
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

/// What the clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    /// Connections whose end is certain.
    Plain,
    /// Sockets that are disconnected and connected again.
    Again,
    /// Given up before it is known whether they succeed.
    Hasty,
    /// Nobody listens at the endpoint.
    Refused,
    /// Nobody has the address of the endpoint.
    Lost,
    /// By clients that are killed.
    Victims,
}

impl To {
    const ALL: [Self; 6] = [
        Self::Plain,
        Self::Again,
        Self::Hasty,
        Self::Refused,
        Self::Lost,
        Self::Victims,
    ];

    fn frontend(self) -> Frontend {
        frontend(&format!("10.96.7.{}:14001", self as u8 + 1))
    }

    fn vip(self) -> SocketAddr {
        self.frontend().address
    }
}

/// What clients have seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    closed: u64,
    reset_by_client: u64,
    reset_by_endpoint: u64,
    bytes_sent: u64,
    bytes_received: u64,
    reset_again: u64,
    closed_again: u64,
    hasty: u64,
    refused: u64,
    lost: u64,
}

impl Seen {
    fn connections(&self) -> u64 {
        let plain = self.closed + self.reset_by_client + self.reset_by_endpoint;
        plain + self.reset_again + self.closed_again + self.hasty + self.refused + self.lost
    }

    fn add(&mut self, other: &Self) {
        let Self {
            closed,
            reset_by_client,
            reset_by_endpoint,
            bytes_sent,
            bytes_received,
            reset_again,
            closed_again,
            hasty,
            refused,
            lost,
        } = other;
        for (sum, number) in [
            (&mut self.closed, closed),
            (&mut self.reset_by_client, reset_by_client),
            (&mut self.reset_by_endpoint, reset_by_endpoint),
            (&mut self.bytes_sent, bytes_sent),
            (&mut self.bytes_received, bytes_received),
            (&mut self.reset_again, reset_again),
            (&mut self.closed_again, closed_again),
            (&mut self.hasty, hasty),
            (&mut self.refused, refused),
            (&mut self.lost, lost),
        ] {
            *sum += number;
        }
    }
}

/// A connection that the server holds, after its byte was sent and, if so wanted, the answer read.
fn held(vip: SocketAddr, is_read: bool) -> io::Result<TcpStream> {
    let mut connection = TcpStream::connect(vip)?;
    hold(&mut connection, is_read)?;
    Ok(connection)
}

fn hold(connection: &mut TcpStream, is_read: bool) -> io::Result<()> {
    connection.write_all(&[ask::HOLD])?;
    if is_read {
        connection.read_exact(&mut [0])
    } else {
        connection.peek(&mut [0]).map(|_| ())
    }
}

/// Connects so often, in random ways, and counts what comes of it.
fn misbehave(seed: u64, connections: u64) -> io::Result<Seen> {
    let mut random = Random(seed);
    let mut seen = Seen::default();
    let mut kept: Vec<TcpStream> = Vec::new();
    while seen.connections() + (kept.len() as u64) < connections {
        match random.below(10) {
            0 => {
                let mut connection = TcpStream::connect(To::Plain.vip())?;
                connection.write_all(&[ask::CLOSE])?;
                let mut bytes = Vec::new();
                seen.bytes_received += connection.read_to_end(&mut bytes)? as u64;
                seen.bytes_sent += 1;
                seen.closed += 1;
            }
            1 => {
                let mut connection = TcpStream::connect(To::Plain.vip())?;
                let length = random.below(20_000);
                connection.write_all(&[ask::ECHO])?;
                connection.write_all(&vec![7; length as usize])?;
                connection.shutdown(Shutdown::Write)?;
                let mut bytes = Vec::new();
                let received = connection.read_to_end(&mut bytes)? as u64;
                assert_eq!(received, length);
                seen.bytes_sent += 1 + length;
                seen.bytes_received += length;
                seen.closed += 1;
            }
            2 => {
                let connection = held(To::Plain.vip(), true)?;
                sockopt::set_socket_linger(&connection, Some(Duration::ZERO))?;
                seen.bytes_sent += 1;
                seen.bytes_received += 1;
                seen.reset_by_client += 1;
            }
            3 => {
                // With something unread.
                held(To::Plain.vip(), false)?;
                seen.bytes_sent += 1;
                seen.bytes_received += 1;
                seen.reset_by_client += 1;
            }
            4 => {
                let mut connection = TcpStream::connect(To::Plain.vip())?;
                connection.write_all(&[ask::RESET])?;
                let error = connection.read(&mut [0]).expect_err("a reset");
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                seen.bytes_sent += 1;
                seen.reset_by_endpoint += 1;
            }
            5 => {
                let refused =
                    rustix::net::connect(socket(SocketFlags::empty())?, &To::Refused.vip());
                assert_eq!(refused, Err(Errno::CONNREFUSED));
                seen.refused += 1;
            }
            kind @ 6..=7 => {
                let to = if kind == 6 { To::Hasty } else { To::Lost };
                let result = rustix::net::connect(socket(SocketFlags::NONBLOCK)?, &to.vip());
                assert_eq!(result, Err(Errno::INPROGRESS));
                *(if kind == 6 {
                    &mut seen.hasty
                } else {
                    &mut seen.lost
                }) += 1;
            }
            8 => {
                let mut connection = held(To::Again.vip(), true)?;
                rustix::net::connect_unspec(&connection)?;
                seen.reset_again += 1;
                rustix::net::connect(&connection, &To::Again.vip())?;
                hold(&mut connection, true)?;
                seen.closed_again += 1;
            }
            _ => {
                kept.push(held(To::Plain.vip(), true)?);
                if kept.len() > 40 {
                    kept.swap_remove(random.below(40) as usize);
                    seen.close_kept(1);
                }
            }
        }
    }
    seen.close_kept(kept.len() as u64);
    Ok(seen)
}

impl Seen {
    fn close_kept(&mut self, number: u64) {
        self.closed += number;
        self.bytes_sent += number;
        self.bytes_received += number;
    }
}

/// Connects until it is killed. Writes a byte before and after each connection is made.
fn be_killed(seed: u64, mut log: &File) -> io::Result<()> {
    let mut random = Random(seed);
    let mut kept = Vec::new();
    loop {
        log.write_all(b"<")?;
        let mut connection = TcpStream::connect(To::Victims.vip())?;
        log.write_all(b">")?;
        match random.below(4) {
            0 => drop(connection),
            1 => sockopt::set_socket_linger(&connection, Some(Duration::ZERO))?,
            2 => hold(&mut connection, false)?,
            _ => {
                hold(&mut connection, true)?;
                kept.push(connection);
                if kept.len() > 40 {
                    kept.swap_remove(random.below(40) as usize);
                }
            }
        }
    }
}

/// Starts processes and kills them, until there is no need any more; how many.
fn kill_again_and_again(
    is_over: &AtomicBool,
    seed: u64,
    lifetime: u64,
    start: impl Fn(u64) -> Process,
) -> u64 {
    let mut random = Random(seed);
    let mut kills = 0;
    while !is_over.load(Ordering::Relaxed) || kills < 3 {
        let mut process = start(kills);
        thread::sleep(Duration::from_millis(lifetime / 4 + random.below(lifetime)));
        assert!(process.is_running(), "one ended before it was killed");
        process.kill();
        kills += 1;
    }
    kills
}

#[test]
fn after_a_storm_sums_are_what_clients_and_servers_counted() {
    storms(storm);
}

fn storm() -> Result<(), String> {
    const PODS: usize = 4;
    const CLIENTS: u64 = 8;
    let begun = Instant::now();
    let mut scene = Scene::new("sums");
    let shop = scene.lab.pod("shop").unwrap();
    // Several, since each has its own ports that wait after a close.
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| scene.lab.pod(&format!("client-{number}")).unwrap())
        .collect();
    let servers: BTreeMap<To, (Process, SocketAddr)> =
        [To::Plain, To::Again, To::Hasty, To::Victims]
            .into_iter()
            .zip(80..)
            .map(|(to, port)| (to, serve(&shop, port)))
            .collect();
    let [a, b, c, _] = shop.ipv4().octets();
    let endpoint = |to: To| match to {
        To::Refused => SocketAddr::from((shop.ipv4(), 9)),
        To::Lost => SocketAddr::from(([a, b, c, 250], 80)),
        _ => servers[&to].1,
    };
    let splits = To::ALL.map(|to| {
        let leaf = leaf(&format!("{to:?}").to_lowercase(), 1, &[endpoint(to)]);
        (to.frontend(), split(vec![leaf]))
    });
    scene.publish(&splits);

    let logs = tempfile::tempdir().unwrap();
    let is_over = AtomicBool::new(false);
    let (seen, victims, agents) = thread::scope(|scope| {
        let (is_over, pods, logs) = (&is_over, &pods, logs.path());
        let (pins, cgroup) = (&scene.pins, scene.lab.cgroup());
        let victims: Vec<_> = (0..2)
            .map(|number: u64| {
                let start = move |kills| {
                    let path = logs.join(format!("{number}"));
                    let log = File::options().append(true).create(true).open(path);
                    let log = log.unwrap();
                    let seed = 0x5eed + 1000 * number + kills;
                    let die = move || be_killed(seed, &log).expect("a connection");
                    pods[number as usize].start(die).unwrap()
                };
                scope.spawn(move || kill_again_and_again(is_over, 0xdead + number, 200, start))
            })
            .collect();
        let agents = scope.spawn(|| {
            let start = |_| {
                let replace = || {
                    loop {
                        let mut programs = load(pins, small()).expect("programs that load");
                        programs.attach(cgroup).expect("programs that attach");
                    }
                };
                shop.start(replace).unwrap()
            };
            kill_again_and_again(is_over, 0xa9e17, 400, start)
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let storm = move || {
                    let connect = || {
                        misbehave(0xfeed_beef + number, connections() / CLIENTS)
                            .map_err(|error| error.to_string())
                    };
                    let pod = &pods[number as usize % PODS];
                    pod.run_within(Duration::from_secs(3600), connect)
                };
                scope.spawn(storm)
            })
            .collect();
        let clients = clients.into_iter();
        let results: Vec<_> = clients.map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for result in results {
            seen.add(&result.unwrap().unwrap().expect("a connection"));
        }
        let victims: u64 = victims.into_iter().map(|it| it.join().unwrap()).sum();
        (seen, victims, agents.join().unwrap())
    });
    assert!(seen.connections() >= connections() / CLIENTS * CLIENTS);
    // An agent that stays, since those that were killed may have left programs of theirs.
    let mut programs = load(&scene.pins, small()).unwrap();
    programs.attach(scene.lab.cgroup()).unwrap();
    wait_for_all_free(&scene.pins)?;

    let leaves: BTreeMap<To, LeafCounts> = To::ALL
        .into_iter()
        .map(|to| (to, scene.view(to.frontend()).leaves[0]))
        .collect();
    let count = |to: To, outcome| leaves[&to].outcomes.count(outcome);
    let mut total = 0;
    for (to, leaf) in &leaves {
        total += leaf.lifetime;
        assert_eq!(leaf.outcomes.ended(), leaf.lifetime, "{to:?}");
        assert_eq!(leaf.open, 0, "{to:?}");
        if let Some((_, server)) = servers.get(to) {
            let established = count(*to, Outcome::Established);
            assert_eq!(established, accepted(&pods[0], *server), "{to:?}");
        }
    }
    let plain = &leaves[&To::Plain];
    let ends = |closed, reset_by_client, reset_by_endpoint| {
        [
            (Outcome::Closed, closed),
            (Outcome::ResetByClient, reset_by_client),
            (Outcome::ResetByEndpoint, reset_by_endpoint),
            (Outcome::Lost, 0),
        ]
    };
    let plain_ends = ends(seen.closed, seen.reset_by_client, seen.reset_by_endpoint);
    let again_ends = ends(seen.closed_again, seen.reset_again, 0);
    for (to, expected) in [(To::Plain, plain_ends), (To::Again, again_ends)] {
        let counted = expected.map(|(outcome, _)| (outcome, count(to, outcome)));
        assert_eq!(counted, expected, "{to:?}");
    }
    assert_eq!(
        (plain.outcomes.bytes_sent(), plain.outcomes.bytes_received()),
        (seen.bytes_sent, seen.bytes_received)
    );
    assert_eq!(leaves[&To::Hasty].lifetime, seen.hasty);
    assert_eq!(count(To::Refused, Outcome::Refused), seen.refused);
    assert_eq!(leaves[&To::Refused].lifetime, seen.refused);
    assert_eq!(leaves[&To::Lost].lifetime, seen.lost);
    assert_eq!(count(To::Lost, Outcome::Established), 0);
    // Of each that was killed one connection may have been begun and not made, or made and not noted.
    let logs = fs::read_dir(logs.path()).unwrap();
    let noted: Vec<u8> = logs
        .flat_map(|log| fs::read(log.unwrap().path()).unwrap())
        .collect();
    let noted = |mark| noted.iter().filter(|noted| **noted == mark).count() as u64;
    let lifetime = leaves[&To::Victims].lifetime;
    assert!(
        (noted(b'>')..=noted(b'<')).contains(&lifetime),
        "{lifetime}"
    );
    assert!(noted(b'<') - noted(b'>') <= victims);
    assert!(count(To::Victims, Outcome::Established) >= noted(b'>'));
    assert_eq!(sockets(&scene.pins).taken(), 0);
    for lost in ["original_dst_lost", "inconsistent"] {
        assert_eq!(scene.verdict_count(lost), 0, "{lost}");
    }
    println!(
        "{total} connections in {:?}, {victims} clients and {agents} agents killed\n{seen:?}\nhasty: {} \
         closed, {} abandoned; killed clients' {lifetime}: {} closed, {} reset",
        begun.elapsed(),
        count(To::Hasty, Outcome::Closed),
        count(To::Hasty, Outcome::Abandoned),
        count(To::Victims, Outcome::Closed),
        count(To::Victims, Outcome::ResetByClient),
    );
    Ok(())
}
