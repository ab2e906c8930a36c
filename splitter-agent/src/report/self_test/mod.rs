//! A real connection that the programs must split, for as long as the agent says it is ready.
//!
//! The agent listens on its loopback interface, and has a frontend of its own: [`VIP`], an
//! address of the loopback network that nothing listens on. A connection there is refused at
//! once, and never leaves the machine, unless the programs rewrite it; then the agent's own
//! listener answers with a word that no other process knows.
//!
//! Programs see the connections of processes below their cgroup. An agent in a pod simply
//! connects, and is not ready unless that is split: its own pod is one of those whose
//! connections the programs are for, and no cgroup that it could make says the same. An agent
//! elsewhere (one that follows a directory of manifests, say) starts a copy of itself for each
//! cgroup that the programs are for, which enters a cgroup made below it, connects, and ends.

mod connect;
mod helper;
mod listener;
mod state;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use splitter_common::layout::{ClientScope, LeafState, Protocol};
use tokio::task::JoinHandle;

use crate::objects::ObjectName;
use crate::plan::{Decision, Frontend, FrontendPlan, Origin, PlannedLeaf};

use super::{AgentState, Places};

use connect::Expected;
pub use connect::connect_in;
use listener::Listener;
pub use state::{SelfTestFailure, SelfTestState, SelfTestStatus};

/// What the self-test dials: an address of the loopback network that nothing listens on.
pub const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 115, 112, 108)), 1);

/// Name of the hidden command that connects from another cgroup.
pub const COMMAND: &str = "self-test-connect";

/// How long connecting, and waiting for the answer, may each take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is tried.
const INTERVAL: Duration = Duration::from_secs(10);

/// How often it is tried while it fails.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Why no connection was split.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The connection was not made, so nothing rewrote it.
    #[error("a connection to {VIP} was not split")]
    NotSplit(#[source] io::Error),
    /// The same, of the agent's own pod.
    #[error(
        "a connection of the agent's own pod was not split{}", in_cgroup(.cgroup.as_deref())
    )]
    NotSplitInPod {
        /// The pod's cgroup, as the node names it.
        cgroup: Option<PathBuf>,
        /// The cause.
        #[source]
        source: Box<SelfTestError>,
    },
    /// There is no cgroup with programs.
    #[error("no cgroup has programs, so no connection can be split")]
    NoPlace,
    /// Something else answered.
    #[error(
        "a connection to {VIP} was not split to this agent: something else answered it; another \
         agent's programs are on a cgroup below this one's, or something listens on port {} of \
         every address", VIP.port()
    )]
    Stranger,
    /// The client did not see the address that it dialled.
    #[error("a connection to {VIP} was split, but its peer is shown as {0}")]
    OriginalDst(SocketAddr),
    /// A cgroup to connect from cannot be made.
    #[error(
        "a connection to {VIP} from the agent's own cgroup was not split; if that is not below \
         the cgroup with the programs, the self-test needs a cgroup there to connect from, but \
         cannot {action} {path}; mount the cgroup file system writable for the agent, or run the \
         agent in a cgroup below"
    )]
    Cgroup {
        /// The operation that failed.
        action: &'static str,
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The process that was to connect could not be started, or did not end.
    #[error("the self-test's own process {0}")]
    Helper(String),
    /// That process says what went wrong.
    #[error("{0}")]
    FromHelper(String),
}

fn in_cgroup(cgroup: Option<&Path>) -> String {
    cgroup.map_or_else(String::new, |cgroup| {
        format!(" (its cgroup is {})", cgroup.display())
    })
}

/// The listener and what is expected of a connection to [`VIP`].
#[derive(Debug)]
pub struct SelfTest {
    listener: Listener,
    expected: Expected,
    /// Whether the agent is below the programs' cgroup: a connection of its own was split once.
    is_inside: AtomicBool,
}

impl SelfTest {
    /// Listens on the loopback interface of the agent's network. `keep_original_dst` is whether the
    /// programs show the address that was dialled.
    ///
    /// # Errors
    ///
    /// If there is no loopback interface, or no thread for it.
    pub fn start(keep_original_dst: bool) -> io::Result<Self> {
        let token = listener::token();
        Ok(Self {
            listener: Listener::start(token.clone())?,
            expected: Expected {
                token,
                keep_original_dst,
            },
            is_inside: AtomicBool::new(false),
        })
    }

    /// The frontend that every plan must have for the test to pass.
    #[must_use]
    pub fn frontend(&self) -> (Frontend, FrontendPlan) {
        let frontend = Frontend {
            address: VIP,
            protocol: Protocol::Tcp,
            clients: ClientScope::EVERYONE,
        };
        let split = FrontendPlan {
            origin: Origin {
                kind: Origin::SELF_TEST,
                namespace: String::new(),
                name: "self-test".to_owned(),
                generation: 0,
            },
            root: ObjectName::new("", "self-test"),
            decision: Decision::Split,
            leaves: vec![PlannedLeaf {
                service: "agent".to_owned(),
                weight: 1,
                share: 1,
                state: LeafState::Ready,
                endpoints: vec![self.listener.address()],
            }],
        };
        (frontend, split)
    }

    /// Connects once for each address family that the machine has. Blocks for some seconds at
    /// most.
    ///
    /// # Errors
    ///
    /// If a connection was not split, or that cannot be found out.
    pub fn run(&self, places: &Places) -> Result<(), SelfTestError> {
        match self.expected.connect() {
            Ok(()) => {
                self.is_inside.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(source @ (SelfTestError::NotSplit(_) | SelfTestError::Stranger))
                if places.in_pod =>
            {
                Err(SelfTestError::NotSplitInPod {
                    cgroup: places.own.clone(),
                    source: Box::new(source),
                })
            }
            Err(SelfTestError::NotSplit(_) | SelfTestError::Stranger)
                if !self.is_inside.load(Ordering::Relaxed) =>
            {
                let mut cgroups = places.representative().peekable();
                if cgroups.peek().is_none() {
                    return Err(SelfTestError::NoPlace);
                }
                cgroups.try_for_each(|cgroup| helper::run(cgroup, &self.expected))
            }
            result => result,
        }
    }

    /// Runs the test now and then, from when the programs are attached. The task never ends by
    /// itself.
    pub fn watch(self, agent_state: &AgentState) -> (SelfTestState, JoinHandle<()>) {
        let state = SelfTestState::default();
        let written = state.clone();
        let mut attached = agent_state.attached();
        let agent_state = agent_state.clone();
        let test = Arc::new(self);
        let task = tokio::spawn(async move {
            // The sender lives as long as the `AgentState`, of which this is a handle.
            while attached.wait_for(|attached| *attached).await.is_ok() {
                let (test, places) = (Arc::clone(&test), agent_state.places());
                let result = tokio::task::spawn_blocking(move || test.run(&places)).await;
                let result = result.unwrap_or_else(|error| {
                    Err(SelfTestError::Helper(format!("cannot be run: {error}")))
                });
                let pause = if result.is_ok() {
                    INTERVAL
                } else {
                    RETRY_INTERVAL
                };
                written.record(result);
                // Programs that are attached anew are looked at at once.
                let _ = tokio::time::timeout(pause, attached.changed()).await;
            }
        });
        (state, task)
    }
}
