//! A Kubernetes cluster on this machine: real nodes with kubelet, containerd and kube-proxy, and a
//! real control plane, up in seconds, needing neither Docker nor virtual machines, and leaving
//! nothing behind.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use std::path::Path;
//!
//! use testbed::cluster::{Cluster, Options};
//!
//! let cluster = Cluster::up(&Options::default())?;
//! cluster.load(Path::new("shop.tar"))?;
//! cluster.kubectl()?.args(["apply", "--filename=shop.yaml"]).status()?;
//! // On a node, beside what Kubernetes runs there.
//! cluster.nodes()[0].command("ip")?.arg("route").status()?;
//! # Ok(())
//! # }
//! ```
//!
//! Nodes are sets of namespaces and control groups: own networks, process ids, host names, own
//! `/run`, `/var/lib`, `/var/log`, `/sys/fs/bpf` and `/sys/fs/cgroup`; everything else is the
//! machine's. The programs are built from pinned sources into the cache directory, which takes some
//! minutes the first time.
//!
//! A process apart, the supervisor, holds the cluster. It takes everything down when the process
//! that made the [`Cluster`] ends, however that happens. Should the supervisor itself be killed, all
//! processes die with it, and the next cluster removes its empty directories.

mod address;
mod command;
mod config;
mod forward;
mod go;
mod groups;
pub mod image;
mod modules;
mod mounts;
mod node;
mod owner;
mod plan;
mod readiness;
mod request;
mod service;
mod space;
mod state;
mod supervisor;
mod sysctl;
pub mod tools;

use std::fmt;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

pub use self::command::{ClusterArgs, run};
pub use self::node::{Node, NodeComponent};
use self::owner::Supervisor;
use self::request::{Request, Target};
use self::state::{Directory, Record};
use crate::lab::sys;
use crate::workspace;

/// How kube-proxy carries connections to Services to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KubeProxy {
    /// By rules of nftables.
    #[default]
    Nftables,
    /// By rules of iptables.
    Iptables,
}

impl fmt::Display for KubeProxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// By which it is found again: lower-case letters, digits and dashes. No two clusters have the
    /// same.
    pub name: String,
    /// How many nodes it has; they are called `node-1`, `node-2` and so on. Without any there is an
    /// API server with its store and nothing else: what is made there stays as it was made.
    pub nodes: usize,
    /// How kube-proxy works.
    pub kube_proxy: KubeProxy,
    /// Arguments for the API server in addition, such as `--feature-gates=WatchList=false`.
    pub api_server_arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            nodes: 2,
            kube_proxy: KubeProxy::default(),
            api_server_arguments: Vec::new(),
        }
    }
}

/// A program of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The API server. To stop etcd too, stop this one first.
    ApiServer,
    /// The API server's store.
    Etcd,
    /// What turns Deployments into pods, and pods into endpoints.
    ControllerManager,
    /// What chooses the node of a pod.
    Scheduler,
    /// The name server of pods.
    CoreDns,
}

impl Component {
    fn program(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::Etcd => "etcd",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::CoreDns => "coredns",
        }
    }
}

/// A cluster that is up. See the [module](self). Dropping the value of the process that brought it
/// up takes it down.
#[derive(Debug)]
pub struct Cluster {
    directory: Directory,
    address: SocketAddr,
    programs: tools::Tools,
    nodes: Vec<Node>,
    supervisor: Option<Supervisor>,
}

impl Cluster {
    /// Brings a cluster up, and returns when pods can be started on every node and names can be
    /// looked up. Builds the programs first where they are missing.
    ///
    /// # Errors
    ///
    /// When the machine lacks something, the name is taken or a program of the cluster fails; then
    /// everything is down again.
    pub fn up(options: &Options) -> Result<Self> {
        Self::up_unless(options, &|| false)
    }

    /// The same, but gives up as soon as it becomes `unwanted`, which is asked several times a
    /// second.
    ///
    /// # Errors
    ///
    /// As for [`up`](Self::up), and when it became unwanted; then everything is down again, too.
    pub fn up_unless(options: &Options, unwanted: &dyn Fn() -> bool) -> Result<Self> {
        ensure!(
            sys::is_root(),
            "a cluster has namespaces and control groups, which only root may make; remedy: sudo"
        );
        ensure!(
            options.nodes <= address::MAXIMUM_NODES,
            "a cluster has no more than {} nodes",
            address::MAXIMUM_NODES
        );
        let directory = Directory::of(&options.name)?;
        let programs = tools::ensure(tools::Part::of_nodes(options.nodes))?;
        let supervisor = Supervisor::start(&directory, options, &programs)?;
        supervisor.wait_until_ready(unwanted)?;
        let mut cluster = Self::open(directory, programs)?;
        cluster.supervisor = Some(supervisor);
        Ok(cluster)
    }

