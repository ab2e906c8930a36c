//! What comes of connections, counted in the kernel: each once, and by what the two sides saw.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use splitter_agent::datapath::{OutcomeCounts, Outcomes, Reader};
use splitter_agent::plan::Frontend;
use splitter_common::outcomes::Outcome;
use testbed::lab::{Pod, Process};

use crate::common::{Scene, frontend, hold, leaf, load, root, serve, small, split};

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of the connections to the first leaf of a frontend.
fn outcomes(scene: &Scene, frontend: Frontend) -> OutcomeCounts {
    scene.view(frontend).leaves[0].outcomes
}

/// What a test is about of [`OutcomeCounts`]: every count that is not 0.
fn counts(outcomes: &OutcomeCounts) -> Vec<(Outcome, u64)> {
    let all = Outcome::ALL.into_iter();
    let counts = all.map(|outcome| (outcome, outcomes.count(outcome)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Waits until exactly this has come of the connections to a frontend's first leaf.
fn wait_for(scene: &Scene, frontend: Frontend, expected: &[(Outcome, u64)]) -> OutcomeCounts {
    let end = Instant::now() + PATIENCE;
    loop {
        let outcomes = outcomes(scene, frontend);
        if counts(&outcomes) == expected {
            return outcomes;
        }
        assert!(
            Instant::now() < end,
            "{:?}, not {expected:?}",
            counts(&outcomes)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn socket(flags: SocketFlags) -> OwnedFd {
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .expect("a socket")
}

/// A server that does something with each connection.
pub(crate) fn serve_with(pod: &Pod, port: u16, each: impl Fn(TcpStream)) -> (Process, SocketAddr) {
    let address = SocketAddr::from((pod.ipv4(), port));
    let (process, ()) = pod
        .start_ready(move |ready: testbed::lab::Ready<()>| {
            let listener = TcpListener::bind(address).expect("a listener");
            ready.signal(&());
            loop {
                each(listener.accept().expect("a connection").0);
            }
        })
        .expect("a server");
    (process, address)
}

/// Reads until the client has sent everything, and answers with as many bytes and one more.
fn echo(mut connection: TcpStream) {
    let mut bytes = Vec::new();
    let _ = connection.read_to_end(&mut bytes);
    bytes.push(0);
    let _ = connection.write_all(&bytes);
}

fn exchange(target: SocketAddr, length: usize) -> io::Result<()> {
    let mut connection = TcpStream::connect(target)?;
    connection.write_all(&vec![1; length])?;
    connection.shutdown(std::net::Shutdown::Write)?;
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes)?;
    assert_eq!(bytes.len(), length + 1);
    Ok(())
}

/// Runs something in a pod that must succeed.
fn run(pod: &Pod, body: impl FnOnce() -> io::Result<()>) {
    pod.run(|| body().map_err(|error| error.to_string()))
        .expect("a process in the pod")
        .expect("what should succeed");
}

#[test]
fn bytes_and_ends_of_connections_are_what_both_sides_saw() {
    let mut scene = Scene::with_outcomes("bytes", Outcomes::Handshakes);
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve_with(&shop, 80, echo);
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let lengths = [0, 1, 1000, 300_000];
    let vip = root().address;

    run(&client, || {
        lengths.iter().try_for_each(|length| exchange(vip, *length))
    });

    let ends = [(Outcome::Established, 4), (Outcome::Closed, 4)];
    let outcomes = wait_for(&scene, root(), &ends);
    let sent: usize = lengths.iter().sum();
    assert_eq!(outcomes.bytes_sent(), sent as u64);
    assert_eq!(outcomes.bytes_received(), (sent + lengths.len()) as u64);
    assert_eq!(outcomes.failed(), 0);
    for (histogram, longest) in [
        (outcomes.handshakes(), 10_000_000),
        (outcomes.round_trips(), 10_000_000),
        (outcomes.lifetimes(), 10_000),
    ] {
        assert_eq!(histogram.count(), 4);
        assert!(histogram.sum < longest, "{histogram:?}");
    }
    assert!(outcomes.handshakes().sum > 0);
}

#[test]
fn an_open_connection_is_open_until_it_is_closed() {
    let mut scene = Scene::new("open");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve_with(&shop, 80, echo);
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let vip = root().address;
    let connect = || TcpStream::connect(vip).expect("a connection");
    let connected = hold(&client, || [(); 3].map(|()| connect()));

    let mut reader = Reader::new(scene.pins.clone());
    let mut open = || {
        let reading = reader.read().unwrap();
        let split = reading.splits().next().expect("a split");
        reading.open(&split.leaves[0]).expect("a table")
    };
    assert_eq!(open(), 3);
    assert_eq!(scene.view(root()).leaves[0].open, 3);
    // An agent that takes over counts on.
    let mut programs = load(&scene.pins, small()).unwrap();
    programs.attach(scene.lab.cgroup()).unwrap();
    assert_eq!(open(), 3);
    drop(connected);

    wait_for(
        &scene,
        root(),
        &[(Outcome::Established, 3), (Outcome::Closed, 3)],
    );
    assert_eq!(open(), 0);
    assert_eq!(scene.view(root()).leaves[0].open, 0);
}

#[test]
fn attempts_that_fail_are_told_apart() {
    let mut scene = Scene::new("failed");
    let (client, shop) = scene.pods();
    let [a, b, c, _] = shop.ipv4().octets();
    let nobody = SocketAddr::from((shop.ipv4(), 9));
    // No neighbour has the address, so that the client's own host says so after a few seconds.
    let absent = SocketAddr::from(([a, b, c, 250], 80));
    // A documentation network (RFC 5737), which the pods have no route to.
    let no_route = SocketAddr::from(([198, 51, 100, 1], 80));
    // Its queue is full, and what comes then is not answered.
    let (_busy, silent) = {
        let address = SocketAddr::from((shop.ipv4(), 81));
        let fill = || {
            let listener = socket(SocketFlags::empty());
            rustix::net::bind(&listener, &address).expect("an address");
            rustix::net::listen(&listener, 0).expect("a listener");
            let first = TcpStream::connect(address).expect("room for one");
            (listener, first)
        };
        (hold(&shop, fill), address)
    };
    let frontends: Vec<Frontend> = (1..=4)
        .map(|number| frontend(&format!("10.96.1.{number}:14001")))
        .collect();
    let targets = [nobody, absent, no_route, silent];
    let splits = frontends.iter().zip(targets).zip(["a", "b", "c", "d"]);
    let splits: Vec<_> = splits
        .map(|((frontend, target), name)| (*frontend, split(vec![leaf(name, 1, &[target])])))
        .collect();
    scene.publish(&splits);
    let dialled: Vec<SocketAddr> = frontends.iter().map(|it| it.address).collect();

    run(&client, || {
        let refused = rustix::net::connect(socket(SocketFlags::empty()), &dialled[0]);
        assert_eq!(refused, Err(Errno::CONNREFUSED));
        let unreachable = rustix::net::connect(socket(SocketFlags::empty()), &dialled[1]);
        assert_eq!(unreachable, Err(Errno::HOSTUNREACH));
        // Twice with the same socket.
        let twice = socket(SocketFlags::empty());
        for _ in 0..2 {
            let no_route = rustix::net::connect(&twice, &dialled[2]);
            assert_eq!(no_route, Err(Errno::HOSTUNREACH));
        }
        // The kernel gives up.
        let patient = socket(SocketFlags::empty());
        sockopt::set_tcp_user_timeout(&patient, 1500)?;
        let timed_out = rustix::net::connect(&patient, &dialled[3]);
        assert_eq!(timed_out, Err(Errno::TIMEDOUT));
        // The client gives up, late and soon.
        let give_up = |after| {
            let socket = socket(SocketFlags::NONBLOCK);
            let result = rustix::net::connect(&socket, &dialled[3]);
            assert_eq!(result, Err(Errno::INPROGRESS));
            std::thread::sleep(after);
        };
        give_up(Duration::from_millis(1100));
        give_up(Duration::ZERO);
        // Without closing the socket first.
        for is_shut_down in [false, true] {
            let socket = socket(SocketFlags::NONBLOCK);
            let result = rustix::net::connect(&socket, &dialled[3]);
            assert_eq!(result, Err(Errno::INPROGRESS));
            if is_shut_down {
                rustix::net::shutdown(&socket, rustix::net::Shutdown::Both)?;
            } else {
                rustix::net::connect_unspec(&socket)?;
            }
        }
        // A failure that nobody asked about.
        let unasked = socket(SocketFlags::NONBLOCK);
        let result = rustix::net::connect(&unasked, &dialled[0]);
        assert!(matches!(
            result,
            Err(Errno::INPROGRESS | Errno::CONNREFUSED)
        ));
        Ok(())
    });

    wait_for(&scene, frontends[0], &[(Outcome::Refused, 2)]);
    wait_for(&scene, frontends[1], &[(Outcome::Unreachable, 1)]);
    wait_for(&scene, frontends[2], &[(Outcome::Unreachable, 2)]);
    let silent = wait_for(
        &scene,
        frontends[3],
        &[(Outcome::TimedOut, 2), (Outcome::Abandoned, 3)],
    );
    assert_eq!(silent.failed(), 2);
    for frontend in &frontends {
        let leaf = scene.view(*frontend).leaves[0];
        assert_eq!(leaf.open, 0, "{frontend}");
        assert_eq!(leaf.outcomes.ended(), leaf.lifetime, "{frontend}");
    }
}

#[test]
fn a_refusal_that_is_not_fetched_is_counted_before_the_socket_is_closed() {
    let mut scene = Scene::new("unfetched");
    let (client, shop) = scene.pods();
    let nobody = SocketAddr::from((shop.ipv4(), 9));
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[nobody])]))]);
    let vip = root().address;
    let _connecting = hold(&client, || {
        let socket = socket(SocketFlags::NONBLOCK);
        let _ = rustix::net::connect(&socket, &vip);
        socket
    });

    wait_for(&scene, root(), &[(Outcome::Refused, 1)]);
}

