//! UDP: where datagrams of connected and of unconnected sockets land, and whom the application sees.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use splitter_agent::plan::{Decision, Frontend};
use splitter_common::layout::{Protocol, Reason};
use testbed::lab::{Pod, Process};

use crate::common::{PORT, Scene, decided, expected, frontend, leaf, root, serve, split};

/// A frontend of UDP.
pub(crate) fn udp(address: &str) -> Frontend {
    Frontend {
        protocol: Protocol::Udp,
        ..frontend(address)
    }
}

/// The UDP port of the root Service.
pub(crate) fn vip() -> Frontend {
    udp("10.96.0.10:14001")
}

pub(crate) fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => SocketAddr::from((v4.to_ipv6_mapped(), address.port())),
        IpAddr::V6(_) => address,
    }
}

/// A server that answers each datagram with its name, and with what it was sent.
pub(crate) fn answering_at(pod: &Pod, address: SocketAddr, name: &str) -> Process {
    let (process, ()) = pod
        .start_ready(|ready| {
            let socket = UdpSocket::bind(address).expect("a free port");
            ready.signal(&());
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let mut answer = format!("{name} ").into_bytes();
                answer.extend_from_slice(&buffer[..length]);
                let _ = socket.send_to(&answer, client);
            }
        })
        .expect("a server");
    process
}

pub(crate) fn answering(pod: &Pod, port: u16, name: &str) -> (Process, SocketAddr) {
    let address = SocketAddr::from((pod.ipv4(), port));
    (answering_at(pod, address, name), address)
}

/// So many servers, each of which answers with its number, and where they are.
pub(crate) fn answering_all(pod: &Pod, count: u16) -> (Vec<Process>, Vec<SocketAddr>) {
    (0..count)
        .map(|number| answering(pod, 80 + number, &number.to_string()))
        .unzip()
}

/// A socket of the family of what it is to send to, which does not wait for ever.
pub(crate) fn socket(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(socket)
}

