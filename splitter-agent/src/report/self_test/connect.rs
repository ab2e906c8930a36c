//! The connection itself.

use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use super::{PATIENCE, SelfTestError, VIP};

/// What a connection that was split shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// What the listener answers.
    pub(super) token: String,
    /// Whether the peer is shown as [`VIP`].
    pub(super) keep_original_dst: bool,
}

impl Expected {
    /// Connects from the cgroup that this process is in, with a socket of each family.
    pub(super) fn connect(&self) -> Result<(), SelfTestError> {
        self.connect_to(VIP)?;
        // A socket of the other family, which another program sees.
        let mapped = match VIP {
            SocketAddr::V4(vip) => (vip.ip().to_ipv6_mapped(), vip.port()).into(),
            vip @ SocketAddr::V6(_) => vip,
        };
        match self.connect_to(mapped) {
            Err(SelfTestError::NotSplit(error)) if is_unsupported(&error) => Ok(()),
            result => result,
        }
    }

    fn connect_to(&self, vip: SocketAddr) -> Result<(), SelfTestError> {
        let mut stream =
            TcpStream::connect_timeout(&vip, PATIENCE).map_err(SelfTestError::NotSplit)?;
        let answer = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| read(&mut stream, self.token.len()));
        // What says nothing, or something else, is not ours.
        if !answer.is_ok_and(|answer| answer == self.token.as_bytes()) {
            return Err(SelfTestError::Stranger);
        }
        let peer = stream.peer_addr().map_err(SelfTestError::NotSplit)?;
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if self.keep_original_dst && peer != VIP {
            return Err(SelfTestError::OriginalDst(peer));
        }
        Ok(())
    }
}

fn read(stream: &mut TcpStream, length: usize) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Whether the machine has no IPv6 at all.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::ENETUNREACH)
    )
}

/// Enters a cgroup and connects from there: what the hidden command does.
///
/// # Errors
///
/// If the cgroup cannot be entered, or a connection was not split.
pub fn connect_in(
    cgroup: &Path,
    token: String,
    keep_original_dst: bool,
) -> Result<(), SelfTestError> {
    let processes = cgroup.join("cgroup.procs");
    // "0" means the writing process. A socket belongs to the cgroup that its creator is in at that
    // moment, so this comes first.
    fs::write(&processes, "0").map_err(|source| SelfTestError::Cgroup {
        action: "enter",
        path: processes.clone(),
        source,
    })?;
    Expected {
        token,
        keep_original_dst,
    }
    .connect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn without_programs_nothing_answers_at_the_reserved_address() {
        assert!(VIP.ip().is_loopback() && VIP.ip() != Ipv4Addr::LOCALHOST);
        let expected = Expected {
            token: "word".to_owned(),
            keep_original_dst: true,
        };
        let error = expected.connect().expect_err("a connection that fails");
        assert!(matches!(error, SelfTestError::NotSplit(_)), "{error}");
        assert!(error.to_string().contains("127.115.112.108:1"), "{error}");
    }
}
