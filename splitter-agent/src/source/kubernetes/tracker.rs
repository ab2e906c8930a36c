//! From what happens to one kind of objects to what the agent is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kube::runtime::watcher::Event;
use tokio::sync::mpsc;

use super::kind::Kind;
use super::metrics::SourceMetrics;
use super::names::Names;
use super::row::{Decoded, Row};
use crate::objects::{ObjectName, ObjectReference};
use crate::source::Change;

/// Nobody wants to be told any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// The way to the agent, and what all kinds have told so far.
#[derive(Clone)]
pub(super) struct Outlet {
    changes: mpsc::Sender<Change>,
    listed: Arc<AtomicU8>,
}

impl Outlet {
    pub(super) fn new(changes: mpsc::Sender<Change>) -> Self {
        Self {
            changes,
            listed: Arc::default(),
        }
    }

    async fn permit(&self) -> Result<mpsc::Permit<'_, Change>, Closed> {
        self.changes.reserve().await.map_err(|_| Closed)
    }
}

/// The kinds whose objects the agent is told of.
const TOLD: [Kind; 3] = [Kind::Service, Kind::EndpointSlice, Kind::TrafficSplit];

/// A bit for each of them.
fn bit(kind: Kind) -> u8 {
    let place = TOLD.iter().position(|told| *told == kind);
    place.map_or(0, |place| 1 << place)
}

/// Turns one kind's events into [`Change`]s. It keeps names only, no objects.
///
/// Its futures may be dropped at any point: a name is noted and the change is sent in one
/// go, once there is room for the change.
pub(super) struct Tracker {
    kind: Kind,
    outlet: Outlet,
    metrics: SourceMetrics,
    names: Names,
    listed: bool,
}

impl Tracker {
    pub(super) fn new(kind: Kind, outlet: Outlet, metrics: SourceMetrics) -> Self {
        metrics.begin(kind);
        Self {
            kind,
            outlet,
            metrics,
            names: Names::default(),
            listed: false,
        }
    }

    /// Tells what an event means.
    pub(super) async fn apply<C: Decoded>(&mut self, event: Event<Row<C>>) -> Result<(), Closed> {
        match event {
            Event::Init => self.names.list_begins(),
            Event::InitApply(row) | Event::Apply(row) => self.put(row.content).await?,
            Event::Delete(row) => self.delete(row.content.reference().name).await?,
            Event::InitDone => {
                for name in self.names.not_listed() {
                    self.delete(name).await?;
                }
                self.listed().await?;
            }
        }
        self.metrics.set_objects(self.kind, self.names.len());
        Ok(())
    }

    /// There are none of this kind any more, because the kind itself is gone.
    pub(super) async fn delete_all(&mut self) -> Result<(), Closed> {
        for name in self.names.all() {
            self.delete(name).await?;
        }
        self.metrics.set_objects(self.kind, 0);
        Ok(())
    }

    /// All that there is of this kind has been told of, though it may be nothing. When this
    /// is so for every kind for the first time, the agent is told that, too.
    pub(super) async fn listed(&mut self) -> Result<(), Closed> {
        if self.listed {
            return Ok(());
        }
        let permit = self.outlet.permit().await?;
        self.listed = true;
        let own = bit(self.kind);
        let before = self.outlet.listed.fetch_or(own, Ordering::AcqRel);
        let all: u8 = TOLD.iter().map(|kind| bit(*kind)).sum();
        if before != all && before | own == all {
            permit.send(Change::Complete);
        }
        Ok(())
    }

    async fn put<C: Decoded>(&mut self, content: C) -> Result<(), Closed> {
        let permit = self.outlet.permit().await?;
        self.names.is_there(&content.reference().name);
        permit.send(match content.into_object() {
            Ok(object) => Change::Put(object),
            Err(error) => Change::Refused(error),
        });
        Ok(())
    }