/// What an answer says, and where it is from.
pub(crate) fn answer(socket: &UdpSocket) -> io::Result<(String, SocketAddr)> {
    let mut buffer = [0; 512];
    let (length, source) = socket.recv_from(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    Ok((text, source))
}

/// Who answers a datagram; that the answer is to it, and is shown as coming from where it was sent.
pub(crate) fn ask(socket: &UdpSocket, target: SocketAddr) -> io::Result<String> {
    socket.send_to(b"hello", target)?;
    let (text, source) = answer(socket)?;
    if source != target {
        return Err(io::Error::other(format!("{text} from {source}")));
    }
    match text.split_once(' ') {
        Some((name, "hello")) => Ok(name.to_owned()),
        _ => Err(io::Error::other(text)),
    }
}

pub(crate) fn text<T>(result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// In the pod, with an unconnected socket, so many times.
fn ask_often(client: &Pod, target: SocketAddr, count: usize) -> Result<Vec<String>, String> {
    client
        .run(|| {
            text(
                socket(target)
                    .and_then(|socket| (0..count).map(|_| ask(&socket, target)).collect()),
            )
        })
        .unwrap()
}

/// The three ways to dial a root that has both families, with servers behind each.
struct Families {
    scene: Scene,
    client: Pod,
    targets: [SocketAddr; 3],
    _shop: (Pod, [Process; 2]),
}

fn families(name: &str) -> Families {
    let mut scene = Scene::new(name);
    let (client, shop) = scene.pods();
    let (first, v4) = answering(&shop, 80, "v4");
    let v6 = SocketAddr::from((shop.ipv6(), 80));
    let second = answering_at(&shop, v6, "v6");
    let other = udp("[fd96::10]:14001");
    scene.publish(&[
        (vip(), split(vec![leaf("v1", 1, &[v4])])),
        (other, split(vec![leaf("v1", 1, &[v6])])),
    ]);
    Families {
        targets: [vip().address, other.address, mapped(vip().address)],
        scene,
        client,
        _shop: (shop, [first, second]),
    }
}

#[test]
fn an_unconnected_socket_of_either_family_sends_to_a_leaf_and_is_answered_by_the_vip() {
    let Families {
        scene,
        client,
        targets,
        ..
    } = &families("udp-sendto");
    for (target, name) in targets.iter().zip(["v4", "v6", "v4"]) {
        let found = ask_often(client, *target, 1);
        assert_eq!(found, Ok(vec![name.to_owned()]), "{target}");
    }
    assert_eq!(scene.verdict_count("split"), 3);
    assert_eq!(scene.verdict_count("original_dst_lost"), 0);
}

#[test]
fn a_connected_socket_of_either_family_reaches_a_leaf_and_sees_the_vip_as_its_peer() {
    let Families {
        scene,
        client,
        targets,
        ..
    } = &families("udp-connect");
    for (target, name) in targets.iter().zip(["v4", "v6", "v4"]) {
        let found = client.run(|| {
            let exchange = || {
                let socket = socket(*target)?;
                socket.connect(target)?;
                let peer = socket.peer_addr()?;
                socket.send(b"hello")?;
                let (text, source) = answer(&socket)?;
                Ok((text, source, peer))
            };
            text(exchange())
        });
        let expected = (format!("{name} hello"), *target, *target);
        assert_eq!(found.unwrap(), Ok(expected), "{target}");
    }
    assert_eq!(scene.verdict_count("split"), 3);
}

#[test]
fn a_connected_socket_shows_each_peer_in_turn_and_sends_elsewhere_too() {
    let mut scene = Scene::new("udp-reconnect");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    let (_two, two) = answering(&shop, 82, "two");
    let other = udp("10.96.0.11:14001");
    scene.publish(&[
        (vip(), split(vec![leaf("one", 1, &[one])])),
        (other, split(vec![leaf("two", 1, &[two])])),
    ]);
    let targets = [vip().address, other.address, one, vip().address];

    let found = client.run(|| {
        let exchange = || {
            let socket = socket(vip().address)?;
            let mut seen = Vec::new();
            for target in targets {
                socket.connect(target)?;
                socket.send(b"hello")?;
                let (text, source) = answer(&socket)?;
                seen.push((text, source, socket.peer_addr()?));
            }
            // A connected socket hears nobody but its peer, though it may send to others.
            socket.send_to(b"hello", vip().address)?;
            let (text, source) = answer(&socket)?;
            seen.push((text, source, socket.peer_addr()?));
            Ok(seen)
        };
        text(exchange())
    });

    let names = ["one", "two", "one", "one"];
    let mut expected: Vec<_> = names
        .iter()
        .zip(targets)
        .map(|(name, target)| (format!("{name} hello"), target, target))
        .collect();
    expected.push(("one hello".to_owned(), vip().address, vip().address));
    assert_eq!(found.unwrap(), Ok(expected));
}

#[test]
fn a_socket_keeps_its_endpoint_and_counts_once() {
    let mut scene = Scene::new("udp-sticky");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    let (_two, two) = answering(&shop, 82, "two");
    scene.publish(&[(
        vip(),
        split(vec![leaf("v1", 1, &[one]), leaf("v2", 1, &[two])]),
    )]);

    let names = ask_often(&client, vip().address, 50).unwrap();

    assert_eq!(names.len(), 50);
    assert_eq!(BTreeSet::from_iter(&names).len(), 1, "{names:?}");
    assert_eq!(scene.view(vip()).connections, 1);
    assert_eq!(scene.verdict_count("split"), 1);
}

#[test]
fn of_any_number_of_flows_every_leaf_and_endpoint_has_its_share() {
    const FLOWS: u64 = 400;
    let mut scene = Scene::new("udp-shares");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = answering_all(&shop, 4);
    let leaves = vec![
        leaf("v1", 90, &endpoints[..3]),
        leaf("v2", 10, &endpoints[3..]),
    ];
    scene.publish(&[(vip(), split(leaves))]);

    // Every other socket is connected, and each sends twice: neither matters.
    let names = client.run(|| {
        let one = |number: u64| {
            let socket = socket(vip().address)?;
            if number.is_multiple_of(2) {
                socket.connect(vip().address)?;
                socket.send(b"hello")?;
                let (first, _) = answer(&socket)?;
                socket.send(b"hello")?;
                return Ok((answer(&socket)?.0 == first).then_some(first));
            }
            let first = ask(&socket, vip().address)?;
            Ok((ask(&socket, vip().address)? == first).then_some(first))
        };
        text(
            (0..FLOWS)
                .map(one)
                .collect::<io::Result<Vec<Option<String>>>>(),
        )
    });
    let mut counts = BTreeMap::new();
    for name in names.unwrap().unwrap() {
        let name = name.expect("one endpoint for both");
        let name = name.strip_suffix(" hello").unwrap_or(&name).to_owned();
        *counts.entry(name).or_insert(0_u64) += 1;
    }

    let view = scene.view(vip());
    assert_eq!(view.connections, FLOWS);
    let expected = expected(&view, FLOWS);
    assert_eq!(expected, [360, 40]);
    let of = |name: &str| counts.get(name).copied().unwrap_or_default();
    assert_eq!([of("0"), of("1"), of("2"), of("3")], [120, 120, 120, 40]);
}

#[test]
fn one_socket_talks_to_several_roots_and_tells_their_answers_apart() {
    const ROOTS: u8 = 5;
    let mut scene = Scene::new("udp-several");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = answering_all(&shop, ROOTS.into());
    let roots: Vec<Frontend> = (0..ROOTS)
        .map(|number| udp(&format!("10.96.0.{}:14001", 20 + number)))
        .collect();
    let splits: Vec<_> = roots
        .iter()
        .zip(&endpoints)
        .map(|(root, address)| (*root, split(vec![leaf("v1", 1, &[*address])])))
        .collect();
    scene.publish(&splits);

    // As QUIC does: everything is sent from one socket, and answers come when they come.
    let seen = client.run(|| {
        let exchange = || {
            let socket = socket(roots[0].address)?;
            let mut seen = Vec::new();
            // No more at once than a socket has room for.
            for rounds in [0..30_u32, 30..60, 60..100] {
                for round in rounds.clone() {
                    for root in &roots {
                        socket.send_to(round.to_string().as_bytes(), root.address)?;
                    }
                }
                for _ in 0..rounds.len() * roots.len() {
                    seen.push(answer(&socket)?);
                }
            }
            Ok(seen)
        };
        text(exchange())
    });

    let seen = seen.unwrap().unwrap();
    for (text, source) in &seen {
        let number: usize = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(*source, roots[number].address, "{text}");
    }
    let distinct: BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), 100 * roots.len());
    for root in &roots {
        assert_eq!(scene.view(*root).connections, 1);
    }
}

