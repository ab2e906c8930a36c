//! UDP from the manifests to the datagrams, and through the end of an agent and its successor.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use testbed::lab::{Pod, Process};

use crate::common::agent::{Site, replaced};

const VIP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 53)), 53);

/// A server that answers each datagram with its name.
fn answering(pod: &Pod, port: u16, name: &str) -> Process {
    let address = SocketAddr::from((pod.ipv4(), port));
    let (process, ()) = pod
        .start_ready(|ready| {
            let socket = UdpSocket::bind(address).expect("a free port");
            ready.signal(&());
            while let Ok((_, client)) = socket.recv_from(&mut [0; 512]) {
                let _ = socket.send_to(name.as_bytes(), client);
            }
        })
        .expect("a server");
    process
}

/// Who answers so many fresh sockets; an answer from anyone but the VIP is an error.
fn ask(client: &Pod, count: u32) -> Result<Vec<String>, String> {
    let one = || -> io::Result<String> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        socket.send_to(b"who?", VIP)?;
        let mut buffer = [0; 64];
        let (length, source) = socket.recv_from(&mut buffer)?;
        if source != VIP {
            return Err(io::Error::other(format!("answered by {source}")));
        }
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    client
        .run(|| {
            let answers = (0..count).map(|_| one()).collect::<io::Result<Vec<_>>>();
            answers.map_err(|error| error.to_string())
        })
        .expect("a process in the pod")
}

/// A root `dns` with two leaves, whose servers have ports 5301 and 5302.
fn services(pod: &Pod) -> String {
    let service = |name: &str, address: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{clusterIP: {address}, ports: [{{name: dns, port: 53, protocol: UDP}}]}}\n"
        )
    };
    let slice = |name: &str, port: u16| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-0\n  \
             namespace: shop\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
             ports: [{{name: dns, port: {port}, protocol: UDP}}]\n\
             endpoints: [{{addresses: [{}], conditions: {{ready: true}}}}]\n",
            pod.ipv4()
        )
    };
    [
        service("dns", "10.96.0.53"),
        service("dns-v1", "10.96.0.61"),
        service("dns-v2", "10.96.0.62"),
        slice("dns-v1", 5301),
        slice("dns-v2", 5302),
    ]
    .concat()
}

const TRAFFIC_SPLIT: &str = "\
apiVersion: split.smi-spec.io/v1alpha2
kind: TrafficSplit
metadata: {name: dns, namespace: shop}
spec:
  service: dns
  backends:
  - {service: dns-v1, weight: 9}
  - {service: dns-v2, weight: 1}
";

const UDP_ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: dns, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: dns}]
  rules:
  - backendRefs:
    - {name: dns-v1, port: 53, weight: 9}
    - {name: dns-v2, port: 53, weight: 1}
";

/// Case: PORT-UDP, GATEWAY-UDP
#[test]
fn udp_is_split_as_an_object_says_and_goes_on_without_the_agent() {
    for (name, object) in [("udp-split", TRAFFIC_SPLIT), ("udp-route", UDP_ROUTE)] {
        let site = Site::new(name);
        let (client, shop) = (
            site.lab.pod("client").unwrap(),
            site.lab.pod("shop").unwrap(),
        );
        let _servers = [answering(&shop, 5301, "v1"), answering(&shop, 5302, "v2")];
        site.write("services.yaml", &services(&shop));
        site.write("object.yaml", object);
        let is = |weights: [u64; 2]| {
            move |split: &splitter_api::Split| {
                let leaves = split.leaves.iter().map(|leaf| leaf.weight);
                split.frontend == "10.96.0.53:53/UDP" && leaves.eq(weights)
            }
        };
        let agent = site.start(&[]);
        site.wait_for_split("programmed", is([9, 1]));
        let answers = ask(&client, 50).unwrap();
        let count =
            |answers: &[String], name: &str| answers.iter().filter(|it| *it == name).count();
        assert_eq!(
            [count(&answers, "v1"), count(&answers, "v2")],
            [45, 5],
            "{object}"
        );
        let split = site.wait_for_split("counted", |split| split.connections == 50);
        assert_eq!(split.leaves[1].connections, 5);

        agent.kill();
        let answers = ask(&client, 10).unwrap();
        assert_eq!([count(&answers, "v1"), count(&answers, "v2")], [9, 1]);

        let _successor = site.start(&[]);
        site.write("object.yaml", &replaced(object, "weight: 9", "weight: 1"));
        site.wait_for_split("changed", is([1, 1]));
        let answers = ask(&client, 10).unwrap();
        assert_eq!([count(&answers, "v1"), count(&answers, "v2")], [5, 5]);
    }
}