    async fn delete(&mut self, name: ObjectName) -> Result<(), Closed> {
        let permit = self.outlet.permit().await?;
        if self.names.is_gone(&name) {
            permit.send(Change::Deleted(ObjectReference {
                kind: self.kind.name().to_owned(),
                name,
            }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{ServiceRow, TrafficSplitRow};
    use super::*;

    fn tracker(kind: Kind, outlet: &Outlet) -> Tracker {
        Tracker::new(kind, outlet.clone(), SourceMetrics::default())
    }

    fn service(name: &str) -> Row<ServiceRow> {
        let json =
            format!(r#"{{"metadata": {{"name": {name:?}, "namespace": "shop"}}, "spec": {{}}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    fn told(changes: &mut mpsc::Receiver<Change>) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(change) = changes.try_recv() {
            told.push(match change {
                Change::Put(object) => format!("put {}", object.reference()),
                Change::Refused(error) => format!("refused {}", error.object),
                Change::Deleted(object) => format!("deleted {object}"),
                Change::Complete => "complete".to_owned(),
                other => panic!("only a directory of manifests tells {other:?}"),
            });
        }
        told
    }

    #[tokio::test]
    async fn only_a_complete_list_deletes() {
        let (sender, mut changes) = mpsc::channel(100);
        let mut services = tracker(Kind::Service, &Outlet::new(sender));
        for event in [
            Event::Init,
            Event::InitApply(service("a")),
            Event::InitApply(service("b")),
            Event::InitDone,
            Event::Apply(service("c")),
            Event::Delete(service("b")),
            Event::Delete(service("b")),
        ] {
            services.apply(event).await.unwrap();
        }
        assert_eq!(
            told(&mut changes),
            [
                "put Service shop/a",
                "put Service shop/b",
                "put Service shop/c",
                "deleted Service shop/b",
            ]
        );
        for event in [
            Event::Init,
            Event::Init,
            Event::InitApply(service("c")),
            Event::Init,
        ] {
            services.apply(event).await.unwrap();
        }
        assert_eq!(told(&mut changes), ["put Service shop/c"]);
        services
            .apply(Event::<Row<ServiceRow>>::InitDone)
            .await
            .unwrap();
        assert_eq!(
            told(&mut changes),
            ["deleted Service shop/a", "deleted Service shop/c"]
        );
    }

    #[tokio::test]
    async fn complete_is_told_once_after_the_last_kind() {
        let (sender, mut changes) = mpsc::channel(100);
        let outlet = Outlet::new(sender);
        let mut services = tracker(Kind::Service, &outlet);
        let mut slices = tracker(Kind::EndpointSlice, &outlet);
        let mut splits = tracker(Kind::TrafficSplit, &outlet);
        splits.listed().await.unwrap();
        services
            .apply(Event::<Row<ServiceRow>>::InitDone)
            .await
            .unwrap();
        services
            .apply(Event::<Row<ServiceRow>>::InitDone)
            .await
            .unwrap();
        assert_eq!(told(&mut changes), [""; 0]);
        slices.listed().await.unwrap();
        assert_eq!(told(&mut changes), ["complete"]);
        slices.listed().await.unwrap();
        splits.listed().await.unwrap();
        assert_eq!(told(&mut changes), [""; 0]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_of_and_deleted_like_any_other() {
        let (sender, mut changes) = mpsc::channel(100);
        let mut splits = tracker(Kind::TrafficSplit, &Outlet::new(sender));
        let row = || {
            let json = r#"{"apiVersion": "split.smi-spec.io/v9", "kind": "TrafficSplit",
                           "metadata": {"name": "web", "namespace": "shop"}}"#;
            serde_json::from_str::<Row<TrafficSplitRow>>(json).unwrap()
        };
        splits.apply(Event::Apply(row())).await.unwrap();
        splits.apply(Event::Delete(row())).await.unwrap();
        splits.apply(Event::Apply(row())).await.unwrap();
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
        let mut services = tracker(Kind::Service, &Outlet::new(sender));
        services.apply(Event::Apply(service("a"))).await.unwrap();
        {
            let mut full = std::pin::pin!(services.delete_all());
            assert!(futures_util::poll!(full.as_mut()).is_pending());
        }
        assert_eq!(told(&mut changes), ["put Service shop/a"]);
        services.delete_all().await.unwrap();
        assert_eq!(told(&mut changes), ["deleted Service shop/a"]);
        drop(changes);
        assert_eq!(
            services.apply(Event::Apply(service("b"))).await,
            Err(Closed)
        );
    }
}
