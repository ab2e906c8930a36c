//! An API server and what a test does with it over the API, as the administrator.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;
use splitter_agent::source::kubernetes;
use testbed::fixtures::ApiServer;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// A user that may do what rules say.
pub(crate) const AGENT: &str = "agent";

/// An API server that answers, and the administrator's client.
pub(crate) struct Server {
    pub(crate) api: Arc<ApiServer>,
    pub(crate) client: Client,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more arguments for the API server.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let start = move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            ApiServer::start_with(&arguments)
        };
        let api = spawn_blocking(start).await.expect("an API server");
        let client = client(&api.kubeconfig_at(None, api.address())).await;
        Self {
            api: Arc::new(api),
            client,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.api.address()
    }

    /// A client of this user, or of the administrator, made as the agent makes it, that finds the
    /// server at `address`.
    pub(crate) async fn client_at(&self, user: Option<&str>, address: SocketAddr) -> Client {
        client(&self.api.kubeconfig_at(user, address)).await
    }

    /// Kills the API server and starts it again: it then knows nothing of what was before.
    pub(crate) async fn restart(&self) {
        let api = Arc::clone(&self.api);
        let restarted = spawn_blocking(move || api.restart()).await;
        restarted.expect("a restart");
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
}

fn kind(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

async fn client(kubeconfig: &Path) -> Client {
    let client = kubernetes::client(Some(kubeconfig)).await;
    client.unwrap_or_else(|error| panic!("{error}"))
}
