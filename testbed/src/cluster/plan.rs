//! What runs where in a cluster, and with which arguments.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::service::Service;
use super::state::Directory;
use super::tools::Tools;
use super::{Options, address, config};
use crate::workspace::output;

/// Where programs of the system are, beside those of the cluster.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the services of a cluster, and writes the files that they read.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    directory: &'a Directory,
    options: &'a Options,
    tools: &'a Tools,
    path: OsString,
    /// Lines of the API server's file of users.
    users: Vec<String>,
    /// The file that holds the API server's certificate, and the one that signed it.
    authority: PathBuf,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        directory: &'a Directory,
        options: &'a Options,
        tools: &'a Tools,
    ) -> Result<Self> {
        let system = env::split_paths(PATH);
        let path = env::join_paths(tools.directories().iter().cloned().chain(system))?;
        Ok(Self {
            authority: directory.join("apiserver/apiserver.crt"),
            directory,
            options,
            tools,
            path,
            users: Vec::new(),
        })
    }

    /// The name of the node with this number, counted from one.
    pub(super) fn node_name(number: usize) -> String {
        format!("node-{number}")
    }

    fn service(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        logs: &Path,
    ) -> Result<Service> {
        let program = self.tools.program(program)?;
        Ok(Service::new(program, arguments, self.path.clone(), logs))
    }

    /// Writes a kubeconfig for a user that the API server is going to know.
    fn user(&mut self, file: &Path, server: &str, name: &str, groups: &str) -> Result<PathBuf> {
        let token = random_token()?;
        self.users
            .push(format!("{token},{name},{name},\"{groups}\"\n"));
        let content = config::kubeconfig(server, &self.authority, &token);
        self.directory.write(file, content.to_string())
    }

    /// The services of the control plane, in the order to start them in. Everyone who is to use the
    /// API has been named by then, so the nodes come first.
    pub(super) fn control_plane(&mut self, outside: &str) -> Result<Vec<Service>> {
        let logs = self.directory.logs();
        let inside = inside_url();
        self.user(Path::new("kubeconfig"), outside, "admin", "system:masters")?;
        let dns = self.user(
            Path::new("dns/kubeconfig"),
            &inside,
            "dns",
            "system:masters",
        )?;
        let manager = self.user(
            Path::new("controller-manager/kubeconfig"),
            &inside,
            "system:kube-controller-manager",
            "",
        )?;
        let scheduler = self.user(
            Path::new("scheduler/kubeconfig"),
            &inside,
            "system:kube-scheduler",
            "",
        )?;
        let users = self
            .directory
            .write("apiserver/users.csv", self.users.concat())?;
        let key = output(&mut Command::new(self.tools.program("make-key")?))?;
        let key = self
            .directory
            .write("apiserver/service-accounts.key", key)?;
        let core_file = self
            .directory
            .write("dns/Corefile", config::core_dns(&dns))?;
        let key = key.display();

        let etcd = [
            format!("--data-dir={}", self.directory.join("etcd").display()),
            format!("--listen-client-urls=http://{}", address::ETCD),
            format!("--advertise-client-urls=http://{}", address::ETCD),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            // A machine that loses power loses the cluster anyway.
            "--unsafe-no-fsync".to_owned(),
        ];
        let mut api_server = vec![
            format!("--etcd-servers=http://{}", address::ETCD),
            format!("--cert-dir={}", self.directory.join("apiserver").display()),
            format!("--advertise-address={}", address::CONTROL_PLANE),
            "--bind-address=0.0.0.0".to_owned(),
            format!("--secure-port={}", address::API_PORT),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={key}"),
            format!("--service-account-signing-key-file={key}"),
            format!("--service-cluster-ip-range={}", address::SERVICES),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--token-auth-file={}", users.display()),
            "--allow-privileged=true".to_owned(),
            // Names of nodes are in no DNS.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            // There is no kube-proxy beside the API server.
            "--enable-aggregator-routing=true".to_owned(),
        ];
        api_server.extend(self.options.api_server_arguments.iter().cloned());
        let manager = manager.display();
        let controller_manager = [
            format!("--kubeconfig={manager}"),
            "--leader-elect=false".to_owned(),
            format!(
                "--flex-volume-plugin-dir={}",
                self.directory
                    .join("controller-manager/volume-plugins")
                    .display()
            ),
            "--use-service-account-credentials=true".to_owned(),
            // Kubelets may take most of a minute to come back to an API server that was away; the pods
            // of a node that is silent for so long are taken for unready.
            "--node-monitor-grace-period=5m".to_owned(),
            format!("--service-account-private-key-file={key}"),
            format!("--root-ca-file={}", self.authority.display()),
            format!(
                "--cert-dir={}",
                self.directory.join("controller-manager").display()
            ),
        ];
        let scheduler = scheduler.display();
        let scheduler = [
            format!("--kubeconfig={scheduler}"),
            format!("--authentication-kubeconfig={scheduler}"),
            format!("--authorization-kubeconfig={scheduler}"),
            "--leader-elect=false".to_owned(),
        ];
        let dns = [format!("-conf={}", core_file.display())];
        let mut services = vec![
            self.service("etcd", etcd, &logs)?,
            self.service("kube-apiserver", api_server, &logs)?,
        ];
        // Without nodes nothing else runs, and need not be built.
        if self.options.nodes > 0 {
            services.extend([
                self.service("kube-controller-manager", controller_manager, &logs)?,
                self.service("kube-scheduler", scheduler, &logs)?,
                self.service("coredns", dns, &logs)?,
            ]);
        }
        Ok(services)
    }

    /// The services of a node, in the order to start them in.
    pub(super) fn node(&mut self, number: usize) -> Result<Vec<Service>> {
        let name = Self::node_name(number);
        let files = PathBuf::from(&name);
        let logs = self.directory.logs().join(&name);
        let inside = inside_url();
        let kubelet_user = self.user(
            &files.join("kubelet.kubeconfig"),
            &inside,
            &format!("system:node:{name}"),
            "system:nodes",
        )?;
        let proxy_user = self.user(
            &files.join("kube-proxy.kubeconfig"),
            &inside,
            "system:kube-proxy",
            "",
        )?;
        let bridge = self.tools.program("ptp")?;
        let plugins = bridge.parent().unwrap_or(Path::new("/"));
        let write = |name: &str, content: String| self.directory.write(files.join(name), content);
        let containerd = write("containerd.toml", config::containerd(plugins))?;
        let kubelet = write("kubelet.json", config::kubelet().to_string())?;
        let proxy = config::kube_proxy(&name, self.options.kube_proxy, &proxy_user);
        let proxy = write("kube-proxy.json", proxy.to_string())?;
        Ok(vec![
            self.service(
                "containerd",
                [format!("--config={}", containerd.display())],
                &logs,
            )?,
            self.service(
                "kubelet",
                [
                    format!("--config={}", kubelet.display()),
                    format!("--kubeconfig={}", kubelet_user.display()),
                    format!("--hostname-override={name}"),
                    format!("--node-ip={}", address::of_node(number)),
                    "--root-dir=/var/lib/kubelet".to_owned(),
                ],
                &logs,
            )?,
            self.service(
                "kube-proxy",
                [format!("--config={}", proxy.display())],
                &logs,
            )?,
        ])
    }
}

/// The API server, as nodes reach it.
fn inside_url() -> String {
    format!("https://{}:{}", address::CONTROL_PLANE, address::API_PORT)
}

/// Files that a node needs in its own file systems.
pub(super) fn furnish_node(number: usize) -> Result<()> {
    let directory = Path::new(config::NETWORKS);
    let write = || {
        fs::create_dir_all(directory)?;
        let network = config::network(number).to_string();
        fs::write(directory.join("10-pods.conflist"), network)?;
        // So that pods on other nodes can be reached through this one.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")
    };
    write().context("cannot configure the network of pods")
}

/// A password that nobody guesses.
fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
