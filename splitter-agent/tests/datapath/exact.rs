//! The promise of exact shares, with real connections.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use testbed::fixtures::Tally;
use testbed::lab::{Pod, Process, client, server};

use crate::common::agent::PATIENCE;
use crate::common::{Scene, bound, expected, frontend, leaf, plan, root, serve, split};

/// Pods `leaf-0`, `leaf-1`, … with so many servers each, on ports of one pod; identities
/// are `<leaf>.<endpoint>`.
fn leaves(pod: &Pod, endpoints: &[u16]) -> (Vec<Process>, Vec<Vec<SocketAddr>>) {
    let mut processes = Vec::new();
    let mut addresses = Vec::new();
    for (leaf, &count) in endpoints.iter().enumerate() {
        let mut of_leaf = Vec::new();
        for endpoint in 0..count {
            let port = 1000 + 100 * leaf as u16 + endpoint;
            let (process, address) = serve(pod, port, &format!("{leaf}.{endpoint}"));
            processes.push(process);
            of_leaf.push(address);
        }
        addresses.push(of_leaf);
    }
    (processes, addresses)
}

/// The answers to `count` connections, in their order.
fn answers(client: &Pod, target: SocketAddr, count: u64) -> Vec<String> {
    client
        .run_within(Duration::from_secs(900), || {
            (0..count)
                .map(|_| client::read_tag(target).map_err(|error| error.to_string()))
                .collect::<Result<Vec<_>, _>>()
        })
        .unwrap()
        .expect("connections that do not fail")
}

#[test]
fn at_any_count_every_leaf_and_endpoint_has_its_share() {
    let mut scene = Scene::new("shares");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = leaves(&shop, &[3, 1, 2]);
    let cases: [(&[u32], u64); 6] = [
        (&[1, 1], 100),
        (&[9, 1], 200),
        (&[1, 999], 2000),
        (&[9999, 1], 10_000),
        (&[0, 1], 100),
        (&[3, 7, 90], 1000),
    ];
    for (shares, count) in cases {
        let planned = shares
            .iter()
            .enumerate()
            .map(|(index, &share)| leaf(&format!("leaf-{index}"), share, &endpoints[index]))
            .collect();
        scene.publish(&[]);
        scene.publish(&[(root(), split(planned))]);

        let answers = answers(&client, root().address, count);

        let size: u32 = shares.iter().sum();
        let mut by_leaf = vec![0_u64; shares.len()];
        let mut by_endpoint: Vec<Vec<u64>> = endpoints
            .iter()
            .map(|of_leaf| vec![0; of_leaf.len()])
            .collect();
        for (answer, n) in answers.iter().zip(1_u64..) {
            let (leaf, endpoint) = answer.split_once('.').unwrap();
            let (leaf, endpoint): (usize, usize) =
                (leaf.parse().unwrap(), endpoint.parse().unwrap());
            by_leaf[leaf] += 1;
            by_endpoint[leaf][endpoint] += 1;
            for (index, &share) in shares.iter().enumerate() {
                let ideal = n as f64 * f64::from(share) / f64::from(size);
                let error = (by_leaf[index] as f64 - ideal).abs();
                assert!(
                    error <= bound(size),
                    "{shares:?} after {n}: leaf {index} is off by {error}"
                );
                if n % u64::from(size) == 0 {
                    assert_eq!(
                        by_leaf[index] as f64, ideal,
                        "{shares:?} after {n}: leaf {index}"
                    );
                }
            }
            let part = by_leaf[leaf] as f64 / endpoints[leaf].len() as f64;
            let error = (by_endpoint[leaf][endpoint] as f64 - part).abs();
            assert!(
                error < 1.0,
                "{shares:?} after {n}: endpoint {answer} is off by {error}"
            );
        }
    }
}

