//! TrafficSplits: followed for as long as the cluster knows them, in the best version that
//! it serves.

use std::future::pending;

use tokio::sync::watch;
use tracing::{info, warn};

use super::crd::{Definition, SELECTOR, ServedVersion};
use super::discovery::Discovery;
use super::failure::Failure;
use super::feed::{Feed, Server, Told};
use super::kind::Kind;
use super::row::TrafficSplitRow;
use super::tracker::{Closed, Outlet, Tracker};
use crate::objects::ObjectKind;

/// Follows TrafficSplits until nobody wants to be told any more.
pub(super) async fn follow(
    server: Server,
    outlet: Outlet,
    in_use: watch::Sender<Option<ServedVersion>>,
) {
    let tracker = Tracker::new(ObjectKind::TrafficSplit, outlet, server.metrics.clone());
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
            definition = definitions.next() => match definition {
                Ok(definition) => splits.adapt(definition).await,
                Err(_) => splits.is_in_the_dark().await,
            },
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

async fn next(following: &mut Option<Following>) -> Result<Told<TrafficSplitRow>, Failure> {
    match following {
        Some(following) => following.feed.next().await,
        None => pending().await,
    }
}

impl Splits {
    async fn apply(&mut self, told: Result<Told<TrafficSplitRow>, Failure>) -> Result<(), Closed> {
        match told {
            Ok(told) => self.tracker.apply(told).await,
            // The feed has told people of it, and goes on by itself.
            Err(_) => self.tracker.failed().await,
        }
    }

    /// Nothing can be found out about the kind at present.
    async fn is_in_the_dark(&mut self) -> Result<(), Closed> {
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
                    info!("the cluster does not know TrafficSplits; waiting for their definition");
                }
                self.stop();
                self.tracker.delete_all().await?;
                self.tracker.followed().await?;
            }
            Definition::NotReady => {
                // While it is being deleted, the server deletes all its objects, and what
                // follows them is told of each.
                if self.following.is_none() {
                    self.tracker.followed().await?;
                }
            }
            Definition::OtherVersions(versions) => {
                if news {
                    warn!(
                        ?versions,
                        "the cluster serves TrafficSplits in no version that can be read; what is known \
                         stays in effect: serve v1alpha1, v1alpha2, v1alpha3 or v1alpha4"
                    );
                }
                self.stop();
                self.tracker.failed().await?;
            }
            Definition::Served { uid, version } => self.switch(uid, version).await?,
        }
        self.known = Some(definition);
        Ok(())
    }

    /// Follows this version. Objects are the same in every version, so that none is gone
    /// before the list in the new version is complete without it.
    async fn switch(&mut self, uid: &str, version: &ServedVersion) -> Result<(), Closed> {
        self.in_use.send_if_modified(|in_use| {
            let news = in_use.as_ref() != Some(version);
            *in_use = Some(version.clone());
            news
        });
        if let Some(now) = &self.following
            && now.uid == uid
            && now.version == version.version
        {
            return Ok(());
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
        self.tracker.lost().await
    }

    fn stop(&mut self) {
        self.following = None;
        self.in_use
            .send_if_modified(|in_use| in_use.take().is_some());
    }
}

/// What becomes known about the kind, by the best way there is.
enum Definitions {
    Watched(Box<Watched>),
    AskedFor(Box<Discovery>),
}

struct Watched {
    server: Server,
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
    fn new(server: Server) -> Self {
        let kind = Kind::CustomResourceDefinition;
        server.metrics.begin(kind);
        Self::Watched(Box::new(Watched {
            feed: Feed::new(server.clone(), kind, "v1", Some(SELECTOR)),
            server,
            found: false,
            worked: false,
            last: None,
        }))
    }

    /// What is next found out. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Result<Definition, Failure> {
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
                    let discovery = Discovery::new(watched.server.clone());
                    *self = Self::AskedFor(Box::new(discovery));
                }
            }
        }
    }
}

impl Watched {
    /// What is next found out; `None` if it must not be watched.
    async fn next(&mut self) -> Option<Result<Definition, Failure>> {
        let kind = Kind::CustomResourceDefinition;
        loop {
            let told = self.feed.next().await;
            let is_followed = match &told {
                Ok(Told::Listed | Told::Followed) => Some(true),
                Ok(Told::Lost) | Err(_) => Some(false),
                Ok(_) => None,
            };
            if let Some(is_followed) = is_followed {
                self.server.metrics.set_synced(kind, is_followed);
            }
            let found = match told {
                Ok(Told::ListBegins) => {
                    self.found = false;
                    None
                }
                Ok(Told::Put(row)) => {
                    self.found = true;
                    Some(row.content)
                }
                Ok(Told::Gone(_)) => Some(Definition::Absent),
                Ok(Told::Listed) => {
                    self.worked = true;
                    (!self.found).then_some(Definition::Absent)
                }
                Ok(Told::Followed) => self.last.clone(),
                Ok(Told::Lost) => None,
                Err(failure) if failure.is_forbidden() && !self.worked => return None,
                Err(failure) => return Some(Err(failure)),
            };
            if let Some(definition) = found {
                self.last = Some(definition.clone());
                return Some(Ok(definition));
            }
        }
    }
}
