//! An API server and its etcd, for as long as a test needs them.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use tempfile::TempDir;

/// How long both may take to start on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running API server. Its only user is `admin`, who can impersonate anyone.
pub(crate) struct Server {
    directory: TempDir,
    bin: PathBuf,
    port: u16,
    /// Ends the processes when it is dropped.
    keeper: Option<(mpsc::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Server {
    /// The server that all tests of this process share; the last one ends it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    fn start() -> Self {
        let bin = binaries();
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let (started, is_started) = mpsc::channel();
        let (end, is_ended) = mpsc::channel();
        let (path, programs) = (directory.path().to_owned(), bin.clone());
        // Processes die with the thread that starts them, and tests have threads of their
        // own.
        let keeper = std::thread::spawn(move || {
            let mut processes = spawn(&programs, &path, port);
            let _ = started.send(());
            let _: Result<(), _> = is_ended.recv();
            // The API server first: without its store it does not end for long.
            for process in processes.iter_mut().rev() {
                let _ = process.kill();
                let _ = process.wait();
            }
        });
        let server = Self {
            directory,
            bin,
            port,
            keeper: Some((end, keeper)),
        };
        is_started.recv().expect("processes that start");
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let start = Instant::now();
        while !self.kubectl(&["get", "--raw", "/readyz"]).status.success() {
            if start.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.directory.path().join("apiserver.log"));
                panic!("the API server does not start: {}", log.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs kubectl as the administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> std::process::Output {
        let config = self.directory.path().join("admin.kubeconfig");
        if !config.exists() {
            fs::write(&config, Self::kubeconfig(self.port, None)).expect("a file");
        }
        Command::new(self.bin.join("kubectl"))
            .env("HOME", self.directory.path())
            .arg("--kubeconfig")
            .arg(&config)
            .args(arguments)
            .output()
            .expect("kubectl")
    }

    /// Applies manifests as the administrator.
    pub(crate) fn apply(&self, manifests: &str) {
        let mut file = tempfile::NamedTempFile::new_in(self.directory.path()).expect("a file");
        file.write_all(manifests.as_bytes()).expect("a file");
        let path = file.path().to_str().expect("a path in UTF-8");
        loop {
            let output = self.kubectl(&["apply", "-f", path]);
            let error = String::from_utf8_lossy(&output.stderr);
            // Another test has just made the same object.
            if !output.status.success() && error.contains("(AlreadyExists)") {
                continue;
            }
            assert!(output.status.success(), "{error}");
            return;
        }
    }

    /// Where it listens, on the loopback interface.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How to reach it at a port, as the administrator or as somebody else.
    pub(crate) fn kubeconfig(port: u16, user: Option<&str>) -> String {
        let user = user.map_or(String::new(), |user| format!(", as: {user}"));
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: test\n\
             clusters:\n\
             - name: test\n  \
               cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}\n\
             users:\n\
             - name: test\n  \
               user: {{token: admin-token{user}}}\n\
             contexts:\n\
             - name: test\n  \
               context: {{cluster: test, user: test}}\n"
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((end, keeper)) = self.keeper.take() {
            drop(end);
            let _ = keeper.join();
        }
    }
}

fn spawn(bin: &Path, directory: &Path, port: u16) -> [Child; 2] {
    let (clients, peers) = (free_port(), free_port());
    let at = |name: &str| directory.join(name).display().to_string();
    let store = format!("http://127.0.0.1:{clients}");
    let peer = format!("http://127.0.0.1:{peers}");
    let etcd = start(
        &bin.join("etcd"),
        &directory.join("etcd.log"),
        &[
            format!("--data-dir={}", at("etcd")),
            format!("--listen-client-urls={store}"),
            format!("--advertise-client-urls={store}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--unsafe-no-fsync".to_owned(),
        ],
    );
    let key = Command::new("openssl")
        .args(["genrsa", "2048"])
        .output()
        .expect("openssl");
    fs::write(at("key"), key.stdout).expect("a file");
    fs::write(
        at("tokens.csv"),
        "admin-token,admin,admin-uid,\"system:masters\"\n",
    )
    .expect("a file");
    let server = start(
        &bin.join("kube-apiserver"),
        &directory.join("apiserver.log"),
        &[
            format!("--etcd-servers={store}"),
            format!("--cert-dir={}", at("certificates")),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", at("key")),
            format!("--service-account-signing-key-file={}", at("key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            format!("--token-auth-file={}", at("tokens.csv")),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ],
    );
    [etcd, server]
}

fn start(program: &Path, log: &Path, arguments: &[String]) -> Child {
    let log = fs::File::create(log).expect("a log file");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log);
    // SAFETY: between fork and exec only a system call is made.
    unsafe {
        command.pre_exec(|| {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
    command.spawn().expect("a process")
}

/// A port that nobody listens on at present.
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

/// Where the programs are.
fn binaries() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"),
        PathBuf::from,
    );
    let cluster = cache.join("splitter/cluster");
    fs::read_dir(&cluster)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .find(|bin| bin.join("kube-apiserver").exists() && bin.join("etcd").exists())
        .unwrap_or_else(|| {
            panic!(
                "no kube-apiserver and etcd in {}/*/bin; build the test cluster first",
                cluster.display()
            )
        })
}
