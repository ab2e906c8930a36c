//! An API server with its etcd, gone with the test.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use splitter_agent::source::kubernetes;
use testbed::cluster::{Cluster, Component, Options};
use tokio::sync::SemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// A user that may do what rules say.
pub(crate) const AGENT: &str = "agent";

/// An API server that answers.
pub(crate) struct Server {
    cluster: Arc<Cluster>,
    pub(crate) client: Client,
    _turn: SemaphorePermit<'static>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more arguments for the API server.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let turn = super::turn().await;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let options = Options {
            name: format!("source-{}-{number}", std::process::id()),
            nodes: 0,
            api_server_arguments: arguments.iter().map(ToString::to_string).collect(),
            ..Options::default()
        };
        let cluster = spawn_blocking(move || Cluster::up(&options)).await;
        let cluster = cluster.expect("a cluster").expect("a cluster");
        let client = client(&cluster.kubeconfig()).await;
        let server = Self {
            cluster: Arc::new(cluster),
            client,
            _turn: turn,
        };
        server.is_ready().await;
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.cluster.address()
    }

    /// A client of this user, or of the administrator, made as the agent makes it, that finds the
    /// server at `address`.
    pub(crate) async fn client_at(&self, user: Option<&str>, address: SocketAddr) -> Client {
        client(&self.kubeconfig_at(user, address)).await
    }

    /// A kubeconfig that finds the server at `address`.
    pub(crate) fn kubeconfig_at(&self, user: Option<&str>, address: SocketAddr) -> PathBuf {
        let kubeconfig = self.cluster.kubeconfig_at(address, user);
        kubeconfig.expect("a kubeconfig")
    }

    /// Kills the API server and starts it again: it then knows nothing of what was before.
    pub(crate) async fn restart(&self) {
        let cluster = Arc::clone(&self.cluster);
        let restart = move || {
            cluster.stop(Component::ApiServer)?;
            cluster.start(Component::ApiServer)
        };
        let restarted = spawn_blocking(restart).await.expect("a restart");
        restarted.expect("an API server");
        self.is_ready().await;
    }

    /// Until the namespace for all objects of tests is there, too.
    async fn is_ready(&self) {
        let namespaces = kind("v1", "Namespace", "namespaces");
        let namespaces = Api::<DynamicObject>::all_with(self.client.clone(), &namespaces);
        let deadline = Instant::now() + Duration::from_secs(60);
        while namespaces.get("default").await.is_err() {
            assert!(Instant::now() < deadline, "{}", self.last_words());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Creates or changes an object.
    pub(crate) async fn apply(&self, object: &Value) {
        let (api, name) = self.api_of(object);
        let parameters = PatchParams::apply("test").force();
        let deadline = Instant::now() + Duration::from_secs(30);
        // A resource that was just defined is not there at once.
        while let Err(error) = api.patch(&name, &parameters, &Patch::Apply(object)).await {
            if matches!(error, kube::Error::SerdeError(_)) {
                // It is done, and the answer is as deep as what was asked for.
                return;
            }
            assert!(Instant::now() < deadline, "{object}: {error}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn delete(&self, object: &Value) {
        let (api, name) = self.api_of(object);
        let deleted = api.delete(&name, &DeleteParams::default()).await;
        deleted.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    fn api_of(&self, object: &Value) -> (Api<DynamicObject>, String) {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let singular = text(&object["kind"]).to_lowercase();
        let plural = match singular.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{singular}s"),
        };
        let resource = kind(
            &text(&object["apiVersion"]),
            &text(&object["kind"]),
            &plural,
        );
        let client = self.client.clone();
        let api = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        (api, text(&object["metadata"]["name"]))
    }

    /// The ends of the logs.
    fn last_words(&self) -> String {
        let tail = |name: &str| {
            let path = self.cluster.logs_directory().join(name);
            format!("--- {name}\n{}", tail(&path))
        };
        format!("{}\n{}", tail("etcd.log"), tail("kube-apiserver.log"))
    }
}

fn kind(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

async fn client(kubeconfig: &Path) -> Client {
    let client = kubernetes::client(Some(kubeconfig)).await;
    client.unwrap_or_else(|error| panic!("{error}"))
}