#[test]
fn one_answer_after_another_is_shown_as_the_vip_however_many_come() {
    let mut scene = Scene::new("udp-answers");
    let (client, shop) = scene.pods();
    let address = SocketAddr::from((shop.ipv4(), 80));
    // A server of a stream: a hundred answers to one question.
    let (_server, ()) = shop
        .start_ready(|ready| {
            let socket = UdpSocket::bind(address).expect("a free port");
            ready.signal(&());
            while let Ok((_, client)) = socket.recv_from(&mut [0; 512]) {
                for number in 0..100_u32 {
                    let _ = socket.send_to(number.to_string().as_bytes(), client);
                }
            }
        })
        .unwrap();
    scene.publish(&[(vip(), split(vec![leaf("v1", 1, &[address])]))]);

    let sources = client.run(|| {
        let exchange = || {
            let socket = socket(vip().address)?;
            socket.send_to(b"all", vip().address)?;
            (0..100)
                .map(|_| Ok(answer(&socket)?.1))
                .collect::<io::Result<BTreeSet<SocketAddr>>>()
        };
        text(exchange())
    });

    assert_eq!(sources.unwrap(), Ok(BTreeSet::from([vip().address])));
}

/// A client in the pod whose one socket asks whenever it is told to, and says who answered.
pub(crate) struct Asking {
    _process: Process,
    ask: io::PipeWriter,
    answers: io::BufReader<io::PipeReader>,
}

