//! A way to the API server from the machine's own network, which it does not change: a port on the
//! loopback interface whose connections are carried into the cluster's network.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, bail};

use super::address;
use super::space::Space;
use crate::lab::cgroup;
use crate::lab::place::Place;
use crate::lab::process::{self, Process};

/// A process that carries connections. Dropping ends it.
#[derive(Debug)]
pub(super) struct Forwarder {
    _process: Process,
    address: SocketAddr,
}

impl Forwarder {
    /// Carries connections to a port of the loopback interface to the API server in `space`.
    pub(super) fn new(space: &Space) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let place = Place::new(&cgroup::own()?, None)?;
        let start = |ready: process::Ready<Result<(), String>>| {
            // The listener stays in the network that it was made in.
            let entered = space.enter_network().map_err(|error| format!("{error:#}"));
            let failed = entered.is_err();
            ready.signal(&entered);
            if !failed {
                carry_all(&listener);
            }
        };
        let (process, entered) = process::start_ready(&place, "forwarder", start)?;
        if let Err(message) = entered {
            bail!("cannot forward to the API server: {message}");
        }
        Ok(Self {
            _process: process,
            address,
        })
    }

    /// Where it takes connections.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn carry_all(listener: &TcpListener) {
    loop {
        // A client that went away while it waited is no reason to end.
        if let Ok((client, _)) = listener.accept() {
            thread::spawn(move || carry(&client));
        }
    }
}

/// Carries one connection, until both sides have ended it.
fn carry(client: &TcpStream) {
    let target = SocketAddr::from((address::CONTROL_PLANE, address::API_PORT));
    // Without a server the client sees the connection end, as it would without a forwarder.
    let Ok(server) = TcpStream::connect(target) else {
        return;
    };
    for stream in [client, &server] {
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
    }
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // However it ends, there is nothing more to carry this way.
    let _ = io::copy(&mut from, &mut to);
    let _ = from.shutdown(Shutdown::Read);
    let _ = to.shutdown(Shutdown::Write);
}
