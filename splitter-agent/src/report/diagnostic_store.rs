//! The present diagnostics of every object, from all who emit some, for all who report on them.
//!
//! ```text
//! source, decoder, compiler, publisher ──► DiagnosticStore ──► log, metrics, Events, statuses
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::compile::{Diagnostic, Severity};
use crate::objects::{Identity, ObjectReference};

/// The present diagnostics of every object; a handle that can be cloned.
#[derive(Clone, Debug, Default)]
pub struct DiagnosticStore(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Wakes subscribers.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectReference, Object>,
    /// What each subscriber has not seen of it.
    unseen: BTreeMap<u64, BTreeSet<ObjectReference>>,
    /// Names the next subscriber.
    next: u64,
}

/// Who emits diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Producer {
    /// The source, of what it cannot read as objects at all.
    Source,
    /// Whatever reads objects.
    Decoder,
    /// The compiler.
    Compiler,
    /// The publisher, of what it cannot bring to the maps.
    Publisher,
}

#[derive(Debug, Default)]
struct Object {
    /// By producer, none of them empty. Most objects have one.
    produced: Vec<(Producer, Arc<[Diagnostic]>)>,
    merged: ObjectDiagnostics,
}

/// The diagnostics of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectDiagnostics {
    /// `metadata.uid`; empty where the source knows none.
    pub uid: String,
    /// `apiVersion` as it was read; empty where the object could not be read.
    pub api_version: String,
    /// `metadata.generation`, 0 where there is none.
    pub generation: i64,
    /// The weights of an object that asks for splits, for a line; empty for others, and where they
    /// cannot be read.
    pub weights: Box<str>,
    /// At least one, sorted. All who keep them keep the same copy: there may be some of every
    /// object in a cluster.
    pub diagnostics: Arc<[Diagnostic]>,
}

/// The diagnostics of an object before and after an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagnosticChange {
    /// Before.
    pub before: Arc<[Diagnostic]>,
    /// After.
    pub after: Arc<[Diagnostic]>,
}

impl DiagnosticStore {
    /// Begins to change what is known of some objects. Nobody else gets at the store until that is
    /// committed, so be quick.
    #[must_use]
    pub fn edit(&self) -> Edit<'_> {
        Edit {
            store: self,
            state: self.lock(),
            touched: BTreeMap::new(),
        }
    }

    /// Reads everything without copying it; no publication waits for long, so be quick.
    pub fn read<T>(
        &self,
        reader: impl FnOnce(&mut dyn Iterator<Item = (&ObjectReference, &ObjectDiagnostics)>) -> T,
    ) -> T {
        let state = self.lock();
        let objects = state.objects.iter();
        reader(&mut objects.map(|(reference, object)| (reference, &object.merged)))
    }

    /// Subscribes to it, beginning with everything that there is at present.
    #[must_use]
    pub fn subscribe(&self) -> Subscriber {
        let news = self.0.news.subscribe();
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let everything = state.objects.keys().cloned().collect();
        state.unseen.insert(id, everything);
        drop(state);
        Subscriber {
            store: self.clone(),
            id,
            news,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No write leaves half of itself behind.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes to a [`DiagnosticStore`], which others see once they are committed.
#[derive(Debug)]
pub struct Edit<'a> {
    store: &'a DiagnosticStore,
    state: MutexGuard<'a, State>,
    /// What was before of each object that is changed.
    touched: BTreeMap<ObjectReference, Option<ObjectDiagnostics>>,
}

impl Edit<'_> {
    /// Which state of an object the diagnostics are about, and its weights for a line.
    pub fn describe(&mut self, object: &ObjectReference, identity: Identity, weights: Box<str>) {
        let merged = &mut self.object(object).merged;
        merged.uid = identity.uid;
        merged.api_version = identity.api_version;
        merged.generation = identity.generation;
        merged.weights = weights;
    }

    /// Replaces what a producer emits about an object.
    pub fn set(
        &mut self,
        producer: Producer,
        object: &ObjectReference,
        diagnostics: impl IntoIterator<Item = Diagnostic>,
    ) {
        let sorted: BTreeSet<Diagnostic> = diagnostics.into_iter().collect();
        let produced = &mut self.object(object).produced;
        produced.retain(|(other, _)| *other != producer);
        if !sorted.is_empty() {
            produced.push((producer, sorted.into_iter().collect()));
        }
    }

    /// Replaces everything that a producer emits, about whatever object.
    pub fn set_all(&mut self, producer: Producer, diagnostics: Vec<Diagnostic>) {
        let mut by_object: BTreeMap<ObjectReference, Vec<Diagnostic>> = BTreeMap::new();
        for (reference, object) in &self.state.objects {
            if object.produced.iter().any(|(other, _)| *other == producer) {
                by_object.insert(reference.clone(), Vec::new());
            }
        }
        for diagnostic in diagnostics {
            let of_object = by_object.entry(diagnostic.object.clone()).or_default();
            of_object.push(diagnostic);
        }
        for (object, diagnostics) in by_object {
            self.set(producer, &object, diagnostics);
        }
    }

    /// Shows the changes to everybody, and tells what they came to. Subscribers are woken once.
    #[must_use]
    pub fn commit(mut self) -> Vec<DiagnosticChange> {
        let State {
            objects, unseen, ..
        } = &mut *self.state;
        let mut changes = Vec::new();
        let mut has_changed = false;
        for (reference, before) in std::mem::take(&mut self.touched) {
            let after = objects.get_mut(&reference).and_then(Object::merge).cloned();
            if after.is_none() {
                objects.remove(&reference);
            }
            if before == after {
                continue;
            }
            has_changed = true;
            let diagnostics = |it: Option<ObjectDiagnostics>| it.map(|it| it.diagnostics);
            let change = DiagnosticChange {
                before: diagnostics(before).unwrap_or_default(),
                after: diagnostics(after).unwrap_or_default(),
            };
            changes.push(change);
            for unseen in unseen.values_mut() {
                unseen.insert(reference.clone());
            }
        }
        drop(self.state);
        if has_changed {
            self.store.0.news.send_replace(());
        }
        changes
    }

    fn object(&mut self, reference: &ObjectReference) -> &mut Object {
        if !self.touched.contains_key(reference) {
            let before = self.state.objects.get(reference);
            let before = before.map(|object| object.merged.clone());
            self.touched.insert(reference.clone(), before);
        }
        self.state.objects.entry(reference.clone()).or_default()
    }
}

