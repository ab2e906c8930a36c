//! Pods: a network namespace, a mount namespace and a cgroup, and processes in them.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cgroup::Cgroup;
use super::names::{self, Published};
use super::network::{self, Addresses, Namespaces, Switch};
use super::process::{self, Process, Ready};

/// Something that behaves like a pod: its processes have their own network, their own
/// `/etc/hosts` and their own cgroup. It ends, with everything in it, when dropped.
#[derive(Debug)]
pub struct Pod {
    name: String,
    addresses: Addresses,
    has_own_hosts: AtomicBool,
    // Dropped in this order: the holder is a child of ours to collect, the rest goes with the cgroup.
    namespaces: Namespaces,
    cgroup: Cgroup,
}

impl Pod {
    pub(super) fn new(parent: &Cgroup, switch: &Switch, index: u16, name: &str) -> Result<Self> {
        let cgroup = Cgroup::create(parent.path(), name)?;
        let namespaces = Namespaces::new(cgroup.path(), name)?;
        let addresses = switch.connect(&namespaces, index)?;
        Ok(Self {
            name: name.to_owned(),
            addresses,
            has_own_hosts: AtomicBool::new(false),
            namespaces,
            cgroup,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.addresses.ipv4
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.addresses.ipv6
    }

    /// Its cgroup, below that of the lab.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// A process that lives in its namespaces as long as the pod does (for `nsenter -t`).
    pub fn process_id(&self) -> u32 {
        self.namespaces.holder().cast_unsigned()
    }

    /// Gives the pod one more address, on its loopback interface. With the address of a Service, a
    /// server in the client's own pod catches the connections that nobody redirected.
    pub fn add_address(&self, address: impl Into<IpAddr>) -> Result<()> {
        self.namespaces
            .ip(&network::add_to_loopback(address.into()))
    }

    /// Runs `body` in a process of its own inside the pod and returns what it returned. A panic in
    /// it becomes an error that quotes it; after five minutes it is killed.
    ///
    /// The process is a fork: `body` sees all of this process's memory as it is now, and what it
    /// changes there stays unseen here. It must not print (see the module `sys` for why).
    pub fn run<T, F>(&self, body: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> T,
    {
        self.run_within(process::RUN_TIMEOUT, body)
    }

    /// The same, with another limit.
    pub fn run_within<T, F>(&self, timeout: Duration, body: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> T,
    {
        process::run(self.namespaces.place(), &self.name, timeout, body)
    }

    /// Starts `body` in a process of its own inside the pod. It is killed when the returned value
    /// is dropped; if it panics, it says so on the error output.
    pub fn start<F: FnOnce()>(&self, body: F) -> Result<Process> {
        process::start(self.namespaces.place(), &self.name, body)
    }

    /// The same, but waits until `body` calls [`Ready::signal`], and also returns the value given
    /// there: the port that a server got, for example.
    pub fn start_ready<T, F>(&self, body: F) -> Result<(Process, T)>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(Ready<T>),
    {
        process::start_ready(self.namespaces.place(), &self.name, body)
    }

    /// A command that will run inside the pod, in the current directory, and die with the thread
    /// that starts it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.namespaces.place().command(program)
    }

    /// What names the processes of this pod can resolve from now on: these, `localhost`, and no others.
    pub fn set_hosts(&self, hosts: &[(&str, IpAddr)]) -> Result<()> {
        let text = names::hosts_file(hosts);
        let first = !self.has_own_hosts.swap(true, Ordering::Relaxed);
        self.run(|| names::install_hosts(&text, first).map_err(|error| format!("{error:#}")))?
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("cannot give {} its hosts", self.name))
    }

    /// Which name server the processes of this pod ask from now on, on port 53.
    pub fn set_name_server(&self, server: IpAddr) -> Result<()> {
        self.run(|| names::install_name_server(server).map_err(|error| format!("{error:#}")))?
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("cannot give {} its name server", self.name))
    }

    /// Gives the pod's network a name for `ip netns exec NAME`, in which `hosts` can be resolved,
    /// until the returned value is dropped. Fails if the name is in use.
    ///
    /// `ip netns exec` enters the network but not the pod's cgroup; who wants to be seen by programs
    /// attached there enters it first.
    pub fn publish_name(&self, name: &str, hosts: &[(&str, IpAddr)]) -> Result<Published> {
        Published::new(name, self.namespaces.holder(), hosts)
    }
}