impl Asking {
    fn new(client: &Pod, target: SocketAddr) -> Self {
        Self::with(client, || socket(target), |socket, _| ask(socket, target))
    }

    /// What it does with its socket is told by a number.
    pub(crate) fn with(
        client: &Pod,
        begin: impl FnOnce() -> io::Result<UdpSocket>,
        act: impl Fn(&UdpSocket, u8) -> io::Result<String>,
    ) -> Self {
        use io::{Read as _, Write as _};
        let (mut questions, ask_end) = io::pipe().unwrap();
        let (answers, mut answer_end) = io::pipe().unwrap();
        let (process, ()) = client
            .start_ready(move |ready| {
                let socket = begin().expect("a socket");
                ready.signal(&());
                let mut what = [0];
                while questions.read_exact(&mut what).is_ok() {
                    let said = act(&socket, what[0]).unwrap_or_else(|error| error.to_string());
                    writeln!(answer_end, "{said}").expect("a reader");
                }
            })
            .unwrap();
        Self {
            _process: process,
            ask: ask_end,
            answers: io::BufReader::new(answers),
        }
    }

    fn ask(&mut self) -> String {
        self.ask_to(0)
    }

    pub(crate) fn ask_to(&mut self, what: u8) -> String {
        use io::{BufRead as _, Write as _};
        self.ask.write_all(&[what]).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }
}

#[test]
fn a_flow_stays_while_its_endpoint_is_there_and_moves_once_it_has_left() {
    let mut scene = Scene::new("udp-leaves");
    let (client, shop) = scene.pods();
    let (_servers, all) = answering_all(&shop, 3);
    let publish = |scene: &mut Scene, v1: &[SocketAddr], v2: &[SocketAddr], shares: [u32; 2]| {
        let leaves = vec![leaf("v1", shares[0], v1), leaf("v2", shares[1], v2)];
        scene.publish(&[(vip(), split(leaves))]);
    };
    publish(&mut scene, &all[..1], &[], [1, 0]);
    let mut client = Asking::new(&client, vip().address);
    assert_eq!(client.ask(), "0");

    // However its place among the others changes: in a leaf of hundreds, and among other leaves.
    let many: Vec<SocketAddr> = (0..500_u16)
        .map(|number| SocketAddr::from(([10, 250, (number / 250) as u8, (number % 250) as u8], 80)))
        .chain((0..500_u16).map(|number| {
            SocketAddr::from(([250, 0, (number / 250) as u8, (number % 250) as u8], 80))
        }))
        .chain([all[0]])
        .collect();
    for v1 in [&[all[1], all[0]][..], &many, &[all[0], all[2]], &all] {
        publish(&mut scene, v1, &all[1..], [1, 1000]);
        assert_eq!(client.ask(), "0", "among {}", v1.len());
        assert_eq!(client.ask(), "0", "again, among {}", v1.len());
    }
    // Not a single flow was counted anew.
    assert_eq!(scene.view(vip()).connections, 0);

    publish(&mut scene, &all[1..], &[], [1, 0]);
    let moved = client.ask();
    assert!(["1", "2"].contains(&&*moved), "{moved}");
    assert_eq!(client.ask(), moved);
    assert_eq!(scene.view(vip()).connections, 1);

    // It does not go back, since it has an endpoint.
    publish(&mut scene, &all, &[], [1, 0]);
    assert_eq!(client.ask(), moved);
}

#[test]
fn weights_leave_flows_alone_but_weight_0_moves_them() {
    let mut scene = Scene::new("udp-weights");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    let (_two, two) = answering(&shop, 82, "two");
    let shares = |one_share, two_share| {
        split(vec![
            leaf("v1", one_share, &[one]),
            leaf("v2", two_share, &[two]),
        ])
    };
    scene.publish(&[(vip(), shares(1, 0))]);
    let mut client = Asking::new(&client, vip().address);
    assert_eq!(client.ask(), "one");

    scene.publish(&[(vip(), shares(1, 99))]);
    assert_eq!(client.ask(), "one");
    scene.publish(&[(vip(), shares(0, 1))]);
    assert_eq!(client.ask(), "two");
    scene.publish(&[(vip(), shares(99, 1))]);
    assert_eq!(client.ask(), "two");
}