impl Object {
    /// The diagnostics of all producers together; `None` if there are none.
    fn merge(&mut self) -> Option<&ObjectDiagnostics> {
        self.merged.diagnostics = match self.produced.as_slice() {
            [] => return None,
            [(_, only)] => Arc::clone(only),
            produced => {
                let all = produced.iter().flat_map(|(_, diagnostics)| &**diagnostics);
                let mut all: BTreeSet<&Diagnostic> = all.collect();
                if all.iter().any(|it| it.severity > Severity::Note) {
                    // One producer accepts what another one cannot use.
                    all.retain(|it| it.severity != Severity::Accepted);
                }
                all.into_iter().cloned().collect()
            }
        };
        Some(&self.merged)
    }
}

/// One who is told which objects changed since it last looked: in a cluster with many, few do.
#[derive(Debug)]
pub struct Subscriber {
    store: DiagnosticStore,
    id: u64,
    news: watch::Receiver<()>,
}

impl Subscriber {
    /// Waits until there is something to [`drain`](Self::drain). May be dropped at any time.
    pub async fn changed(&mut self) {
        loop {
            self.news.mark_unchanged();
            if self.has_news() || self.news.changed().await.is_err() {
                return;
            }
        }
    }

    fn has_news(&self) -> bool {
        let state = self.store.lock();
        let unseen = state.unseen.get(&self.id);
        unseen.is_some_and(|unseen| !unseen.is_empty())
    }

