//! Listing and watching one kind of objects, request by request.
//!
//! Like the watcher of kube-rs, but it tells when a watch was accepted and how one ended, lists
//! from the API server's cache also when it cannot stream, and never goes back behind what was
//! already seen.

use std::vec;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use kube::Client;
use kube::api::{ListParams, VersionMatch, WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicObject, Status};
use tokio::time::{Duration, Instant, timeout};

use super::feed::Selection;
use super::list::{self, List};
use super::row::{Content, Row};

/// Marks the end of a list in a watch.
const END_OF_LIST: &str = "k8s.io/initial-events-end";

/// Any state that the server has at hand.
const ANY: &str = "0";

/// How long a streamed list may be silent before it is complete. The server has all of it at hand,
/// or says within seconds that it has not.
const SILENCE: Duration = Duration::from_secs(20);

/// One thing that happens. What comes after a step is asked for when the next one is.
#[derive(Debug)]
pub(super) enum Step<C> {
    /// The server answers with a list.
    ListBegins,
    /// An object of the list.
    Listed(Row<C>),
    /// The list is complete as of this resource version.
    ListDone(String),
    /// The server accepts a watch from where the last one ended.
    Accepted,
    /// An object is there, or is another than before.
    Put(Row<C>),
    /// An object is gone.
    Gone(Row<C>),
    /// Everything up to this resource version has been told.
    Bookmark(String),
    /// A watch ended without an error, as the server ends each after a while.
    Ended {
        /// Whether it told anything.
        told: bool,
        /// How long it lasted.
        lasted: Duration,
    },
}

/// What can go wrong.
#[derive(Debug)]
pub(super) enum Error {
    /// A list was not answered.
    List(kube::Error),
    /// A watch, or a streamed list, was not answered.
    Start(kube::Error),
    /// A watch, or a streamed list, broke off.
    Broken(kube::Error),
    /// The server reported an error in a watch or a streamed list.
    FeedEvent(Box<Status>),
    /// A streamed list ended before it was complete.
    ListEnded,
    /// A streamed list told nothing more for [`SILENCE`], and was not complete.
    ListStalled,
    /// A watch ended soon without having told anything.
    EndedAtOnce,
    /// The server did not say as of when its answer is.
    NoVersion,
}

/// What to ask for.
pub(super) struct Request {
    pub(super) client: Client,
    pub(super) resource: ApiResource,
    /// Which objects, and how much of each.
    pub(super) selection: Selection,
    /// Whether the list is streamed.
    pub(super) streaming: bool,
    /// The resource version that the list must not be older than, if something is known already.
    pub(super) not_older_than: Option<String>,
}

enum State<C> {
    Start,
    /// A list that was read as a whole.
    Whole(vec::IntoIter<Row<C>>, String),
    /// A list that is being streamed.
    Streamed(Events<C>),
    /// Listed, and not watched.
    Idle(String),
    Watching {
        version: String,
        events: Events<C>,
        since: Instant,
        told: bool,
    },
}

type Events<C> = BoxStream<'static, kube::Result<WatchEvent<Row<C>>>>;

/// Lists and then watches, for ever. After an error it continues where it was, when it is polled
/// again. Dropping it ends its requests.
pub(super) fn steps<C: Content>(request: Request) -> BoxStream<'static, Result<Step<C>, Error>> {
    stream::unfold((request, State::Start), |(request, mut state)| async move {
        loop {
            let (step, next) = step(&request, state).await;
            match step {
                Some(step) => return Some((step, (request, next))),
                None => state = next,
            }
        }
    })
    .boxed()
}

type StepOutcome<C> = (Option<Result<Step<C>, Error>>, State<C>);

async fn step<C: Content>(request: &Request, state: State<C>) -> StepOutcome<C> {
    match state {
        State::Start if request.streaming => match request.watch(None).await {
            Ok(events) => (Some(Ok(Step::ListBegins)), State::Streamed(events)),
            Err(error) => (Some(Err(Error::Start(error))), State::Start),
        },
        State::Start => match request.list().await {
            Ok(list) if list.version.is_empty() => (Some(Err(Error::NoVersion)), State::Start),
            Ok(List { version, rows }) => (
                Some(Ok(Step::ListBegins)),
                State::Whole(rows.into_iter(), version),
            ),
            Err(error) => (Some(Err(Error::List(error))), State::Start),
        },
        State::Whole(mut rows, version) => match rows.next() {
            Some(row) => (Some(Ok(Step::Listed(row))), State::Whole(rows, version)),
            None => (
                Some(Ok(Step::ListDone(version.clone()))),
                State::Idle(version),
            ),
        },
        State::Streamed(mut events) => match next_of_list(&mut events).await {
            Ok(WatchEvent::Added(row) | WatchEvent::Modified(row)) => {
                (Some(Ok(Step::Listed(row))), State::Streamed(events))
            }
            Ok(WatchEvent::Bookmark(bookmark)) => {
                if !bookmark.metadata.annotations.contains_key(END_OF_LIST) {
                    return (None, State::Streamed(events));
                }
                let version = bookmark.metadata.resource_version;
                let watching = State::Watching {
                    version: version.clone(),
                    events,
                    since: Instant::now(),
                    told: true,
                };
                (Some(Ok(Step::ListDone(version))), watching)
            }
            // A list has no deletions in it.
            Ok(WatchEvent::Deleted(_)) => (None, State::Streamed(events)),
            Ok(WatchEvent::Error(status)) => (Some(Err(Error::FeedEvent(status))), State::Start),
            Err(error) => (Some(Err(error)), State::Start),
        },
        State::Idle(version) => match request.watch(Some(&version)).await {
            Ok(events) => (
                Some(Ok(Step::Accepted)),
                State::Watching {
                    version,
                    events,
                    since: Instant::now(),
                    told: false,
                },
            ),
            Err(error) => (Some(Err(Error::Start(error))), State::Idle(version)),
        },
        State::Watching {
            version,
            mut events,
            since,
            told,
        } => match events.next().await {
            Some(Ok(event)) => watched(event, version, events, since),
            Some(Err(error)) => (Some(Err(Error::Broken(error))), State::Idle(version)),
            None => {
                let lasted = since.elapsed();
                let ended = Step::Ended { told, lasted };
                (Some(Ok(ended)), State::Idle(version))
            }
        },
    }
}

