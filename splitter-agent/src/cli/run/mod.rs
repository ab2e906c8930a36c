//! `run`: the agent itself.

mod pods;
mod reports;
mod source;

use std::future;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use splitter_common::pick;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::agent::{Agent, Attachment};
use crate::compile::Settings;
use crate::datapath::{
    Capacity, EbpfLogLevel, LoadSettings, Outcomes, PinDirectory, PinError, PinLock, Programs,
    Publisher, Refusal, SocketMemory, preflight,
};
use crate::report::log::{self, LogControl, LogError, LogForm};
use crate::report::metrics::{self, Detail};
use crate::report::{AgentState, DiagnosticStore, Listen, Telemetry};
use crate::source::kubernetes::OwnNode;

use super::{ClusterArgs, CommandOutcome, Common, Output};
use pods::PodWatch;
use reports::Reports;
use source::SourceArgs;

/// How long after a change the records that it retired are marked as free.
const RECLAIM_DELAY: Duration = Duration::from_millis(100);

/// How often the agent looks whether its programs are still attached, and tries again what
/// failed.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long a new agent waits for the one before it to end.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Fill the maps from a source, attach the programs, and keep both as the source says.
///
/// On SIGTERM and SIGINT the agent ends and leaves the programs at work: the splits that
/// were last published stay programmed. `splitter-agent cleanup` ends them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  splitter-agent run                               (in a pod: of the cluster it is in)
  splitter-agent run --kubeconfig ~/.kube/config
  splitter-agent run --manifests /etc/splitter
  splitter-agent run --manifests /etc/splitter --cgroup /sys/fs/cgroup/kubepods.slice -o json
  splitter-agent run --manifests /etc/splitter --log-level splitter_agent=debug \\
      --ebpf-log-level debug")]
pub(super) struct RunArgs {
    #[command(flatten)]
    source: SourceArgs,

    /// Cgroup whose processes' connections are split; may be given more than once, or with
    /// commas [default: those that pods are in, or else the root of the cgroup v2 mount].
    #[arg(
        long,
        env = "SPLITTER_CGROUP",
        value_name = "PATH",
        value_delimiter = ','
    )]
    cgroup: Vec<PathBuf>,

    /// Name of this node. Nodes start their shares at different leaves; without a name
    /// `internalTrafficPolicy: Local` and topology hints are not followed.
    #[arg(long, env = "NODE_NAME", default_value = "", value_name = "NAME")]
    node_name: String,

    /// Zone of this node, for topology hints [default: the one that the label
    /// topology.kubernetes.io/zone of its Node says].
    #[arg(long, env = "SPLITTER_ZONE", default_value = "", value_name = "ZONE")]
    zone: String,

    #[command(flatten)]
    cluster: ClusterArgs,

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

    /// Whether sockets keep their original destination, the address that was dialled, for
    /// getpeername() to show. Without it connect() is a little faster, and applications see the
    /// endpoint's address.
    #[arg(long, env = "SPLITTER_KEEP_ORIGINAL_DST", default_value_t = true, action = clap::ArgAction::Set,
        value_name = "true|false")]
    keep_original_dst: bool,

    /// What is counted of what comes of connections that are split: nothing; how each ends, which costs
    /// a connection that is not split nothing before it ends; or also how long handshakes take,
    /// which costs every TCP connection on the node some 300 ns
    #[arg(
        long,
        value_name = "WHAT",
        env = "SPLITTER_OUTCOMES",
        default_value = "ends",
        hide_possible_values = true
    )]
    outcomes: Outcomes,

    /// Address and port, or port on all addresses, to answer HTTP requests at: /livez, /readyz, /metrics, /version and
    /// /log-level. Also tries, every ten seconds, whether a connection of the agent's own is
    /// split. Off unless given.
    #[arg(long, env = "SPLITTER_LISTEN", value_name = "[ADDRESS:]PORT")]
    listen: Option<Listen>,

    /// Which splits have metrics of their own: those that connections of this node went to, none,
    /// or all, which in a large cluster are many. Sums for the node are always there.
    #[arg(
        long,
        env = "SPLITTER_METRICS_SPLITS",
        value_enum,
        default_value_t,
        value_name = "active|none|all"
    )]
    metrics_splits: Detail,

    /// Log level: a level, or filters such as `splitter_agent=debug`.
    #[arg(
        long,
        env = "SPLITTER_LOG",
        default_value = "info",
        value_name = "FILTER",
        value_parser = log_filter
    )]
    log_level: String,

    /// Level of the logs in the kernel programs; at `off` they cost nothing.
    #[arg(long, env = "SPLITTER_EBPF_LOG_LEVEL", value_enum, default_value_t)]
    ebpf_log_level: EbpfLogLevel,
}

/// Takes a filter as it is, if it is one.
fn log_filter(text: &str) -> Result<String, LogError> {
    log::check(text)?;
    Ok(text.to_owned())
}

impl RunArgs {
    /// What splits are compiled for.
    fn settings(&self) -> Settings {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let settings = Settings {
            node_name: given(&self.node_name),
            zone: given(&self.zone),
            ..self.cluster.settings()
        };
        tracing::info!(
            cluster_domain = settings.cluster_domain,
            zone = self.zone,
            "compiling splits for this cluster and node"
        );
        if settings.node_name.is_none() {
            tracing::warn!(
                "the name of this node is not known, so traffic policies and topology hints are not \
                 followed; give --node-name"
            );
        }
        settings
    }

