//! A namespace of its own for a test, and agents that write to it.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Api, Client};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use splitter_agent::compile::{Diagnostic, Severity};
use splitter_agent::kinds;
use splitter_agent::objects::{
    Availability, Entry, FieldError, Identity, Kind, NameRule, ObjectName, ObjectReference,
    Purpose, Resource, StatusForm,
};
use splitter_agent::report::cluster::{
    self, Metrics, Pace, ReportSettings, ServedVersion, ServedVersions,
};
use splitter_agent::report::{DiagnosticStore, Producer};
use splitter_agent::source::kubernetes;
use testbed::fixtures::definitions::ForeignKind;
use testbed::fixtures::manifests::{Version, definition};
use testbed::fixtures::{ApiServer, CuttableProxy};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::routes;

/// A kind whose conditions others write to, as those of Istio.
pub(crate) const SHARED: Kind = Kind::new(&SHARED_ENTRY);

static SHARED_ENTRY: Entry = Entry {
    resource: Resource {
        kind: "Shared",
        plural: "shareds",
        group: "example.dev",
    },
    versions: &["v1"],
    purpose: Purpose::Route,
    availability: Availability::Optional,
    is_namespaced: true,
    name_rule: NameRule::Subdomain,
    status: StatusForm::SharedConditions,
    precedence: 40,
    may_be_superseded: false,
    owns_group: true,
    definition: None,
    read: |_, _| Err(FieldError::new("is never read")),
};

fn shared_definition() -> serde_json::Value {
    let kind = ForeignKind {
        group: "example.dev",
        kind: "Shared",
        plural: "shareds",
        versions: &["v1"],
    };
    kind.definition()
}

/// How long anything may take that takes a few seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an object must stand still in these tests.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);

/// The version of the API that has a status here, and the one that has none.
pub(crate) const WITH_STATUS: &str = "v1alpha3";
pub(crate) const WITHOUT_STATUS: &str = "v1alpha4";

/// A namespace, and a user that agents are.
pub(crate) struct Scene {
    server: Arc<ApiServer>,
    pub(crate) namespace: String,
    /// What the administrator sees.
    pub(crate) admin: Client,
    agent: Client,
}

/// An agent's feedback at work.
pub(crate) struct Agent {
    pub(crate) store: DiagnosticStore,
    registry: Registry,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    _served: watch::Sender<ServedVersions>,
}