    /// The cluster of that name that another process has brought up. Dropping it changes nothing.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn find(name: &str) -> Result<Self> {
        let directory = Directory::of(name)?;
        if !directory.is_held() {
            bail!("no cluster called {name} is up; remedy: `cargo xtask cluster up --name {name}`");
        }
        let record = directory
            .load()
            .with_context(|| format!("the cluster {name} is not up yet, or on its way down"))?;
        Self::open(directory, tools::Tools::in_directories(record.programs))
    }

    fn open(directory: Directory, programs: tools::Tools) -> Result<Self> {
        let Record { address, nodes, .. } = directory.load()?;
        let node = |record| Node {
            directory: directory.clone(),
            record,
        };
        Ok(Self {
            address,
            nodes: nodes.into_iter().map(node).collect(),
            directory,
            programs,
            supervisor: None,
        })
    }

    /// Leaves the cluster up when this process ends, for others to [find](Self::find).
    ///
    /// # Errors
    ///
    /// When the supervisor has ended.
    pub fn detach(mut self) -> Result<()> {
        self.supervisor.take().map_or(Ok(()), Supervisor::detach)
    }

    /// Takes the cluster down, whoever has brought it up.
    ///
    /// # Errors
    ///
    /// When something is left, and what.
    pub fn down(mut self) -> Result<()> {
        match self.supervisor.take() {
            Some(supervisor) => supervisor.end(),
            None => request::ask(&self.directory, &Request::Down),
        }
    }

    /// The name that it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.directory.name()
    }

    /// A file for clients of Kubernetes on this machine, outside of the cluster's network, that
    /// makes them administrators.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.kubeconfig()
    }

    /// Where clients on this machine reach the API server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another such file, with which a client is `user` (if there is one) and reaches the API server
    /// at `address`, where it may find something that passes its connections on.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn kubeconfig_at(&self, address: SocketAddr, user: Option<&str>) -> Result<PathBuf> {
        let administrator = self.directory.kubeconfig();
        let text = fs::read(&administrator)
            .with_context(|| format!("cannot read {}", administrator.display()))?;
        let mut kubeconfig: Value = serde_json::from_slice(&text)?;
        kubeconfig["clusters"][0]["cluster"]["server"] = json!(format!("https://{address}"));
        if let Some(user) = user {
            kubeconfig["users"][0]["user"]["as"] = json!(user);
        }
        let name = format!("{}-{}.kubeconfig", user.unwrap_or("admin"), address.port());
        self.directory.write(name, kubeconfig.to_string())
    }

    /// `kubectl`, as an administrator of this cluster.
    ///
    /// # Errors
    ///
    /// When the program was removed from the cache.
    pub fn kubectl(&self) -> Result<Command> {
        let mut command = Command::new(self.programs.program("kubectl")?);
        command.env("KUBECONFIG", self.kubeconfig());
        Ok(command)
    }

    /// Runs [`kubectl`](Self::kubectl) at the root of the workspace with this input, whatever comes
    /// of it.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn run_kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        workspace::run_with_input(self.kubectl()?.args(arguments), input)
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The programs that the cluster is made of.
    #[must_use]
    pub fn tools(&self) -> &tools::Tools {
        &self.programs
    }

    /// Where each program's log is: `kube-apiserver.log`, `node-1/kubelet.log` and so on.
    #[must_use]
    pub fn logs_directory(&self) -> PathBuf {
        self.directory.logs()
    }

    /// Puts an image on every node. `image` is a tar archive as `docker save` writes it, or of an
    /// OCI layout. Pods that use it need the pull policy `Never` or `IfNotPresent`.
    ///
    /// # Errors
    ///
    /// When the archive cannot be read or a node refuses it.
    pub fn load(&self, image: &Path) -> Result<()> {
        let context = || format!("cannot load {}", image.display());
        let start = |node: &Node| -> Result<_> {
            let mut import = node.command(self.programs.program("ctr")?)?;
            import
                .args(readiness::IMPORT)
                .stdin(File::open(image)?)
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            Ok(import.spawn()?)
        };
        let imports = self.nodes.iter().map(start).collect::<Result<Vec<_>>>();
        for (import, node) in imports.with_context(context)?.into_iter().zip(&self.nodes) {
            let output = import.wait_with_output().with_context(context)?;
            if !output.status.success() {
                let complaint = String::from_utf8_lossy(&output.stderr);
                return Err(anyhow!("{}: {}", node.name(), complaint.trim())).with_context(context);
            }
        }
        Ok(())
    }

    /// Kills a program of the control plane.
    ///
    /// # Errors
    ///
    /// When the cluster has ended.
    pub fn stop(&self, component: Component) -> Result<()> {
        request::ask(&self.directory, &Request::Stop(target(component.program())))
    }

    /// Starts a program of the control plane again, with the arguments that it had. Waits until etcd
    /// and the API server answer (so start etcd first); the others take a moment.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(&self, component: Component) -> Result<()> {
        request::ask(
            &self.directory,
            &Request::Start(target(component.program())),
        )
    }
}

fn target(program: &str) -> Target {
    Target {
        node: None,
        program: program.to_owned(),
    }
}
