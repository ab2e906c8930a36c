//! From the events of one kind of objects to the changes that the agent receives.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::feed::FeedEvent;
use super::metrics::SourceMetrics;
use super::names::Names;
use super::row::Decoded;
use crate::compile::Knowledge;
use crate::objects::{Kind, ObjectName, ObjectReference};
use crate::source::Change;

/// Nobody wants to be told any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// The way to the agent, and what all kinds have told so far.
#[derive(Clone)]
pub(super) struct ChangeSender {
    changes: mpsc::Sender<Change>,
    reached: Arc<Reached>,
}

/// How far the kinds have come.
#[derive(Debug, Default)]
struct Reached {
    /// Kinds that were listed once.
    listed: Mutex<BTreeSet<Kind>>,
    /// Kinds that were listed, or could not be.
    tried: Mutex<BTreeSet<Kind>>,
}

impl ChangeSender {
    pub(super) fn new(changes: mpsc::Sender<Change>) -> Self {
        Self {
            changes,
            reached: Arc::default(),
        }
    }

    async fn permit(&self) -> Result<mpsc::Permit<'_, Change>, Closed> {
        self.changes.reserve().await.map_err(|_| Closed)
    }
}

/// Adds a kind; whether it was the last one that was missing.
fn completes(kinds: &Mutex<BTreeSet<Kind>>, kind: Kind) -> bool {
    let mut kinds = kinds.lock().unwrap_or_else(PoisonError::into_inner);
    kinds.insert(kind) && are_all(&kinds)
}

fn are_all(kinds: &BTreeSet<Kind>) -> bool {
    Kind::followed().all(|kind| kinds.contains(&kind))
}

/// Turns one kind's events into [`Change`]s. It keeps names only, no objects.
///
/// Its futures may be dropped at any point: a name is noted and the change is sent in one
/// go, once there is room for the change.
pub(super) struct Tracker {
    kind: Kind,
    sender: ChangeSender,
    metrics: SourceMetrics,
    names: Names,
    knowledge: Knowledge,
    /// Whether [`Change::Complete`] and [`Change::Partial`] no longer depend on this kind.
    listed: bool,
    tried: bool,
}

impl Tracker {
    pub(super) fn new(kind: Kind, sender: ChangeSender, metrics: SourceMetrics) -> Self {
        metrics.begin(kind.name());
        Self {
            kind,
            sender,
            metrics,
            names: Names::default(),
            knowledge: Knowledge::Incomplete,
            listed: false,
            tried: false,
        }
    }

    /// Tells what a feed tells.
    pub(super) async fn apply(&mut self, told: FeedEvent<Decoded>) -> Result<(), Closed> {
        match told {
            FeedEvent::ListBegins => self.names.list_begins(),
            FeedEvent::Put(row) => self.put(row.content).await?,
            FeedEvent::Gone(row) => self.delete(row.content.reference().name).await?,
            FeedEvent::Listed => {
                for name in self.names.not_listed() {
                    self.delete(name).await?;
                }
                self.followed().await?;
            }
            FeedEvent::Followed => self.followed().await?,
            FeedEvent::Lost => self.lost().await?,
        }
        self.metrics.set_objects(self.kind.name(), self.names.len());
        Ok(())
    }

    /// There are none of this kind any more, because the kind itself is gone.
    pub(super) async fn delete_all(&mut self) -> Result<(), Closed> {
        for name in self.names.all() {
            self.delete(name).await?;
        }
        self.metrics.set_objects(self.kind.name(), 0);
        Ok(())
    }

    /// Every object of this kind has been reported, if there are any, and every change is. When all
    /// kinds have been listed once, that is reported too.
    pub(super) async fn followed(&mut self) -> Result<(), Closed> {
        self.know(Knowledge::Followed).await?;
        if !self.listed {
            let permit = self.sender.permit().await?;
            self.listed = true;
            if completes(&self.sender.reached.listed, self.kind) {
                permit.send(Change::Complete);
            }
        }
        self.tried().await
    }

    /// Changes may be missed from now on.
    pub(super) async fn lost(&mut self) -> Result<(), Closed> {
        if self.knowledge == Knowledge::Followed {
            self.know(Knowledge::Stale).await?;
        }
        Ok(())
    }

    /// This kind cannot be followed. When none is left of which nothing can be said, the agent
    /// need not wait any longer: what it does not know it leaves alone.
    pub(super) async fn failed(&mut self) -> Result<(), Closed> {
        self.lost().await?;
        self.tried().await
    }