#[test]
fn resets_are_told_apart_by_who_sent_them() {
    let mut scene = Scene::new("resets");
    let (client, shop) = scene.pods();
    // Resets each connection once something has come.
    let (_server, endpoint) = serve_with(&shop, 80, |mut connection| {
        let _ = connection.read(&mut [0]);
        let _ = sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
    });
    let (_other, patient) = serve_with(&shop, 81, echo);
    let other = frontend("10.96.0.11:14001");
    scene.publish(&[
        (root(), split(vec![leaf("v1", 1, &[endpoint])])),
        (other, split(vec![leaf("v2", 1, &[patient])])),
    ]);
    let (vip, other_vip) = (root().address, other.address);

    run(&client, || {
        let mut connection = TcpStream::connect(vip)?;
        connection.write_all(b"x")?;
        let error = connection.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        let connection = TcpStream::connect(other_vip)?;
        sockopt::set_socket_linger(&connection, Some(Duration::ZERO))?;
        drop(connection);
        // Disconnected, without a close: and connected again.
        let again = socket(SocketFlags::empty());
        rustix::net::connect(&again, &other_vip)?;
        rustix::net::connect_unspec(&again)?;
        rustix::net::connect(&again, &other_vip)?;
        rustix::net::shutdown(&again, rustix::net::Shutdown::Write)?;
        rustix::io::read(&again, &mut [0; 8])?;
        Ok(())
    });

    wait_for(
        &scene,
        root(),
        &[(Outcome::Established, 1), (Outcome::ResetByEndpoint, 1)],
    );
    wait_for(
        &scene,
        other,
        &[
            (Outcome::Established, 3),
            (Outcome::Closed, 1),
            (Outcome::ResetByClient, 2),
        ],
    );
}

