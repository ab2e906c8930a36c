//! Two name servers behind one address, asked as resolvers of different kinds ask.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, TYPE};
use splitter_agent::plan::Frontend;
use testbed::fixtures::name_server;
use testbed::lab::{Pod, Process};
use testbed::packages;

use crate::common::{Scene, leaf, split};
use crate::udp::udp;

const NAME: &str = "shop.test";

/// What the name servers say. Both are of no network (RFC 5737).
const ANSWERS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

fn start_name_server(pod: &Pod, port: u16, address: Ipv4Addr) -> (Process, SocketAddr) {
    let listen = SocketAddr::from((pod.ipv4(), port));
    let (process, ()) = pod
        .start_ready(|ready| name_server::serve(listen, address, ready))
        .expect("a name server");
    (process, listen)
}

/// A client, and two name servers at 9:1 behind an address.
struct NameServers {
    scene: Scene,
    client: Pod,
    /// The pod of the servers.
    _shop: Pod,
    frontend: Frontend,
    _servers: [Process; 2],
}

impl NameServers {
    fn new(name: &str) -> Self {
        let mut scene = Scene::new(name);
        let (client, shop) = scene.pods();
        let (one, stable) = start_name_server(&shop, 81, ANSWERS[0]);
        let (two, canary) = start_name_server(&shop, 82, ANSWERS[1]);
        let frontend = udp("10.96.0.53:53");
        let stable = leaf("stable", 9, &[stable]);
        let canary = leaf("canary", 1, &[canary]);
        scene.publish(&[(frontend, split(vec![stable, canary]))]);
        Self {
            scene,
            client,
            _shop: shop,
            frontend,
            _servers: [one, two],
        }
    }

    /// Has a program ask so many times, and counts which name server has answered.
    fn count(&self, times: u32, program: &str, arguments: &[&str]) -> [u32; 2] {
        let mut counts = [0; 2];
        for _ in 0..times {
            let mut command = self.client.command(program);
            let output = command.args(arguments).output().expect("a resolver");
            let text = String::from_utf8(output.stdout).expect("text");
            let address = text.split_whitespace().next();
            let address = address.and_then(|it| it.parse::<Ipv4Addr>().ok());
            let index = ANSWERS.iter().position(|it| Some(*it) == address);
            counts[index.unwrap_or_else(|| panic!("{program}: {text:?}"))] += 1;
        }
        counts
    }
}

/// It connects its sockets.
#[test]
fn the_resolver_of_glibc_is_answered_by_both_of_two_name_servers() {
    let Some(getent) = packages::find("getent") else {
        eprintln!("left out: there is no getent on this machine");
        return;
    };
    let servers = NameServers::new("dns-glibc");
    let address = servers.frontend.address.ip();
    servers.client.set_name_server(address).unwrap();
    let getent = getent.to_str().expect("text");
    assert_eq!(servers.count(20, getent, &["ahostsv4", NAME]), [18, 2]);
    assert_eq!(servers.scene.view(servers.frontend).connections, 20);
}

#[test]
fn dig_is_answered_by_both_of_two_name_servers() {
    let Some(dig) = packages::find("dig") else {
        eprintln!("left out: there is no dig on this machine");
        return;
    };
    let servers = NameServers::new("dns-dig");
    let dig = dig.to_str().expect("text");
    let server = format!("@{}", servers.frontend.address.ip());
    let arguments = ["+short", "+time=30", "+tries=1", &server, NAME, "A"];
    assert_eq!(servers.count(20, dig, &arguments), [18, 2]);
    assert_eq!(servers.scene.view(servers.frontend).connections, 20);
}

/// As musl does: the questions for both families from one unconnected socket; answers from anyone else
/// than who was asked are not heard (RFC 5452).
#[test]
fn a_resolver_that_checks_the_source_hears_both_of_two_name_servers() {
    let servers = NameServers::new("dns-source");
    let server = servers.frontend.address;
    let resolve = |id: u16| -> io::Result<Vec<Ipv4Addr>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        for (id, kind) in [(id, TYPE::A), (!id, TYPE::AAAA)] {
            socket.send_to(&question(id, kind).map_err(io::Error::other)?, server)?;
        }
        let mut addresses = Vec::new();
        for _ in 0..2 {
            let mut buffer = [0; 512];
            let (length, source) = socket.recv_from(&mut buffer)?;
            if source != server {
                return Err(io::Error::other(format!("answered by {source}")));
            }
            let message = Packet::parse(&buffer[..length]).map_err(io::Error::other)?;
            let records = message.answers.into_iter();
            addresses.extend(records.filter_map(|record| match record.rdata {
                RData::A(address) => Some(Ipv4Addr::from(address)),
                _ => None,
            }));
        }
        Ok(addresses)
    };
    let resolved = servers.client.run(|| {
        let all = (0..100).map(resolve).collect::<io::Result<Vec<_>>>();
        all.map(|all| all.concat())
            .map_err(|error| error.to_string())
    });
    let resolved = resolved.unwrap().unwrap();
    let count = |answer| resolved.iter().filter(|it| **it == answer).count();
    assert_eq!(ANSWERS.map(count), [90, 10]);
}

fn question(id: u16, kind: TYPE) -> simple_dns::Result<Vec<u8>> {
    let mut message = Packet::new_query(id);
    message.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(NAME)?;
    let asked = Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false);
    message.questions.push(asked);
    message.build_bytes_vec()
}
