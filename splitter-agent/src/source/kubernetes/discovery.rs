//! Asking every now and then whether the cluster knows an optional kind, for an agent that
//! may not read its definition. What an API server serves, every account may ask.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::backoff::{Backoff, up_to};
use super::definition::{Definition, ServedVersion};
use super::failure::{Code, WatchFailure};
use super::feed::Server;
use super::pause::Pause;
use super::resource::CUSTOM_RESOURCE_DEFINITION;
use crate::objects::Kind;

/// Time between two questions, and how much of it is random.
const INTERVAL: Duration = Duration::from_secs(27);
const SPREAD: Duration = Duration::from_secs(6);
/// Time until an absence is confirmed.
const CONFIRMATION: Duration = Duration::from_secs(2);

/// Asks the server's discovery.
pub(super) struct Discovery {
    server: Server,
    kind: Kind,
    pause: Pause,
    backoff: Backoff,
    failing: bool,
    absent: bool,
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
        Self {
            server,
            kind,
            pause: Pause::until(Instant::now()),
            backoff: Backoff::new(),
            failing: false,
            absent: false,
        }
    }

    /// The next answer. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Definition, WatchFailure> {
        loop {
            self.pause.over().await;
            let answer = self.ask().await;
            let now = Instant::now();
            match answer {
                Ok(Definition::Absent) if !self.absent => {
                    // An API server that has just started may not know its own resources
                    // yet. All splits depend on this answer, so it is asked for twice.
                    self.absent = true;
                    self.pause = Pause::until(now + CONFIRMATION);
                }
                Ok(definition) => {
                    self.absent = definition == Definition::Absent;
                    self.pause = Pause::until(now + INTERVAL + up_to(SPREAD));
                    self.backoff.reset();
                    // What is asked for is followed as well as what is watched, if more slowly.
                    let metrics = &self.server.metrics;
                    metrics.set_definition_synced(self.kind, true);
                    if std::mem::take(&mut self.failing) {
                        info!(kind = %self.kind, "asking for the versions of a kind again");
                        self.server.reached.send_replace(());
                    }
                    return Ok(definition);
                }
                Err(failure) => {
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
                    return Err(failure);
                }
            }
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