/// What comes next in a streamed list that is not complete.
async fn next_of_list<C>(events: &mut Events<C>) -> Result<WatchEvent<Row<C>>, Error> {
    match timeout(SILENCE, events.next()).await {
        Ok(Some(event)) => event.map_err(Error::Broken),
        Ok(None) => Err(Error::ListEnded),
        Err(_) => Err(Error::ListStalled),
    }
}

/// What an event of a watch comes to.
fn watched<C: Content>(
    event: WatchEvent<Row<C>>,
    version: String,
    events: Events<C>,
    since: Instant,
) -> StepOutcome<C> {
    let (step, version) = match event {
        WatchEvent::Added(row) | WatchEvent::Modified(row) => match row.version() {
            Some(version) => (Step::Put(row), version),
            None => return (Some(Err(Error::NoVersion)), State::Start),
        },
        WatchEvent::Deleted(row) => match row.version() {
            Some(version) => (Step::Gone(row), version),
            None => return (Some(Err(Error::NoVersion)), State::Start),
        },
        WatchEvent::Bookmark(bookmark) => {
            let version = bookmark.metadata.resource_version;
            (Step::Bookmark(version.clone()), version)
        }
        WatchEvent::Error(status) => {
            let told = Error::FeedEvent(status);
            return (Some(Err(told)), State::Idle(version));
        }
    };
    let watching = State::Watching {
        version,
        events,
        since,
        told: true,
    };
    (Some(Ok(step)), watching)
}

impl Request {
    /// The whole list, from the server's cache. A limit would have the server read it from etcd,
    /// since its cache has no pages; kube-rs leaves the version out then.
    async fn list<C: Content>(&self) -> kube::Result<List<C>> {
        let parameters = ListParams {
            field_selector: self.selection.fields.clone(),
            resource_version: Some(self.not_older_than().to_owned()),
            version_match: Some(VersionMatch::NotOlderThan),
            ..ListParams::default()
        };
        let request = kube::core::Request::new(self.resource_path());
        let request = if self.selection.is_metadata {
            request.list_metadata(&parameters)
        } else {
            request.list(&parameters)
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let text = self.client.request_text(request).await?;
        list::read(&text, &self.resource).map_err(kube::Error::SerdeError)
    }

    /// A watch from a version, or a streamed list.
    async fn watch<C: Content>(&self, from: Option<&str>) -> kube::Result<Events<C>> {
        let parameters = WatchParams {
            field_selector: self.selection.fields.clone(),
            send_initial_events: from.is_none(),
            ..WatchParams::default()
        };
        let version = from.unwrap_or_else(|| self.not_older_than());
        let request = kube::core::Request::new(self.resource_path());
        let request = if self.selection.is_metadata {
            request.watch_metadata(&parameters, version)
        } else {
            request.watch(&parameters, version)
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let events = self.client.request_events::<Row<C>>(request).await?;
        Ok(events.boxed())
    }

    fn resource_path(&self) -> String {
        <DynamicObject as kube::Resource>::url_path(
            &self.resource,
            self.selection.namespace.as_deref(),
        )
    }

    fn not_older_than(&self) -> &str {
        self.not_older_than.as_deref().unwrap_or(ANY)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use http_body_util::StreamBody;
    use hyper::body::{Bytes, Frame};
    use kube::client::Body;

    use super::super::resource::api_resource;
    use super::super::row::Decoded;
    use super::*;
    use crate::objects::Kind;

    /// Answers every request with one line, and then says nothing more.
    fn server_that_stops(line: &'static str) -> Client {
        let answer = move |_: http::Request<Body>| async move {
            let line = Ok::<_, Infallible>(Frame::data(Bytes::from(line)));
            let body = stream::iter([line]).chain(stream::pending());
            Ok::<_, Infallible>(Response::new(StreamBody::new(body)))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn a_streamed_list_that_stops_is_given_up() {
        let service = concat!(
            r#"{"type": "ADDED", "object": {"apiVersion": "v1", "kind": "Service", "#,
            r#""metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"}}}"#,
            "\n",
        );
        let mut steps = steps::<Decoded>(Request {
            client: server_that_stops(service),
            resource: api_resource(Kind::SERVICE.resource, "v1"),
            selection: Selection::default(),
            streaming: true,
            not_older_than: None,
        });
        let begin = Instant::now();
        assert!(matches!(steps.next().await, Some(Ok(Step::ListBegins))));
        assert!(matches!(steps.next().await, Some(Ok(Step::Listed(_)))));
        assert_eq!(begin.elapsed(), Duration::ZERO);
        let stalled = steps.next().await;
        assert!(matches!(stalled, Some(Err(Error::ListStalled))));
        assert_eq!(begin.elapsed(), SILENCE);
    }
}
