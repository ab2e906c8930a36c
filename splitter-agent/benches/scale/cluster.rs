//! An API server with everything in it that the agent is to follow.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use http::Request;
use kube::Client;
use kube::core::Status;
use serde_json::{Value, json};
use testbed::fixtures::definitions::{GATEWAY_ROUTES, ISTIO_KINDS};

use super::objects::{CLUSTER_IPS, Creation, Size};
use super::server::{AGENT, Server};

/// The agent's namespace, where its Lease is.
const AGENT_NAMESPACE: &str = "splitter-system";

const LEASE: &str = "splitter-agent";

const DEFINITION: &str = "CustomResourceDefinition";

/// Requests under way at a time.
pub(crate) const CONCURRENCY: usize = 48;

/// How often a request is made that fails.
const ATTEMPTS: usize = 5;

/// A full API server.
pub(crate) struct Cluster {
    server: Server,
    pub(crate) size: Size,
    /// How long it took to make all objects.
    pub(crate) took: Duration,
}

impl Cluster {
    pub(crate) async fn start(size: Size) -> Self {
        let range = format!("--service-cluster-ip-range={CLUSTER_IPS}");
        let server = Server::start_with(&[&range]).await;
        let prerequisites = prerequisites();
        for object in &prerequisites {
            server.apply(object).await;
        }
        // A server reads the objects of a definition into its cache when it is first asked for them,
        // and refuses to list them until it has.
        for definition in prerequisites.iter().filter(|it| it["kind"] == DEFINITION) {
            list(&server.client, definition).await;
        }
        let mut cluster = Self {
            server,
            size,
            took: Duration::ZERO,
        };
        cluster.fill().await;
        cluster
    }

    /// A client that may do everything.
    pub(crate) fn client(&self) -> &Client {
        &self.server.client
    }

    /// A kubeconfig that makes its user the agent, with its permissions.
    pub(crate) fn agent_kubeconfig(&self) -> PathBuf {
        let api = &self.server.api;
        api.kubeconfig_at(Some(AGENT), api.address())
    }

    async fn fill(&mut self) {
        let start = Instant::now();
        let all = self.size.objects().count();
        let client = self.client();
        // Served a moment after it was defined.
        let (first, rest) = {
            let mut objects = self.size.objects();
            (objects.by_ref().take(6).collect::<Vec<_>>(), objects)
        };
        let mut done = first.len();
        for creation in first {
            create(client, creation).await;
        }
        let mut created = stream::iter(rest)
            .map(|creation| create(client, creation))
            .buffer_unordered(CONCURRENCY);
        let mut told = Instant::now();
        while created.next().await.is_some() {
            done += 1;
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                eprintln!("{done} of {all} objects made");
            }
        }
        drop(created);
        self.took = start.elapsed();
    }

    /// Ends the reign of the leader that there was.
    pub(crate) async fn free_lease(&self) {
        let path =
            format!("/apis/coordination.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/leases/{LEASE}");
        let request = Request::delete(path).body(Vec::new()).expect("a request");
        let answer = self.client().request_text(request).await;
        answer.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// What must be there first: the kinds that split, what the agent may do, and a leader that is
/// another agent, as it is for all agents of a cluster but one.
fn prerequisites() -> Vec<Value> {
    let deployed = |text: &str| -> Value { serde_saphyr::from_str(text).expect("a manifest") };
    let subject = json!([{"kind": "User", "name": AGENT, "apiGroup": "rbac.authorization.k8s.io"}]);
    let mut cluster_binding = deployed(include_str!(
        "../../../deploy/base/cluster-role-binding.yaml"
    ));
    cluster_binding["subjects"] = subject.clone();
    let mut binding = deployed(include_str!("../../../deploy/base/role-binding.yaml"));
    binding["subjects"] = subject;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LEASE, "namespace": AGENT_NAMESPACE},
        "spec": {"holderIdentity": "another-agent", "leaseDurationSeconds": 3600},
    });
    let routes = GATEWAY_ROUTES.into_iter().chain(ISTIO_KINDS);
    let mut all: Vec<Value> = routes.map(|kind| kind.definition()).collect();
    all.extend([
        deployed(include_str!("../../../deploy/crd/trafficsplits.yaml")),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AGENT_NAMESPACE}}),
        deployed(include_str!("../../../deploy/base/cluster-role.yaml")),
        cluster_binding,
        deployed(include_str!("../../../deploy/base/role.yaml")),
        binding,
        lease,
    ]);
    all
}

/// Lists the objects of a definition.
async fn list(client: &Client, definition: &Value) {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let versions = spec["versions"].as_array().expect("versions").iter();
    for version in versions.filter(|version| version["served"] == true) {
        let path = format!("/apis/{group}/{}/{plural}?limit=1", text(&version["name"]));
        let request = || Request::get(&path).body(Vec::new()).expect("a request");
        insist(client, request).await;
    }
}

async fn create(client: &Client, creation: Creation) {
    let body = creation.object.to_string().into_bytes();
    let request = || {
        Request::post(&creation.path)
            .header("content-type", "application/json")
            .body(body.clone())
            .expect("a request")
    };
    insist(client, request).await;
}

/// Changes an object.
pub(crate) async fn patch(client: &Client, path: &str, change: &Value) {
    let body = change.to_string().into_bytes();
    let request = || {
        Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(body.clone())
            .expect("a request")
    };
    insist(client, request).await;
}

/// Repeats a request that fails; what a server is too busy for is done a little later.
async fn insist(client: &Client, request: impl Fn() -> Request<Vec<u8>>) {
    let mut pause = Duration::from_millis(200);
    for attempt in 1.. {
        match client.request_text(request()).await {
            Ok(_) => return,
            // It was done the time before, only the answer was lost.
            Err(kube::Error::Api(status)) if is_conflict(&status) && attempt > 1 => return,
            Err(error) => assert!(attempt < ATTEMPTS, "{}: {error}", request().uri()),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

fn is_conflict(status: &Status) -> bool {
    status.code == 409
}