/// What a refused datagram fails with on this kernel.
fn refusal() -> io::ErrorKind {
    let helper = BpfHelper::BPF_FUNC_set_retval;
    match is_helper_supported(ProgramType::CgroupSockAddr, helper) {
        Ok(true) => io::ErrorKind::ConnectionRefused,
        _ => io::ErrorKind::PermissionDenied,
    }
}

#[test]
fn a_refused_datagram_or_connect_fails_at_once() {
    refuses(Scene::new("udp-refuse"), refusal());
}

/// As on kernels before 6.1, where a program cannot choose the error: nothing that is sent elsewhere would tell
/// the sender.
#[test]
fn a_refused_datagram_or_connect_fails_where_the_error_cannot_be_chosen() {
    refuses(
        Scene::refusing_by_rewrite("udp-refuse-old"),
        io::ErrorKind::PermissionDenied,
    );
}

fn refuses(mut scene: Scene, expected: io::ErrorKind) {
    let client = scene.lab.pod("client").unwrap();
    let decision = Decision::Refuse(Reason::AllWeightsZero);
    let v6 = udp("[fd96::10]:14001");
    scene.publish(&[
        (vip(), decided(decision, vec![leaf("v1", 0, &[])])),
        (v6, decided(decision, vec![leaf("v1", 0, &[])])),
    ]);
    let expected = format!("{expected:?}");
    for target in [vip().address, v6.address, mapped(vip().address)] {
        let found = client.run(|| {
            let exchange = || -> io::Result<(String, String)> {
                let kind = |result: io::Result<()>| match result {
                    Ok(()) => "nothing".to_owned(),
                    Err(error) => format!("{:?}", error.kind()),
                };
                let socket = socket(target)?;
                let sent = kind(socket.send_to(b"hello", target).map(drop));
                Ok((sent, kind(socket.connect(target))))
            };
            text(exchange())
        });
        let expected = (expected.clone(), expected.clone());
        assert_eq!(found.unwrap(), Ok(expected), "{target}");
    }
    assert_eq!(scene.verdict_count("refused"), 6);
}

#[test]
fn the_share_of_a_leaf_without_endpoints_is_refused_of_new_flows_alone() {
    let mut scene = Scene::new("udp-share");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    scene.publish(&[(
        vip(),
        split(vec![leaf("v1", 3, &[one]), leaf("v2", 1, &[])]),
    )]);

    let refusal = refusal();
    let refused = client.run(|| {
        let exchange = || {
            let mut refused = 0_u32;
            for _ in 0..100 {
                let socket = socket(vip().address)?;
                match ask(&socket, vip().address) {
                    Err(error) if error.kind() == refusal => refused += 1,
                    result => {
                        // Its endpoint is its own from now on.
                        result?;
                        for _ in 0..3 {
                            ask(&socket, vip().address)?;
                        }
                    }
                }
            }
            Ok(refused)
        };
        text(exchange())
    });

    assert_eq!(refused.unwrap(), Ok(25));
    assert_eq!(scene.verdict_count("split"), 75);
}

#[test]
fn a_root_that_is_no_longer_split_is_sent_to_as_before() {
    let mut scene = Scene::new("udp-delete");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    client.add_address(vip().address.ip()).unwrap();
    let _own = answering_at(&client, vip().address, "root");
    scene.publish(&[(vip(), split(vec![leaf("v1", 1, &[one])]))]);
    let mut asking = Asking::new(&client, vip().address);
    assert_eq!(asking.ask(), "one");

    scene.publish(&[]);
    assert_eq!(asking.ask(), "root");
    let decision = Decision::PassThrough(Reason::NoLeafPort);
    scene.publish(&[(vip(), decided(decision, vec![leaf("v1", 0, &[])]))]);
    assert_eq!(asking.ask(), "root");
    assert_eq!(scene.verdict_count("passed_through"), 1);
}

