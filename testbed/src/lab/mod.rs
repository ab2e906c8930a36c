//! A laboratory for traffic: cgroups and network namespaces that behave like a node with pods, made
//! in milliseconds, needing nothing but root and the `ip` command, and leaving nothing behind.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use testbed::lab::{Lab, client, server};
//!
//! let lab = Lab::new("example")?;
//! let shop = lab.pod("shop")?;
//! let buyer = lab.pod("buyer")?;
//! let _server = shop.start_ready(|ready| server::tag(80, "shop-v1", ready))?;
//!
//! // Programs attached to `lab.cgroup()` see this connection, and no other on the machine.
//! let target = (shop.ipv4(), 80).into();
//! let tags = buyer.run(|| client::count_tags(target, 10))?;
//! assert_eq!(tags.identities["shop-v1"], 10);
//! # Ok(())
//! # }
//! ```
//!
//! Namespaces have no names: the network lives in processes that die with the thread that made
//! them (so keep a [`Lab`] and its pods in the thread that made them, or one that outlives it).
//! Addresses are the same in every lab, and never clash. What a killed run leaves behind,
//! which is empty cgroups and pinned programs, is removed by the next [`Lab::new`].
//!
//! The modules that deal with the kernel say where their `unsafe` is and why: `sys` and `place`.

pub mod bpf_file_system;
pub mod cgroup;
pub mod client;
pub mod names;
pub(crate) mod network;
pub(crate) mod place;
mod pod;
pub(crate) mod process;
pub mod server;
mod sweep;
pub(crate) mod sys;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use self::bpf_file_system::PinDirectory;
use self::cgroup::Cgroup;
use self::network::Switch;
use self::place::Place;

pub use self::pod::Pod;
pub use self::process::{Process, Ready};

/// How many labs this process has made.
static LABS: AtomicU32 = AtomicU32::new(0);

/// A cgroup subtree and a network of its own, with pods in it. See the [module](self).
#[derive(Debug)]
pub struct Lab {
    name: String,
    pods: AtomicU16,
    // Dropped in this order: detach the programs, then end the processes.
    pins: PinDirectory,
    switch: Switch,
    cgroup: Cgroup,
}

impl Lab {
    /// Makes an empty lab, and removes what killed processes left of theirs.
    pub fn new(name: &str) -> Result<Self> {
        ensure!(
            sys::is_root(),
            "the lab makes network namespaces and cgroups, which only root may do; remedy: sudo"
        );
        sweep::sweep().context("cannot remove what an earlier lab left")?;
        bpf_file_system::ensure_mounted()?;

        let name = sweep::lab_name(LABS.fetch_add(1, Ordering::Relaxed), &plain(name));
        let pins = PinDirectory::new(&name);
        let cgroup = Cgroup::create(&cgroup::own()?, &name)?;
        let switch = Switch::new(cgroup.path())?;
        Ok(Self {
            name,
            pods: AtomicU16::new(0),
            pins,
            switch,
            cgroup,
        })
    }

    /// `splitter-lab-<process id>-<number>-<name>`: unique on the machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cgroup that holds every process of the lab: where to attach programs.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// A path on the BPF file system that nobody else uses. Nothing is there yet; what is made
    /// there goes when the lab goes, and so do programs that are attached by nothing but their pin.
    pub fn pin_directory(&self) -> PathBuf {
        self.pins.path().to_owned()
    }

    /// Adds a pod: a network namespace with an address of each family, connected to all
    /// others of this lab, and a cgroup of its own below [`Lab::cgroup`].
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let index = self.pods.fetch_add(1, Ordering::Relaxed);
        Pod::new(&self.cgroup, &self.switch, index, &plain(name))
            .with_context(|| format!("cannot set up the pod {name}"))
    }

    /// A command that runs in the lab's cgroup but in the network of the machine, as a node's
    /// agent does. It dies with the lab, and with the thread that started it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        Ok(Place::new(self.cgroup.path(), None)?.command(program))
    }
}

/// A name that file systems and the kernel take everywhere (the BPF file system refuses dots).
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}