#[test]
fn a_socket_that_is_disconnected_after_an_orderly_end_was_closed() {
    let mut scene = Scene::new("orderly");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let vip = root().address;
    run(&client, || {
        let again = socket(SocketFlags::empty());
        for _ in 0..3 {
            rustix::net::connect(&again, &vip)?;
            // The server closes first.
            while rustix::io::read(&again, &mut [0; 64])? > 0 {}
            rustix::net::shutdown(&again, rustix::net::Shutdown::Write)?;
            rustix::net::connect_unspec(&again)?;
        }
        Ok(())
    });
    let ends = [(Outcome::Established, 3), (Outcome::Closed, 3)];
    wait_for(&scene, root(), &ends);
}

#[test]
fn an_endpoint_that_no_longer_answers_a_keepalive_is_lost() {
    let mut scene = Scene::new("keepalive");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve_with(&shop, 80, std::mem::forget);
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let vip = root().address;
    let _connected = hold(&client, || {
        let connection = TcpStream::connect(vip).expect("a connection");
        sockopt::set_socket_keepalive(&connection, true).expect("keepalive");
        sockopt::set_tcp_keepidle(&connection, Duration::from_secs(1)).expect("an idle time");
        sockopt::set_tcp_keepintvl(&connection, Duration::from_secs(1)).expect("an interval");
        sockopt::set_tcp_keepcnt(&connection, 2).expect("a number");
        connection
    });
    answer_nothing(&shop, &client);

    let ends = [(Outcome::Established, 1), (Outcome::Lost, 1)];
    wait_for(&scene, root(), &ends);
}

