//! Clients that note who answered them.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sys;
use crate::fixtures::Tally;

/// How long connecting, and each wait for an answer, may take, on an emulated machine too.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects `count` times, one after the other, to a [`tag`](super::server::tag) server.
///
/// Failures are counted by their [`io::ErrorKind`], such as `ConnectionRefused`.
pub fn count_tags(target: SocketAddr, count: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..count {
        tally.add(read_tag(target).map_err(|error| format!("{:?}", error.kind())));
    }
    tally
}

/// Connects once to a [`tag`](super::server::tag) server: who was it?
pub fn read_tag(target: SocketAddr) -> io::Result<String> {
    let mut connection = connect(target)?;
    let mut line = String::new();
    connection.read_to_string(&mut line)?;
    match line.strip_suffix('\n') {
        Some(identity) => Ok(identity.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Connects to a [`tag`](super::server::tag) server without pause, until the process is ended.
///
/// # Panics
///
/// If a connection fails, and with that the process ends: see
/// [`Process::is_running`](super::Process::is_running).
pub fn hammer(target: SocketAddr) -> ! {
    loop {
        if let Err(error) = read_tag(target) {
            panic!("a connection to {target} failed: {error}");
        }
    }
}

/// What an HTTP server said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header `Identity`.
    pub identity: Option<String>,
}

/// Asks for `path` over a connection made for this one request. `authority` is `host:port`; a
/// name is looked up each time, and its addresses are tried in turn.
pub fn http_get(authority: &str, path: &str) -> io::Result<Response> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for address in authority.to_socket_addrs()? {
        result = connect(address);
        if result.is_ok() {
            break;
        }
    }
    let mut connection = result?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    read_response(&mut BufReader::new(connection))
}

/// Connects, so that closing leaves no port busy: a million connections from one pod are no problem.
fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&target, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    sys::reset_on_close(&connection)?;
    Ok(connection)
}

fn read_response(reader: &mut BufReader<TcpStream>) -> io::Result<Response> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(malformed)?;
    let mut identity = None;
    let mut length: u64 = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("identity") {
            identity = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(|_| malformed())?;
        }
    }
    if io::copy(&mut reader.take(length), &mut io::sink())? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Response { status, identity })
}
