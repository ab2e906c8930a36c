//! One connection at a time, against the real kernel: where it lands, and whom the
//! application sees.

use std::io;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use splitter_agent::plan::Decision;
use splitter_common::layout::Reason;
use testbed::lab::{Lab, client, server};
use tokio::net::TcpSocket;

use crate::common::{PORT, Scene, decided, frontend, leaf, root, serve, small, split};

/// Who answered, and whom the client believes to be connected to.
fn dial(target: SocketAddr) -> Result<(String, SocketAddr), String> {
    let connection = TcpStream::connect_timeout(&target, Duration::from_secs(30))
        .map_err(|error| format!("{:?}", error.kind()))?;
    let peer = connection.peer_addr().map_err(|error| error.to_string())?;
    let identity = io::read_to_string(connection).map_err(|error| error.to_string())?;
    Ok((identity.trim_end().to_owned(), peer))
}

#[test]
fn a_connection_to_the_vip_lands_on_a_leaf_and_sees_the_vip_as_its_peer() {
    let mut scene = Scene::new("ipv4");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);

    let vip = root().address;
    let found = client.run(|| dial(vip)).unwrap();

    assert_eq!(found, Ok(("v1".to_owned(), vip)));
    assert_eq!(scene.view(root()).connections, 1);
    assert_eq!(scene.verdict_count("split"), 1);
}

#[test]
fn an_ipv6_vip_is_split_among_ipv6_endpoints() {
    let mut scene = Scene::new("ipv6");
    let (client, shop) = scene.pods();
    let _server = serve(&shop, 80, "v1");
    let vip = frontend("[fd96::10]:14001");
    let endpoint = SocketAddr::from((shop.ipv6(), 80));
    scene.publish(&[(vip, split(vec![leaf("v1", 1, &[endpoint])]))]);

    let found = client.run(|| dial(vip.address)).unwrap();

    assert_eq!(found, Ok(("v1".to_owned(), vip.address)));
}

#[test]
fn an_ipv6_socket_reaches_an_ipv4_vip_by_its_mapped_address() {
    let mut scene = Scene::new("mapped");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);

    let mapped = SocketAddr::from((Ipv4Addr::new(10, 96, 0, 10).to_ipv6_mapped(), PORT));
    let found = client.run(|| dial(mapped)).unwrap();

    assert_eq!(found, Ok(("v1".to_owned(), mapped)));
}

#[test]
fn a_blocking_connect_is_split_as_a_non_blocking_one_is() {
    let mut scene = Scene::new("blocking");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);

    let vip = root().address;
    // `TcpStream::connect` blocks; `connect_timeout`, which `dial` uses, does not.
    let peer = client
        .run(|| {
            TcpStream::connect(vip)
                .and_then(|connection| connection.peer_addr())
                .map_err(|error| error.to_string())
        })
        .unwrap();

    assert_eq!(peer, Ok(vip));
}

#[test]
fn a_socket_that_connects_again_after_af_unspec_shows_each_peer_in_turn() {
    let mut scene = Scene::new("reconnect");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let (_other_server, other_endpoint) = serve(&shop, 81, "other");
    let other = frontend("10.96.0.11:14001");
    scene.publish(&[
        (root(), split(vec![leaf("v1", 1, &[endpoint])])),
        (other, split(vec![leaf("other", 1, &[other_endpoint])])),
    ]);

    // The endpoint dialled directly comes last: the socket must not go on pretending
    // that it is the VIP's.
    let targets = [root().address, other.address, root().address, endpoint];
    let peers = client
        .run(|| reconnect(&targets).map_err(|error| error.to_string()))
        .unwrap();

    assert_eq!(peers, Ok(targets.to_vec()));
}

/// Connects one socket to each target in turn, and asks for its peer each time.
fn reconnect(targets: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let mut peers = Vec::new();
    for target in targets {
        rustix::net::connect(&socket, target)?;
        let peer = rustix::net::getpeername(&socket)?.ok_or(io::ErrorKind::NotConnected)?;
        peers.push(SocketAddr::try_from(peer)?);
        rustix::net::connect_unspec(&socket)?;
    }
    Ok(peers)
}