#[test]
fn what_is_sent_to_an_endpoint_itself_is_answered_by_the_endpoint() {
    let mut scene = Scene::new("udp-direct");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    scene.publish(&[(vip(), split(vec![leaf("v1", 1, &[one])]))]);
    // Another socket's flow does not matter.
    assert_eq!(
        ask_often(&client, vip().address, 1),
        Ok(vec!["one".to_owned()])
    );

    assert_eq!(ask_often(&client, one, 2), Ok(vec!["one".to_owned(); 2]));
    assert_eq!(scene.view(vip()).connections, 1);
}

#[test]
fn tcp_and_udp_of_one_port_are_split_apart() {
    let mut scene = Scene::new("udp-and-tcp");
    let (client, shop) = scene.pods();
    let (_tcp, tcp) = serve(&shop, 80, "tcp");
    let (_udp, datagrams) = answering(&shop, 81, "udp");
    scene.publish(&[
        (root(), split(vec![leaf("v1", 1, &[tcp])])),
        (vip(), split(vec![leaf("v1", 1, &[datagrams])])),
    ]);
    assert_eq!(root().address, vip().address);

    let found = client
        .run(|| text(testbed::lab::client::read_tag(root().address).map_err(io::Error::other)));
    assert_eq!(found.unwrap(), Ok("tcp".to_owned()));
    assert_eq!(
        ask_often(&client, vip().address, 1),
        Ok(vec!["udp".to_owned()])
    );
}

#[test]
fn a_forgotten_flow_is_chosen_anew_and_is_still_answered_by_the_vip() {
    use splitter_common::flows::FLOWS;
    let mut scene = Scene::new("udp-overflow");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    let (_two, two) = answering(&shop, 82, "two");
    let silent = SocketAddr::from((shop.ipv4(), 83));
    let crowd = udp("10.96.0.11:14001");
    scene.publish(&[
        (
            vip(),
            split(vec![leaf("v1", 1, &[one]), leaf("v2", 1, &[two])]),
        ),
        (crowd, split(vec![leaf("v1", 1, &[silent])])),
    ]);

    let found = client.run(|| {
        let exchange = || {
            let old = socket(vip().address)?;
            ask(&old, vip().address)?;
            for _ in 0..2 * FLOWS {
                socket(crowd.address)?.send_to(b"hello", crowd.address)?;
            }
            ask(&old, vip().address)
        };
        text(exchange())
    });

    let name = found.unwrap().unwrap();
    assert!(["one", "two"].contains(&&*name), "{name}");
    assert_eq!(scene.view(vip()).connections, 2);
    assert_eq!(scene.view(crowd).connections, u64::from(2 * FLOWS));
    assert_eq!(scene.verdict_count("original_dst_lost"), 0);
}

#[test]
fn threads_that_send_the_first_datagrams_of_a_socket_at_once_get_one_endpoint() {
    const THREADS: usize = 8;
    let mut scene = Scene::new("udp-threads");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = answering_all(&shop, 4);
    scene.publish(&[(vip(), split(vec![leaf("v1", 1, &endpoints)]))]);

    let names = client.run(|| {
        let one = |_| {
            let socket = socket(vip().address)?;
            let barrier = Barrier::new(THREADS);
            thread::scope(|scope| {
                let send = || {
                    barrier.wait();
                    socket.send_to(b"hello", vip().address)
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(send)).collect();
                let mut sent = threads.into_iter().map(|it| it.join().expect("no panic"));
                sent.try_for_each(|result| result.map(drop))
            })?;
            (0..THREADS)
                .map(|_| Ok(answer(&socket)?.0))
                .collect::<io::Result<BTreeSet<String>>>()
        };
        text((0..100).map(one).collect::<io::Result<Vec<_>>>())
    });

    for names in names.unwrap().unwrap() {
        assert_eq!(names.len(), 1, "{names:?}");
    }
}

