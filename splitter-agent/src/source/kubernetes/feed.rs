//! One kind of objects, listed and watched for as long as it takes.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use kube::Client;
use kube::core::ApiResource;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::backoff::{Backoff, up_to};
use super::discovery::NewlyDefined;
use super::failure::{Remedy, WatchFailure};
use super::metrics::SourceMetrics;
use super::pause::Pause;
use super::resource::api_resource;
use super::row::{Content, Row};
use super::steps::{self, Request, Step};
use crate::objects::Resource;

/// How long a broken watch that was accepted again has to be quiet for everything that was missed
/// to have arrived: the server sends it first.
const QUIET: Duration = Duration::from_secs(1);
/// How long that may take altogether: a kind whose objects change all the time is never quiet.
const MAX_CATCHING_UP: Duration = Duration::from_secs(30);
/// How long it may take until a watch that ended is accepted again, for the kind to count as
/// followed all the time.
const LOST: Duration = Duration::from_secs(1);
/// A watch that lasted for so long did not end at once. An idle one tells something, a bookmark,
/// only each minute, and what is between here and the server may not be that patient.
const LASTED: Duration = Duration::from_secs(10);
/// A watch is asked for 290 s (kube-rs). One that ends much earlier was cut off, which looks the
/// same: the server may have gone and come back.
const CUT_OFF: Duration = Duration::from_secs(270);
/// Pause after a watch that ended without having told anything.
const BREATH: Duration = Duration::from_millis(800);
/// How long a server that cannot stream lists is not asked to: it may be upgraded.
const NO_STREAMS: Duration = Duration::from_secs(3600);

/// What all feeds of a source have in common.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) client: Client,
    pub(super) metrics: SourceMetrics,
    /// Until when the server is not asked to stream lists.
    no_streams_until: Arc<Mutex<Option<Instant>>>,
    /// Marked as changed whenever a feed reaches the server that did not before: then those that
    /// wait to try again need not wait any longer.
    pub(super) reached: watch::Sender<()>,
    /// What those who ask for the versions of a kind have found out.
    pub(super) newly_defined: NewlyDefined,
    /// The first list of each kind is asked for at a random moment within this time.
    jitter: Duration,
}

impl Server {
    pub(super) fn new(client: Client, metrics: SourceMetrics, jitter: Duration) -> Self {
        Self {
            client,
            metrics,
            no_streams_until: Arc::default(),
            reached: watch::Sender::new(()),
            newly_defined: NewlyDefined::new(),
            jitter,
        }
    }

    fn streams_lists(&self) -> bool {
        let until = self.no_streams_until.lock();
        let until = until.unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| until <= Instant::now())
    }

    /// The server cannot stream lists; whether that is news.
    fn does_not_stream_lists(&self) -> bool {
        let news = self.streams_lists();
        let until = self.no_streams_until.lock();
        *until.unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + NO_STREAMS);
        news
    }
}

/// What a feed tells.
#[derive(Debug)]
pub(super) enum FeedEvent<C> {
    /// A list begins, the first or another.
    ListBegins,
    /// An object is there: it was listed, is new, or is another than before.
    Put(Row<C>),
    /// An object is gone.
    Gone(Row<C>),
    /// The list that began is complete, and the kind is followed.
    Listed,
    /// The kind is followed again, without a new list.
    Followed,
    /// The kind is not followed for the moment.
    Lost,
}

/// How it stands with the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Nothing is known to come.
    Down,
    /// The watch was accepted after a failure, and what was missed is arriving.
    CatchingUp {
        /// When everything will have arrived if nothing more does.
        until: Instant,
        /// When it is taken to have arrived in any case.
        at_most: Instant,
    },
    /// All changes are delivered.
    Up,
    /// The watch ended as watches do, and the next one should be accepted until then.
    Between(Instant),
}

/// Which objects of a kind are followed, and how much of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// A field selector; `None` for all.
    pub(super) fields: Option<String>,
    /// Their namespace; `None` for all.
    pub(super) namespace: Option<String>,
    /// Whether only their metadata is asked for.
    pub(super) is_metadata: bool,
}

