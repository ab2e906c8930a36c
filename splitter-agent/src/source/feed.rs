//! One interface for all sources.

use std::path::Path;

use tokio::sync::watch;

use super::manifests::{self, SourceError, WatchHandle};
use super::{Change, Snapshot};

/// Changes from whatever source there is.
#[derive(Debug)]
pub struct Feed(Kind);

#[derive(Debug)]
enum Kind {
    Manifests {
        snapshots: watch::Receiver<Snapshot>,
        told: Snapshot,
        _watch: WatchHandle,
    },
}

/// The source has ended, which it never does by itself.
#[derive(Debug, thiserror::Error)]
#[error("the source of objects has ended; restart the agent")]
pub struct Ended;

impl Feed {
    /// Changes of a directory of manifests.
    ///
    /// # Errors
    ///
    /// When the directory cannot be watched.
    pub fn manifests(directory: &Path) -> Result<Self, SourceError> {
        let (mut snapshots, watch) = manifests::watch(directory)?;
        // What is there now has not been told yet.
        snapshots.mark_changed();
        Ok(Self(Kind::Manifests {
            snapshots,
            told: Snapshot::default(),
            _watch: watch,
        }))
    }

    /// Waits for the next changes. Nothing is lost when this is cancelled.
    ///
    /// # Errors
    ///
    /// When the source has ended.
    pub async fn next(&mut self) -> Result<Vec<Change>, Ended> {
        match &mut self.0 {
            Kind::Manifests {
                snapshots, told, ..
            } => {
                snapshots.changed().await.map_err(|_| Ended)?;
                let snapshot = snapshots.borrow_and_update().clone();
                let changes = manifests::changes(told, &snapshot);
                *told = snapshot;
                Ok(changes)
            }
        }
    }
}