/// Nothing that one pod sends to another arrives any more.
fn answer_nothing(from: &Pod, to: &Pod) {
    let to = to.ipv4().to_string();
    let blackhole = ["route", "add", "blackhole", &to];
    let status = from.command("ip").args(blackhole).status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn an_endpoint_that_vanishes_is_lost() {
    let mut scene = Scene::new("vanished");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve_with(&shop, 80, std::mem::forget);
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let vip = root().address;
    let (mut connected, ()) = client
        .start_ready(move |ready: testbed::lab::Ready<()>| {
            let mut connection = TcpStream::connect(vip).expect("a connection");
            sockopt::set_tcp_user_timeout(&connection, 1000).expect("a limit");
            ready.signal(&());
            while connection.write_all(b"are you there?").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        })
        .unwrap();
    answer_nothing(&shop, &client);

    let ends = [(Outcome::Established, 1), (Outcome::Lost, 1)];
    wait_for(&scene, root(), &ends);
    let end = Instant::now() + PATIENCE;
    while connected.is_running() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(counts(&outcomes(&scene, root())), ends);
}

#[test]
fn sockets_without_a_slot_are_counted_as_well() {
    let mut scene = Scene::new("slotless");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve_with(&shop, 80, echo);
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    super::sockets::fill(&scene.pins, true);
    let vip = root().address;
    run(&client, || {
        for _ in 0..5 {
            exchange(vip, 10)?;
        }
        // Without a close in between.
        let again = socket(SocketFlags::empty());
        for target in [vip, endpoint, vip] {
            rustix::net::connect(&again, &target)?;
            rustix::net::connect_unspec(&again)?;
        }
        Ok(())
    });
    let outcomes = wait_for(
        &scene,
        root(),
        &[
            (Outcome::Established, 7),
            (Outcome::Closed, 5),
            (Outcome::ResetByClient, 2),
        ],
    );
    assert_eq!(outcomes.bytes_sent(), 50);
}

#[test]
fn what_comes_of_the_connections_of_a_leaf_that_has_gone_is_not_counted_for_another() {
    let mut scene = Scene::new("reuse");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve_with(&shop, 80, echo);
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let old = scene.view(root()).leaves[0];
    let vip = root().address;
    let connected = hold(&client, || TcpStream::connect(vip).expect("a connection"));
    assert_eq!(old.open, 0);
    assert_eq!(scene.view(root()).leaves[0].open, 1);

    scene.publish(&[]);
    scene.publish(&[(root(), split(vec![leaf("v2", 1, &[endpoint])]))]);
    let new = scene.view(root()).leaves[0];
    assert_eq!(new.leaf_id, old.leaf_id, "the test is about one id");
    assert_ne!(new.incarnation, old.incarnation);
    assert_eq!(new.open, 0);
    drop(connected);
    run(&client, || exchange(vip, 1));

    let ends = [(Outcome::Established, 1), (Outcome::Closed, 1)];
    wait_for(&scene, root(), &ends);
}

#[test]
fn without_counting_everything_else_is_the_same() {
    let mut scene = Scene::with_outcomes("uncounted", Outcomes::Off);
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let links = fs::read_dir(scene.pins.path().join("links")).unwrap();
    let names = links.map(|link| link.unwrap().file_name().into_string().unwrap());
    let tracing: Vec<String> = names
        .filter(|name| name.contains("tcp") || name.contains("error"))
        .collect();
    // Those that free slots.
    assert_eq!(tracing.len(), 2, "{tracing:?}");
    let vip = root().address;
    run(&client, || {
        let connection = TcpStream::connect(vip)?;
        assert_eq!(connection.peer_addr()?, vip);
        Ok(())
    });
    let leaf = scene.view(root()).leaves[0];
    assert_eq!(
        (leaf.lifetime, leaf.outcomes),
        (1, OutcomeCounts::default())
    );
}
