//! What to listen on.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;

/// What to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// One address, or all of one family.
    Address(SocketAddr),
    /// A port of every address there is, of both families.
    Port(u16),
}

/// The text is neither a port nor an address with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a port, such as 9464, or an address and a port, such as 127.0.0.1:9464")]
pub struct ListenError;

impl Listen {
    /// Binds with SO_REUSEADDR, so that connections of the agent before us are no obstacle.
    pub(super) fn bind(self) -> io::Result<TcpListener> {
        match self {
            Self::Address(address) => TcpListener::bind(address),
            // One socket for both families, unless the kernel has no IPv6.
            Self::Port(port) => TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|error| {
                if error.kind() == io::ErrorKind::AddrInUse {
                    return Err(error);
                }
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            }),
        }
    }
}

impl Listen {
    /// Where a process on the same machine (or in the same pod) finds who listens there.
    #[must_use]
    pub fn nearby(self) -> Vec<SocketAddr> {
        let loopback = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ];
        let at = |port| loopback.map(|ip| SocketAddr::new(ip, port)).to_vec();
        match self {
            Self::Address(address) if address.ip().is_unspecified() => at(address.port()),
            Self::Address(address) => vec![address],
            Self::Port(port) => at(port),
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let address = text.parse().map(Self::Address);
        let port = || text.trim_start_matches(':').parse().map(Self::Port);
        address.or_else(|_| port()).map_err(|_| ListenError)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Port(port) => write!(f, "port {port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_means_every_address() {
        assert_eq!("9464".parse(), Ok(Listen::Port(9464)));
        assert_eq!(":9464".parse(), Ok(Listen::Port(9464)));
        let address = Listen::Address(([127, 0, 0, 1], 9464).into());
        assert_eq!("127.0.0.1:9464".parse(), Ok(address));
        for wrong in ["", "127.0.0.1", "localhost:9464", "70000"] {
            assert_eq!(wrong.parse::<Listen>(), Err(ListenError), "{wrong}");
        }
    }

    #[test]
    fn a_port_answers_to_both_families() {
        let listener = Listen::Port(0).bind().unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
