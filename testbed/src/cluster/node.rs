//! The nodes of a cluster.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Result;

use super::request::{self, Request, Target};
use super::space;
use super::state::{Directory, NodeRecord};

/// A program that every node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeComponent {
    /// What starts the pods of a node and reports them.
    Kubelet,
    /// What makes the addresses of Services work.
    KubeProxy,
    /// What runs containers. They survive its end.
    Containerd,
}

impl NodeComponent {
    fn program(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Containerd => "containerd",
        }
    }
}

/// A node of a cluster.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) directory: Directory,
    pub(super) record: NodeRecord,
}

impl Node {
    /// Its name, and that of its Node object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its address, in the network of the cluster.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.record.address
    }

    /// The process id of its first process: whose namespaces are the node's.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.record.init
    }

    /// A command that runs on the node, in all of its namespaces and in its control groups. The
    /// machine's programs are there, and its files except for those in `/run`, `/var/lib`, `/var/log`
    /// and `/sys`. It is killed when the thread that started it ends.
    ///
    /// # Errors
    ///
    /// When a path cannot be written as system calls want it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        space::command(self.record.init, &self.record.groups, program.as_ref())
    }

    /// Kills a program of the node.
    ///
    /// # Errors
    ///
    /// When the cluster has ended.
    pub fn stop(&self, component: NodeComponent) -> Result<()> {
        request::ask(&self.directory, &Request::Stop(self.target(component)))
    }

    /// Starts a program of the node again, with the arguments that it had. Waits until containerd
    /// answers, without which kubelet does not start; the others take a moment.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(&self, component: NodeComponent) -> Result<()> {
        request::ask(&self.directory, &Request::Start(self.target(component)))
    }

    fn target(&self, component: NodeComponent) -> Target {
        Target {
            node: Some(self.record.name.clone()),
            program: component.program().to_owned(),
        }
    }
}
