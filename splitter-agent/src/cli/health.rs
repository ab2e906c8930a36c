//! `health`: what the running agent says about itself.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::node::NodeArgs;
use super::table::{Align, Table};
use super::{CommandOutcome, Common, print};
use crate::report::Listen;

/// How long the agent may take to answer everything.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than an agent ever answers, in bytes.
const MOST: usize = 1 << 20;

/// Ask the running agent whether it is ready and alive, and print every check.
///
/// Ready: connections are split on this node. Alive: a restart would not help. The agent must run
/// with --listen; it is asked from the same machine, or in the same pod.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0, every check passes; 1, one does not; 2, the command line is wrong; 3, no agent
answers.

Examples:
  splitter-agent health
  splitter-agent health --only ready --listen 127.0.0.1:9464
  kubectl -n splitter-system exec POD -- splitter-agent health")]
pub(super) struct HealthArgs {
    /// Where the agent answers: what it was given as --listen.
    #[arg(
        long,
        env = "SPLITTER_LISTEN",
        default_value = "9464",
        value_name = "[ADDRESS:]PORT"
    )]
    listen: Listen,

    /// Ask for one of the two only, as a probe does.
    #[arg(long, value_enum)]
    only: Option<Probe>,

    #[command(flatten)]
    node: NodeArgs,
}

/// What an agent is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Probe {
    /// Whether connections are split.
    Ready,
    /// Whether a restart would not help.
    Alive,
}

#[derive(Serialize)]
struct HealthOutput {
    node: String,
    /// Of the agent that answered.
    version: String,
    commit: Option<String>,
    /// Where it answered.
    address: SocketAddr,
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alive: Option<Answer>,
}

/// The body of `/readyz` and `/livez`, whatever the agent's version.
#[derive(Deserialize, Serialize)]
struct Answer {
    healthy: bool,
    checks: Vec<Check>,
}

#[derive(Deserialize, Serialize)]
struct Check {
    name: String,
    healthy: bool,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failing_for_seconds: Option<f64>,
}

/// The body of `/version`. Who cleans up and stays has none.
#[derive(Default, Deserialize)]
struct Version {
    version: String,
    commit: Option<String>,
}

pub(super) fn run(args: &HealthArgs, common: &Common) -> anyhow::Result<CommandOutcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let report = runtime
        .block_on(async { tokio::time::timeout(PATIENCE, ask(args)).await })
        .with_context(|| {
            format!(
                "nothing answered at {} within {} s",
                args.listen,
                PATIENCE.as_secs()
            )
        })??;
    let healthy = report.healthy;
    print(common.output, &text(&report)?, &report)?;
    Ok(if healthy {
        CommandOutcome::Done
    } else {
        CommandOutcome::Refused
    })
}

async fn ask(args: &HealthArgs) -> anyhow::Result<HealthOutput> {
    let address = find(args.listen).await?;
    let wants = |probe| args.only.is_none_or(|only| only == probe);
    let ready = if wants(Probe::Ready) {
        Some(health(address, "/readyz").await?)
    } else {
        None
    };
    let alive = if wants(Probe::Alive) {
        Some(health(address, "/livez").await?)
    } else {
        None
    };
    let version = match get(address, "/version").await? {
        (StatusCode::OK, body) => serde_json::from_slice(&body).unwrap_or_default(),
        _ => Version::default(),
    };
    let is_healthy = |answer: &Option<Answer>| answer.as_ref().is_none_or(|it| it.healthy);
    Ok(HealthOutput {
        node: args.node.name(),
        version: version.version,
        commit: version.commit,
        address,
        healthy: is_healthy(&ready) && is_healthy(&alive),
        ready,
        alive,
    })
}

/// Where somebody accepts connections.
async fn find(listen: Listen) -> anyhow::Result<SocketAddr> {
    let mut failure = None;
    for address in listen.nearby() {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(address),
            Err(error) => {
                failure.get_or_insert((address, error));
            }
        }
    }
    let Some((address, error)) = failure else {
        bail!("{listen} is no address that can be asked");
    };
    Err(error).with_context(|| {
        format!(
            "no agent answers at {address}; start one with `splitter-agent run --listen {}`, or \
             give --listen what the one that runs was given",
            address.port()
        )
    })
}

async fn health(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let (status, body) = get(address, path).await?;
    serde_json::from_slice(&body).with_context(|| {
        format!(
            "what answers at {address} is no splitter-agent: GET {path} gave {status} and no checks"
        )
    })
}

/// One request over a connection of its own; the agent closes it.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(HOST, address.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST)
            .collect()
            .await
            .map_err(anyhow::Error::from_boxed)?;
        anyhow::Ok((status, body.to_bytes()))
    };
    exchange
        .await
        .with_context(|| format!("no answer to GET {path} from {address}"))
}

fn text(report: &HealthOutput) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let agent = match report.version.as_str() {
        "" => "no agent".to_owned(),
        version => match report.commit.as_deref() {
            Some(commit) if !commit.is_empty() => format!("splitter-agent {version} ({commit})"),
            _ => format!("splitter-agent {version}"),
        },
    };
    writeln!(text, "{agent} on {}, at {}", report.node, report.address)?;
    for (answer, yes, no) in [
        (&report.ready, "ready", "not ready"),
        (&report.alive, "alive", "not alive: restart it"),
    ] {
        let Some(answer) = answer else { continue };
        writeln!(text, "{}", if answer.healthy { yes } else { no })?;
        let mut table = Table::new(2, &[Align::Left, Align::Left, Align::Left]);
        for check in &answer.checks {
            let verdict = match (check.healthy, check.failing_for_seconds) {
                (true, _) => "ok".to_owned(),
                (false, Some(seconds)) => format!("fails for {seconds:.0} s"),
                (false, None) => "fails".to_owned(),
            };
            table.row([check.name.as_str(), &verdict, &check.message]);
        }
        text.push_str(&table.render());
    }
    Ok(text)
}
