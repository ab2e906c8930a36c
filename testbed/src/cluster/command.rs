//! `cargo xtask cluster`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::{Cluster, KubeProxy, Options};
use crate::workspace::say;

/// What to do with a cluster, and with which.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// The cluster's name
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    task: ClusterTask,
}

#[derive(Debug, Subcommand)]
enum ClusterTask {
    /// Bring a cluster up; it stays until it is taken down
    Up {
        /// How many nodes it has; with 0 it is an API server with nothing behind it
        #[arg(long, default_value_t = 2)]
        nodes: usize,
        /// How kube-proxy works
        #[arg(long, value_enum, default_value_t)]
        kube_proxy: KubeProxy,
        /// An argument for the API server in addition
        #[arg(
            long = "api-server-argument",
            value_name = "ARGUMENT",
            allow_hyphen_values = true
        )]
        api_server_arguments: Vec<String>,
    },
    /// Take a cluster down
    Down,
    /// Put images on every node
    Load {
        /// Tar archives as `docker save` writes them, or of an OCI layout
        #[arg(required = true)]
        images: Vec<PathBuf>,
    },
    /// Run kubectl
    #[command(disable_help_flag = true)]
    Kubectl {
        /// Arguments for kubectl
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a command on a node, or a shell
    Node {
        /// The node, such as node-1
        node: String,
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Print the path of a kubeconfig
    Kubeconfig,
}

/// Does what the command line asks for.
///
/// # Errors
///
/// When it cannot be done, each with the remedy.
pub fn run(arguments: ClusterArgs) -> Result<ExitCode> {
    let ClusterArgs { name, task } = arguments;
    match task {
        ClusterTask::Up {
            nodes,
            kube_proxy,
            api_server_arguments,
        } => up(&Options {
            name,
            nodes,
            kube_proxy,
            api_server_arguments,
        })?,
        ClusterTask::Down => {
            Cluster::find(&name)?.down()?;
            say(format_args!("the cluster {name} is down"));
        }
        ClusterTask::Load { images } => {
            let cluster = Cluster::find(&name)?;
            images.iter().try_for_each(|image| cluster.load(image))?;
        }
        ClusterTask::Kubectl { arguments } => {
            return replace(Cluster::find(&name)?.kubectl()?.args(arguments));
        }
        ClusterTask::Node { node, command } => return on_node(&name, &node, &command),
        ClusterTask::Kubeconfig => println!("{}", Cluster::find(&name)?.kubeconfig().display()),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(options: &Options) -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::up(options)?;
    let name = cluster.name().to_owned();
    let kubeconfig = cluster.kubeconfig().display().to_string();
    cluster.detach()?;
    let name_argument = if name == Options::default().name {
        String::new()
    } else {
        format!(" --name {name}")
    };
    let on_node = if options.nodes == 0 {
        String::new()
    } else {
        format!("cargo xtask cluster{name_argument} node node-1 ip address\n  ")
    };
    say(format_args!(
        "the cluster {name} is up ({:.1} s)\n  \
         cargo xtask cluster{name_argument} kubectl get nodes\n  \
         {on_node}\
         export KUBECONFIG={kubeconfig}\n  \
         cargo xtask cluster{name_argument} down",
        started.elapsed().as_secs_f32()
    ));
    Ok(())
}

fn on_node(cluster: &str, node: &str, command: &[OsString]) -> Result<ExitCode> {
    let cluster = Cluster::find(cluster)?;
    let names: Vec<_> = cluster.nodes().iter().map(super::Node::name).collect();
    let node = cluster.nodes().iter().find(|it| it.name() == node);
    let node = node.with_context(|| format!("the nodes are {}", names.join(", ")))?;
    match command {
        [] => replace(&mut node.command("sh")?),
        [program, arguments @ ..] => replace(node.command(program)?.args(arguments)),
    }
}

/// Becomes another program, which so has the terminal and its signals for itself.
fn replace(command: &mut Command) -> Result<ExitCode> {
    let program = command.get_program().to_string_lossy().into_owned();
    Err(command.exec()).with_context(|| format!("cannot run {program}"))
}
