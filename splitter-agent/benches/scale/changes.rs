//! How long changes take from the API server to the maps.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use http::Request;
use kube::api::WatchEvent;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::agent::{Agent, Frontends};
use super::cluster::{CONCURRENCY, Cluster, patch};
use super::objects::{Api, frontend, slices_path, split_of};

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at the maps: looking all the time would take a processor away from
/// those who are measured.
const LOOK: Duration = Duration::from_micros(50);

/// Pause between two single changes. It has no common divisor with anything that the agent does
/// each second.
const BETWEEN: Duration = Duration::from_millis(37);

/// What objects are changed to; as they are made, they are in state 0.
static VERSIONS: AtomicUsize = AtomicUsize::new(1);

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    EndpointSlice,
    /// The weights of objects of an API.
    Weights(Api),
}

/// A kind that is watched, and its changes.
pub(crate) struct Watched<'a> {
    cluster: &'a Cluster,
    kind: Kind,
    /// Which of an object's states a change leads to.
    version: usize,
    frontends: Arc<Frontends>,
    seen: Option<Receiver<Seen>>,
    watch: JoinHandle<()>,
}

/// The benchmark's own watch has received a change of a split, or of a slice of it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    split: usize,
    at: Instant,
}

/// How long changes took until the maps had them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// From the benchmark's watch.
    pub(crate) from_watch: Vec<Duration>,
    /// From the beginning of the request.
    pub(crate) from_request: Vec<Duration>,
}

/// How a burst of changes came through.
pub(crate) struct Burst {
    /// Of each change, in the order of the watch.
    pub(crate) lags: Vec<Duration>,
    /// How long it took to make the changes.
    pub(crate) took: Duration,
}

/// As little as is needed to know an object, or a list.
#[derive(Clone, Debug, Deserialize)]
struct Slim {
    metadata: Metadata,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    /// Lists have none.
    #[serde(default)]
    name: String,
    resource_version: String,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Self::EndpointSlice => "endpoint of an EndpointSlice".to_owned(),
            Self::Weights(api) => format!("weight of a {}", api.kind()),
        }
    }

    fn path(self) -> String {
        match self {
            Self::EndpointSlice => slices_path(),
            Self::Weights(api) => api.path(),
        }
    }
}

impl<'a> Watched<'a> {
    /// Begins to watch.
    pub(crate) async fn begin(cluster: &'a Cluster, agent: &Agent, kind: Kind) -> Self {
        let (sender, seen) = channel();
        let client = cluster.client().clone();
        let path = kind.path();
        let request = Request::get(format!("{path}?limit=1")).body(Vec::new());
        let list = client.request::<Slim>(request.expect("a request")).await;
        let mut version = list.expect("a list").metadata.resource_version;
        let (ready, begun) = oneshot::channel();
        let mut ready = Some(ready);
        let watch = tokio::spawn(async move {
            // An API server ends a watch that is read too slowly, which on a busy machine this one
            // is; what happened since is told by the next.
            loop {
                let query = format!("watch=1&timeoutSeconds=3600&resourceVersion={version}");
                let request = Request::get(format!("{path}?{query}")).body(Vec::new());
                let events = client.request_events::<Slim>(request.expect("a request"));
                let events = events.await.expect("a watch");
                if let Some(ready) = ready.take() {
                    // Whoever asked for it is gone only if everything is.
                    let _ = ready.send(());
                }
                if follow(events, &sender, &mut version).await == Err(Closed) {
                    return;
                }
            }
        });
        begun.await.expect("a watch");
        Self {
            cluster,
            kind,
            version: VERSIONS.fetch_add(1, Ordering::Relaxed),
            frontends: Arc::new(agent.frontends()),
            seen: Some(seen),
            watch,
        }
    }

