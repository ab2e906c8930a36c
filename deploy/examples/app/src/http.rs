//! As much of HTTP/1.1 as servers and clients here need: one request for each connection.

use std::io::{self, BufRead, BufReader, Read, Write};

/// The longest head that is read.
const LONGEST_HEAD: u64 = 64 << 10;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Such as `GET`.
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    /// What is after the question mark.
    pub(crate) query: String,
}

/// Reads a request; none, if the peer left without one.
pub(crate) fn read_request(stream: impl Read) -> io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream.take(LONGEST_HEAD)).lines();
    let Some(first) = lines.next().transpose()? else {
        return Ok(None);
    };
    // The head is read to its end: what is left unread when a socket is closed resets it.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other("not HTTP"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    }))
}

/// Answers with JSON.
pub(crate) fn answer(mut stream: impl Write, status: &str, body: &str) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes())?;
    stream.flush()
}

/// An answer's status and body, or nothing if it is not HTTP or was cut off.
pub(crate) fn parse_answer(text: &str) -> Option<(u16, &str)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?;
    let status = status.split(' ').nth(1)?.parse().ok()?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.trim().parse::<usize>());
    match length {
        Some(Ok(length)) if length == body.len() => Some((status, body)),
        None => Some((status, body)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_and_answered() {
        let head = "PUT /ready?value=false HTTP/1.1\r\nHost: x\r\n\r\n";
        let request = read_request(head.as_bytes()).unwrap().unwrap();
        assert_eq!(
            (&*request.method, &*request.path, &*request.query),
            ("PUT", "/ready", "value=false")
        );
        assert_eq!(read_request(&b""[..]).unwrap(), None);

        let mut text = Vec::new();
        answer(&mut text, "200 OK", "{}").unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(parse_answer(&text), Some((200, "{}")));
        assert_eq!(parse_answer(&text[..text.len() - 1]), None, "cut off");
    }
}
