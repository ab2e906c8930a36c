//! A real API server with nothing behind it: no nodes, no controllers. What it accepts and whom it
//! lets do what needs none.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::cluster::tools;

/// The longest that it may take to come up, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// An API server, its store, and a `kubectl` that talks to it. Ends with the value.
pub(crate) struct ApiServer {
    kubectl: PathBuf,
    directory: TempDir,
    // The server before its store: without that it would not end.
    processes: [Child; 2],
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A program of the control plane, or Helm; built if it is not yet.
pub(crate) fn program(name: &str) -> PathBuf {
    if name == "helm" {
        return tools::helm().expect("a Helm");
    }
    let tools = tools::ensure().expect("the programs of a cluster");
    tools.program(name).expect("a program of a cluster")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn run(program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
}

impl ApiServer {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let [etcd, server, kubectl] = ["etcd", "kube-apiserver", "kubectl"].map(program);
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        run("openssl", &["genrsa", "-out", "key", "2048"], at);
        run(
            "openssl",
            &["rsa", "-in", "key", "-pubout", "-out", "public"],
            at,
        );
        fs::write(at.join("tokens"), "admin,admin,admin,\"system:masters\"\n").unwrap();
        let [store, peers, port] = [free_port(), free_port(), free_port()];
        let spawn = |program: &Path, arguments: &[String]| {
            let log = at.join(program.file_name().unwrap()).with_extension("log");
            let log = fs::File::create(log).unwrap();
            Command::new(program)
                .args(arguments)
                .current_dir(at)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap()
        };
        let store = format!("http://127.0.0.1:{store}");
        let peers = format!("http://127.0.0.1:{peers}");
        let etcd = spawn(
            &etcd,
            &[
                "--data-dir=etcd".to_owned(),
                "--unsafe-no-fsync".to_owned(),
                format!("--listen-client-urls={store}"),
                format!("--advertise-client-urls={store}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
            ],
        );
        let server = spawn(
            &server,
            &[
                format!("--etcd-servers={store}"),
                format!("--secure-port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--cert-dir=certificates".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--service-account-key-file=public".to_owned(),
                "--service-account-signing-key-file=key".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--authorization-mode=RBAC".to_owned(),
                "--token-auth-file=tokens".to_owned(),
                "--allow-privileged=true".to_owned(),
            ],
        );
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "insecure-skip-tls-verify": true,
            }}],
            "users": [{"name": "admin", "user": {"token": "admin"}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "admin"}}],
        });
        fs::write(at.join("config"), config.to_string()).unwrap();
        let server = Self {
            kubectl,
            processes: [server, etcd],
            directory,
        };
        server.wait_for(&["get", "--raw", "/readyz"]);
        server
    }

    /// Waits until a command succeeds.
    pub(crate) fn wait_for(&self, arguments: &[&str]) {
        let start = Instant::now();
        loop {
            let output = self.kubectl(arguments, "");
            if output.status.success() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{arguments:?}: {output:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs `kubectl` at the root of the workspace.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.directory.path().join("config"))
            .args(arguments)
            .current_dir(xtask::workspace::root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// Runs `kubectl`, which has to succeed, and returns what it prints.
    pub(crate) fn succeed(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// An object.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.succeed(&["get", kind, name, "--output=json"], "");
        serde_json::from_str(&text).unwrap()
    }

    /// Creates the CRD as people are told to, and waits until it is served.
    pub(crate) fn create_crd(&self) {
        self.succeed(&["create", "-k", "deploy/crd"], "");
        let name = "crd/trafficsplits.split.smi-spec.io";
        self.succeed(
            &["wait", "--for=condition=Established", "--timeout=60s", name],
            "",
        );
        self.wait_for(&["get", "trafficsplits"]);
    }
}
