//! Asking every now and then whether the cluster knows an optional kind, for an agent that
//! may not read its definition. What an API server serves, every account may ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::backoff::{Backoff, up_to};
use super::definition::{Definition, ServedVersion, Unknown, selector};
use super::failure::{Code, WatchFailure};
use super::feed::Server;
use super::pause::Pause;
use super::resource::CUSTOM_RESOURCE_DEFINITION;
use crate::objects::Kind;

/// Time between two questions, and how much of it is random.
const INTERVAL: Duration = Duration::from_secs(27);
const SPREAD: Duration = Duration::from_secs(6);
/// Time between the first questions, which doubles: also until an absence is confirmed.
const FIRST_INTERVAL: Duration = Duration::from_secs(2);
/// How much of the time is random until something is asked because another kind was newly defined.
const SPREAD_OF_NEWS: Duration = Duration::from_secs(1);
/// Time until it is tried whether definitions may be watched after all, which doubles: an API
/// server that has just started refuses everything until it has read who may do what.
const WATCH_AGAIN: Duration = Duration::from_secs(5);
const WATCH_AGAIN_AT_MOST: Duration = Duration::from_secs(320);

/// How often something was found out to be defined, by group. Kinds of a group are defined together,
/// so that what is known of the others of the group is out of date then.
#[derive(Clone, Debug)]
pub(super) struct NewlyDefined(Arc<watch::Sender<BTreeMap<&'static str, u64>>>);

impl NewlyDefined {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }

    /// A kind is defined, and was not before, or otherwise. How often that was so in its group.
    pub(super) fn note(&self, kind: Kind) -> u64 {
        let mut times = 0;
        self.0.send_modify(|defined| {
            let count = defined.entry(kind.resource.group).or_default();
            *count += 1;
            times = *count;
        });
        times
    }
}

/// What discovery comes to.
pub(super) enum Answer {
    /// What the server says.
    Definition(Definition),
    /// The definition may be watched now, which is better.
    MayBeWatched,
}

/// Asks the server's discovery.
pub(super) struct Discovery {
    server: Server,
    kind: Kind,
    pause: Pause,
    backoff: Backoff,
    failing: bool,
    absent: bool,
    /// Time until the next question after an answer.
    interval: Duration,
    watch_again: Instant,
    watch_again_after: Duration,
    /// What was last found out.
    last: Option<Definition>,
    newly_defined: watch::Receiver<BTreeMap<&'static str, u64>>,
    /// How many kinds of the group had been found out to be defined when it was last asked.
    seen: u64,
}