#[test]
fn a_pod_that_is_an_endpoint_itself_can_reach_itself_through_the_vip() {
    let mut scene = Scene::new("hairpin");
    let shop = scene.lab.pod("shop").unwrap();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);

    let vip = root().address;
    let found = shop.run(|| dial(vip)).unwrap();

    assert_eq!(found, Ok(("v1".to_owned(), vip)));
}

#[test]
fn a_connection_to_anything_else_is_not_touched() {
    let mut scene = Scene::new("miss");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);

    // The VIP on another port, and the endpoint itself.
    client.add_address(root().address.ip()).unwrap();
    let (_own, _) = client
        .start_ready(|ready| server::tag(81, "own", ready))
        .unwrap();
    let other_port = SocketAddr::new(root().address.ip(), 81);

    let found = client.run(|| dial(other_port)).unwrap();
    assert_eq!(found, Ok(("own".to_owned(), other_port)));
    let found = client.run(|| dial(endpoint)).unwrap();
    assert_eq!(found, Ok(("v1".to_owned(), endpoint)));
    assert_eq!(scene.view(root()).connections, 0);
    assert_eq!(scene.verdict_count("split"), 0);
}

#[test]
fn udp_to_a_vip_of_which_tcp_is_split_passes_through() {
    let mut scene = Scene::new("udp");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let vip = root().address;
    client.add_address(vip.ip()).unwrap();

    let echoed = client
        .run(|| {
            let exchange = || -> io::Result<(Vec<u8>, SocketAddr)> {
                let server = UdpSocket::bind(vip)?;
                let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))?;
                socket.connect(vip)?;
                socket.send(b"hello")?;
                server.set_read_timeout(Some(Duration::from_secs(30)))?;
                let mut buffer = [0; 16];
                let length = server.recv(&mut buffer)?;
                Ok((buffer[..length].to_vec(), socket.peer_addr()?))
            };
            exchange().map_err(|error| error.to_string())
        })
        .unwrap();

    assert_eq!(echoed, Ok((b"hello".to_vec(), vip)));
}

/// The kernel runs the hook before it looks at the family, which is of no attempt then.
#[test]
fn an_address_of_another_family_that_has_the_bytes_of_a_vip_is_not_counted() {
    let mut scene = Scene::new("family");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let IpAddr::V4(vip) = root().address.ip() else {
        panic!("an IPv4 address");
    };
    // Its flow label is where an IPv4 address would be.
    let disguised = SocketAddrV6::new(Ipv6Addr::LOCALHOST, PORT, vip.into(), 0);
    let error = client.run(|| {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
        let error = rustix::net::connect(socket.expect("a socket"), &disguised);
        error.expect_err("no IPv6 on an IPv4 socket").raw_os_error()
    });
    assert_eq!(error.unwrap(), Errno::AFNOSUPPORT.raw_os_error());
    assert_eq!(scene.view(root()).connections, 0);
    assert_eq!(scene.verdict_count("split"), 0);
}

#[test]
fn a_refused_connection_fails_at_once_with_connection_refused() {
    refuses_at_once(Scene::new("refuse"));
}

/// As on kernels before 6.1, where a program cannot choose the error of a connect().
#[test]
fn a_refused_connection_fails_at_once_where_only_a_rewrite_can_refuse() {
    refuses_at_once(Scene::refusing_by_rewrite("rewrite"));
}

fn refuses_at_once(mut scene: Scene) {
    let client = scene.lab.pod("client").unwrap();
    // Somebody listens on all addresses, loopback included.
    let (_own, _) = client
        .start_ready(|ready| server::tag(PORT, "own", ready))
        .unwrap();
    let decision = Decision::Refuse(Reason::AllWeightsZero);
    let v6 = frontend("[fd96::10]:14001");
    scene.publish(&[
        (root(), decided(decision, vec![leaf("v1", 0, &[])])),
        (v6, decided(decision, vec![leaf("v1", 0, &[])])),
    ]);
    let targets = [
        root().address,
        v6.address,
        SocketAddr::from((Ipv4Addr::new(10, 96, 0, 10).to_ipv6_mapped(), PORT)),
    ];
    for target in targets {
        let found = client.run(|| refusals(target)).unwrap();
        assert_eq!(found, Ok(REFUSED.to_owned()), "{target}");
    }
    assert_eq!(scene.verdict_count("refused"), 2 * targets.len() as u64);
    assert_eq!(scene.verdict_count("passed_through"), 0);
}