impl Scene {
    pub(crate) async fn new(name: &str) -> Self {
        static ADDED: Once = Once::new();
        ADDED.call_once(|| kinds::add(&[&SHARED_ENTRY]).expect("no kind was used before"));
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{name}-{number}");
        let server = tokio::task::spawn_blocking(ApiServer::shared)
            .await
            .expect("a server");
        let user = format!("agent-of-{namespace}");
        let scene = Self {
            admin: client(&server, server.address(), None).await,
            agent: client(&server, server.address(), Some(&user)).await,
            server,
            namespace,
        };
        scene.server.apply(&crd());
        scene.server.apply(&routes::definition().to_string());
        scene.server.apply(&shared_definition().to_string());
        scene.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: NAMESPACE}\n");
        scene.allow_lease();
        scene.allow_writing();
        scene
    }

    /// Applies manifests in which NAMESPACE stands for the namespace.
    fn apply(&self, manifests: &str) {
        self.server
            .apply(&manifests.replace("NAMESPACE", &self.namespace));
    }

    pub(crate) fn allow_lease(&self) {
        self.apply(LEASE_ROLE);
        self.wait_until_agents_may("leases.coordination.k8s.io", true);
    }

    /// Forbids it again.
    pub(crate) fn forbid_lease(&self) {
        self.kubectl(&["delete", "rolebinding", "lease"]);
        self.wait_until_agents_may("leases.coordination.k8s.io", false);
    }

    /// Lets agents write Events and statuses.
    pub(crate) fn allow_writing(&self) {
        self.apply(WRITER_ROLE);
        self.wait_until_agents_may("events.events.k8s.io", true);
    }

    /// Forbids it again.
    pub(crate) fn forbid_writing(&self) {
        self.kubectl(&["delete", "clusterrolebinding", &self.namespace]);
        self.wait_until_agents_may("events.events.k8s.io", false);
    }

    /// Waits until the API server goes by the rules that it has stored: whether agents may create
    /// a kind of object.
    fn wait_until_agents_may(&self, plural: &str, may: bool) {
        let namespace = &self.namespace;
        let user = format!("--as=agent-of-{namespace}");
        let question = [
            "--namespace",
            namespace,
            "auth",
            "can-i",
            "create",
            plural,
            &user,
        ];
        let start = Instant::now();
        // kubectl ends with an error where the answer is no.
        while self.server.kubectl(&question, "").status.success() != may {
            assert!(start.elapsed() < PATIENCE, "{question:?} is not {may}");
        }
    }

    /// Runs kubectl in the namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["--namespace", self.namespace.as_str()];
        all.extend(arguments);
        let output = self.server.kubectl(&all, "");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts an agent's feedback.
    pub(crate) fn agent(&self, identity: &str, version: &str) -> Agent {
        self.agent_with(self.agent.clone(), identity, version)
    }

    /// Starts an agent's feedback that reaches the API server through a proxy.
    pub(crate) async fn agent_behind_proxy(&self, identity: &str) -> (Agent, CuttableProxy) {
        let proxy = CuttableProxy::to(self.server.address());
        let user = format!("agent-of-{}", self.namespace);
        let client = client(&self.server, proxy.address(), Some(&user)).await;
        (self.agent_with(client, identity, WITHOUT_STATUS), proxy)
    }

    /// Starts an agent's feedback that is no quicker than by default.
    pub(crate) fn agent_of_pace(&self, identity: &str) -> Agent {
        self.start(
            self.agent.clone(),
            identity,
            WITHOUT_STATUS,
            Pace::default(),
        )
    }

    fn agent_with(&self, client: Client, identity: &str, version: &str) -> Agent {
        let pace = Pace {
            settle: SETTLE,
            patience: SETTLE,
            repeat: Duration::from_secs(5),
            ..Pace::default()
        };
        self.start(client, identity, version, pace)
    }

    fn start(&self, client: Client, identity: &str, version: &str, pace: Pace) -> Agent {
        let mut settings = ReportSettings::new(self.namespace.as_str(), identity);
        settings.lease_duration = Duration::from_secs(6);
        settings.longest_pause = Duration::from_secs(2);
        settings.pace = pace;
        let store = DiagnosticStore::default();
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let version = ServedVersion {
            version: version.to_owned(),
            has_status: version == WITH_STATUS,
        };
        let v1 = || ServedVersion {
            version: "v1".to_owned(),
            has_status: true,
        };
        let versions = [
            (Kind::TRAFFIC_SPLIT, version),
            (Kind::HTTP_ROUTE, v1()),
            (SHARED, v1()),
        ];
        let (served, is_served) = watch::channel(versions.into());
        let (stop, is_stopped) = oneshot::channel();
        let task = tokio::spawn(cluster::run(
            client,
            store.clone(),
            is_served,
            settings,
            metrics,
            async {
                let _: Result<(), _> = is_stopped.await;
            },
        ));
        Agent {
            store,
            registry,
            stop: Some(stop),
            task,
            _served: served,
        }
    }

    /// TrafficSplits in a version of the API.
    pub(crate) fn splits(&self, version: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("split.smi-spec.io", version, "TrafficSplit");
        let resource = ApiResource::from_gvk_with_plural(&kind, "trafficsplits");
        Api::namespaced_with(self.admin.clone(), &self.namespace, &resource)
    }

    /// Objects of a kind whose conditions others write to.
    pub(crate) fn shared(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("example.dev", "v1", "Shared");
        let resource = ApiResource::from_gvk_with_plural(&kind, "shareds");
        Api::namespaced_with(self.admin.clone(), &self.namespace, &resource)
    }

    /// Creates a TrafficSplit; how it stands if these things are said of it.
    pub(crate) async fn split(&self, name: &str) -> Split {
        let api = self.splits(WITHOUT_STATUS);
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("split.smi-spec.io", WITHOUT_STATUS, "TrafficSplit"),
            "trafficsplits",
        );
        let object = DynamicObject::new(name, &resource)
            .data(serde_json::json!({ "spec": { "service": "books", "backends": [] } }));
        // A definition is not served at the very moment that it is there.
        let start = Instant::now();
        let created = loop {
            match api.create(&PostParams::default(), &object).await {
                Ok(created) => break created,
                Err(error) if start.elapsed() > PATIENCE => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        Split {
            object: ObjectReference {
                kind: "TrafficSplit".to_owned(),
                name: ObjectName::new(self.namespace.as_str(), name),
            },
            uid: created.metadata.uid.expect("a uid"),
            generation: created.metadata.generation.expect("a generation"),
        }
    }

    /// All Events of the namespace.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.admin.clone(), &self.namespace);
        api.list(&ListParams::default())
            .await
            .expect("events")
            .items
    }

    /// The reasons of all Events of the namespace, sorted.
    pub(crate) async fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .events()
            .await
            .into_iter()
            .filter_map(|event| event.reason)
            .collect();
        reasons.sort();
        reasons
    }

    /// Who holds the Lease, if anyone.
    pub(crate) async fn holder(&self) -> Option<String> {
        use k8s_openapi::api::coordination::v1::Lease;
        let api: Api<Lease> = Api::namespaced(self.admin.clone(), &self.namespace);
        let lease = api.get_opt("splitter-agent").await.expect("a Lease");
        lease?.spec?.holder_identity
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What is not in the namespace; the server goes with the last test.
        for kind in ["clusterrolebinding", "clusterrole"] {
            let arguments = ["delete", kind, &self.namespace, "--ignore-not-found"];
            let _ = self.server.kubectl(&arguments, "");
        }
    }
}

