//! Where a cluster keeps its files, who holds its name, and how what a killed one left is removed.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{groups, sysctl};
use crate::workspace::replace_file;

/// The directory that holds one directory for each cluster.
const CLUSTERS: &str = "/run/splitter-cluster";

/// The files of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

/// What is known of a cluster that is up, for processes that did not start it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Record {
    /// Where the API server is reached from outside.
    pub(super) address: SocketAddr,
    /// The directories with the programs of the cluster.
    pub(super) programs: Vec<PathBuf>,
    pub(super) nodes: Vec<NodeRecord>,
}

/// What is known of a node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NodeRecord {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    /// Process id of its first process.
    pub(super) init: u32,
    /// The control groups that its processes belong to.
    pub(super) groups: Vec<PathBuf>,
}

impl Directory {
    /// The directory of the cluster called `name`, whether there is one or not.
    pub(super) fn of(name: &str) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            (1..=40).contains(&name.len()) && name.chars().all(is_plain),
            "{name:?} is no name for a cluster: up to 40 lower-case letters, digits and dashes are"
        );
        Ok(Self {
            path: Path::new(CLUSTERS).join(name),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The last part of the path.
    pub(super) fn name(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.unwrap_or_default()
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.join("logs")
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.join("kubeconfig")
    }

    /// The socket on which the supervisor takes requests.
    pub(super) fn control(&self) -> PathBuf {
        self.join("control")
    }

    /// Writes a file that no other user may read. Whoever reads one of the same name meanwhile sees
    /// the old one or the new one, whole.
    pub(super) fn write(
        &self,
        name: impl AsRef<Path>,
        content: impl AsRef<[u8]>,
    ) -> Result<PathBuf> {
        let path = self.join(name);
        replace_file(&path, content.as_ref())?;
        Ok(path)
    }

    pub(super) fn save(&self, record: &Record) -> Result<()> {
        self.write("record.json", serde_json::to_vec_pretty(record)?)?;
        Ok(())
    }

    pub(super) fn load(&self) -> Result<Record> {
        let path = self.join("record.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is broken", path.display()))
    }

    /// Whether the process that holds the cluster lives.
    pub(super) fn is_held(&self) -> bool {
        File::open(self.join("lock"))
            .is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

/// A name that is taken, until it is given back. Should its process be killed, the lock goes with
/// it, and the next cluster finds and removes the rest.
#[derive(Debug)]
pub(super) struct Claim {
    directory: Directory,
    _lock: File,
}

impl Claim {
    /// Takes the name, after having removed what dead clusters left.
    pub(super) fn take(directory: &Directory) -> Result<Self> {
        let _one_at_a_time = serialize()?;
        sweep()?;
        if directory.path.exists() {
            bail!(
                "a cluster called {name} is there already: end it with `cargo xtask cluster down \
                 --name {name}`, or choose another name",
                name = directory.name()
            );
        }
        let make = || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory.logs())?;
            let lock = File::create(directory.join("lock"))?;
            lock.lock()?;
            Ok::<_, std::io::Error>(lock)
        };
        let lock = make().with_context(|| format!("cannot create {}", directory.path.display()))?;
        sysctl::save(Path::new(CLUSTERS))?;
        Ok(Self {
            directory: directory.clone(),
            _lock: lock,
        })
    }

    /// Gives the name back and removes the cluster's files.
    pub(super) fn release(self) -> Result<()> {
        let _one_at_a_time = serialize()?;
        remove(&self.directory.path)
    }
}

/// Clusters come and go one at a time.
fn serialize() -> Result<File> {
    let directory = File::open("/run").context("cannot open /run")?;
    directory.lock().context("cannot lock /run")?;
    Ok(directory)
}

/// Removes what is left of clusters whose process was killed.
fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir(CLUSTERS) else {
        return Ok(());
    };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        let directory = Directory { path: entry.path() };
        if !directory.is_held() {
            groups::remove_all(directory.name())?;
            remove(&directory.path)?;
        }
    }
    Ok(())
}

/// Removes a cluster's directory, and with the last one all that clusters share.
fn remove(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    let clusters = Path::new(CLUSTERS);
    let is_last = fs::read_dir(clusters)
        .with_context(|| format!("cannot read {CLUSTERS}"))?
        .flatten()
        .all(|entry| !entry.path().is_dir());
    if is_last {
        sysctl::restore(clusters)?;
        fs::remove_dir(clusters).with_context(|| format!("cannot remove {CLUSTERS}"))?;
    }
    Ok(())
}