const REFUSED: &str = "blocking Connection refused, non-blocking Connection refused";

/// What connect() says to a blocking socket, and what a non-blocking one is told without
/// waiting for anything.
fn refusals(target: SocketAddr) -> Result<String, String> {
    let connect = |flags| -> io::Result<Errno> {
        let family = match target {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        let error = match rustix::net::connect(&socket, &target) {
            Err(Errno::INPROGRESS) => {
                let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
                let now = Timespec::default();
                if rustix::event::poll(&mut polled, Some(&now))? == 0 {
                    return Ok(Errno::INPROGRESS);
                }
                rustix::net::sockopt::socket_error(&socket)?.err()
            }
            result => result.err(),
        };
        // It has no peer, and can be used for something else.
        assert_eq!(
            rustix::net::getpeername(&socket).err(),
            Some(Errno::NOTCONN)
        );
        error.ok_or_else(|| io::Error::other("connected"))
    };
    let message = |error: Errno| {
        let text = io::Error::from(error).to_string();
        text.split(" (").next().unwrap_or_default().to_owned()
    };
    let both = || {
        let blocking = message(connect(SocketFlags::empty())?);
        let non_blocking = message(connect(SocketFlags::NONBLOCK)?);
        Ok(format!("blocking {blocking}, non-blocking {non_blocking}"))
    };
    both().map_err(|error: io::Error| error.to_string())
}

#[test]
fn a_socket_bound_to_a_device_that_the_reset_cannot_reach_fails_at_once_too() {
    let mut scene = Scene::refusing_by_rewrite("device");
    let client = scene.lab.pod("client").unwrap();
    let decision = Decision::Refuse(Reason::AllWeightsZero);
    let v6 = frontend("[fd96::10]:14001");
    scene.publish(&[
        (root(), decided(decision, vec![leaf("v1", 0, &[])])),
        (v6, decided(decision, vec![leaf("v1", 0, &[])])),
    ]);
    for target in [
        root().address,
        v6.address,
        SocketAddr::from((Ipv4Addr::new(10, 96, 0, 10).to_ipv6_mapped(), PORT)),
    ] {
        let found = client.run(|| {
            let connect = || -> io::Result<()> {
                let socket = match target {
                    SocketAddr::V4(_) => TcpSocket::new_v4(),
                    SocketAddr::V6(_) => TcpSocket::new_v6(),
                }?;
                socket.bind_device(Some(b"eth0"))?;
                Ok(rustix::net::connect(&socket, &target)?)
            };
            connect().map_err(|error| format!("{:?}", error.kind()))
        });
        assert_eq!(
            found.unwrap(),
            Err("NetworkUnreachable".to_owned()),
            "{target}"
        );
    }
}

#[test]
fn a_frontend_that_passes_through_is_as_without_a_split() {
    let mut scene = Scene::new("pass");
    let client = scene.lab.pod("client").unwrap();
    let vip = root().address;
    client.add_address(vip.ip()).unwrap();
    let (_own, _) = client
        .start_ready(|ready| server::tag(PORT, "root", ready))
        .unwrap();
    let decision = Decision::PassThrough(Reason::NoLeafPort);
    scene.publish(&[(root(), decided(decision, vec![leaf("v1", 0, &[])]))]);

    let found = client.run(|| dial(vip)).unwrap();

    assert_eq!(found, Ok(("root".to_owned(), vip)));
    assert_eq!(scene.verdict_count("passed_through"), 1);
}

/// Case: SPLIT-DELETED
#[test]
fn a_split_that_is_deleted_leaves_the_service_as_before() {
    let mut scene = Scene::new("delete");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let vip = root().address;
    client.add_address(vip.ip()).unwrap();
    let (_own, _) = client
        .start_ready(|ready| server::tag(PORT, "root", ready))
        .unwrap();
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    assert_eq!(
        client
            .run(|| client::count_tags(vip, 3))
            .unwrap()
            .count("v1"),
        3
    );

    scene.publish(&[]);

    assert_eq!(
        client
            .run(|| client::count_tags(vip, 3))
            .unwrap()
            .count("root"),
        3
    );
}

/// Case: CHANGE-ESTABLISHED
#[test]
fn an_established_connection_outlives_every_change_of_its_split() {
    let mut scene = Scene::new("established");
    let (client, shop) = scene.pods();
    let (_first, _) = shop
        .start_ready(|ready| server::identity(81, "v1", ready))
        .unwrap();
    let first = SocketAddr::from((shop.ipv4(), 81));
    let (_second, second) = serve(&shop, 82, "v2");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[first])]))]);
    let vip = root().address;
    let (mut questions, mut ask) = io::pipe().unwrap();
    let (mut answers, mut answer) = io::pipe().unwrap();
    // Asks over its one connection whenever it is told to, and passes on whether v1 answered.
    let (_open, ()) = client
        .start_ready(move |ready| {
            let mut connection = TcpStream::connect(vip).expect("a connection");
            ready.signal(&());
            while questions.read_exact(&mut [0]).is_ok() {
                let request = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
                connection.write_all(request).expect("a connection");
                let mut response = [0; 1024];
                let length = connection.read(&mut response).expect("an answer");
                let response = String::from_utf8_lossy(&response[..length]);
                let is_first = response.contains("Identity: v1");
                answer.write_all(&[u8::from(is_first)]).expect("a reader");
            }
        })
        .unwrap();
    let mut is_answered_by_first = || {
        ask.write_all(&[0]).unwrap();
        let mut answer = [0];
        answers.read_exact(&mut answer).expect("an answer");
        answer == [1]
    };
    assert!(is_answered_by_first());

    scene.publish(&[(root(), split(vec![leaf("v2", 1, &[second])]))]);
    assert_eq!(
        client.run(|| dial(vip)).unwrap(),
        Ok(("v2".to_owned(), vip))
    );
    assert!(is_answered_by_first(), "after a change of leaves");

    scene.publish(&[]);
    assert!(is_answered_by_first(), "after the split was deleted");
}

