//! An API server with its etcd, on free ports, gone with the test.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use splitter_agent::source::kubernetes;
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;
use tokio::time::sleep;

/// Name and token of the user that may do everything.
const ADMINISTRATOR: &str = "administrator";
/// Name and token of the user that may do what rules say.
pub(crate) const AGENT: &str = "agent";

const KEY: &str = "key.pem";
const PUBLIC_KEY: &str = "public-key.pem";

/// An API server that answers.
pub(crate) struct Server {
    programs: Programs,
    directory: TempDir,
    etcd: Program,
    api_server: Program,
    port: u16,
    arguments: Vec<String>,
    pub(crate) client: Client,
    _turn: SemaphorePermit<'static>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more arguments for the API server.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let turn = super::turn().await;
        let programs = Programs::find();
        let mut last_words = String::new();
        // A port that is free now may be taken by the time it is used.
        for _ in 0..3 {
            let directory = tempfile::tempdir().expect("a directory");
            write_files(directory.path());
            let [store, peers, port] = free_ports();
            let mut arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
            arguments.push(format!("--etcd-servers=http://127.0.0.1:{store}"));
            let mut etcd = programs.etcd(directory.path(), store, peers);
            let mut api_server = programs.api_server(directory.path(), port, &arguments);
            if !is_up(&mut etcd, &mut api_server, directory.path(), port).await {
                last_words = logs(directory.path());
                continue;
            }
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let client = client(directory.path(), ADMINISTRATOR, address).await;
            let server = Self {
                programs,
                directory,
                etcd,
                api_server,
                port,
                arguments,
                client,
                _turn: turn,
            };
            server.is_ready().await;
            return server;
        }
        panic!("{last_words}");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A client of this user, made as the agent makes it, that finds the server at `address`.
    pub(crate) async fn client_at(&self, user: &str, address: SocketAddr) -> Client {
        client_with(&self.kubeconfig_at(user, address)).await
    }

    /// A kubeconfig of this user that finds the server at `address`.
    pub(crate) fn kubeconfig_at(&self, user: &str, address: SocketAddr) -> PathBuf {
        kubeconfig(self.directory.path(), user, address)
    }

