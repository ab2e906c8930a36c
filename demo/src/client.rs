//! The client of the demo: a process that stays, or a run of curl for each request.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use testbed::lab::{Pod, Process, client};

use super::interrupt;
use super::scenario::{ClientKind, Scenario};

/// How long an answer about a batch may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who answered how often, and what went wrong how often.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    answers: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts one more request.
    pub(crate) fn add(&mut self, outcome: Result<String, String>) {
        self.add_many(outcome, 1);
    }

    /// Counts some more requests of which the same came.
    pub(crate) fn add_many(&mut self, outcome: Result<String, String>, more: u64) {
        if more == 0 {
            return;
        }
        let count = match outcome {
            Ok(identity) => self.answers.entry(identity),
            Err(error) => self.errors.entry(error),
        };
        *count.or_default() += more;
    }

    /// Counts what another one has counted.
    pub(crate) fn merge(&mut self, other: Self) {
        for (identity, count) in other.answers {
            *self.answers.entry(identity).or_default() += count;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
    }

    /// What several have counted together.
    pub(crate) fn sum<Place>(tallies: &[(Place, Self)]) -> Self {
        let mut sum = Self::default();
        for (_, tally) in tallies {
            sum.merge(tally.clone());
        }
        sum
    }

    /// How many requests were counted.
    pub(crate) fn requests(&self) -> u64 {
        self.answers.values().sum::<u64>() + self.errors.values().sum::<u64>()
    }

    /// How many of them `identity` answered.
    pub(crate) fn answers_of(&self, identity: &str) -> u64 {
        self.answers.get(identity).copied().unwrap_or(0)
    }

    /// What went wrong, and how often.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&str, u64)> {
        self.errors.iter().map(|(text, count)| (&**text, *count))
    }
}

/// Something that makes requests, each over a new connection.
#[derive(Debug)]
pub(crate) enum Client {
    /// A process in the pod takes orders over a socket.
    Process {
        orders: BufReader<UnixStream>,
        _process: Process,
    },
    /// Each request is a command.
    Curl { url: String },
}

impl Client {
    /// Starts the scenario's client in its pod.
    pub(crate) fn start(scenario: &Scenario, pod: &Pod) -> Result<Self> {
        if scenario.client_kind == ClientKind::Curl {
            let url = scenario.url();
            return Ok(Self::Curl { url });
        }
        let (orders, inside) = UnixStream::pair()?;
        // So that Ctrl-C is noticed while an answer is awaited.
        orders.set_read_timeout(Some(Duration::from_millis(100)))?;
        let authority = scenario.authority();
        let path = scenario.path;
        let process = pod.start(move || {
            // When this fails the demo has ended, and so does this process.
            let _ = take_orders(&inside, &authority, path);
        })?;
        Ok(Self::Process {
            orders: BufReader::new(orders),
            _process: process,
        })
    }

    /// Makes `count` requests from `pod`.
    pub(crate) fn request(&mut self, pod: &Pod, count: u64) -> Result<Tally> {
        match self {
            Self::Process { orders, .. } => {
                writeln!(orders.get_mut(), "{count}")?;
                read_answer(orders)
            }
            Self::Curl { url } => {
                let mut tally = Tally::default();
                for _ in 0..count {
                    interrupt::check()?;
                    tally.add(curl(pod, url)?);
                }
                Ok(tally)
            }
        }
    }
}

/// What the process in the pod does: for each number that it reads it makes so many requests, and
/// answers with a tally in one line.
fn take_orders(orders: &UnixStream, authority: &str, path: &str) -> io::Result<()> {
    let mut writer = orders;
    for order in BufReader::new(orders).lines() {
        let count: u64 = order?.parse().map_err(io::Error::other)?;
        let mut tally = Tally::default();
        for _ in 0..count {
            tally.add(match client::http_get(authority, path) {
                Ok(response) => identity(response.status, response.identity),
                Err(error) => Err(error.to_string()),
            });
        }
        let mut line = serde_json::to_vec(&tally)?;
        line.push(b'\n');
        writer.write_all(&line)?;
    }
    Ok(())
}

fn read_answer(orders: &mut BufReader<UnixStream>) -> Result<Tally> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = String::new();
    loop {
        interrupt::check()?;
        match orders.read_line(&mut line) {
            Ok(0) => bail!("the client ended"),
            Ok(_) => return serde_json::from_str(&line).context("an answer of the client"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if Instant::now() > deadline {
                    bail!("the client did not answer within {PATIENCE:?}");
                }
            }
            Err(error) => return Err(error).context("cannot read from the client"),
        }
    }
}

/// Runs curl once, as a person would.
fn curl(pod: &Pod, url: &str) -> Result<Result<String, String>> {
    let output = pod
        .command("curl")
        .args(["-sSI", "--noproxy", "*", "--max-time", "10", url])
        .output()
        .context("cannot run curl")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        // "... after 3 ms: ..." would make each failure look like one of its own.
        let complaint = complaint.split(" after ").next().unwrap_or_default();
        return Ok(Err(complaint.trim().to_owned()));
    }
    let headers = String::from_utf8_lossy(&output.stdout);
    let mut lines = headers.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .unwrap_or(0);
    let header = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("identity"))
        .map(|(_, value)| value.trim().to_owned());
    Ok(identity(status, header))
}

/// What to count for a response.
fn identity(status: u16, identity: Option<String>) -> Result<String, String> {
    match (status, identity) {
        (200, Some(identity)) => Ok(identity),
        (200, None) => Err("an answer without the header Identity".to_owned()),
        (status, _) => Err(format!("status {status}")),
    }
}