#[test]
fn under_a_storm_of_changes_no_datagram_is_lost_or_shown_as_from_another() {
    const CLIENTS: usize = 4;
    const QUESTIONS: u32 = 1000;
    const DURATION: Duration = Duration::from_secs(4);
    let mut scene = Scene::new("udp-storm");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = answering_all(&shop, 4);
    let at = |number: usize| endpoints[number];
    let other = udp("10.96.0.11:14001");
    let to = |v1: &[SocketAddr], v2: &[SocketAddr], shares: [u32; 2]| {
        split(vec![leaf("v1", shares[0], v1), leaf("v2", shares[1], v2)])
    };
    let states = [
        to(&[at(0)], &[at(1)], [1, 1]),
        to(&[at(0), at(1)], &[at(2)], [1, 9]),
        to(&[at(0)], &[at(2), at(1)], [0, 1]),
        to(&[at(1)], &[at(2)], [1, 0]),
    ];
    // The other root has an endpoint of its own, by which its answers are known.
    let splits = |number: usize| {
        [
            (vip(), states[number % states.len()].clone()),
            (other, to(&[at(3)], &[], [1 + number as u32 % 2, 0])),
        ]
    };
    scene.publish(&splits(0));

    let (result, changes) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            client.run(|| {
                let one = || {
                    let mut old = socket(vip().address)?;
                    let start = Instant::now();
                    for number in 0.. {
                        if number >= QUESTIONS && start.elapsed() > DURATION {
                            break;
                        }
                        if number.is_multiple_of(100) {
                            old = socket(vip().address)?;
                        }
                        let name = ask(&old, vip().address)?;
                        let others = ask(&old, other.address)?;
                        if name == "3" || others != "3" {
                            return Err(io::Error::other(format!("{name}, {others}")));
                        }
                    }
                    Ok(())
                };
                thread::scope(|scope| {
                    let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(one)).collect();
                    let mut ends = threads.into_iter().map(|it| it.join().expect("no panic"));
                    text(ends.try_for_each(|result| result))
                })
            })
        });
        let mut changes = 0_usize;
        while !asking.is_finished() {
            changes += 1;
            scene.publish(&splits(changes));
        }
        (asking.join().expect("no panic"), changes)
    });

    assert_eq!(result.unwrap(), Ok(()));
    assert!(changes > 3, "{changes}");
    for counter in ["inconsistent", "original_dst_lost", "refused"] {
        assert_eq!(scene.verdict_count(counter), 0, "{counter}");
    }
}

/// An agent before this one knew four programs.
#[test]
fn an_agent_without_these_programs_is_taken_over_from() {
    use splitter_agent::datapath::{Attached, attached_programs};
    let mut scene = Scene::new("udp-upgrade");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    scene.publish(&[(vip(), split(vec![leaf("v1", 1, &[one])]))]);
    let new = ["recvmsg4", "recvmsg6", "sendmsg4", "sendmsg6"];
    for link in std::fs::read_dir(scene.pins.path().join("links")).unwrap() {
        let link = link.unwrap();
        let name = link.file_name().into_string().unwrap();
        if new.iter().any(|program| name.starts_with(program)) {
            std::fs::remove_file(link.path()).unwrap();
        }
    }
    assert!(!scene.programs.is_attached(scene.lab.cgroup()).unwrap());

    let attached = scene.programs.attach(scene.lab.cgroup()).unwrap();

    for (name, how) in attached {
        let expected = if new.contains(&name) {
            Attached::New
        } else {
            Attached::Replaced
        };
        assert_eq!(how, expected, "{name}");
    }
    assert!(scene.programs.is_attached(scene.lab.cgroup()).unwrap());
    assert_eq!(attached_programs(&scene.pins).unwrap().len(), 8);
    assert_eq!(
        ask_often(&client, vip().address, 1),
        Ok(vec!["one".to_owned()])
    );
    assert_eq!(vip().address.port(), PORT);
}
