//! The Node that the agent runs on, for its zone.
//!
//! It is asked for by name now and then, not watched: `get` is all the right that this
//! takes (a watch would need one on every Node), and a Node hardly ever changes its zone. Nothing
//! depends on the answer but which endpoints of a leaf with topology hints are used, so
//! nothing waits for it.

use std::time::Duration;

use kube::api::GetParams;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::backoff::{Backoff, up_to};
use super::failure::{Code, WatchFailure};
use super::resource::api_resource;
use super::row::{Decoded, Row};
use crate::objects::{Kind, Object};
use crate::source::Change;

/// Which Node that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNode {
    /// Its name.
    pub name: String,
    /// Time between two questions after an answer; up to a tenth is added, so that a cluster's
    /// agents do not ask together.
    pub interval: Duration,
}

impl OwnNode {
    /// The Node of this name, asked for every ten minutes.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self {
            name,
            interval: Duration::from_secs(600),
        }
    }
}

/// Reports the Node until the receiver of changes is closed.
pub(super) async fn follow(client: Client, node: OwnNode, changes: mpsc::Sender<Change>) {
    let resource = api_resource(Kind::NODE.resource, "v1");
    let nodes = Api::<Row<Decoded>>::all_with(client, &resource);
    let mut backoff = Backoff::new();
    let mut known = None;
    // What was last logged; nothing is logged twice in a row.
    let mut trouble = None;
    loop {
        // Any state that the server has at hand is good enough, and costs no question to etcd.
        let answer = nodes.get_with(&node.name, &GetParams::any()).await;
        let pause = match answer.map_err(|error| WatchFailure::of_client(&error)) {
            Ok(row) => {
                let object = row.content.into_object();
                let object =
                    object.map_err(|error| debug!(%error, "cannot read this agent's own Node"));
                if !tell(&changes, &mut known, object.ok()).await {
                    return;
                }
                if trouble.take().is_some() {
                    info!(node = node.name, "this agent's own Node is known again");
                }
                backoff.reset();
                node.interval
            }
            Err(failure) if failure.code == Code::Status(404) => {
                if !tell(&changes, &mut known, None).await {
                    return;
                }
                if is_news(&mut trouble, failure.code) {
                    info!(
                        node = node.name,
                        "there is no Node of this name; topology hints for zones are not followed"
                    );
                }
                node.interval
            }
            Err(failure) => {
                let error = failure.message;
                let is_forbidden = failure.code == Code::Status(403);
                if !is_news(&mut trouble, failure.code) {
                    debug!(
                        node = node.name,
                        error, "still cannot get this agent's own Node"
                    );
                } else if is_forbidden {
                    warn!(
                        node = node.name,
                        error,
                        "not allowed to get this agent's own Node, so topology hints for zones are not \
                         followed; grant get of nodes to the account of the agent, or set --zone"
                    );
                } else {
                    warn!(
                        node = node.name,
                        error, "cannot get this agent's own Node; keeping its last known zone"
                    );
                }
                let pause = backoff.after_failure(Instant::now(), failure.asked_for);
                // A right that is not there comes by a person, if at all.
                if is_forbidden { node.interval } else { pause }
            }
        };
        sleep(pause + up_to(pause / 10)).await;
    }
}

/// Takes note of trouble; whether it is another than before.
fn is_news(trouble: &mut Option<Code>, code: Code) -> bool {
    trouble.replace(code) != Some(code)
}

/// Reports the Node if it changed; `false` if the receiver is closed.
async fn tell(
    changes: &mpsc::Sender<Change>,
    known: &mut Option<Object>,
    now: Option<Object>,
) -> bool {
    if *known == now {
        return !changes.is_closed();
    }
    let change = match (&now, &known) {
        (Some(object), _) => Change::Put(object.clone()),
        (None, Some(before)) => Change::Deleted(before.reference()),
        (None, None) => return true,
    };
    *known = now;
    changes.send(change).await.is_ok()
}
