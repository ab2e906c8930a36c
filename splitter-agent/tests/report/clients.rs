//! Clients that are slow, or many, or say nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::agent::Site;
use crate::http::{get, start, wait_for};

#[test]
fn slow_and_silent_clients_hold_up_nobody_and_are_cut_off() {
    let site = Site::new("slow");
    let (_agent, server) = start(&site, &[]);
    wait_for(server, "/readyz", 200);

    let start = Instant::now();
    let mut first = TcpStream::connect(server).unwrap();
    first.write_all(b"GET /readyz HTTP/1.1\r\n").unwrap();
    // More than may be connected at a time.
    let mut slow: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(server).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HT").unwrap();
            }
            let asked = Instant::now();
            assert_eq!(get(server, "/livez").status, 200);
            assert!(asked.elapsed() < Duration::from_secs(2), "held up");
            stream
        })
        .collect();

    // The oldest had to make way at once; the youngest is cut off when its time is up, however
    // busily it drips.
    let mut nothing = Vec::new();
    first
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let _ = first.read_to_end(&mut nothing);
    let mut last = slow.pop().unwrap();
    let patience = Duration::from_secs(20);
    last.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    loop {
        let mut byte = [0];
        match last.write_all(b"x").and_then(|()| last.read(&mut byte)) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => break,
        }
        assert!(start.elapsed() < patience, "never cut off");
    }
    assert_eq!(get(server, "/readyz").status, 200);
}

#[test]
fn what_is_not_served_is_answered_so() {
    let site = Site::new("paths");
    let (_agent, server) = start(&site, &[]);
    assert_eq!(get(server, "/").status, 404);
    assert_eq!(get(server, "/healthz").status, 404);
    let version = get(server, "/version");
    assert_eq!(version.json()["version"], env!("CARGO_PKG_VERSION"));
    assert!(version.head.contains("connection: close"), "{version:?}");
}