#[test]
fn clients_that_connect_at_the_same_time_share_one_sequence() {
    let mut scene = Scene::new("parallel");
    let shop = scene.lab.pod("shop").unwrap();
    let (_servers, endpoints) = leaves(&shop, &[1, 1]);
    scene.publish(&[(
        root(),
        split(vec![
            leaf("v1", 9, &endpoints[0]),
            leaf("v2", 1, &endpoints[1]),
        ]),
    )]);
    let vip = root().address;
    let clients: Vec<Pod> = (0..4)
        .map(|index| scene.lab.pod(&format!("client-{index}")).unwrap())
        .collect();

    let tags: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(|| client.run(|| client::count_tags(vip, 500)).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });

    assert_eq!(tags.iter().map(Tally::failed).sum::<u64>(), 0);
    assert_eq!(tags.iter().map(|tags| tags.count("0.0")).sum::<u64>(), 1800);
    assert_eq!(tags.iter().map(|tags| tags.count("1.0")).sum::<u64>(), 200);
}

#[test]
fn sixty_four_leaves_and_a_thousand_endpoints_are_exact() {
    let mut scene = Scene::new("many");
    let (client, shop) = scene.pods();
    // All endpoints are addresses of one server, which 127.0.0.0/8 has plenty of.
    let endpoints = |leaf: u32, count: u32| -> Vec<SocketAddr> {
        (0..count)
            .map(|endpoint| {
                let address = 0x7f00_0001 + leaf * 1000 + endpoint;
                SocketAddr::from((std::net::Ipv4Addr::from(address), 80))
            })
            .collect()
    };
    let shares: Vec<u32> = (0..64).map(|leaf| 1 + leaf % 3).collect();
    let size: u32 = shares.iter().sum();
    let planned = shares
        .iter()
        .zip(0..)
        .map(|(&share, number)| leaf(&format!("leaf-{number}"), share, &endpoints(number, 3)))
        .collect();
    let many = frontend("10.96.0.20:14001");
    scene.publish(&[
        (root(), split(planned)),
        (many, split(vec![leaf("many", 1, &endpoints(0, 1000))])),
    ]);
    drop(shop);
    let (_server, _) = client
        .start_ready(|ready| server::tag(80, "any", ready))
        .unwrap();

    for blocks in 1..=3 {
        let vip = root().address;
        let tags = client.run(|| client::count_tags(vip, size.into())).unwrap();
        assert_eq!(tags.failed(), 0, "{tags:?}");
        for (counts, &share) in scene.view(root()).leaves.iter().zip(&shares) {
            assert_eq!(counts.connections, u64::from(blocks * share));
        }
    }

    // A round of turns visits every endpoint once. The server's side of a connection tells
    // which address was dialled.
    let visited: Vec<SocketAddr> = client
        .run(|| {
            (0..1000)
                .map(|_| {
                    let connection =
                        TcpStream::connect(many.address).expect("a connection that does not fail");
                    // The programs answer for the socket's peer; the socket's own table of
                    // the kernel does not.
                    peer_in_proc(&connection)
                })
                .collect()
        })
        .unwrap();
    let mut distinct = visited.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct, endpoints(0, 1000));
}

/// The real peer of a connection, from /proc/net/tcp: local and remote address as hex digits
/// of a little-endian word, and ports.
fn peer_in_proc(connection: &TcpStream) -> SocketAddr {
    let local = connection.local_addr().expect("an address").port();
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("the table");
    let wanted = format!(":{local:04X}");
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (own, peer) = (fields.next()?, fields.next()?);
            let (address, port) = peer.split_once(':')?;
            let port = u16::from_str_radix(port, 16).ok()?;
            let address = u32::from_str_radix(address, 16).ok()?.swap_bytes();
            (own.ends_with(&wanted) && port == 80)
                .then(|| SocketAddr::from((std::net::Ipv4Addr::from(address), port)))
        })
        .next()
        .expect("the connection in the table")
}

#[test]
fn shares_whose_sum_nearly_fills_32_bits_are_within_the_bound() {
    let mut scene = Scene::new("huge");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = leaves(&shop, &[1, 1, 1]);
    let shares = [u32::MAX / 2, u32::MAX / 3, 1];
    let size: u32 = shares.iter().sum();
    let planned = shares
        .iter()
        .zip(&endpoints)
        .zip(0..)
        .map(|((&share, endpoints), number)| leaf(&format!("leaf-{number}"), share, endpoints))
        .collect();
    scene.publish(&[(root(), split(planned))]);

    let answers = answers(&client, root().address, 2000);

    let mut first = 0_u64;
    for (answer, n) in answers.iter().zip(1_u64..) {
        first += u64::from(answer == "0.0");
        let ideal = n as f64 * f64::from(shares[0]) / f64::from(size);
        assert!(
            (first as f64 - ideal).abs() <= bound(size),
            "after {n}: {first}"
        );
    }
    let view = scene.view(root());
    let counts: Vec<u64> = view.leaves.iter().map(|leaf| leaf.connections).collect();
    assert_eq!(counts, expected(&view, 2000));
}