/// Everything that happens to one kind of objects.
pub(super) struct Feed<C> {
    server: Server,
    /// What the metrics call the kind.
    kind: &'static str,
    resource: ApiResource,
    selection: Selection,
    steps: Option<BoxStream<'static, Result<Step<C>, steps::Error>>>,
    link: Link,
    streaming: bool,
    /// Whether a streamed list failed, so that the next one is not streamed.
    without_stream: bool,
    /// Nothing is asked for before.
    pause: Pause,
    backoff: Backoff,
    /// Whether the list that began last is not complete.
    listing: bool,
    lists: u64,
    /// The resource version up to which everything is known.
    version: Option<String>,
    /// Set from a failure until the kind is followed again.
    failing: Option<Failing>,
    /// Whether the last watch was cut off.
    was_cut_off: bool,
}

struct Failing {
    times: u32,
    since: Instant,
    /// Whether the server has answered since the last failure.
    answered: bool,
}

impl<C: Content> Feed<C> {
    /// Some or all objects of a kind.
    pub(super) fn new(
        server: Server,
        resource: Resource,
        version: &str,
        selection: Selection,
    ) -> Self {
        let pause = Pause::until(Instant::now() + up_to(server.jitter));
        Self {
            server,
            kind: resource.kind,
            resource: api_resource(resource, version),
            selection,
            steps: None,
            link: Link::Down,
            streaming: false,
            without_stream: false,
            pause,
            backoff: Backoff::new(),
            listing: true,
            lists: 0,
            version: None,
            failing: None,
            was_cut_off: false,
        }
    }

