//! The agent's part in these tests: what it has been told, and waiting for it.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use splitter_agent::objects::{DecodeError, Object};
use splitter_agent::source::Change;
use splitter_agent::source::kubernetes::{self, OwnNode, Settings, Watch};
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
}

impl Observer {
    pub(crate) fn of(client: Client) -> Self {
        Self::on(client, None)
    }

    /// That of an agent on a node.
    pub(crate) fn on(client: Client, own_node: Option<OwnNode>) -> Self {
        let settings = Settings {
            jitter: Duration::ZERO,
            own_node,
        };
        let (changes, watch) = kubernetes::watch(client, settings);
        Self {
            changes,
            watch,
            known: BTreeMap::new(),
            deleted: Vec::new(),
            completes: 0,
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
        let version = self.watch.traffic_split_version();
        let version = version.borrow();
        version.as_ref().map(|served| served.version.clone())
    }

    /// Ends the source; whether its tasks end, too.
    pub(crate) async fn end(mut self) -> bool {
        drop(self.watch);
        let drained = async { while self.changes.recv().await.is_some() {} };
        timeout(Duration::from_secs(5), drained).await.is_ok()
    }

    fn note(&mut self, change: Change) {
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
            Change::Complete => self.completes += 1,
            other => panic!("only a directory of manifests tells {other:?}"),
        }
    }
}
