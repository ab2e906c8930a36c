//! The agent's part in these tests: what it has been told, and waiting for it.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use splitter_agent::compile::{Compiler, Knowledge, PodNews};
use splitter_agent::objects::{DecodeError, Kind, Object};
use splitter_agent::plan::Decision;
use splitter_agent::source::Change;
use splitter_agent::source::kubernetes::{self, KubernetesSettings, OwnNode, Watch};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout, timeout_at};

/// Everything that the source is to do in these tests, it does within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a source has told.
pub(crate) struct Observer {
    changes: Receiver<Change>,
    pub(crate) watch: Watch,
    /// By kind and name, for example `Service default/web`.
    pub(crate) known: BTreeMap<String, Result<Object, DecodeError>>,
    pub(crate) deleted: Vec<String>,
    pub(crate) completes: usize,
    /// How often it was told that not everything is known.
    pub(crate) partials: usize,
    pub(crate) knowledge: BTreeMap<Kind, Knowledge>,
    /// What became known of the pods of namespaces.
    pub(crate) pods: Vec<(String, PodNews)>,
    compiler: Compiler,
    /// Whether connections to anything were ever to be refused.
    pub(crate) has_refused: bool,
}

impl Observer {
    pub(crate) fn of(client: Client) -> Self {
        Self::on(client, None)
    }

    /// That of an agent on a node.
    pub(crate) fn on(client: Client, own_node: Option<OwnNode>) -> Self {
        let settings = KubernetesSettings {
            jitter: Duration::ZERO,
            own_node,
            pods_of: None,
        };
        let (changes, watch) = kubernetes::watch(client, settings);
        Self {
            changes,
            watch,
            known: BTreeMap::new(),
            deleted: Vec::new(),
            completes: 0,
            partials: 0,
            knowledge: BTreeMap::new(),
            pods: Vec::new(),
            compiler: ignorant(),
            has_refused: false,
        }
    }

    /// The names of the objects of a kind, in namespace `default`.
    pub(crate) fn names(&self, kind: &str) -> Vec<&str> {
        let prefix = format!("{kind} default/");
        let names = self.known.keys();
        names
            .filter_map(|name| name.strip_prefix(&prefix))
            .collect()
    }

    /// Waits until something is so.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            match timeout_at(deadline, self.changes.recv()).await {
                Ok(Some(change)) => self.note(change),
                Ok(None) => panic!("the source has ended before {what}"),
                Err(_) => panic!(
                    "not {what}; known: {:?}; deleted: {:?}; completes: {}\n{}",
                    self.known.keys(),
                    self.deleted,
                    self.completes,
                    self.metrics(),
                ),
            }
        }
    }

    pub(crate) async fn until_complete(&mut self) {
        self.until("complete", |it| it.completes > 0).await;
    }

    /// Notes what is told in a time.
    pub(crate) async fn wait(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Ok(change) = timeout_at(deadline, self.changes.recv()).await {
            self.note(change.expect("a source that goes on"));
        }
    }

    /// Waits until the metrics have a line, whatever else is told meanwhile.
    pub(crate) async fn until_metric(&mut self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.metrics().lines().any(|candidate| candidate == line) {
            assert!(
                Instant::now() < deadline,
                "no {line} in\n{}",
                self.metrics()
            );
            self.wait(Duration::from_millis(100)).await;
        }
    }

    /// All metrics as they are scraped.
    pub(crate) fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("splitter");
        self.watch.metrics().register(&mut registry);
        let mut metrics = String::new();
        text::encode(&mut metrics, &registry).expect("metrics");
        metrics
    }

    /// The version that TrafficSplits are followed in.
    pub(crate) fn version(&self) -> Option<String> {
        let version = self.watch.served_versions();
        let version = version.borrow();
        let served = version.get(&Kind::TRAFFIC_SPLIT)?;
        Some(served.version.clone())
    }

    /// Ends the source; whether its tasks end, too.
    pub(crate) async fn end(mut self) -> bool {
        drop(self.watch);
        let drained = async { while self.changes.recv().await.is_some() {} };
        timeout(Duration::from_secs(5), drained).await.is_ok()
    }

    /// What becomes of new connections to a Service of namespace `default`, where nothing is in
    /// force yet.
    pub(crate) fn decision(&self, root: &str) -> Option<Decision> {
        let mut planned = self.compiler.plan().frontends.iter();
        let (frontend, _) = planned.find(|(_, split)| split.root.name == root)?;
        let judgement = self.compiler.judge(frontend, None);
        Some(judgement.split?.decision)
    }

    fn note(&mut self, change: Change) {
        match &change {
            Change::Put(object) => self.compiler.apply(object.clone()),
            Change::Refused(error) => self.compiler.refuse(error.object.clone()),
            Change::Deleted(object) => self.compiler.delete(object),
            Change::Known(kind, knowledge) => self.compiler.know(*kind, *knowledge),
            Change::Pods(namespace, news) => self.compiler.follow_pods(namespace, *news),
            _ => {}
        }
        self.compiler.compile();
        let mut planned = self.compiler.plan().frontends.values();
        self.has_refused |= planned.any(|split| matches!(split.decision, Decision::Refuse(_)));
        match change {
            Change::Put(object) => {
                self.known
                    .insert(object.reference().to_string(), Ok(object));
            }
            Change::Refused(error) => {
                self.known.insert(error.object.to_string(), Err(error));
            }
            Change::Deleted(object) => {
                let name = object.to_string();
                assert!(self.known.remove(&name).is_some(), "{name} was not known");
                self.deleted.push(name);
            }
            Change::Known(kind, knowledge) => {
                let before = self.knowledge.insert(kind, knowledge);
                assert_ne!(before, Some(knowledge), "{kind} is told of once");
            }
            Change::Pods(namespace, news) => {
                if news == PodNews::Forgotten {
                    let prefix = format!("Pod {namespace}/");
                    self.known.retain(|name, _| !name.starts_with(&prefix));
                }
                self.pods.push((namespace, news));
            }
            Change::Partial => self.partials += 1,
            Change::Complete => {
                assert!(Kind::followed().all(|kind| self.knowledge.contains_key(&kind)));
                self.completes += 1;
            }
            other => panic!("only a directory of manifests tells {other:?}"),
        }
    }
}

/// A compiler that knows that it knows nothing, as an agent has at first.
fn ignorant() -> Compiler {
    let mut compiler = Compiler::new(splitter_agent::compile::Settings::default());
    for kind in Kind::known() {
        compiler.know(kind, Knowledge::Incomplete);
    }
    compiler
}