    /// The next thing that happens. After a failure, the next call waits as long as is
    /// due and goes on. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<FeedEvent<C>, WatchFailure> {
        loop {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = until(deadline) => {
                    if let Some(told) = self.is_late() {
                        return Ok(told);
                    }
                }
                () = self.pause.over() => {
                    let steps = match self.steps.take() {
                        Some(steps) => steps,
                        None => self.begin(),
                    };
                    let steps = self.steps.insert(steps);
                    let step = tokio::select! {
                        step = steps.next() => step,
                        () = until(deadline) => continue,
                    };
                    match step {
                        Some(Ok(step)) => {
                            if let Some(told) = self.note(step)? {
                                return Ok(told);
                            }
                        }
                        Some(Err(error)) => {
                            if let Some(failure) = self.failed(&error) {
                                return Err(failure);
                            }
                        }
                        // They never end.
                        None => self.steps = None,
                    }
                }
            }
        }
    }

    /// Lists and watches.
    fn begin(&mut self) -> BoxStream<'static, Result<Step<C>, steps::Error>> {
        self.streaming = !self.without_stream && self.server.streams_lists();
        steps::steps(Request {
            client: self.server.client.clone(),
            resource: self.resource.clone(),
            selection: self.selection.clone(),
            streaming: self.streaming,
            not_older_than: self.version.clone(),
        })
    }

    /// When silence means something.
    const fn deadline(&self) -> Option<Instant> {
        match self.link {
            Link::Down | Link::Up => None,
            Link::CatchingUp { until, .. } | Link::Between(until) => Some(until),
        }
    }

    /// What it means that nothing happened until the deadline; nothing before it.
    fn is_late(&mut self) -> Option<FeedEvent<C>> {
        let now = Instant::now();
        match self.link {
            Link::CatchingUp { until, .. } if until <= now => {
                self.link = Link::Up;
                self.resumed();
                Some(FeedEvent::Followed)
            }
            Link::Between(until) if until <= now => {
                self.link = Link::Down;
                Some(FeedEvent::Lost)
            }
            _ => None,
        }
    }

    /// What a step means.
    fn note(&mut self, step: Step<C>) -> Result<Option<FeedEvent<C>>, WatchFailure> {
        let now = Instant::now();
        Ok(Some(match step {
            Step::ListBegins => {
                self.answered();
                self.listing = true;
                self.lists += 1;
                if self.lists > 1 && self.failing.is_none() {
                    self.server.metrics.restarted(self.kind);
                }
                FeedEvent::ListBegins
            }
            Step::Listed(row) => FeedEvent::Put(row),
            Step::ListDone(version) => {
                self.version = Some(version);
                self.listing = false;
                self.without_stream = false;
                self.backoff.reset();
                self.resumed();
                // A list that was not streamed is not watched yet.
                self.link = if self.streaming {
                    Link::Up
                } else {
                    Link::Between(now + LOST)
                };
                FeedEvent::Listed
            }
            Step::Accepted => {
                self.answered();
                self.link = match self.link {
                    Link::Up | Link::Between(_) => Link::Up,
                    Link::Down | Link::CatchingUp { .. } => Link::CatchingUp {
                        until: now + QUIET,
                        at_most: now + MAX_CATCHING_UP,
                    },
                };
                return Ok(None);
            }
            Step::Put(row) => {
                self.arrived(now);
                self.version = row.version();
                FeedEvent::Put(row)
            }
            Step::Gone(row) => {
                self.arrived(now);
                self.version = row.version();
                FeedEvent::Gone(row)
            }
            Step::Bookmark(version) => {
                self.version = Some(version);
                return Ok(None);
            }
            Step::Ended { told, lasted } => {
                if !told && lasted < LASTED {
                    let failure = self.failed(&steps::Error::EndedAtOnce);
                    return failure.map_or(Ok(None), Err);
                }
                self.was_cut_off = lasted < CUT_OFF;
                if !told {
                    self.pause = Pause::until(now + BREATH / 2 + up_to(BREATH / 2));
                }
                self.link = match self.link {
                    Link::Up => Link::Between(self.pause.end().unwrap_or(now) + LOST),
                    Link::Between(until) => Link::Between(until),
                    Link::Down | Link::CatchingUp { .. } => Link::Down,
                };
                return Ok(None);
            }
        }))
    }

    /// Something arrived: if it was missed before, more of it may follow.
    fn arrived(&mut self, now: Instant) {
        if let Link::CatchingUp { at_most, .. } = self.link {
            let until = at_most.min(now + QUIET);
            self.link = Link::CatchingUp { until, at_most };
        }
    }

    /// The server answers: if it did not before, other feeds need not wait to find that out.
    fn answered(&mut self) {
        let is_news = match &mut self.failing {
            Some(failing) => !std::mem::replace(&mut failing.answered, true),
            None => self.lists == 0 || std::mem::take(&mut self.was_cut_off),
        };
        if is_news {
            self.server.reached.send_replace(());
        }
    }

    fn resumed(&mut self) {
        let Some(failing) = self.failing.take() else {
            return;
        };
        self.server.metrics.restarted(self.kind);
        info!(
            kind = self.kind,
            failures = failing.times,
            seconds = failing.since.elapsed().as_secs(),
            "following objects again"
        );
    }

    /// Decides how to go on after an error; `None` if nothing is wrong, and it goes on at once.
    fn failed(&mut self, error: &steps::Error) -> Option<WatchFailure> {
        let failure = WatchFailure::of(error, self.streaming, self.listing);
        self.server.metrics.failed(self.kind, failure.code);
        let now = Instant::now();
        if failure.is_ahead {
            self.version = None;
        }
        match failure.remedy {
            Remedy::Again if !self.listing => {}
            // A list that had a failure in it may lack what the failure hid, and what a
            // complete list lacks is taken to be gone.
            Remedy::Again | Remedy::List => {
                self.listing = true;
                self.steps = None;
            }
            Remedy::NeverStream => {
                self.steps = None;
                if self.server.does_not_stream_lists() {
                    info!(
                        kind = self.kind,
                        answer = failure.message,
                        "the API server does not stream lists; asking for whole lists instead"
                    );
                }
                return None;
            }
            Remedy::ListAsAWhole => {
                self.steps = None;
                self.without_stream = true;
                info!(
                    kind = self.kind,
                    answer = failure.message,
                    "a streamed list failed; asking for the whole list instead"
                );
                return None;
            }
        }
        self.link = Link::Down;
        let delay = self.backoff.after_failure(now, failure.asked_for);
        // A server that asks to wait is there, and so is one that accepts and breaks off, or wants to be
        // asked for a list: two feeds that meet with that would wake each other all the time.
        let is_there = self.failing.as_ref().is_some_and(|it| it.answered)
            || failure.asked_for.is_some()
            || failure.is_busy()
            || failure.remedy == Remedy::List;
        self.pause = if is_there {
            Pause::until(now + delay)
        } else {
            Pause::until_reached(now + delay, self.server.reached.subscribe())
        };
        let first = self.failing.is_none();
        let failing = self.failing.get_or_insert(Failing {
            times: 0,
            since: now,
            answered: false,
        });
        failing.times = failing.times.saturating_add(1);
        failing.answered = false;
        self.tell(&failure, delay, first);
        Some(failure)
    }

    /// The first failure is a warning; those that follow are logged for debugging.
    fn tell(&self, failure: &WatchFailure, delay: Duration, first: bool) {
        let kind = self.kind;
        let error = failure.message.as_str();
        let retry_in_seconds = delay.as_secs_f32();
        if !first {
            debug!(kind, error, retry_in_seconds, "still cannot follow objects");
        } else if failure.remedy == Remedy::List {
            info!(
                kind,
                error, "the API server no longer has the next changes; listing again"
            );
        } else if failure.is_busy() {
            info!(kind, error, retry_in_seconds, "the API server asks to wait");
        } else if failure.is_forbidden() {
            warn!(
                kind,
                error,
                "not allowed to list and watch objects; keeping the last known state: grant list \
                 and watch of {} in group {:?} to the account of the agent",
                self.resource.plural,
                self.resource.group,
            );
        } else {
            warn!(
                kind,
                error, "cannot follow objects; keeping the last known state and trying again"
            );
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::ready;
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::{poll, stream};
    use kube::Config;
    use kube::client::Body;

    use super::super::row::Decoded;
    use super::*;
    use crate::objects::Kind;

    /// A server that accepts everything and breaks off is there, which is no news to others that it
    /// breaks off as well.
    #[tokio::test(start_paused = true)]
    async fn feeds_that_are_broken_off_do_not_wake_each_other() {
        let requests = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&requests);
        let answer = move |_: http::Request<Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            ready(Ok::<_, Infallible>(http::Response::new(Body::empty())))
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let server = Server::new(client, SourceMetrics::default(), Duration::ZERO);
        let follow = |kind: Kind| {
            let selection = Selection::default();
            let mut feed = Feed::<Decoded>::new(server.clone(), kind.resource, "v1", selection);
            async move {
                loop {
                    let _ = feed.next().await;
                }
            }
        };
        let both = async { tokio::join!(follow(Kind::SERVICE), follow(Kind::ENDPOINT_SLICE)) };
        let minute = tokio::time::timeout(Duration::from_secs(60), both);
        assert!(minute.await.is_err());
        let requests = requests.load(Ordering::Relaxed);
        assert!((8..=20).contains(&requests), "{requests}");
    }

    /// An agent is to take what has arrived as fast as it can, and many objects at once: a wait for
    /// each, however short, would hold it to as many objects in a second as there are ticks.
    #[tokio::test]
    async fn what_has_arrived_is_told_without_waiting_for_the_clock() {
        let client = Client::try_from(Config::new(http::Uri::from_static("http://127.0.0.1:1")));
        let server = Server::new(client.unwrap(), SourceMetrics::default(), Duration::ZERO);
        let kind = Kind::SERVICE;
        let mut feed = Feed::<Decoded>::new(server, kind.resource, "v1", Selection::default());
        feed.streaming = true;
        let row = |number: usize| {
            let json = format!(
                r#"{{"apiVersion": "v1", "kind": "Service", "metadata":
                    {{"name": "web-{number}", "namespace": "shop", "resourceVersion": "7"}}}}"#
            );
            serde_json::from_str::<Row<Decoded>>(&json).unwrap()
        };
        let listed = (0..50).map(|number| Ok(Step::Listed(row(number))));
        let done = [Ok(Step::ListDone("7".to_owned()))];
        let changed = (0..50).map(|number| Ok(Step::Put(row(number))));
        let steps: Vec<_> = listed.chain(done).chain(changed).collect();
        let count = steps.len();
        feed.steps = Some(
            stream::iter([Ok(Step::ListBegins)])
                .chain(stream::iter(steps))
                .boxed(),
        );
        assert!(matches!(feed.next().await, Ok(FeedEvent::ListBegins)));
        for number in 0..count {
            assert!(poll!(pin!(feed.next())).is_ready(), "{number}");
        }
    }
}