    /// The objects that have changed since the last time, with their present diagnostics: `None`
    /// for those that have none any more.
    pub fn drain(&mut self) -> Vec<(ObjectReference, Option<ObjectDiagnostics>)> {
        let mut state = self.store.lock();
        let State {
            objects, unseen, ..
        } = &mut *state;
        let unseen = unseen.get_mut(&self.id).map(std::mem::take);
        unseen
            .unwrap_or_default()
            .into_iter()
            .map(|reference| {
                let object = objects.get(&reference);
                let diagnostics = object.map(|object| object.merged.clone());
                (reference, diagnostics)
            })
            .collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.store.lock().unseen.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::objects::{Kind, ObjectName};

    fn object(name: &str) -> ObjectReference {
        ObjectReference::new(Kind::TRAFFIC_SPLIT, ObjectName::new("shop", name))
    }

    fn diagnostic(name: &str, severity: Severity, reason: &'static str) -> Diagnostic {
        Diagnostic {
            object: object(name),
            severity,
            reason,
            field: String::new(),
            message: String::new(),
        }
    }

    fn accept(store: &DiagnosticStore, name: &str, generation: i64) -> Vec<DiagnosticChange> {
        let mut edit = store.edit();
        let identity = Identity {
            generation,
            ..Identity::default()
        };
        edit.describe(&object(name), identity, Box::default());
        let accepted = diagnostic(name, Severity::Accepted, "Accepted");
        edit.set(Producer::Compiler, &object(name), [accepted]);
        edit.commit()
    }

    fn remove(store: &DiagnosticStore, name: &str) {
        let mut edit = store.edit();
        edit.set(Producer::Compiler, &object(name), []);
        assert_eq!(edit.commit().len(), 1);
    }

    /// Names of the reported objects, with their generations.
    fn drained(subscriber: &mut Subscriber) -> Vec<(String, Option<i64>)> {
        let drained = subscriber.drain().into_iter();
        drained
            .map(|(object, diagnostics)| (object.name.name, diagnostics.map(|it| it.generation)))
            .collect()
    }

    #[test]
    fn a_subscriber_is_told_of_each_object_once_and_as_it_is_now() {
        let store = DiagnosticStore::default();
        accept(&store, "old", 1);
        let mut subscriber = store.subscribe();
        assert!(subscriber.changed().now_or_never().is_some());
        assert_eq!(drained(&mut subscriber), [("old".to_owned(), Some(1))]);
        assert!(subscriber.changed().now_or_never().is_none());

        assert_eq!(accept(&store, "old", 1), []);
        assert!(
            subscriber.changed().now_or_never().is_none(),
            "it is as it was"
        );
        accept(&store, "new", 1);
        accept(&store, "new", 2);
        remove(&store, "old");
        assert!(subscriber.changed().now_or_never().is_some());
        assert_eq!(
            drained(&mut subscriber),
            [("new".to_owned(), Some(2)), ("old".to_owned(), None)]
        );
        assert_eq!(drained(&mut subscriber), []);
    }

    #[test]
    fn what_one_subscriber_has_seen_is_news_to_another_until_it_goes() {
        let store = DiagnosticStore::default();
        let (mut one, other) = (store.subscribe(), store.subscribe());
        accept(&store, "web", 1);
        assert_eq!(one.drain().len(), 1);
        assert_eq!(store.lock().unseen[&other.id].len(), 1);
        drop(other);
        assert_eq!(store.lock().unseen.len(), 1);
    }

    #[test]
    fn what_one_producer_accepts_another_may_not_be_able_to_use() {
        let store = DiagnosticStore::default();
        accept(&store, "web", 1);
        let reasons = || {
            store.read(|objects| {
                let diagnostics = objects.flat_map(|(_, it)| it.diagnostics.iter());
                diagnostics.map(|it| it.reason).collect::<Vec<_>>()
            })
        };
        let mut edit = store.edit();
        let failed = diagnostic("web", Severity::Refused, "NotPublished");
        edit.set(Producer::Publisher, &object("web"), [failed.clone()]);
        let changes = edit.commit();
        assert_eq!(changes[0].before[0].reason, "Accepted");
        assert_eq!(*changes[0].after, [failed]);
        assert_eq!(reasons(), ["NotPublished"]);
        let mut edit = store.edit();
        edit.set(Producer::Publisher, &object("web"), []);
        assert_eq!(edit.commit().len(), 1);
        assert_eq!(reasons(), ["Accepted"]);
    }

    #[test]
    fn everything_of_one_producer_is_replaced_and_nothing_else() {
        let store = DiagnosticStore::default();
        accept(&store, "web", 1);
        let problem = |name| diagnostic(name, Severity::Warning, "InvalidSyntax");
        for (names, left) in [
            (&["a", "b"][..], &["a", "b", "web"][..]),
            (&["b", "c"], &["b", "c", "web"]),
            (&[], &["web"]),
        ] {
            let mut edit = store.edit();
            edit.set_all(
                Producer::Source,
                names.iter().map(|it| problem(it)).collect(),
            );
            let _ = edit.commit();
            let present = store.read(|objects| {
                let names = objects.map(|(object, _)| object.name.name.clone());
                names.collect::<Vec<_>>()
            });
            assert_eq!(present, left);
        }
    }
}
