//! UDP sockets that are connected, and what they do besides: name the address again, give it up, or have
//! been connected before there was a split.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::net::connect_unspec;

use crate::common::{Scene, leaf, split};
use crate::udp::{
    Asking, answer, answering, answering_all, answering_at, ask, mapped, socket, text,
};
use crate::udp::{udp, vip};

/// Sends to the peer; who answers, and as whom.
fn ask_peer(socket: &UdpSocket) -> io::Result<(String, SocketAddr)> {
    socket.send(b"hello")?;
    let (text, source) = answer(socket)?;
    Ok((text.replace(" hello", ""), source))
}

fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(target)?;
    socket.connect(target)?;
    Ok(socket)
}

#[test]
fn a_connected_socket_that_names_its_vip_reaches_the_endpoint_that_it_has() {
    let mut scene = Scene::new("udp-names");
    let (client, shop) = scene.pods();
    let (_servers, endpoints) = answering_all(&shop, 5);
    scene.publish(&[(vip(), split(vec![leaf("v1", 1, &endpoints)]))]);
    for target in [vip().address, mapped(vip().address)] {
        let names = client.run(|| {
            let names = || {
                let socket = connected(target)?;
                let (first, source) = ask_peer(&socket)?;
                assert_eq!(source, target);
                let others = (0..4).map(|_| ask(&socket, target));
                std::iter::once(Ok(first)).chain(others).collect()
            };
            text::<BTreeSet<String>>(names())
        });
        let names = names.unwrap().unwrap();
        assert_eq!(names.len(), 1, "{target}: {names:?}");
    }
    // Each connect(), and nothing else.
    assert_eq!(scene.view(vip()).connections, 2);
}

/// What an IPv6 socket sends to an IPv4-mapped peer passes `sendmsg4` like what names an address.
#[test]
fn a_socket_that_was_connected_before_there_was_a_split_keeps_its_peer() {
    let mut scene = Scene::new("udp-before");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    client.add_address(vip().address.ip()).unwrap();
    let _root = answering_at(&client, vip().address, "root");
    let asking = |target: SocketAddr| {
        let act = move |socket: &UdpSocket, names: u8| match names {
            0 => ask_peer(socket).map(|(name, source)| format!("{name} as {source}")),
            _ => ask(socket, target),
        };
        (Asking::with(&client, || connected(target), act), target)
    };
    let mut clients = [vip().address, mapped(vip().address)].map(asking);
    scene.publish(&[(vip(), split(vec![leaf("v1", 1, &[one])]))]);
    for (client, target) in &mut clients {
        assert_eq!(client.ask_to(0), format!("root as {target}"));
        assert_eq!(client.ask_to(1), "root", "{target}");
    }
    assert_eq!(scene.view(vip()).connections, 0);
}

#[test]
fn a_socket_that_dials_the_endpoint_itself_in_the_end_sees_the_endpoint() {
    let mut scene = Scene::new("udp-dials-itself");
    let (client, shop) = scene.pods();
    let (_one, one) = answering(&shop, 81, "one");
    let other = udp("10.96.0.11:14001");
    let split = || split(vec![leaf("one", 1, &[one])]);
    scene.publish(&[(vip(), split()), (other, split())]);
    let seen = client.run(|| {
        let act = || {
            // Connected to the VIP before, and given up since.
            let first = connected(vip().address)?;
            connect_unspec(&first)?;
            first.connect(one)?;
            // Sent to another VIP before.
            let second = socket(one)?;
            ask(&second, other.address)?;
            second.connect(one)?;
            let mut seen = Vec::new();
            for socket in [first, second] {
                let (name, source) = ask_peer(&socket)?;
                seen.push((name, source, socket.peer_addr()?));
            }
            // The answer is of the VIP that the socket is connected to, not of the one before.
            let third = socket(one)?;
            ask(&third, other.address)?;
            third.connect(vip().address)?;
            let (name, source) = ask_peer(&third)?;
            seen.push((name, source, third.peer_addr()?));
            Ok(seen)
        };
        text(act())
    });
    let one_as = |address| ("one".to_owned(), address, address);
    let expected = vec![one_as(one), one_as(one), one_as(vip().address)];
    assert_eq!(seen.unwrap(), Ok(expected));
}
