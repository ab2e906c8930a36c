//! Where a running agent takes objects from, and to whom it tells what it finds.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::kinds;
use crate::objects::Kind;
use crate::report::{DiagnosticStore, cluster};
use crate::source::ChangeStream;
use crate::source::kubernetes::{self, OwnNode};

/// How long handing over the Lease may take when the agent ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// An API in which people ask for splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Api {
    /// Service Mesh Interface.
    Smi,
    /// Istio.
    Istio,
    /// The Gateway API.
    Gateway,
}

impl Api {
    /// The group of its kinds.
    fn group(self) -> &'static str {
        let kind = match self {
            Self::Smi => Kind::TRAFFIC_SPLIT,
            Self::Istio => Kind::VIRTUAL_SERVICE,
            Self::Gateway => Kind::HTTP_ROUTE,
        };
        kind.resource.group
    }
}

/// Where objects come from.
#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// The APIs whose objects are read; those of others are as if they were not there, and what was
    /// split for them ends.
    #[arg(
        long,
        env = "SPLITTER_APIS",
        value_enum,
        value_delimiter = ',',
        default_values_t = Api::value_variants().iter().copied()
    )]
    apis: Vec<Api>,

    /// Directory of Kubernetes manifests to watch, in place of the Kubernetes API: Services,
    /// EndpointSlices and what asks for splits, in YAML or JSON, in any number of files and
    /// subdirectories.
    #[arg(long, env = "SPLITTER_MANIFESTS", value_name = "DIR")]
    manifests: Option<PathBuf>,

    /// How to reach the Kubernetes API [default: as the pod that this runs in, or else as
    /// kubectl does].
    #[arg(
        long,
        env = "SPLITTER_KUBECONFIG",
        value_name = "FILE",
        conflicts_with = "manifests"
    )]
    kubeconfig: Option<PathBuf>,

    /// Namespace of the Lease by which one agent is elected to write Events and statuses for all.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "splitter-system",
        value_name = "NAMESPACE"
    )]
    lease_namespace: String,

    /// Name of this agent among all others [default: the node's name].
    #[arg(long, env = "POD_NAME", default_value = "", value_name = "NAME")]
    identity: String,
}

/// A source that can be reached, not yet at work.
pub(super) enum Source {
    Manifests(ChangeStream),
    Kubernetes {
        client: Client,
        lease_namespace: String,
        identity: String,
    },
}

/// The task that writes diagnostics to the cluster, if there is one.
pub(super) struct Feedback {
    metrics: cluster::Metrics,
    writer: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
}

impl SourceArgs {
    /// Leaves out the APIs that are not asked for. To be done before anything goes by kinds.
    pub(super) fn leave_out_apis(&self) -> anyhow::Result<()> {
        let left_out = Api::value_variants().iter();
        let left_out = left_out.filter(|api| !self.apis.contains(api));
        kinds::leave_out(left_out.map(|api| api.group()).collect())?;
        Ok(())
    }

    pub(super) async fn connect(&self, node_name: &str) -> anyhow::Result<Source> {
        Ok(match &self.manifests {
            Some(directory) => Source::Manifests(ChangeStream::manifests(directory, node_name)?),
            None => Source::Kubernetes {
                client: kubernetes::client(self.kubeconfig.as_deref()).await?,
                lease_namespace: self.lease_namespace.clone(),
                identity: self.identity.clone(),
            },
        })
    }
}

impl Source {
    /// Begins to watch, and to write what is found.
    pub(super) fn start(
        self,
        diagnostics: &DiagnosticStore,
        node_name: &str,
        own_node: Option<OwnNode>,
    ) -> (ChangeStream, Feedback) {
        let metrics = cluster::Metrics::default();
        let (client, lease_namespace, identity) = match self {
            Self::Manifests(feed) => {
                let writer = None;
                return (feed, Feedback { metrics, writer });
            }
            Self::Kubernetes {
                client,
                lease_namespace,
                identity,
            } => (client, lease_namespace, identity),
        };
        let settings = kubernetes::KubernetesSettings {
            own_node,
            pods_of: Some(node_name.to_owned()).filter(|name| !name.is_empty()),
            ..kubernetes::KubernetesSettings::default()
        };
        let feed = ChangeStream::kubernetes(client.clone(), settings);
        let identity = if identity.is_empty() {
            node_name.to_owned()
        } else {
            identity
        };
        let writer = feed.watch().map(|watch| {
            let (end, ended) = oneshot::channel();
            let writing = cluster::run(
                client,
                diagnostics.clone(),
                watch.served_versions(),
                cluster::ReportSettings::new(lease_namespace, identity),
                metrics.clone(),
                async {
                    // Sent or dropped: either way, it is over.
                    let _ = ended.await;
                },
            );
            (tokio::spawn(writing), end)
        });
        (feed, Feedback { metrics, writer })
    }
}

impl Feedback {
    /// What can be measured of it, where there is any.
    pub(super) fn metrics(&self) -> Option<cluster::Metrics> {
        self.writer.as_ref().map(|_| self.metrics.clone())
    }

    /// Adds what can be measured of it.
    pub(super) fn register(&self, registry: &mut Registry) {
        if self.writer.is_some() {
            self.metrics.register(registry);
        }
    }

    /// Hands over to another agent, if there is time for it.
    pub(super) async fn end(&mut self) {
        if let Some((writing, end)) = self.writer.take() {
            drop(end);
            if tokio::time::timeout(FAREWELL, writing).await.is_err() {
                tracing::debug!("the Lease was not released in time; it will expire");
            }
        }
    }
}
