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
    state: Mutex<State>,
    /// Wakes followers.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    standings: BTreeMap<ObjectReference, Standing>,
    /// What each follower has not seen of it.
    unseen: BTreeMap<u64, BTreeSet<ObjectReference>>,
    /// Names the next follower.
    next: u64,
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
    /// The weights of a TrafficSplit for a line; empty for others, and where they cannot be read.
    pub weights: Box<str>,
    /// What is said about it, at least one thing, sorted. Whoever remembers it remembers the same
    /// copy: there is one for every object in a cluster.
    pub diagnostics: Arc<[Diagnostic]>,
}

impl Board {
    /// Replaces what is said about some objects; `None` for those of which nothing is said
    /// any more. Followers are woken once.
    pub fn update(&self, standings: impl IntoIterator<Item = (ObjectReference, Option<Standing>)>) {
        let mut has_changed = false;
        {
            let mut state = self.lock();
            let State {
                standings: present,
                unseen,
                ..
            } = &mut *state;
            for (object, standing) in standings {
                if present.get(&object) == standing.as_ref() {
                    continue;
                }
                has_changed = true;
                for unseen in unseen.values_mut() {
                    unseen.insert(object.clone());
                }
                match standing {
                    Some(standing) => present.insert(object, standing),
                    None => present.remove(&object),
                };
            }
        }
        if has_changed {
            self.0.news.send_replace(());
        }
    }

    /// Reads everything without copying it; no publication waits for long, so be quick.
    pub fn read<T>(&self, reader: impl FnOnce(&BTreeMap<ObjectReference, Standing>) -> T) -> T {
        reader(&self.lock().standings)
    }

    /// Follows it from now on, beginning with everything that is said at present.
    #[must_use]
    pub fn follow(&self) -> Follower {
        let news = self.0.news.subscribe();
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let everything = state.standings.keys().cloned().collect();
        state.unseen.insert(id, everything);
        drop(state);
        Follower {
            board: self.clone(),
            id,
            news,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // No write leaves half of itself behind.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who is told which objects stand otherwise than when it last looked: in a cluster with
/// many, few do.
#[derive(Debug)]
pub struct Follower {
    board: Board,
    id: u64,
    news: watch::Receiver<()>,
}

impl Follower {
    /// Waits until there is something to [`take`](Self::take). May be dropped at any time.
    pub async fn changed(&mut self) {
        loop {
            self.news.mark_unchanged();
            if self.has_news() || self.news.changed().await.is_err() {
                return;
            }
        }
    }

    fn has_news(&self) -> bool {
        let state = self.board.lock();
        let unseen = state.unseen.get(&self.id);
        unseen.is_some_and(|unseen| !unseen.is_empty())
    }

    /// The objects that have changed since the last time, and how they stand now: `None` for
    /// those of which nothing is said any more.
    pub fn take(&mut self) -> Vec<(ObjectReference, Option<Standing>)> {
        let mut state = self.board.lock();
        let State {
            standings, unseen, ..
        } = &mut *state;
        let unseen = unseen.get_mut(&self.id).map(std::mem::take);
        unseen
            .unwrap_or_default()
            .into_iter()
            .map(|object| {
                let standing = standings.get(&object).cloned();
                (object, standing)
            })
            .collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.board.lock().unseen.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::objects::ObjectName;

    fn object(name: &str) -> ObjectReference {
        ObjectReference {
            kind: "TrafficSplit".to_owned(),
            name: ObjectName::new("shop", name),
        }
    }

    fn standing(generation: i64) -> Standing {
        Standing {
            uid: String::new(),
            api_version: String::new(),
            generation,
            weights: Box::default(),
            diagnostics: Arc::default(),
        }
    }

    #[test]
    fn a_follower_is_told_of_each_object_once_and_as_it_stands_now() {
        let board = Board::default();
        board.update([(object("old"), Some(standing(1)))]);
        let mut follower = board.follow();
        assert!(follower.changed().now_or_never().is_some());
        assert_eq!(follower.take(), [(object("old"), Some(standing(1)))]);
        assert!(follower.changed().now_or_never().is_none());

        board.update([(object("old"), Some(standing(1)))]);
        assert!(
            follower.changed().now_or_never().is_none(),
            "it is as it was"
        );
        for generation in [1, 2] {
            board.update([(object("new"), Some(standing(generation)))]);
        }
        board.update([(object("old"), None)]);
        assert!(follower.changed().now_or_never().is_some());
        assert_eq!(
            follower.take(),
            [(object("new"), Some(standing(2))), (object("old"), None)]
        );
        assert_eq!(follower.take(), []);
    }

    #[test]
    fn what_one_follower_has_seen_is_news_to_another_until_it_goes() {
        let board = Board::default();
        let (mut one, other) = (board.follow(), board.follow());
        board.update([(object("web"), Some(standing(1)))]);
        assert_eq!(one.take().len(), 1);
        assert_eq!(board.lock().unseen[&other.id].len(), 1);
        drop(other);
        assert_eq!(board.lock().unseen.len(), 1);
    }
}