    /// The Node to ask for its zone, if that has not been said.
    fn own_node(&self) -> Option<OwnNode> {
        let is_asked = self.zone.is_empty() && !self.node_name.is_empty();
        is_asked.then(|| OwnNode::new(self.node_name.clone()))
    }
}

pub(super) fn run(args: &RunArgs, common: &Common) -> anyhow::Result<CommandOutcome> {
    let form = match common.output {
        Output::Text => LogForm::Text,
        Output::Json => LogForm::Json,
    };
    args.source.leave_out_apis()?;
    args.cluster.add_kinds()?;
    let with_ebpf = args.ebpf_log_level != EbpfLogLevel::Off;
    let log = log::start(&args.log_level, form, with_ebpf, &args.node_name)?;
    tracing::info!(
        "splitter-agent {} starts on {}",
        crate::VERSION,
        match args.node_name.as_str() {
            "" => "a node without a name",
            name => name,
        }
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(args, common.pins(), log));
    // A name that is being looked up, or a self-test under way, is not worth waiting for.
    runtime.shutdown_background();
    result.map(|()| CommandOutcome::Done)
}

async fn serve(args: &RunArgs, pins: PinDirectory, log: LogControl) -> anyhow::Result<()> {
    preflight()?;
    if pins.mount_if_missing()? {
        tracing::info!("mounted the BPF file system, which was missing");
    }
    let attachment = Attachment::new(pins.clone(), &args.cgroup)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (diagnostics, agent_state) = (DiagnosticStore::default(), AgentState::default());
    let _lock = tokio::select! {
        lock = lock(&pins) => lock?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };

    let reports = args
        .listen
        .map(|address| Reports::start(address, args.keep_original_dst))
        .transpose()?;
    let source = args.source.connect(&args.node_name).await?;
    let mut programs = Programs::load(&LoadSettings {
        pins: pins.clone(),
        capacity: Capacity {
            frontends: args.max_frontends,
            leaves: args.max_leaves,
            endpoints: args.max_endpoints,
        },
        log_level: args.ebpf_log_level,
        keep_original_dst: args.keep_original_dst,
        socket_memory: SocketMemory::Best,
        outcomes: args.outcomes,
        refusal: Refusal::Best,
    })?;
    if args.ebpf_log_level != EbpfLogLevel::Off {
        forward_logs(&mut programs)?;
    }
    let publisher = Publisher::of(&programs, node_fraction(&args.node_name))?;
    let mut agent = Agent::new(
        publisher,
        programs,
        pins.clone(),
        attachment,
        args.settings(),
        diagnostics.clone(),
        agent_state.clone(),
    );
    let (mut feed, mut feedback) = source.start(&diagnostics, &args.node_name, args.own_node());
    let mut server = reports.map(|reports| {
        let (frontend, split) = reports.frontend();
        agent.reserve(frontend, split);
        let mut registry = metrics::registry();
        if let Some(watch) = feed.watch() {
            watch.metrics().register(&mut registry);
        }
        feedback.register(&mut registry);
        let telemetry = Telemetry {
            log: Some(log),
            registry,
            detail: args.metrics_splits,
            feedback: feedback.metrics(),
            ..Telemetry::new(pins, agent_state.clone(), diagnostics.clone())
        };
        reports.serve(telemetry)
    });

    let mut pods = PodWatch::start();
    let mut has_pending_reclaim = false;
    let mut watch = tokio::time::interval(WATCH_INTERVAL);
    loop {
        agent_state.turn();
        tokio::select! {
            changes = feed.next() => {
                let changes = changes?;
                tokio::task::block_in_place(|| agent.apply(changes))?;
                if let Some(watch) = feed.watch() {
                    watch.want_node_pods(agent.wants_node_pods());
                }
                if let Some(namespaces) = agent.take_pod_namespaces() {
                    feed.ask_for_pods(namespaces);
                }
                has_pending_reclaim = true;
            }
            () = tokio::time::sleep(RECLAIM_DELAY), if has_pending_reclaim => has_pending_reclaim = agent.reclaim(),
            _ = watch.tick() => {
                tokio::task::block_in_place(|| {
                    agent.watch();
                    pods.look(&mut agent);
                });
            }
            () = pods.changed() => {
                tokio::task::block_in_place(|| pods.read(&mut agent));
            }
            ended = ended(server.as_mut()) => {
                return ended.and(Err(anyhow::anyhow!("the HTTP server ended")));
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    feedback.end().await;
    tracing::info!(
        "shutting down; the programs stay attached, with the splits that were last published"
    );
    Ok(())
}

/// Waits until the server ends, which it should not.
pub(super) async fn ended(server: Option<&mut JoinHandle<io::Result<()>>>) -> anyhow::Result<()> {
    match server {
        Some(server) => Ok(server.await.context("the HTTP server ended")??),
        None => future::pending().await,
    }
}

/// Waits for the agent before us to end.
async fn lock(pins: &PinDirectory) -> anyhow::Result<PinLock> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match pins.create().and_then(|()| pins.lock()) {
            Err(PinError::Gone(_)) => {}
            Err(PinError::Locked(path)) if start.elapsed() < LOCK_TIMEOUT => {
                if !told {
                    tracing::info!(pins = %path.display(), "another agent is running here; waiting for it to exit");
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