    async fn tried(&mut self) -> Result<(), Closed> {
        if !self.tried {
            let permit = self.sender.permit().await?;
            self.tried = true;
            let reached = &self.sender.reached;
            if completes(&reached.tried, self.kind) {
                let listed = reached.listed.lock();
                if !are_all(&listed.unwrap_or_else(PoisonError::into_inner)) {
                    permit.send(Change::Partial);
                }
            }
        }
        Ok(())
    }

    async fn know(&mut self, knowledge: Knowledge) -> Result<(), Closed> {
        if self.knowledge != knowledge {
            let permit = self.sender.permit().await?;
            self.knowledge = knowledge;
            permit.send(Change::Known(self.kind, knowledge));
            let is_followed = knowledge == Knowledge::Followed;
            self.metrics.set_synced(self.kind.name(), is_followed);
        }
        Ok(())
    }

    async fn put(&mut self, content: Decoded) -> Result<(), Closed> {
        let permit = self.sender.permit().await?;
        self.names.is_there(&content.reference().name);
        permit.send(match content.into_object() {
            Ok(object) => Change::Put(object),
            Err(error) => Change::Refused(error),
        });
        Ok(())
    }

    async fn delete(&mut self, name: ObjectName) -> Result<(), Closed> {
        let permit = self.sender.permit().await?;
        if self.names.is_gone(&name) {
            permit.send(Change::Deleted(ObjectReference::new(self.kind, name)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Row;
    use super::*;

    fn tracker(kind: Kind, sender: &ChangeSender) -> Tracker {
        Tracker::new(kind, sender.clone(), SourceMetrics::default())
    }

    fn service(name: &str) -> Row<Decoded> {
        let json = format!(
            r#"{{"apiVersion": "v1", "kind": "Service",
                "metadata": {{"name": {name:?}, "namespace": "shop"}}, "spec": {{}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    /// Follows every kind but these.
    async fn follow_others(kinds: &[Kind], sender: &ChangeSender) {
        for kind in Kind::followed().filter(|kind| !kinds.contains(kind)) {
            tracker(kind, sender).followed().await.unwrap();
        }
    }

    const THREE: [Kind; 3] = [Kind::SERVICE, Kind::ENDPOINT_SLICE, Kind::TRAFFIC_SPLIT];

    fn told(changes: &mut mpsc::Receiver<Change>) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(change) = changes.try_recv() {
            told.push(match change {
                Change::Put(object) => format!("put {}", object.reference()),
                Change::Refused(error) => format!("refused {}", error.object),
                Change::Deleted(object) => format!("deleted {object}"),
                Change::Known(kind, knowledge) => format!("{kind} {knowledge:?}"),
                Change::Partial => "partial".to_owned(),
                Change::Complete => "complete".to_owned(),
                other => panic!("only a directory of manifests tells {other:?}"),
            });
        }
        told
    }

    #[tokio::test]
    async fn only_a_complete_list_deletes() {
        let (sender, mut changes) = mpsc::channel(100);
        let mut services = tracker(Kind::SERVICE, &ChangeSender::new(sender));
        for event in [
            FeedEvent::ListBegins,
            FeedEvent::Put(service("a")),
            FeedEvent::Put(service("b")),
            FeedEvent::Listed,
            FeedEvent::Put(service("c")),
            FeedEvent::Gone(service("b")),
            FeedEvent::Gone(service("b")),
        ] {
            services.apply(event).await.unwrap();
        }
        assert_eq!(
            told(&mut changes),
            [
                "put Service shop/a",
                "put Service shop/b",
                "Service Followed",
                "put Service shop/c",
                "deleted Service shop/b",
            ]
        );
        for event in [
            FeedEvent::ListBegins,
            FeedEvent::ListBegins,
            FeedEvent::Put(service("c")),
            FeedEvent::ListBegins,
        ] {
            services.apply(event).await.unwrap();
        }
        assert_eq!(told(&mut changes), ["put Service shop/c"]);
        services.apply(FeedEvent::<Decoded>::Listed).await.unwrap();
        assert_eq!(
            told(&mut changes),
            ["deleted Service shop/a", "deleted Service shop/c"]
        );
    }

    #[tokio::test]
    async fn complete_is_told_once_after_the_last_kind() {
        let (sender, mut changes) = mpsc::channel(100);
        let sender = ChangeSender::new(sender);
        follow_others(&THREE, &sender).await;
        told(&mut changes);
        let mut services = tracker(Kind::SERVICE, &sender);
        let mut slices = tracker(Kind::ENDPOINT_SLICE, &sender);
        let mut splits = tracker(Kind::TRAFFIC_SPLIT, &sender);
        splits.followed().await.unwrap();
        services.apply(FeedEvent::<Decoded>::Listed).await.unwrap();
        services.apply(FeedEvent::<Decoded>::Listed).await.unwrap();
        assert_eq!(
            told(&mut changes),
            ["TrafficSplit Followed", "Service Followed"]
        );
        slices.followed().await.unwrap();
        assert_eq!(told(&mut changes), ["EndpointSlice Followed", "complete"]);
        slices.followed().await.unwrap();
        splits.followed().await.unwrap();
        assert_eq!(told(&mut changes), [""; 0]);
    }

    #[tokio::test]
    async fn partial_is_told_when_nothing_more_can_be_said_of_any_kind() {
        let (sender, mut changes) = mpsc::channel(100);
        let sender = ChangeSender::new(sender);
        follow_others(&THREE, &sender).await;
        told(&mut changes);
        let mut services = tracker(Kind::SERVICE, &sender);
        let mut slices = tracker(Kind::ENDPOINT_SLICE, &sender);
        let mut splits = tracker(Kind::TRAFFIC_SPLIT, &sender);
        slices.failed().await.unwrap();
        services.followed().await.unwrap();
        splits.failed().await.unwrap();
        splits.failed().await.unwrap();
        assert_eq!(told(&mut changes), ["Service Followed", "partial"]);
        splits.followed().await.unwrap();
        slices.followed().await.unwrap();
        assert_eq!(
            told(&mut changes),
            [
                "TrafficSplit Followed",
                "EndpointSlice Followed",
                "complete"
            ]
        );
    }

    #[tokio::test]
    async fn a_kind_that_was_followed_is_told_of_when_it_is_not_and_when_it_is_again() {
        let (sender, mut changes) = mpsc::channel(100);
        let mut services = tracker(Kind::SERVICE, &ChangeSender::new(sender));
        services.lost().await.unwrap();
        services.put(service("a").content).await.unwrap();
        assert_eq!(told(&mut changes), ["put Service shop/a"]);
        services.followed().await.unwrap();
        services.failed().await.unwrap();
        services.lost().await.unwrap();
        services.put(service("b").content).await.unwrap();
        services
            .apply(FeedEvent::<Decoded>::Followed)
            .await
            .unwrap();
        assert_eq!(
            told(&mut changes),
            [
                "Service Followed",
                "Service Stale",
                "put Service shop/b",
                "Service Followed"
            ]
        );
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_of_and_deleted_like_any_other() {
        let (sender, mut changes) = mpsc::channel(100);
        let mut splits = tracker(Kind::TRAFFIC_SPLIT, &ChangeSender::new(sender));
        let row = || {
            let json = r#"{"apiVersion": "split.smi-spec.io/v9", "kind": "TrafficSplit",
                           "metadata": {"name": "web", "namespace": "shop"}}"#;
            serde_json::from_str::<Row<Decoded>>(json).unwrap()
        };
        splits.apply(FeedEvent::Put(row())).await.unwrap();
        splits.apply(FeedEvent::Gone(row())).await.unwrap();
        splits.apply(FeedEvent::Put(row())).await.unwrap();
        splits.delete_all().await.unwrap();
        let (refused, deleted) = (
            "refused TrafficSplit shop/web",
            "deleted TrafficSplit shop/web",
        );
        assert_eq!(told(&mut changes), [refused, deleted, refused, deleted]);
    }

    #[tokio::test]
    async fn nothing_is_lost_when_there_is_no_room_and_the_future_is_dropped() {
        let (sender, mut changes) = mpsc::channel(1);
        let mut services = tracker(Kind::SERVICE, &ChangeSender::new(sender));
        services.apply(FeedEvent::Put(service("a"))).await.unwrap();
        {
            let mut full = std::pin::pin!(services.delete_all());
            assert!(futures_util::poll!(full.as_mut()).is_pending());
        }
        assert_eq!(told(&mut changes), ["put Service shop/a"]);
        services.delete_all().await.unwrap();
        assert_eq!(told(&mut changes), ["deleted Service shop/a"]);
        drop(changes);
        assert_eq!(
            services.apply(FeedEvent::Put(service("b"))).await,
            Err(Closed)
        );
    }
}