    /// Makes changes one after the other.
    pub(crate) async fn one_by_one(mut self, count: usize) -> Times {
        let seen = self.seen.take().expect("a watch");
        let mut times = Times::default();
        for split in 0..count.min(self.cluster.size.splits) {
            let frontends = Arc::clone(&self.frontends);
            let before = frontends.word(&frontend(split));
            let shown = spawn_blocking(move || wait_for_another(&frontends, split, before));
            let begin = Instant::now();
            self.change(split).await;
            let shown = shown.await.expect("a look at the maps");
            let seen = seen_of(&seen, split);
            times.from_watch.push(shown.saturating_duration_since(seen));
            times.from_request.push(shown - begin);
            tokio::time::sleep(BETWEEN).await;
        }
        times
    }

    /// Makes changes as fast as the API server takes them, each of another split.
    pub(crate) async fn burst(mut self, count: usize) -> Burst {
        let seen = self.seen.take().expect("a watch");
        let count = count.min(self.cluster.size.splits);
        let frontends = Arc::clone(&self.frontends);
        let before: Vec<u64> = (0..count)
            .map(|split| frontends.word(&frontend(split)))
            .collect();
        let lags = spawn_blocking(move || observe(&frontends, &seen, &before));
        let begin = Instant::now();
        let mut changes = stream::iter(0..count)
            .map(|split| self.change(split))
            .buffer_unordered(CONCURRENCY);
        while changes.next().await.is_some() {}
        let took = begin.elapsed();
        drop(changes);
        let lags = lags.await.expect("a look at the maps");
        Burst { lags, took }
    }

    /// Changes a split, or a slice of it, to what it has not been for long.
    async fn change(&self, split: usize) {
        let (path, change) = match self.kind {
            Kind::EndpointSlice => self.cluster.size.slice_change(split, self.version),
            Kind::Weights(api) => api.weight_change(split, self.version),
        };
        patch(self.cluster.client(), &path, &change).await;
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Nobody wants to know any more.
#[derive(PartialEq, Eq)]
struct Closed;

/// Notes when changes come in, and which version of everything the last of them made.
async fn follow(
    events: impl Stream<Item = kube::Result<WatchEvent<Slim>>>,
    sender: &Sender<Seen>,
    version: &mut String,
) -> Result<(), Closed> {
    let mut events = pin!(events);
    while let Some(Ok(event)) = events.next().await {
        let at = Instant::now();
        let object = match event {
            WatchEvent::Modified(object) => object,
            WatchEvent::Error(error) => panic!("a watch that cannot be taken up again: {error}"),
            _ => continue,
        };
        *version = object.metadata.resource_version;
        if let Some(split) = split_of(&object.metadata.name) {
            sender.send(Seen { split, at }).map_err(|_| Closed)?;
        }
    }
    Ok(())
}

/// When the watch told of a change of this split.
fn seen_of(seen: &Receiver<Seen>, split: usize) -> Instant {
    loop {
        let seen = seen.recv_timeout(PATIENCE).expect("a watch that tells");
        if seen.split == split {
            return seen.at;
        }
    }
}

/// Waits until another record of a split is programmed.
fn wait_for_another(frontends: &Frontends, split: usize, before: u64) -> Instant {
    let begin = Instant::now();
    let frontend = frontend(split);
    loop {
        if frontends.word(&frontend) != before {
            return Instant::now();
        }
        assert!(begin.elapsed() < PATIENCE, "{frontend} never changed");
        std::thread::sleep(LOOK);
    }
}

/// Waits until every split has another record than before, and notes how long after the
/// watch told of it.
fn observe(frontends: &Frontends, seen: &Receiver<Seen>, before: &[u64]) -> Vec<Duration> {
    let mut lags = Vec::with_capacity(before.len());
    let mut waiting: Vec<Seen> = Vec::new();
    let mut last = Instant::now();
    while lags.len() < before.len() {
        waiting.extend(seen.try_iter().filter(|seen| seen.split < before.len()));
        waiting.retain(|seen| {
            let is_waiting = frontends.word(&frontend(seen.split)) == before[seen.split];
            if !is_waiting {
                last = Instant::now();
                lags.push(last.saturating_duration_since(seen.at));
            }
            is_waiting
        });
        assert!(
            last.elapsed() < PATIENCE,
            "of {} changes only {} are programmed; the watch told of {} more",
            before.len(),
            lags.len(),
            waiting.len()
        );
        std::thread::sleep(LOOK);
    }
    lags
}