impl Agent {
    /// Ends it as a signal does.
    pub(crate) async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        (&mut self.task).await.expect("an end without a panic");
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    /// The value of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("metrics");
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    pub(crate) fn leads(&self) -> bool {
        self.metric("leader") == 1.0
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A TrafficSplit at the API server.
pub(crate) struct Split {
    pub(crate) object: ObjectReference,
    pub(crate) uid: String,
    pub(crate) generation: i64,
}

impl Split {
    /// Says these things about it to agents.
    pub(crate) fn say(&self, agents: &[&Agent], said: &[(Severity, &'static str)]) {
        for agent in agents {
            Self::say_all(std::slice::from_ref(self), agent, said);
        }
    }

    /// Says these things about many at once.
    pub(crate) fn say_all(splits: &[Self], agent: &Agent, said: &[(Severity, &'static str)]) {
        let mut edit = agent.store.edit();
        for split in splits {
            let diagnostics: BTreeSet<Diagnostic> = said
                .iter()
                .map(|(severity, reason)| Diagnostic {
                    object: split.object.clone(),
                    severity: *severity,
                    reason,
                    field: "spec.service".to_owned(),
                    message: format!("said to be {reason}"),
                })
                .collect();
            let kind = split.object.known_kind().expect("a kind");
            let api_version = if kind == Kind::TRAFFIC_SPLIT {
                format!("split.smi-spec.io/{WITHOUT_STATUS}")
            } else {
                kind.api_version()
            };
            let identity = Identity {
                uid: split.uid.clone(),
                api_version,
                generation: split.generation,
            };
            edit.describe(&split.object, identity, Box::default());
            edit.set(Producer::Compiler, &split.object, diagnostics);
        }
        let _: Vec<_> = edit.commit();
    }
}

/// Waits until something is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn client(server: &ApiServer, address: SocketAddr, user: Option<&str>) -> Client {
    let kubeconfig = server.kubeconfig_at(user, address);
    let client = kubernetes::client(Some(&kubeconfig)).await;
    client.expect("a client")
}

const LEASE_ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: lease, namespace: NAMESPACE}
rules:
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [splitter-agent], verbs: [get, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lease, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: lease}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: agent-of-NAMESPACE}]
";

const WRITER_ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NAMESPACE}
rules:
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
- {apiGroups: [split.smi-spec.io], resources: [trafficsplits/status], verbs: [patch]}
- {apiGroups: [gateway.networking.k8s.io], resources: [httproutes/status], verbs: [patch]}
- {apiGroups: [example.dev], resources: [shareds/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: NAMESPACE}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: agent-of-NAMESPACE}]
";

/// A definition with a version that has a status and one that has none, which take any object.
fn crd() -> String {
    let with_status = Version {
        has_status: true,
        ..Version::permissive(WITH_STATUS)
    };
    let versions = [Version::permissive(WITHOUT_STATUS), with_status];
    definition(&versions, WITHOUT_STATUS).to_string()
}