#[test]
fn an_ipv6_split_is_exact_too() {
    let mut scene = Scene::new("exact-ipv6");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = leaves(&shop, &[1, 1]);
    let over_ipv6 = |address: &SocketAddr| SocketAddr::from((shop.ipv6(), address.port()));
    let vip = frontend("[fd96::10]:14001");
    scene.publish(&[(
        vip,
        split(vec![
            leaf("v1", 99, &[over_ipv6(&endpoints[0][0])]),
            leaf("v2", 1, &[over_ipv6(&endpoints[1][0])]),
        ]),
    )]);

    let tags = client
        .run(|| client::count_tags(vip.address, 1000))
        .unwrap();

    assert_eq!(
        (tags.count("0.0"), tags.count("1.0")),
        (990, 10),
        "{tags:?}"
    );
}

/// Connects without pause, from several processes, until dropped; none may fail.
fn hammer(client: &Pod, target: SocketAddr, processes: usize) -> Vec<Process> {
    (0..processes)
        .map(|_| client.start(move || client::hammer(target)).unwrap())
        .collect()
}

#[test]
fn the_first_block_starts_at_the_change_whatever_races_with_it() {
    let mut scene = Scene::new("first-block");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = leaves(&shop, &[1, 1]);
    let with = |shares: (u32, u32)| {
        plan(&[(
            root(),
            split(vec![
                leaf("v1", shares.0, &endpoints[0]),
                leaf("v2", shares.1, &endpoints[1]),
            ]),
        )])
    };
    scene.publisher.publish(&with((1, 0)));
    for round in 0..10 {
        let mut clients = hammer(&client, root().address, 3);
        let shares = if round % 2 == 0 { (9, 1) } else { (50, 51) };
        scene.publisher.publish(&with(shares));
        let start = Instant::now();
        while scene.view(root()).connections < 150 {
            assert!(start.elapsed() < PATIENCE, "nobody connects");
        }
        assert!(
            clients.iter_mut().all(Process::is_running),
            "a connection failed"
        );
        drop(clients);

        // Nobody connects any more: every number that was drawn has been used.
        let view = scene.view(root());
        let counts: Vec<u64> = view.leaves.iter().map(|leaf| leaf.connections).collect();
        assert_eq!(counts, expected(&view, view.connections), "{shares:?}");
    }
}

#[test]
fn a_change_of_endpoints_never_disturbs_the_shares_of_the_leaves() {
    let mut scene = Scene::new("flapping");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = leaves(&shop, &[4, 3]);
    let with = |round: usize| {
        let of_leaf = |leaf: usize| {
            let all = &endpoints[leaf];
            let count = 1 + round % all.len();
            all.iter()
                .copied()
                .cycle()
                .skip(round)
                .take(count)
                .collect::<Vec<_>>()
        };
        plan(&[(
            root(),
            split(vec![
                leaf("v1", 97, &of_leaf(0)),
                leaf("v2", 3, &of_leaf(1)),
            ]),
        )])
    };
    scene.publisher.publish(&with(0));
    let mut clients = hammer(&client, root().address, 3);
    // A change each millisecond, and as many connections meanwhile as make a block.
    let start = Instant::now();
    let mut round = 0;
    while round < 500 || scene.view(root()).connections < 1000 {
        assert!(start.elapsed() < PATIENCE, "only {round} changes");
        round += 1;
        let report = scene.publisher.publish(&with(round));
        assert!(report.failed.is_empty(), "{report:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(
        clients.iter_mut().all(Process::is_running),
        "a connection failed"
    );
    drop(clients);

    let view = scene.view(root());
    let counts: Vec<u64> = view.leaves.iter().map(|leaf| leaf.connections).collect();
    assert_eq!(counts, expected(&view, view.connections));
}
