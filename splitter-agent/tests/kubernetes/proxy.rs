//! A TCP proxy that can break what goes through it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Carries connections to a server, until told otherwise.
pub(crate) struct Proxy {
    target: SocketAddr,
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    // Aborts what carries connections, and with it the connections.
    carrying: JoinSet<()>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let mut proxy = Self {
            target,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            accepted: Arc::default(),
            carrying: JoinSet::new(),
        };
        proxy.carry();
        proxy
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Breaks every connection; new ones work.
    pub(crate) async fn cut(&mut self) {
        self.refuse().await;
        self.carry();
    }

    /// Breaks every connection and refuses new ones.
    pub(crate) async fn refuse(&mut self) {
        self.carrying.shutdown().await;
    }

    /// Accepts connections again, at the same address.
    pub(crate) fn carry(&mut self) {
        let listener = listen(self.address);
        self.address = listener.local_addr().expect("an address");
        let target = self.target;
        let accepted = Arc::clone(&self.accepted);
        self.carrying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connect(client, target));
            }
        });
    }

    /// Accepts connections and never says anything on them, nor on those that there are.
    pub(crate) async fn fall_silent(&mut self) {
        self.refuse().await;
        let listener = listen(self.address);
        self.carrying.spawn(async move {
            let mut connections = Vec::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.push(client);
            }
        });
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    // The address is taken for a while by connections that were broken.
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("an address to bind to");
    socket.listen(64).expect("a listener")
}

async fn connect(mut client: TcpStream, target: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(target).await {
        // That either side broke it is what proxies are there for.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
