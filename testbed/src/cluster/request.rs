//! What the supervisor and those who use a cluster say to each other: lines of JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::state::Directory;

/// From the supervisor to the process that started it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum News {
    /// What it does now.
    Progress(String),
    /// The cluster can be used.
    Ready,
    /// It cannot, and everything is cleaned up; or cleaning up failed.
    Failed(String),
}

/// From anyone to the supervisor.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Request {
    /// End the cluster.
    Down,
    /// Kill a program, on a node or in the control plane.
    Stop(Target),
    /// Start a program again.
    Start(Target),
}

/// A program of the cluster.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Target {
    pub(super) node: Option<String>,
    pub(super) program: String,
}

/// The answer to a request: nothing, or what went wrong.
pub(super) type Answer = Result<(), String>;

/// Sends one line.
pub(super) fn send(mut stream: &UnixStream, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(())
}

/// Receives one line; `None` when there will be no more.
pub(super) fn receive<T: DeserializeOwned>(
    reader: &mut BufReader<impl std::io::Read>,
) -> Result<Option<T>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// Asks the supervisor of a cluster, and waits until it has done it.
pub(super) fn ask(directory: &Directory, request: &Request) -> Result<()> {
    let name = directory.name();
    let stream = UnixStream::connect(directory.control())
        .with_context(|| format!("the cluster {name} does not answer"))?;
    send(&stream, request)?;
    match receive::<Answer>(&mut BufReader::new(&stream))? {
        Some(Ok(())) => Ok(()),
        Some(Err(message)) => bail!("{message}"),
        None => bail!("the cluster {name} ended before it answered"),
    }
}
