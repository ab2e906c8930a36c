//! A site with a client and the two leaves of the bookstore.

use std::net::SocketAddr;

use testbed::lab::{Pod, Process, client};

use crate::common::agent::{Site, bookstore as manifests};
use crate::common::serve;

pub(crate) const VIP: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10)),
    14001,
);

/// A site with a client and two leaves that answer `v1` and `v2`.
pub(crate) struct Bookstore {
    servers: [(Process, SocketAddr); 2],
    pub(crate) client: Pod,
    _shop: Pod,
    pub(crate) site: Site,
}

impl Bookstore {
    pub(crate) fn new(name: &str) -> Self {
        let site = Site::new(name);
        let (client, shop) = (
            site.lab.pod("client").unwrap(),
            site.lab.pod("shop").unwrap(),
        );
        let servers = [serve(&shop, 1001, "v1"), serve(&shop, 1002, "v2")];
        let bookstore = Self {
            servers,
            client,
            _shop: shop,
            site,
        };
        bookstore
            .site
            .write("services.yaml", &manifests(bookstore.v1(), bookstore.v2()));
        bookstore
    }

    pub(crate) fn v1(&self) -> SocketAddr {
        self.servers[0].1
    }

    pub(crate) fn v2(&self) -> SocketAddr {
        self.servers[1].1
    }

    /// Connects so many times: answers of v1 and of v2, and failures.
    pub(crate) fn count(&self, connections: u64) -> (u64, u64, u64) {
        let tags = self
            .client
            .run(|| client::count_tags(VIP, connections))
            .unwrap();
        (tags.count("v1"), tags.count("v2"), tags.failed())
    }

    /// Connects without pause until the result is dropped; a failure ends the process.
    pub(crate) fn hammer(&self) -> Process {
        self.client.start(|| client::hammer(VIP)).unwrap()
    }
}