#[test]
fn processes_outside_the_cgroup_are_not_split() {
    let mut scene = Scene::new("inside");
    let outside = Lab::new("outside").unwrap();
    let client = outside.pod("client").unwrap();
    let vip = root().address;
    client.add_address(vip.ip()).unwrap();
    let (_own, _) = client
        .start_ready(|ready| server::tag(PORT, "root", ready))
        .unwrap();
    let (_leaf, endpoint) = serve(&client, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);

    let found = client.run(|| dial(vip)).unwrap();

    assert_eq!(found, Ok(("root".to_owned(), vip)));
}

#[test]
fn without_original_destinations_the_application_sees_the_endpoint() {
    let mut scene = Scene::with("no-original-dst", small(), false);
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);

    let vip = root().address;
    let found = client.run(|| dial(vip)).unwrap();

    assert_eq!(found, Ok(("v1".to_owned(), endpoint)));
}

#[test]
fn an_accepted_connection_shows_its_client() {
    let mut scene = Scene::new("accept");
    let (client, shop) = scene.pods();
    let endpoint = SocketAddr::from((shop.ipv4(), 80));
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let (_server, ()) = shop
        .start_ready(|ready| {
            let listener = std::net::TcpListener::bind(("0.0.0.0", 80)).expect("a free port");
            ready.signal(&());
            for connection in listener.incoming() {
                let mut connection = connection.expect("a connection");
                let peer = connection.peer_addr().expect("its peer").ip();
                let _ = io::Write::write_all(&mut connection, peer.to_string().as_bytes());
            }
        })
        .unwrap();

    let vip = root().address;
    let found = client.run(|| dial(vip)).unwrap();

    assert_eq!(found, Ok((client.ipv4().to_string(), vip)));
}
