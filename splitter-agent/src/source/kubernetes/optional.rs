//! Kinds that not every cluster has: their definition may come late, change and go. Followed as long
//! as the cluster knows them, in the best version that it serves.

use std::collections::BTreeMap;
use std::future::pending;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::definition::{Definition, ServedVersion, Unknown, best, selector};
use super::discovery::{Answer, Discovery};
use super::failure::WatchFailure;
use super::feed::{Feed, FeedEvent, Selection, Server};
use super::resource::CUSTOM_RESOURCE_DEFINITION;
use super::row::Decoded;
use super::tracker::{ChangeSender, Closed, Tracker};
use crate::objects::Kind;

/// The version in which each optional kind is followed at present.
pub type ServedVersions = BTreeMap<Kind, ServedVersion>;

/// Follows a kind until the receiver of changes is closed.
pub(super) async fn follow(
    server: Server,
    kind: Kind,
    sender: ChangeSender,
    served: watch::Sender<ServedVersions>,
) {
    let tracker = Tracker::new(kind, sender, server.metrics.clone());
    let mut definitions = Definitions::new(server.clone(), kind);
    // By itself: to find something out may take several requests, and objects that change all the
    // time shall not keep it from that.
    let (found, mut definition) = mpsc::channel(1);
    let mut finding = JoinSet::new();
    finding.spawn(async move { while found.send(definitions.next().await).await.is_ok() {} });
    let mut objects = Objects {
        server,
        kind,
        tracker,
        served,
        known: None,
        following: None,
    };
    loop {
        let result = tokio::select! {
            definition = definition.recv() => match definition {
                Some(Ok(definition)) => objects.adapt(definition).await,
                Some(Err(Unknown)) => objects.is_unknown().await,
                None => {
                    error!(%kind, "nothing more is found out about the definition of the kind");
                    let _ = objects.tracker.failed().await;
                    return;
                }
            },
            event = next(&mut objects.following) => objects.apply(event).await,
        };
        if result == Err(Closed) {
            return;
        }
    }
}

/// The feed, and the definition and version of what it feeds.
struct Following {
    uid: String,
    version: String,
    feed: Feed<Decoded>,
}

struct Objects {
    server: Server,
    kind: Kind,
    tracker: Tracker,
    served: watch::Sender<ServedVersions>,
    /// What was last found out about the kind.
    known: Option<Definition>,
    following: Option<Following>,
}

async fn next(following: &mut Option<Following>) -> Result<FeedEvent<Decoded>, WatchFailure> {
    match following {
        Some(following) => following.feed.next().await,
        None => pending().await,
    }
}

impl Objects {
    async fn apply(
        &mut self,
        told: Result<FeedEvent<Decoded>, WatchFailure>,
    ) -> Result<(), Closed> {
        match told {
            Ok(told) => self.tracker.apply(told).await,
            // The feed has told people of it, and goes on by itself.
            Err(_) => self.tracker.failed().await,
        }
    }

    /// Nothing can be found out about the kind at present.
    async fn is_unknown(&mut self) -> Result<(), Closed> {
        match self.following {
            // That tells by itself how it stands with the objects.
            Some(_) => Ok(()),
            None => self.tracker.failed().await,
        }
    }

    /// Goes on according to what is now known about the kind.
    async fn adapt(&mut self, definition: Definition) -> Result<(), Closed> {
        let news = self.known.as_ref() != Some(&definition);
        match &definition {
            Definition::Absent => {
                if news {
                    info!(
                        kind = %self.kind,
                        "the cluster does not know the kind; waiting for its definition"
                    );
                }
                self.stop();
                self.tracker.delete_all().await?;
                self.tracker.followed().await?;
            }
            Definition::NotReady => {
                // One that is not established yet has no objects.
                if self.following.is_none() {
                    self.tracker.followed().await?;
                }
            }
            Definition::Served { uid, versions } => match best(self.kind, versions) {
                Some(version) => self.switch(uid, version).await?,
                None => {
                    if news {
                        self.warn_of_versions(versions);
                    }
                    self.stop();
                    self.tracker.failed().await?;
                }
            },
        }
        self.known = Some(definition);
        Ok(())
    }

    fn warn_of_versions(&self, served: &[ServedVersion]) {
        let served: Vec<&str> = served.iter().map(|served| &*served.version).collect();
        warn!(
            kind = %self.kind,
            versions = ?served,
            "the cluster serves no version of the kind that can be read; keeping the last known \
             state: serve one of {}",
            self.kind.versions.join(", ")
        );
    }

