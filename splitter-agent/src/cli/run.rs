//! `run`: the agent itself.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use splitter_common::pick;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::compile::{Diagnostic, Settings, Severity, compile};
use crate::datapath::{
    Capacity, Change, EbpfLogLevel, Extent, LoadSettings, PinDirectory, PinError, PinLock,
    Programs, Publisher, Report, find_cgroup, preflight,
};
use crate::plan::Plan;
use crate::source::Snapshot;
use crate::source::manifests;

use super::{Common, Outcome, Output, with_causes};

/// How long after a change the records that it put out of force are marked as free.
const TIDY_DELAY: Duration = Duration::from_millis(100);

/// How often the agent looks whether its programs are still attached, and tries again what
/// failed.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long a new agent waits for the one before it to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Fill the maps from a source, attach the programs, and keep both as the source says.
///
/// On SIGTERM and SIGINT the agent ends and leaves the programs at work: the splits that
/// were last published stay in force. `splitter-agent cleanup` ends them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  splitter-agent run --manifests /etc/splitter
  splitter-agent run --manifests /etc/splitter --cgroup /sys/fs/cgroup/kubepods.slice -o json
  splitter-agent run --manifests /etc/splitter --log-level splitter_agent=debug \\
      --ebpf-log-level debug")]
pub(super) struct RunArgs {
    /// Directory of Kubernetes manifests to watch: Services, EndpointSlices and
    /// TrafficSplits in YAML or JSON, in any number of files and subdirectories.
    #[arg(long, env = "SPLITTER_MANIFESTS", value_name = "DIR")]
    manifests: PathBuf,

    /// Cgroup whose processes' connections are split [default: the pods' cgroup, or else
    /// the root of the cgroup v2 mount].
    #[arg(long, env = "SPLITTER_CGROUP", value_name = "PATH")]
    cgroup: Option<PathBuf>,

    /// Name of this node. Nodes start their shares at different leaves.
    #[arg(long, env = "NODE_NAME", default_value = "", value_name = "NAME")]
    node_name: String,

    /// DNS domain of the cluster, as root names may end in it.
    #[arg(
        long,
        env = "SPLITTER_CLUSTER_DOMAIN",
        default_value = "cluster.local",
        value_name = "DOMAIN"
    )]
    cluster_domain: String,

    /// Most frontends: addresses × ports of root Services.
    #[arg(long, env = "SPLITTER_MAX_FRONTENDS", default_value_t = Capacity::default().frontends,
        value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    max_frontends: u32,

    /// Most leaves, over all frontends.
    #[arg(long, env = "SPLITTER_MAX_LEAVES", default_value_t = Capacity::default().leaves,
        value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    max_leaves: u32,

    /// Most endpoints, over all frontends and leaves.
    #[arg(long, env = "SPLITTER_MAX_ENDPOINTS", default_value_t = Capacity::default().endpoints,
        value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    max_endpoints: u32,

    /// Whether getpeername() shows the address that was dialled. Without it connect() is
    /// a little faster, and applications see the endpoint's address.
    #[arg(long, env = "SPLITTER_PEER_NAMES", default_value_t = true, action = clap::ArgAction::Set,
        value_name = "true|false")]
    peer_names: bool,

    /// Log level: a level, or filters such as `splitter_agent=debug`.
    #[arg(
        long,
        env = "SPLITTER_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log_level: String,

    /// Level of the logs in the kernel programs; at `off` they cost nothing.
    #[arg(long, env = "SPLITTER_EBPF_LOG_LEVEL", value_enum, default_value_t)]
    ebpf_log_level: EbpfLogLevel,
}

pub(super) fn run(args: &RunArgs, common: &Common) -> anyhow::Result<Outcome> {
    start_log(args, common.output)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(args, common.pins()))?;
    Ok(Outcome::Done)
}

