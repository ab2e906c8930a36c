//! TrafficSplits: followed for as long as the cluster knows them, in the best version that
//! it serves.

use std::future::pending;

use kube::runtime::watcher::Event;
use tokio::sync::watch;
use tracing::{info, warn};

use super::crd::{Definition, SELECTOR, ServedVersion};
use super::discovery::Discovery;
use super::failure::Failure;
use super::feed::{Feed, Server};
use super::kind::Kind;
use super::row::{Row, TrafficSplitRow};
use super::tracker::{Closed, Outlet, Tracker};

/// Follows TrafficSplits until nobody wants to be told any more.
pub(super) async fn follow(
    server: Server,
    outlet: Outlet,
    in_use: watch::Sender<Option<ServedVersion>>,
) {
    let tracker = Tracker::new(Kind::TrafficSplit, outlet, server.metrics.clone());
    let mut definitions = Definitions::new(server.clone());
    let mut splits = Splits {
        server,
        tracker,
        in_use,
        known: None,
        following: None,
    };
    loop {
        let result = tokio::select! {
            definition = definitions.next() => splits.adapt(definition).await,
            event = next(&mut splits.following) => splits.apply(event).await,
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
    feed: Feed<TrafficSplitRow>,
}

struct Splits {
    server: Server,
    tracker: Tracker,
    in_use: watch::Sender<Option<ServedVersion>>,
    /// What was last found out about the kind.
    known: Option<Definition>,
    following: Option<Following>,
}

async fn next(following: &mut Option<Following>) -> Result<Event<Row<TrafficSplitRow>>, Failure> {
    match following {
        Some(following) => following.feed.next().await,
        None => pending().await,
    }
}

impl Splits {
    async fn apply(
        &mut self,
        event: Result<Event<Row<TrafficSplitRow>>, Failure>,
    ) -> Result<(), Closed> {
        match event {
            Ok(event) => self.tracker.apply(event).await,
            // The feed has told of it, and goes on by itself.
            Err(_) => Ok(()),
        }
    }

    /// Goes on according to what is now known about the kind.
    async fn adapt(&mut self, definition: Definition) -> Result<(), Closed> {
        let news = self.known.as_ref() != Some(&definition);
        match &definition {
            Definition::Absent => {
                if news {
                    info!("the cluster does not know TrafficSplits; waiting for their definition");
                }
                self.stop();
                self.tracker.delete_all().await?;
                self.nothing_to_follow().await?;
            }
            Definition::NotReady => {
                // While it is being deleted, the server deletes all its objects, and what
                // follows them is told of each.
                if self.following.is_none() {
                    self.nothing_to_follow().await?;
                }
            }
            Definition::OtherVersions(versions) => {
                if news {
                    warn!(
                        ?versions,
                        "the cluster serves TrafficSplits in no version that can be read; what is known \
                         stays in force: serve v1alpha1, v1alpha2, v1alpha3 or v1alpha4"
                    );
                }
                self.stop();
                self.nothing_to_follow().await?;
            }
            Definition::Served { uid, version } => self.switch(uid, version),
        }
        self.known = Some(definition);
        Ok(())
    }

    /// Follows this version. Objects are the same in every version, so that none is gone
    /// before the list in the new version is complete without it.
    fn switch(&mut self, uid: &str, version: &ServedVersion) {
        self.in_use.send_if_modified(|in_use| {
            let news = in_use.as_ref() != Some(version);
            *in_use = Some(version.clone());
            news
        });
        if let Some(now) = &self.following
            && now.uid == uid
            && now.version == version.version
        {
            return;
        }
        info!(version = version.version, "following TrafficSplits");
        self.following = Some(Following {
            uid: uid.to_owned(),
            version: version.version.clone(),
            feed: Feed::new(
                self.server.clone(),
                Kind::TrafficSplit,
                &version.version,
                None,
            ),
        });
    }

    fn stop(&mut self) {
        self.following = None;
        self.in_use
            .send_if_modified(|in_use| in_use.take().is_some());
    }

    /// There is nothing to list: all there is is known.
    async fn nothing_to_follow(&mut self) -> Result<(), Closed> {
        self.server.metrics.set_synced(Kind::TrafficSplit, true);
        self.tracker.listed().await
    }
}

/// What becomes known about the kind, by the best way there is.
enum Definitions {
    Watched(Box<Watched>),
    AskedFor(Discovery),
}

struct Watched {
    server: Server,
    feed: Feed<Definition>,
    /// Whether the list that began last has had it so far.
    found: bool,
    /// Whether watching has worked before: then a refusal is a right taken away, which may be
    /// given back.
    worked: bool,
}

impl Definitions {
    fn new(server: Server) -> Self {
        let kind = Kind::CustomResourceDefinition;
        server.metrics.begin(kind);
        Self::Watched(Box::new(Watched {
            feed: Feed::new(server.clone(), kind, "v1", Some(SELECTOR)),
            server,
            found: false,
            worked: false,
        }))
    }

    /// What is next found out. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Definition {
        loop {
            match self {
                Self::AskedFor(discovery) => return discovery.next().await,
                Self::Watched(watched) => {
                    if let Some(definition) = watched.next().await {
                        return definition;
                    }
                    info!(
                        "may not watch the definition of TrafficSplits; asking for their versions \
                         twice a minute instead"
                    );
                    *self = Self::AskedFor(Discovery::new(watched.server.client.clone()));
                }
            }
        }
    }
}

impl Watched {
    /// What is next found out; `None` if it must not be watched.
    async fn next(&mut self) -> Option<Definition> {
        loop {
            match self.feed.next().await {
                Ok(Event::Init) => self.found = false,
                Ok(Event::InitApply(row) | Event::Apply(row)) => {
                    self.found = true;
                    return Some(row.content);
                }
                Ok(Event::Delete(_)) => return Some(Definition::Absent),
                Ok(Event::InitDone) => {
                    self.worked = true;
                    if !self.found {
                        return Some(Definition::Absent);
                    }
                }
                Err(failure) if failure.is_forbidden() && !self.worked => return None,
                Err(_) => {}
            }
        }
    }
}