#[derive(Deserialize)]
struct Group {
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct Version {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

impl Discovery {
    /// Asks for the first time at once.
    pub(super) fn new(server: Server, kind: Kind) -> Self {
        let now = Instant::now();
        let newly_defined = server.newly_defined.0.subscribe();
        let mut discovery = Self {
            server,
            kind,
            pause: Pause::until(now),
            backoff: Backoff::new(),
            failing: false,
            absent: false,
            interval: FIRST_INTERVAL,
            watch_again: now + WATCH_AGAIN,
            watch_again_after: WATCH_AGAIN,
            last: None,
            newly_defined,
            seen: 0,
        };
        discovery.seen = discovery.defined_in_group();
        discovery
    }

    /// What was last found out.
    pub(super) fn last(&self) -> Option<&Definition> {
        self.last.as_ref()
    }

    /// The next answer.
    pub(super) async fn next(&mut self) -> Result<Answer, Unknown> {
        loop {
            tokio::select! {
                biased;
                () = self.pause.over() => {}
                // It ends with the source.
                Ok(()) = self.newly_defined.changed() => {
                    let defined = self.defined_in_group();
                    if std::mem::replace(&mut self.seen, defined) == defined {
                        continue;
                    }
                    // Not all agents at once: each of them is told at this moment.
                    self.pause = Pause::until(Instant::now() + up_to(SPREAD_OF_NEWS));
                    self.absent = false;
                    self.interval = FIRST_INTERVAL;
                    // What is defined by now, with objects, is not to be taken for absent.
                    return Err(Unknown);
                }
            }
            if self.watch_again <= Instant::now() {
                if self.may_watch().await {
                    return Ok(Answer::MayBeWatched);
                }
                self.watch_again_after = WATCH_AGAIN_AT_MOST.min(self.watch_again_after * 2);
                self.watch_again = Instant::now() + self.watch_again_after;
            }
            let answer = self.ask().await;
            match answer {
                Ok(Definition::Absent) if !self.absent => {
                    // An API server that has just started may not know its own resources
                    // yet. All splits depend on this answer, so it is asked for twice.
                    self.absent = true;
                    self.pause = Pause::until(Instant::now() + FIRST_INTERVAL);
                }
                Ok(definition) => {
                    self.answered(&definition);
                    return Ok(Answer::Definition(definition));
                }
                Err(failure) => {
                    self.failed(&failure);
                    return Err(Unknown);
                }
            }
        }
    }

    fn defined_in_group(&self) -> u64 {
        let defined = self.newly_defined.borrow();
        let defined = defined.get(self.kind.resource.group);
        defined.copied().unwrap_or_default()
    }

    fn answered(&mut self, definition: &Definition) {
        self.absent = *definition == Definition::Absent;
        let spread = SPREAD.min(self.interval / 4);
        self.pause = Pause::until(Instant::now() + self.interval + up_to(spread));
        self.interval = INTERVAL.min(self.interval * 2);
        self.backoff.reset();
        // What is asked for is followed as well as what is watched, if more slowly.
        let metrics = &self.server.metrics;
        metrics.set_definition_synced(self.kind, true);
        if std::mem::take(&mut self.failing) {
            info!(kind = %self.kind, "asking for the versions of a kind again");
            self.server.reached.send_replace(());
        }
        let is_news = self
            .last
            .replace(definition.clone())
            .is_some_and(|last| last != *definition);
        if is_news && !self.absent {
            let times = self.server.newly_defined.note(self.kind);
            // Unless another one was found out at the same time.
            if times == self.seen + 1 {
                self.seen = times;
            }
        }
    }

    fn failed(&mut self, failure: &WatchFailure) {
        let now = Instant::now();
        let delay = self.backoff.after_failure(now, failure.asked_for);
        self.pause = Pause::until_reached(now + delay, self.server.reached.subscribe());
        let metrics = &self.server.metrics;
        metrics.failed(CUSTOM_RESOURCE_DEFINITION.kind, failure.code);
        metrics.set_definition_synced(self.kind, false);
        let kind = self.kind;
        let error = failure.message.as_str();
        if std::mem::replace(&mut self.failing, true) {
            debug!(%kind, error, "still cannot ask for the versions of a kind");
        } else {
            warn!(
                %kind,
                error,
                "cannot ask for the versions of a kind; keeping the last known state and \
                 trying again"
            );
        }
    }

    /// Whether the definition may be watched: a watch of a second is accepted.
    async fn may_watch(&self) -> bool {
        let path = format!(
            "/apis/{}/v1/{}?watch=true&timeoutSeconds=1&fieldSelector={}",
            CUSTOM_RESOURCE_DEFINITION.group,
            CUSTOM_RESOURCE_DEFINITION.plural,
            selector(self.kind).replace('=', "%3D"),
        );
        match Request::get(path).body(Vec::new()) {
            Ok(request) => self.server.client.request_text(request).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn ask(&self) -> Result<Definition, WatchFailure> {
        let group = format!("/apis/{}", self.kind.resource.group);
        let Some(found) = self.get::<Group>(&group).await? else {
            return Ok(Definition::Absent);
        };
        let mut resources = BTreeMap::new();
        for GroupVersion { version } in found.versions {
            if let Some(of_version) = self.get::<Version>(&format!("{group}/{version}")).await? {
                let names = of_version.resources.into_iter();
                resources.insert(version, names.map(|resource| resource.name).collect());
            }
        }
        Ok(evaluate(self.kind, &resources))
    }

    /// What is at a path; `None` if nothing is.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, WatchFailure> {
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(kube::Error::HttpError);
        let answer = match request {
            Ok(request) => self.server.client.request(request).await,
            Err(error) => Err(error),
        };
        match answer.map_err(|error| WatchFailure::of_client(&error)) {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.code == Code::Status(404) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// From the resources of each version to what is served.
fn evaluate(kind: Kind, resources: &BTreeMap<String, Vec<String>>) -> Definition {
    let plural = kind.resource.plural;
    let status = format!("{plural}/status");
    let versions: Vec<_> = resources
        .iter()
        .filter(|(_, names)| names.iter().any(|name| name == plural))
        .map(|(version, names)| ServedVersion {
            version: version.clone(),
            has_status: names.contains(&status),
        })
        .collect();
    if versions.is_empty() {
        return Definition::Absent;
    }
    Definition::Served {
        // Discovery does not tell which definition it is.
        uid: String::new(),
        versions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluated(resources: &[(&str, &[&str])]) -> Definition {
        let resources = resources.iter().map(|(version, names)| {
            let names = names.iter().map(|name| (*name).to_owned());
            ((*version).to_owned(), names.collect())
        });
        evaluate(Kind::TRAFFIC_SPLIT, &resources.collect())
    }

    #[test]
    fn versions_that_have_the_resource_are_served() {
        let splits = ["trafficsplits", "trafficsplits/status"];
        let version = |version: &str, has_status| ServedVersion {
            version: version.to_owned(),
            has_status,
        };
        assert_eq!(
            evaluated(&[
                ("v1alpha1", &splits),
                ("v1alpha3", &splits[..1]),
                ("v1alpha4", &["x"])
            ]),
            Definition::Served {
                uid: String::new(),
                versions: vec![version("v1alpha1", true), version("v1alpha3", false)],
            }
        );
    }

    #[test]
    fn a_group_without_the_resource_is_as_none() {
        assert_eq!(evaluated(&[]), Definition::Absent);
        assert_eq!(evaluated(&[("v1alpha4", &["x"])]), Definition::Absent);
    }
}
