//! `serve`: a server that tells who it is.

use std::env;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use crate::http;
use crate::signals::Signals;

/// A client that says nothing for this long is left.
const PATIENCE: Duration = Duration::from_secs(10);

/// `/healthz` says whether it is ready, and `PUT /ready?value=false` makes it say that it is not.
/// Every other path is answered with `{"identity": ..., "pod": ..., "path": ...}`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// TCP port, on every address
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,

    /// Name to answer with [default: the host's]
    #[arg(long, env = "IDENTITY")]
    identity: Option<String>,

    /// How long to go on serving after SIGTERM, in seconds: until everyone has heard that this pod
    /// is ending
    #[arg(long, env = "DRAIN_SECONDS", default_value_t = 5)]
    drain_seconds: u64,

    /// Start as not ready
    #[arg(long, env = "START_UNREADY")]
    start_unready: bool,
}

struct Server {
    identity: String,
    pod: String,
    ready: AtomicBool,
}

pub(crate) fn run(arguments: &ServeArgs, signals: &Signals) -> Result<ExitCode> {
    let pod = env::var("HOSTNAME").unwrap_or_default();
    let server = Arc::new(Server {
        identity: arguments.identity.clone().unwrap_or_else(|| pod.clone()),
        pod,
        ready: AtomicBool::new(!arguments.start_unready),
    });
    let listener = listen(arguments.port)?;
    eprintln!(
        "example: {} serves on port {}",
        server.identity, arguments.port
    );
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let server = Arc::clone(&server);
            thread::spawn(move || {
                // A client that has gone is its own affair.
                let _ = server.serve(&stream);
            });
        }
    });
    signals.wait();
    eprintln!("example: ending in {} s", arguments.drain_seconds);
    thread::sleep(Duration::from_secs(arguments.drain_seconds));
    Ok(ExitCode::SUCCESS)
}

/// Both families where the kernel has both.
fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        .with_context(|| format!("cannot listen on port {port}"))
}

impl Server {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Some(request) = http::read_request(stream)? else {
            return Ok(());
        };
        let (status, body) = match (&*request.method, &*request.path) {
            (_, "/healthz") => {
                let ready = self.ready.load(Ordering::Relaxed);
                let status = if ready {
                    "200 OK"
                } else {
                    "503 Service Unavailable"
                };
                (status, json!({"ready": ready}))
            }
            ("PUT" | "POST", "/ready") => match request.query.as_str() {
                "value=true" | "value=false" => {
                    let ready = request.query.ends_with("true");
                    self.ready.store(ready, Ordering::Relaxed);
                    ("200 OK", json!({"ready": ready}))
                }
                _ => (
                    "400 Bad Request",
                    json!({"error": "give ?value=true or ?value=false"}),
                ),
            },
            (_, path) => (
                "200 OK",
                json!({"identity": self.identity, "pod": self.pod, "path": path}),
            ),
        };
        http::answer(stream, status, &format!("{body}\n"))
    }
}
