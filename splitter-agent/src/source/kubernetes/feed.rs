//! One kind of objects, listed and watched for as long as it takes.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, InitialListStrategy, watcher};
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::backoff::{Backoff, up_to};
use super::failure::{Failure, Remedy};
use super::kind::Kind;
use super::metrics::SourceMetrics;
use super::row::{Content, Row};

/// A watch that has been silent for so long after it was taken up again is taken to
/// work: connecting would have failed by then.
const SETTLED: Duration = Duration::from_secs(6);

/// What all feeds of a source have in common.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) client: Client,
    pub(super) metrics: SourceMetrics,
    /// Whether the server cannot stream lists, as far as is known. Once found out it holds for
    /// the life of the process: asking again would cost a failed request each time.
    pub(super) pages_only: Arc<AtomicBool>,
    /// The first list of each kind is asked for at a random moment within this time.
    pub(super) jitter: Duration,
}

type Events<C> = Pin<Box<dyn Stream<Item = watcher::Result<Event<Row<C>>>> + Send>>;

/// Everything that happens to one kind of objects.
///
/// The watcher that does the work goes on after every failure; here is decided when.
pub(super) struct Feed<C> {
    server: Server,
    kind: Kind,
    resource: ApiResource,
    fields: Option<&'static str>,
    events: Option<Events<C>>,
    streaming: bool,
    /// Nothing is asked for before.
    not_before: Instant,
    backoff: Backoff,
    /// Whether the list that began last is not complete.
    listing: bool,
    lists: u64,
    /// Set while the last thing that happened is a failure.
    failing: Option<Failing>,
}

struct Failing {
    times: u32,
    since: Instant,
}

impl<C: Content> Feed<C> {
    /// All objects of a kind, or those that a field selector chooses.
    pub(super) fn new(
        server: Server,
        kind: Kind,
        version: &str,
        fields: Option<&'static str>,
    ) -> Self {
        let not_before = Instant::now() + up_to(server.jitter);
        Self {
            server,
            kind,
            resource: kind.resource(version),
            fields,
            events: None,
            streaming: false,
            not_before,
            backoff: Backoff::new(),
            listing: true,
            lists: 0,
            failing: None,
        }
    }

    /// The next thing that happens. After a failure, the next call waits as long as is
    /// due and goes on. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Event<Row<C>>, Failure> {
        sleep_until(self.not_before).await;
        loop {
            let settled = self.settled();
            let events = match &mut self.events {
                Some(events) => events,
                none => {
                    self.streaming = !self.server.pages_only.load(Ordering::Relaxed);
                    none.insert(begin(
                        self.server.client.clone(),
                        &self.resource,
                        self.fields,
                        self.streaming,
                    ))
                }
            };
            let event = tokio::select! {
                event = events.next() => event,
                () = until(settled) => {
                    self.resumed();
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => {
                    self.note(&event);
                    return Ok(event);
                }
                Some(Err(error)) => return Err(self.failed(&error)),
                // A watcher never ends.
                None => self.events = None,
            }
        }
    }

    /// When silence means that all is well again.
    fn settled(&self) -> Option<Instant> {
        (self.failing.is_some() && !self.listing).then(|| self.not_before + SETTLED)
    }

    fn note(&mut self, event: &Event<Row<C>>) {
        match event {
            Event::Init => {
                self.listing = true;
                self.lists += 1;
                if self.lists > 1 && self.failing.is_none() {
                    self.server.metrics.restarted(self.kind);
                }
            }
            Event::InitDone => {
                self.listing = false;
                self.backoff.reset();
                self.resumed();
                self.server.metrics.set_synced(self.kind, true);
            }
            Event::InitApply(_) => {}
            Event::Apply(_) | Event::Delete(_) => self.resumed(),
        }
    }

    fn resumed(&mut self) {
        let Some(failing) = self.failing.take() else {
            return;
        };
        self.server.metrics.restarted(self.kind);
        self.server.metrics.set_synced(self.kind, true);
        info!(
            kind = self.kind.name(),
            failures = failing.times,
            seconds = failing.since.elapsed().as_secs(),
            "following objects again"
        );
    }

    fn failed(&mut self, error: &watcher::Error) -> Failure {
        let failure = Failure::of(error, self.streaming, self.listing);
        self.server.metrics.failed(self.kind, failure.code);
        let now = Instant::now();
        match failure.remedy {
            Remedy::Again if !self.listing => {}
            // A list that had a failure in it may lack what the failure hid, and what a
            // complete list lacks is taken to be gone.
            Remedy::Again | Remedy::List => {
                self.listing = true;
                self.events = None;
            }
            Remedy::ListInPages => {
                self.events = None;
                if !self.server.pages_only.swap(true, Ordering::Relaxed) {
                    info!(
                        kind = self.kind.name(),
                        answer = failure.message,
                        "the API server does not stream lists; listing in pages instead"
                    );
                }
                // Nothing is wrong: it goes on at once, the other way.
                return failure;
            }
        }
        self.server.metrics.set_synced(self.kind, false);
        let delay = self.backoff.after_failure(now, failure.asked_for);
        self.not_before = now + delay;
        let first = self.failing.is_none();
        let failing = self.failing.get_or_insert(Failing {
            times: 0,
            since: now,
        });
        failing.times = failing.times.saturating_add(1);
        self.tell(&failure, delay, first);
        failure
    }

    /// The first failure is told to everybody, those after it to whoever looks closely.
    fn tell(&self, failure: &Failure, delay: Duration, first: bool) {
        let kind = self.kind.name();
        let error = failure.message.as_str();
        let retry_in_seconds = delay.as_secs_f32();
        if !first {
            debug!(kind, error, retry_in_seconds, "still cannot follow objects");
        } else if failure.remedy == Remedy::List {
            info!(
                kind,
                error, "the API server no longer has what came next; listing anew"
            );
        } else if failure.is_busy() {
            info!(kind, error, retry_in_seconds, "the API server asks to wait");
        } else if failure.is_forbidden() {
            warn!(
                kind,
                error,
                "may not list and watch objects; what is known stays in force: grant list and watch of \
                 {} in group {:?} to the account of the agent",
                self.kind.plural(),
                self.kind.group(),
            );
        } else {
            warn!(
                kind,
                error, "cannot follow objects; what is known stays in force, and it is tried again"
            );
        }
    }
}

/// Lists and watches.
fn begin<C: Content>(
    client: Client,
    resource: &ApiResource,
    fields: Option<&str>,
    streaming: bool,
) -> Events<C> {
    // Any state that the server has at hand is good enough for a list in pages: all that
    // came after it follows in the watch, and a cluster's worth of agents must not all
    // ask the database.
    let mut config = watcher::Config::default().any_semantic().page_size(500);
    if streaming {
        config.initial_list_strategy = InitialListStrategy::StreamingList;
    }
    if let Some(fields) = fields {
        config = config.fields(fields);
    }
    watcher(Api::<Row<C>>::all_with(client, resource), config).boxed()
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