fn start_log(args: &RunArgs, output: Output) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log_level).with_context(|| {
        format!(
            "--log-level `{}` is not a filter; give a level such as `info`",
            args.log_level
        )
    })?;
    // The programs are asked for their level when they are loaded; what they do write
    // is wanted.
    let filter = match args.ebpf_log_level {
        EbpfLogLevel::Off => filter,
        _ => filter.add_directive(
            "splitter_ebpf=trace"
                .parse()
                .context("the filter for the kernel programs' log is wrong")?,
        ),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let started = match output {
        Output::Text => log.try_init(),
        Output::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

async fn serve(args: &RunArgs, pins: PinDirectory) -> anyhow::Result<()> {
    preflight()?;
    let cgroup = find_cgroup(args.cgroup.as_deref())?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let _lock = tokio::select! {
        lock = lock(&pins) => lock?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };

    let (mut snapshots, _watch) = manifests::watch(&args.manifests)?;
    let mut programs = Programs::load(&LoadSettings {
        pins: pins.clone(),
        capacity: Capacity {
            frontends: args.max_frontends,
            leaves: args.max_leaves,
            endpoints: args.max_endpoints,
        },
        log_level: args.ebpf_log_level,
        peer_names: args.peer_names,
    })?;
    if args.ebpf_log_level != EbpfLogLevel::Off {
        forward_logs(&mut programs)?;
    }
    let mut agent = Agent {
        publisher: Publisher::open(&pins, node_fraction(&args.node_name))?,
        programs,
        cgroup,
        settings: Settings {
            cluster_domain: args.cluster_domain.clone(),
        },
        said: BTreeSet::new(),
        has_failed: false,
        is_attached: false,
        is_pruned: false,
        pins,
    };
    let mut snapshot = snapshots.borrow_and_update().clone();
    agent.apply(&snapshot)?;

    let mut untidy = true;
    let mut watch = tokio::time::interval(WATCH_INTERVAL);
    loop {
        tokio::select! {
            changed = snapshots.changed() => {
                changed.context("the manifests are no longer watched")?;
                snapshot = snapshots.borrow_and_update().clone();
                tokio::task::block_in_place(|| agent.apply(&snapshot))?;
                untidy = true;
            }
            () = tokio::time::sleep(TIDY_DELAY), if untidy => untidy = agent.publisher.tidy(),
            _ = watch.tick() => {
                tokio::task::block_in_place(|| agent.watch(&snapshot))?;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("ending; what was last published stays in force");
    Ok(())
}

/// Waits for the agent before us to end.
async fn lock(pins: &PinDirectory) -> anyhow::Result<PinLock> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match pins.create().and_then(|()| pins.lock()) {
            Err(PinError::Gone(_)) => {}
            Err(PinError::Locked(path)) if start.elapsed() < LOCK_PATIENCE => {
                if !told {
                    tracing::info!(pins = %path.display(), "another agent is at work here; waiting for it to end");
                    told = true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return Ok(result?),
        }
    }
}

/// Hands the kernel programs' log records to ours. They are for debugging, so looking for
/// them now and then is good enough; the kernel drops records when its buffer is full.
fn forward_logs(programs: &mut Programs) -> anyhow::Result<()> {
    let mut logger = aya_log::EbpfLogger::init(programs.object())
        .context("cannot read the kernel programs' log")?;
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        loop {
            interval.tick().await;
            logger.flush();
        }
    });
    Ok(())
}

/// Part of a turn for a node, in 1 / 2^32, from its name.
fn node_fraction(name: &str) -> u32 {
    name.bytes().fold(0, |state, byte| {
        pick::hash(u64::from(state) << 8 | u64::from(byte))
    })
}

/// The one task that owns the maps.
struct Agent {
    publisher: Publisher,
    programs: Programs,
    pins: PinDirectory,
    cgroup: PathBuf,
    settings: Settings,
    /// What has been said, so that it is said once.
    said: BTreeSet<Diagnostic>,
    /// Whether something could not be published.
    has_failed: bool,
    /// Whether our programs are at work.
    is_attached: bool,
    /// Whether maps of other layouts are gone.
    is_pruned: bool,
}

impl Agent {
    /// Brings the maps to what the source says, and puts the programs to work.
    fn apply(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        self.publish(snapshot);
        // The maps are filled before the programs that read them are put to work. If the
        // programs now at work have maps of another layout, they are better than ours
        // until ours hold everything.
        if !self.is_attached && (snapshot.complete || self.pins.other_layouts()?.is_empty()) {
            self.attach()?;
            self.is_attached = true;
        }
        if self.is_attached && !self.is_pruned && snapshot.complete {
            self.is_pruned = true;
            match self.pins.remove_other_layouts() {
                Ok(removed) => {
                    for path in removed {
                        tracing::info!(path = %path.display(), "removed the maps of another layout");
                    }
                }
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(error, "maps of another layout stay behind");
                }
            }
        }
        Ok(())
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        let attached = self.programs.attach(&self.cgroup)?;
        tracing::info!(
            cgroup = %self.cgroup.display(),
            programs = ?attached,
            "programs attached; connections are split"
        );
        Ok(())
    }

    /// Tries again what failed, and follows a cgroup that was removed and made anew.
    fn watch(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        if self.has_failed {
            self.publish(snapshot);
        }
        if self.is_attached && self.cgroup.exists() && !self.programs.is_attached(&self.cgroup)? {
            tracing::warn!(
                cgroup = %self.cgroup.display(),
                "the programs are no longer on the cgroup; attaching them again"
            );
            self.attach()?;
        }
        Ok(())
    }

    /// Brings the maps to what the source says.
    fn publish(&mut self, snapshot: &Snapshot) {
        let start = Instant::now();
        let compiled = compile(&snapshot.objects, &self.settings);
        let extent = if snapshot.complete {
            Extent::Full
        } else {
            Extent::Partial
        };
        let report = self.publisher.publish(&compiled.plan, extent);
        // What failed is tried again each second; it is said once.
        let is_news = !self.has_failed || !report.put.is_empty() || !report.removed.is_empty();
        self.has_failed = !report.failed.is_empty();
        if is_news {
            log_report(&report, &compiled.plan, start.elapsed());
        }
        let diagnostics = snapshot
            .problems
            .iter()
            .cloned()
            .chain(compiled.diagnostics)
            .collect();
        self.say(diagnostics);
    }

    /// Logs what is new among the diagnostics, and what no longer holds.
    fn say(&mut self, diagnostics: BTreeSet<Diagnostic>) {
        for diagnostic in self.said.difference(&diagnostics) {
            if diagnostic.severity != Severity::Accepted {
                tracing::info!(object = %diagnostic.object, reason = diagnostic.reason, "no longer so");
            }
        }
        for diagnostic in diagnostics.difference(&self.said) {
            let Diagnostic {
                object,
                severity,
                reason,
                field,
                message,
            } = diagnostic;
            match severity {
                Severity::Accepted | Severity::Inactive => {
                    tracing::info!(%object, %severity, reason, field, "{message}");
                }
                Severity::Warning | Severity::Refused => {
                    tracing::warn!(%object, %severity, reason, field, "{message}");
                }
            }
        }
        self.said = diagnostics;
    }
}

/// Says what a publication changed.
fn log_report(report: &Report, plan: &Plan, took: Duration) {
    for put in &report.put {
        let (frontend, generation) = (put.frontend, put.generation);
        let Some(split) = plan.frontends.get(&frontend) else {
            continue;
        };
        let leaves = || {
            split
                .leaves
                .iter()
                .map(|leaf| {
                    let endpoints = leaf.endpoints.len();
                    format!("{}={} ({endpoints} endpoints)", leaf.service, leaf.share)
                })
                .collect::<Vec<_>>()
                .join(", ")
        };
        if put.change == Change::Endpoints {
            tracing::debug!(%frontend, generation, leaves = leaves(), "endpoints changed");
        } else {
            tracing::info!(
                %frontend,
                generation,
                split = %format_args!("{}/{}", split.origin.namespace, split.origin.name),
                decision = ?split.decision,
                shares = leaves(),
                ?took,
                "in force"
            );
        }
    }
    for frontend in &report.removed {
        tracing::info!(%frontend, "no longer split");
    }
    for frontend in &report.kept {
        tracing::warn!(
            %frontend,
            "kept as it was, since a file that has never been read may have to do with it"
        );
    }
    for (frontend, error) in &report.failed {
        let error = with_causes(error);
        tracing::error!(%frontend, error, "not in force; what was, stays; trying again");
    }
}
