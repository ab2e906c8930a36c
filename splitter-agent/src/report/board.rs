//! What is found about objects at present, for whoever reports on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::compile::Diagnostic;
use crate::objects::ObjectReference;

/// The present findings about every object; a handle that can be cloned.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    standings: Mutex<BTreeMap<ObjectReference, Standing>>,
    version: watch::Sender<u64>,
}

/// How an object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// `metadata.uid`; empty where the source knows none.
    pub uid: String,
    /// `apiVersion` as it was read; empty where the object could not be read.
    pub api_version: String,
    /// `metadata.generation`, 0 where there is none.
    pub generation: i64,
    /// What is said about it, at least one thing. Whoever remembers it remembers the same
    /// copy: there is one for every object in a cluster, and to compare it with itself is free.
    pub diagnostics: Arc<BTreeSet<Diagnostic>>,
}

impl Board {
    /// Replaces what is said about some objects; `None` for those of which nothing is said
    /// any more. Whoever subscribed is woken once.
    pub fn update(&self, standings: impl IntoIterator<Item = (ObjectReference, Option<Standing>)>) {
        let mut changed = false;
        {
            let mut present = self.lock();
            for (object, standing) in standings {
                changed |= match standing {
                    Some(standing) if present.get(&object) == Some(&standing) => false,
                    Some(standing) => {
                        present.insert(object, standing);
                        true
                    }
                    None => present.remove(&object).is_some(),
                };
            }
        }
        if changed {
            self.0.version.send_modify(|version| *version += 1);
        }
    }

    /// Everything that is said at present.
    #[must_use]
    pub fn standings(&self) -> BTreeMap<ObjectReference, Standing> {
        self.lock().clone()
    }

    /// How one object stands.
    #[must_use]
    pub fn standing(&self, object: &ObjectReference) -> Option<Standing> {
        self.lock().get(object).cloned()
    }

    /// Reads everything without copying it; no publication waits for long, so be quick.
    pub fn read<T>(&self, reader: impl FnOnce(&BTreeMap<ObjectReference, Standing>) -> T) -> T {
        reader(&self.lock())
    }

    /// Tells of changes: a number that grows.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ObjectReference, Standing>> {
        // Every write leaves a whole map behind.
        self.0
            .standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