    /// Kills the API server and starts it again: it then knows nothing of what was before.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let directory = self.directory.path();
        self.api_server = self
            .programs
            .api_server(directory, self.port, &self.arguments);
        let up = is_up(&mut self.etcd, &mut self.api_server, directory, self.port).await;
        assert!(up, "{}", logs(directory));
        self.is_ready().await;
    }

    pub(crate) fn kill(&mut self) {
        self.api_server.kill();
    }

    /// Until the namespace for all objects of tests is there, too.
    async fn is_ready(&self) {
        let namespaces = kind("v1", "Namespace", "namespaces");
        let namespaces = Api::<DynamicObject>::all_with(self.client.clone(), &namespaces);
        let deadline = Instant::now() + Duration::from_secs(60);
        while namespaces.get("default").await.is_err() {
            assert!(Instant::now() < deadline, "{}", logs(self.directory.path()));
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Creates or changes an object.
    pub(crate) async fn apply(&self, object: &Value) {
        let (api, name) = self.api_of(object);
        let parameters = PatchParams::apply("test").force();
        let deadline = Instant::now() + Duration::from_secs(30);
        // A resource that was just defined is not there at once.
        while let Err(error) = api.patch(&name, &parameters, &Patch::Apply(object)).await {
            if matches!(error, kube::Error::SerdeError(_)) {
                // It is done, and the answer is as deep as what was asked for.
                return;
            }
            assert!(Instant::now() < deadline, "{object}: {error}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn delete(&self, object: &Value) {
        let (api, name) = self.api_of(object);
        let deleted = api.delete(&name, &DeleteParams::default()).await;
        deleted.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    fn api_of(&self, object: &Value) -> (Api<DynamicObject>, String) {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let plural = format!("{}s", text(&object["kind"]).to_lowercase());
        let resource = kind(
            &text(&object["apiVersion"]),
            &text(&object["kind"]),
            &plural,
        );
        let client = self.client.clone();
        let api = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        (api, text(&object["metadata"]["name"]))
    }
}

fn kind(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

impl Drop for Server {
    fn drop(&mut self) {
        // With its etcd gone, an API server would not end for a while.
        self.api_server.kill();
        self.etcd.kill();
        if std::thread::panicking() {
            eprintln!("{}", logs(self.directory.path()));
        }
    }
}

/// Whether both go on running and the API server says that it is ready.
async fn is_up(etcd: &mut Program, server: &mut Program, directory: &Path, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    let certificate = directory.join("server/apiserver.crt");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    while Instant::now() < deadline && etcd.runs() && server.runs() {
        if certificate.exists() {
            let client = client(directory, ADMINISTRATOR, address).await;
            let ready = http::Request::get("/readyz").body(Vec::new());
            if client.request_text(ready.expect("a request")).await.is_ok() {
                return true;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    false
}

async fn client(directory: &Path, user: &str, address: SocketAddr) -> Client {
    client_with(&kubeconfig(directory, user, address)).await
}

async fn client_with(kubeconfig: &Path) -> Client {
    let client = kubernetes::client(Some(kubeconfig)).await;
    client.unwrap_or_else(|error| panic!("{error}"))
}

fn kubeconfig(directory: &Path, user: &str, address: SocketAddr) -> PathBuf {
    let path = directory.join(format!("{user}-{}.kubeconfig", address.port()));
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority": directory.join("server/apiserver.crt"),
        }}],
        "users": [{"name": "test", "user": {"token": user}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    fs::write(&path, kubeconfig.to_string()).expect("a kubeconfig");
    path
}

/// The key signs no token in these tests, but the server wants one.
fn write_files(directory: &Path) {
    let users =
        format!("{ADMINISTRATOR},{ADMINISTRATOR},1,\"system:masters\"\n{AGENT},{AGENT},2\n");
    fs::write(directory.join("users.csv"), users).expect("a file");
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(directory);
        let status = command.stderr(Stdio::null()).status();
        assert!(status.expect("openssl").success());
    };
    let curve = "ec_paramgen_curve:P-256";
    openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        curve,
        "-out",
        KEY,
    ]);
    openssl(&["pkey", "-in", KEY, "-pubout", "-out", PUBLIC_KEY]);
}

fn free_ports() -> [u16; 3] {
    [(); 3].map(|()| free_port())
}

fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Below those that the kernel hands out by itself, and no port twice: between now and when
    // it is listened on, another test would be given it too.
    loop {
        let number = std::process::id().wrapping_mul(97) + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (number % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn logs(directory: &Path) -> String {
    let tail = |name: &str| {
        let log = fs::read_to_string(directory.join(name)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let from = lines.len().saturating_sub(15);
        format!("--- {name}\n{}", lines[from..].join("\n"))
    };
    format!("{}\n{}", tail("etcd.log"), tail("api-server.log"))
}

/// Where the programs are.
struct Programs {
    etcd: PathBuf,
    api_server: PathBuf,
}

impl Programs {
    fn find() -> Self {
        let programs = xtask::cluster::tools::ensure().expect("the programs of a cluster");
        let program = |name| programs.program(name).expect("a program");
        Self {
            etcd: program("etcd"),
            api_server: program("kube-apiserver"),
        }
    }

    fn etcd(&self, directory: &Path, port: u16, peers: u16) -> Program {
        let (url, peer_url) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peers}"),
        );
        let mut command = Command::new(&self.etcd);
        command
            .arg(format!("--data-dir={}", directory.join("etcd").display()))
            .args(["--unsafe-no-fsync", "--name=test"])
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=test={peer_url}"));
        Program::start(command, &directory.join("etcd.log"))
    }

    fn api_server(&self, directory: &Path, port: u16, arguments: &[String]) -> Program {
        let file = |name: &str| directory.join(name).display().to_string();
        let mut command = Command::new(&self.api_server);
        command
            .arg(format!("--cert-dir={}", file("server")))
            .arg(format!("--secure-port={port}"))
            .arg(format!("--token-auth-file={}", file("users.csv")))
            .arg(format!("--service-account-key-file={}", file(PUBLIC_KEY)))
            .arg(format!("--service-account-signing-key-file={}", file(KEY)))
            .args([
                "--bind-address=127.0.0.1",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
                "--disable-admission-plugins=ServiceAccount",
            ])
            .args(arguments);
        Program::start(command, &directory.join("api-server.log"))
    }
}

/// A process that ends with this value, and with the thread that started it.
struct Program {
    child: Child,
}

impl Program {
    fn start(mut command: Command, log: &Path) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        // SAFETY: the closure makes one system call and touches no memory but its own.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(
                    rustix::process::Signal::KILL,
                ))?;
                Ok(())
            });
        }
        Self {
            child: command.spawn().expect("a program that starts"),
        }
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
