//! One request over a connection of its own.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::parse_answer;

/// Where to ask: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    host: String,
    port: u16,
    path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix("http://")
            .ok_or("give an URL that starts with http://")?;
        let (authority, path) = rest
            .find('/')
            .map_or((rest, "/"), |slash| rest.split_at(slash));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (
                host,
                port.parse().map_err(|_| format!("`{port}` is no port"))?,
            ),
            _ => (authority, 80),
        };
        if host.is_empty() {
            return Err("the URL has no host".to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

/// What a server said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Who it was, or `unknown` if it did not say.
    pub(crate) identity: String,
    /// All of it.
    pub(crate) body: String,
}

/// Why there was no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// One of a few words, to count by.
    pub(crate) kind: String,
    /// More, for people.
    pub(crate) message: String,
}

impl Failure {
    fn new(kind: &str, message: &dyn ToString) -> Self {
        Self {
            kind: kind.to_owned(),
            message: message.to_string(),
        }
    }

    fn of(error: &io::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => "refused",
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset",
            // The one when connecting, the other when reading.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout",
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable",
            _ => "other",
        };
        Self::new(kind, error)
    }
}

/// Asks once: resolves the name, connects, and reads the answer to its end.
pub(crate) fn ask(url: &Url, patience: Duration) -> Result<Answer, Failure> {
    let deadline = Instant::now() + patience;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean without limit.
        left.max(Duration::from_millis(1))
    };
    let host = url.host.trim_matches(['[', ']']);
    let addresses = (host, url.port)
        .to_socket_addrs()
        .map_err(|error| Failure::new("resolve", &error))?;
    let mut last = Failure::new("resolve", &"the name has no address");
    for address in addresses {
        let mut stream = match TcpStream::connect_timeout(&address, left()) {
            Ok(stream) => stream,
            Err(error) => {
                last = Failure::of(&error);
                continue;
            }
        };
        return exchange(&mut stream, url, &left);
    }
    Err(last)
}

fn exchange(
    stream: &mut TcpStream,
    url: &Url,
    left: &dyn Fn() -> Duration,
) -> Result<Answer, Failure> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: example\r\nConnection: close\r\n\r\n",
        url.path, url.host, url.port
    );
    let mut text = String::new();
    let result = stream
        .set_write_timeout(Some(left()))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .and_then(|()| stream.set_read_timeout(Some(left())))
        .and_then(|()| stream.read_to_string(&mut text));
    result.map_err(|error| Failure::of(&error))?;
    let Some((status, body)) = parse_answer(&text) else {
        return Err(Failure::new("closed", &"the connection ended early"));
    };
    if status != 200 {
        return Err(Failure::new(&format!("status-{status}"), &body.trim()));
    }
    let identity = serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|body| body.get("identity")?.as_str().map(str::to_owned));
    Ok(Answer {
        identity: identity.unwrap_or_else(|| "unknown".to_owned()),
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_host_and_perhaps_a_port_and_a_path() {
        let url = |host: &str, port, path: &str| {
            Ok(Url {
                host: host.to_owned(),
                port,
                path: path.to_owned(),
            })
        };
        assert_eq!(
            "http://a.b:8000/ip?x=1".parse(),
            url("a.b", 8000, "/ip?x=1")
        );
        assert_eq!("http://a".parse(), url("a", 80, "/"));
        assert_eq!("http://[fd00::1]:81/".parse(), url("[fd00::1]", 81, "/"));
        assert_eq!("http://[fd00::1]".parse(), url("[fd00::1]", 80, "/"));
        for wrong in ["a:80", "https://a", "http://", "http://a:x/"] {
            wrong.parse::<Url>().unwrap_err();
        }
    }
}