    /// Follows this version. Objects are the same in every version, so that none is gone
    /// before the list in the new version is complete without it.
    async fn switch(&mut self, uid: &str, version: &ServedVersion) -> Result<(), Closed> {
        self.served.send_if_modified(|served| {
            let before = served.insert(self.kind, version.clone());
            before.as_ref() != Some(version)
        });
        if let Some(now) = &self.following
            && now.uid == uid
            && now.version == version.version
        {
            return Ok(());
        }
        info!(kind = %self.kind, version = version.version, "following objects");
        self.following = Some(Following {
            uid: uid.to_owned(),
            version: version.version.clone(),
            feed: Feed::new(
                self.server.clone(),
                self.kind.resource,
                &version.version,
                Selection::default(),
            ),
        });
        self.tracker.lost().await
    }

    fn stop(&mut self) {
        self.following = None;
        self.served
            .send_if_modified(|served| served.remove(&self.kind).is_some());
    }
}

/// What becomes known about the kind, by the best way there is.
struct Definitions {
    server: Server,
    kind: Kind,
    watched: Option<Watched>,
    /// How it is asked for, if it could not be watched.
    discovery: Option<Discovery>,
}

struct Watched {
    server: Server,
    kind: Kind,
    feed: Feed<Definition>,
    /// Whether the list that began last has had it so far.
    found: bool,
    /// Whether watching has worked before: then a refusal is a right taken away, which may be
    /// given back.
    worked: bool,
    /// What was last found out.
    last: Option<Definition>,
}

impl Definitions {
    fn new(server: Server, kind: Kind) -> Self {
        server.metrics.begin(CUSTOM_RESOURCE_DEFINITION.kind);
        server.metrics.set_definition_synced(kind, false);
        Self {
            watched: Some(Watched::new(server.clone(), kind, None)),
            discovery: None,
            server,
            kind,
        }
    }

    /// What is next found out.
    async fn next(&mut self) -> Result<Definition, Unknown> {
        let kind = self.kind;
        if let Some(watched) = &mut self.watched {
            if let Some(definition) = watched.next().await {
                return definition;
            }
            self.watched = None;
            info!(
                %kind,
                "not allowed to watch the definition of the kind; asking for its versions twice a \
                 minute instead, and at times whether it may be watched by now"
            );
        }
        let server = &self.server;
        let new = || Discovery::new(server.clone(), kind);
        let discovery = self.discovery.get_or_insert_with(new);
        match discovery.next().await? {
            Answer::Definition(definition) => Ok(definition),
            Answer::MayBeWatched => {
                info!(%kind, "allowed to watch the definition of the kind by now");
                let last = discovery.last().cloned();
                self.watched = Some(Watched::new(server.clone(), kind, last));
                // What happens before it is listed is not known.
                Err(Unknown)
            }
        }
    }
}

impl Watched {
    /// `last` is what was found out otherwise.
    fn new(server: Server, kind: Kind, last: Option<Definition>) -> Self {
        let selection = Selection {
            fields: Some(selector(kind)),
            ..Selection::default()
        };
        Self {
            feed: Feed::new(server.clone(), CUSTOM_RESOURCE_DEFINITION, "v1", selection),
            server,
            kind,
            found: false,
            worked: false,
            last,
        }
    }

    /// What is next found out; `None` if it must not be watched.
    async fn next(&mut self) -> Option<Result<Definition, Unknown>> {
        loop {
            let told = self.feed.next().await;
            let is_followed = match &told {
                Ok(FeedEvent::Listed | FeedEvent::Followed) => Some(true),
                Ok(FeedEvent::Lost) | Err(_) => Some(false),
                Ok(_) => None,
            };
            if let Some(is_followed) = is_followed {
                let metrics = &self.server.metrics;
                metrics.set_definition_synced(self.kind, is_followed);
            }
            let found = match told {
                Ok(FeedEvent::ListBegins) => {
                    self.found = false;
                    None
                }
                Ok(FeedEvent::Put(row)) => {
                    self.found = true;
                    Some(row.content)
                }
                Ok(FeedEvent::Gone(_)) => Some(Definition::Absent),
                Ok(FeedEvent::Listed) => {
                    self.worked = true;
                    (!self.found).then_some(Definition::Absent)
                }
                Ok(FeedEvent::Followed) => self.last.clone(),
                Err(failure) if failure.is_forbidden() && !self.worked => return None,
                // It may be defined by now, and have objects.
                Ok(FeedEvent::Lost) | Err(_) => return Some(Err(Unknown)),
            };
            if let Some(definition) = found {
                let last = self.last.replace(definition.clone());
                let is_news = last.is_some_and(|last| last != definition);
                if is_news && definition != Definition::Absent {
                    // Others of its group may have to be asked for.
                    self.server.newly_defined.note(self.kind);
                }
                return Some(Ok(definition));
            }
        }
    }
}
