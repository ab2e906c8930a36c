//! Telling the agent which pods have cgroups on the node.

use std::future;

use tokio::io::unix::AsyncFd;

use crate::agent::Agent;
use crate::datapath::{Hierarchy, PodGroups};

/// The cgroups of this node's pods, as they come and go.
pub(super) struct PodWatch(Option<AsyncFd<PodGroups>>);

impl PodWatch {
    /// Begins to watch; without a hierarchy or a way to watch it, pods are not told apart.
    pub(super) fn start() -> Self {
        let groups = Self::watch();
        match groups {
            Ok(groups) => Self(Some(groups)),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "cannot watch the cgroups of pods, so the pods of this node are not told apart"
                );
                Self(None)
            }
        }
    }

    fn watch() -> anyhow::Result<AsyncFd<PodGroups>> {
        let groups = PodGroups::new(Hierarchy::find()?)?;
        // SAFETY: the descriptor belongs to the value, which neither closes nor replaces it: it is
        // the same file for as long as the runtime waits for it.
        Ok(unsafe { AsyncFd::register(groups) }?)
    }

    /// Waits until groups come or go.
    pub(super) async fn changed(&self) {
        match &self.0 {
            Some(groups) => {
                if let Ok(mut guard) = groups.readable().await {
                    guard.clear_ready();
                }
            }
            None => future::pending().await,
        }
    }

    /// Takes note of groups that came and went.
    pub(super) fn read(&mut self, agent: &mut Agent) {
        if let Some(groups) = &mut self.0 {
            let groups = groups.get_mut();
            if groups.read() {
                agent.set_pod_groups(groups.found().clone());
            }
        }
    }

    /// Looks where pods are now.
    pub(super) fn look(&mut self, agent: &mut Agent) {
        if let Some(groups) = &mut self.0 {
            let groups = groups.get_mut();
            groups.set_places(agent.holders_of_pods());
            groups.look();
            agent.set_pod_groups(groups.found().clone());
        }
    }
}
