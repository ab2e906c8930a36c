//! `uninstall`: clean every node of a cluster, and return when all of them have said that they are.

mod nodes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use self::nodes::{Progress, Unclean, cleanup_patch, helm_release, progress, selector};
use super::{CommandOutcome, Common, print};
use crate::source::kubernetes;

/// How often the nodes are looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a request may take before it is made again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long rights that were just granted may take to reach the API server's authorizer.
const RIGHTS_PATIENCE: Duration = Duration::from_secs(15);

/// Clean every node of a cluster: end the agents and run `cleanup` in their place.
///
/// Returns when every node has said that nothing is left on it. Fails, naming the nodes and what
/// keeps them, when some have not after the time that is given; it can be run again. It deletes
/// nothing of the cluster's: that is for `kubectl delete` or `helm uninstall` to do after it.
/// Applying the manifests again, or upgrading the Helm release, brings the agents back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  splitter-agent uninstall
  splitter-agent uninstall --namespace splitter-system --timeout-seconds 60
  splitter-agent uninstall --max-unavailable 10%")]
pub(super) struct UninstallArgs {
    /// Namespace of the agents.
    #[arg(
        short,
        long,
        env = "POD_NAMESPACE",
        default_value = "splitter-system",
        value_name = "NAMESPACE"
    )]
    namespace: String,

    /// Name of the agents' DaemonSet.
    #[arg(long, default_value = "splitter-agent", value_name = "NAME")]
    daemon_set: String,

    /// On how many nodes at the same time, as a number or a percentage.
    #[arg(
        long,
        default_value = "100%",
        value_name = "NUMBER|PERCENT",
        value_parser = nodes::max_unavailable
    )]
    max_unavailable: nodes::MaxUnavailable,

    /// Refuse unless the DaemonSet is of this Helm release, so that the hook of `helm uninstall` does
    /// nothing where the output of `helm template` was applied with everything in it.
    #[arg(long, value_name = "RELEASE")]
    helm_release: Option<String>,

    /// How long to wait for the nodes.
    #[arg(
        long,
        default_value_t = 240,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    timeout_seconds: u64,

    /// How to reach the Kubernetes API [default: as the pod that this runs in, or else as
    /// kubectl does].
    #[arg(long, env = "SPLITTER_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Serialize)]
struct UninstallOutput {
    nodes: i32,
    clean: i32,
    unclean: Vec<Unclean>,
}

/// What asking the API server came to.
enum UninstallFailure {
    /// Asking again will not help.
    Final(anyhow::Error),
    /// It may.
    Passing(anyhow::Error),
}

struct Cluster<'a> {
    args: &'a UninstallArgs,
    daemon_sets: Api<DaemonSet>,
    pods: Api<Pod>,
    start: Instant,
}

pub(super) fn run(args: &UninstallArgs, common: &Common) -> anyhow::Result<CommandOutcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(uninstall(args));
    runtime.shutdown_background();
    let report = result?;
    let text = format!("{} of {} nodes are clean\n", report.clean, report.nodes);
    print(common.output, &text, &report)?;
    Ok(CommandOutcome::Done)
}

async fn uninstall(args: &UninstallArgs) -> anyhow::Result<UninstallOutput> {
    let client = kubernetes::client(args.kubeconfig.as_deref()).await?;
    let cluster = Cluster {
        args,
        daemon_sets: Api::namespaced(client.clone(), &args.namespace),
        pods: Api::namespaced(client, &args.namespace),
        start: Instant::now(),
    };
    let patience = Duration::from_secs(args.timeout_seconds);
    let mut told = None;
    let mut trouble = None;
    loop {
        match cluster.advance().await {
            Ok(progress) if progress.is_done() => {
                return Ok(UninstallOutput {
                    nodes: progress.nodes,
                    clean: progress.clean,
                    unclean: Vec::new(),
                });
            }
            Ok(progress) => {
                trouble = None;
                if told.as_ref() != Some(&progress) {
                    eprintln!("{progress}");
                    told = Some(progress);
                }
            }
            Err(UninstallFailure::Final(error)) => return Err(error),
            Err(UninstallFailure::Passing(error)) => {
                let text = format!("{error:#}");
                if trouble.as_ref() != Some(&text) {
                    eprintln!("{text}; trying again");
                }
                trouble = Some(text);
            }
        }
        if cluster.start.elapsed() >= patience {
            let state = told.map_or_else(
                || "nothing is known of any node".to_owned(),
                |progress| progress.to_string(),
            );
            let trouble = trouble.map(|text| format!("; {text}")).unwrap_or_default();
            bail!(
                "not every node is clean after {} s, so nothing may be deleted yet: {state}{trouble}; \
                 mend that and run the same command again",
                args.timeout_seconds
            );
        }
        sleep(INTERVAL).await;
    }
}

impl Cluster<'_> {
    /// Has the DaemonSet clean up, unless it does already, and looks how far that is.
    async fn advance(&self) -> Result<Progress, UninstallFailure> {
        let name = &self.args.daemon_set;
        let mut daemon_set = self.ask("read", self.daemon_sets.get(name)).await?;
        if let Some(release) = &self.args.helm_release
            && helm_release(&daemon_set) != Some(release)
        {
            return Err(UninstallFailure::Final(anyhow::anyhow!(
                "Helm has not installed the DaemonSet {}/{name} as part of the release {release}, so \
                 this is no `helm uninstall`, and nothing was changed: if the output of `helm \
                 template` was applied, make it with --no-hooks",
                self.args.namespace
            )));
        }
        if let Some(patch) = cleanup_patch(&daemon_set, &self.args.max_unavailable) {
            let (parameters, patch) = (PatchParams::default(), Patch::Strategic(patch));
            let patched = self.daemon_sets.patch(name, &parameters, &patch);
            daemon_set = self.ask("change", patched).await?;
        }
        let parameters = ListParams::default().labels(&selector(&daemon_set));
        let pods = self
            .ask("list the pods of", self.pods.list(&parameters))
            .await?;
        Ok(progress(&daemon_set, &pods.items))
    }

    async fn ask<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, UninstallFailure> {
        let UninstallArgs {
            namespace,
            daemon_set,
            ..
        } = self.args;
        let context = format!("cannot {what} the DaemonSet {namespace}/{daemon_set}");
        let error = match timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(UninstallFailure::Passing(anyhow::anyhow!(
                    "{context}: no answer from the API server"
                )));
            }
        };
        let status = match &error {
            kube::Error::Api(status) => status.code,
            _ => 0,
        };
        Err(match status {
            404 => UninstallFailure::Final(anyhow::anyhow!(
                "there is no DaemonSet {namespace}/{daemon_set}, so no node can be cleaned by it: \
                 install splitter again, with the image that was there, and run the same command"
            )),
            401 | 403 | 422 if status == 422 || self.start.elapsed() > RIGHTS_PATIENCE => {
                UninstallFailure::Final(anyhow::Error::new(error).context(context))
            }
            _ => UninstallFailure::Passing(anyhow::Error::new(error).context(context)),
        })
    }
}
