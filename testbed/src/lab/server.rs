//! Servers that say who they are.
//!
//! Both kinds run until they are killed, in the process that called them:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # use testbed::lab::{Lab, server};
//! # let pod = Lab::new("example")?.pod("shop")?;
//! let (_process, address) = pod.start_ready(|ready| server::identity(14001, "shop-v1", ready))?;
//! # Ok(())
//! # }
//! ```

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::process::Ready;
use super::sys;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How many threads wait for connections at least, once as many were needed.
const IDLE_WORKERS: usize = 8;

/// Where a server listens: a port on every address of either family, or one address.
#[derive(Clone, Copy, Debug)]
pub struct Listen(SocketAddr);

impl From<u16> for Listen {
    fn from(port: u16) -> Self {
        Self((Ipv6Addr::UNSPECIFIED, port).into())
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

/// Serves HTTP/1.1: any request is answered with the header `Identity: <identity>` and a short
/// text. Connections are kept open unless the client asks otherwise. Reports its address as ready.
///
/// # Panics
///
/// If it cannot listen.
pub fn identity(listen: impl Into<Listen>, identity: &str, ready: Ready<SocketAddr>) {
    let identity = identity.to_owned();
    serve(listen.into(), ready, move |connection| {
        answer_requests(&connection, &identity)
    });
}

/// Writes the line `<identity>` to whoever connects, and closes. Reports its address as ready.
///
/// # Panics
///
/// If it cannot listen.
pub fn tag(listen: impl Into<Listen>, identity: &str, ready: Ready<SocketAddr>) {
    let line = format!("{identity}\n");
    serve(listen.into(), ready, move |mut connection| {
        connection.write_all(line.as_bytes())
    });
}

type Handler = dyn Fn(TcpStream) -> io::Result<()> + Send + Sync;

/// Everything that the threads of one server share.
struct Server {
    listener: TcpListener,
    /// How many threads wait for a connection.
    idle: AtomicUsize,
    handle: Box<Handler>,
}

/// Listens, reports that, and serves for ever.
fn serve(
    Listen(address): Listen,
    ready: Ready<SocketAddr>,
    handle: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) {
    let (listener, address) = TcpListener::bind(address)
        .and_then(|listener| {
            sys::set_backlog(&listener, BACKLOG)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        })
        .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    let server = Arc::new(Server {
        listener,
        idle: AtomicUsize::new(1),
        handle: Box::new(handle),
    });
    ready.signal(&address);
    work(&server, true);
}

/// Accepts and serves connections. Whoever takes the last waiting thread's place by accepting
/// starts another one first: any number of connections can be held open, and as long as they are
/// short no thread is made for them.
fn work(server: &Arc<Server>, first: bool) {
    loop {
        // A client that left the queue again, or no descriptors left: the next one may do better.
        let connection = server.listener.accept();
        if server.idle.fetch_sub(1, Ordering::AcqRel) == 1 {
            let server = Arc::clone(server);
            server.idle.fetch_add(1, Ordering::AcqRel);
            thread::spawn(move || work(&server, false));
        }
        if let Ok((connection, _)) = connection {
            // Clients come and go as they like; it is for them to complain.
            let _ = (server.handle)(connection);
        }
        if server.idle.fetch_add(1, Ordering::AcqRel) >= IDLE_WORKERS && !first {
            server.idle.fetch_sub(1, Ordering::AcqRel);
            return;
        }
    }
}

/// Answers HTTP requests until the client wants no more.
fn answer_requests(connection: &TcpStream, identity: &str) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    let body = format!("Hello from {identity}\n");
    while let Some(request) = read_request(&mut reader)? {
        let close = if request.keep_alive {
            ""
        } else {
            "Connection: close\r\n"
        };
        let length = body.len();
        let body = if request.wants_body { &body } else { "" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nIdentity: {identity}\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n{close}\r\n{body}"
        );
        let mut writer = connection;
        writer.write_all(answer.as_bytes())?;
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

/// What matters of a request.
struct Request {
    wants_body: bool,
    keep_alive: bool,
}

/// Reads one request, with its body; `None` at the end of the connection.
fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut request = Request {
        wants_body: !line.starts_with("HEAD "),
        keep_alive: !line.trim_end().ends_with("HTTP/1.0"),
    };
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("connection") {
            request.keep_alive = !value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(io::Error::other)?;
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(Some(request))
}
