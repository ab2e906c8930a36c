//! Namespaces, the switch that connects them, and the addresses in them.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::place::Place;
use super::process::{self, Process};
use super::sys::{self, Pid};

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
}

impl Addresses {
    /// The `number`-th of the lab: 10.244.0.0/16 and fd00:10:244::/64, as many clusters have it.
    pub(crate) const fn of(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self {
            ipv4: Ipv4Addr::new(10, 244, high, low),
            ipv6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, number),
        }
    }
}

/// A network namespace and a mount namespace, kept alive by a process that sleeps in them.
#[derive(Debug)]
pub(crate) struct Namespaces {
    holder: Process,
    place: Place,
}

impl Namespaces {
    /// Makes fresh ones, held by a process in `cgroup`.
    pub(crate) fn new(cgroup: &Path, name: &str) -> Result<Self> {
        let (holder, prepared) = process::start_ready::<Result<(), String>, _>(
            &Place::new(cgroup, None)?,
            name,
            |ready| {
                ready.signal(&prepare().map_err(|error| format!("{error:#}")));
                sys::sleep_for_ever();
            },
        )?;
        if let Err(message) = prepared {
            bail!("{name}: {message}");
        }
        let place = Place::new(cgroup, Some(holder.id().cast_signed()))?;
        Ok(Self { holder, place })
    }

    /// For processes that are to run inside.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The process that keeps them alive.
    pub(crate) fn holder(&self) -> Pid {
        self.holder.id().cast_signed()
    }

    /// Runs `ip` commands inside, one a line, all in one process.
    pub(crate) fn ip(&self, commands: &str) -> Result<()> {
        ip_batch(self.place.command("ip"), commands, |ip| Ok(ip.spawn()))
    }
}

/// Has an `ip` run commands, one a line, all in one process, which `spawn` starts in its place.
pub(crate) fn ip_batch(
    mut ip: Command,
    commands: &str,
    spawn: impl FnOnce(&mut Command) -> Result<io::Result<Child>>,
) -> Result<()> {
    ip.args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child =
        spawn(&mut ip)?.context("cannot run `ip`; remedy: install the package iproute2")?;
    let mut input = child.stdin.take().context("no pipe to `ip`")?;
    input.write_all(commands.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    bail!(
        "`ip -batch` failed: {}\nit was to run:\n{commands}",
        complaint.trim()
    );
}

/// What the holder does in its fresh namespaces before it sleeps.
fn prepare() -> Result<()> {
    sys::unshare_network_and_mounts().context("cannot make namespaces")?;
    // Files below /proc/sys/net show the network namespace of whoever opens them.
    for (name, value) in [
        // Clients may make a million connections: many ports, soon free again. Servers
        // of the lab use the ports below.
        ("ipv4/ip_local_port_range", "20000 65535"),
        ("ipv4/tcp_tw_reuse", "1"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
    ] {
        set(name, value)?;
    }
    Ok(())
}

/// Sets a network parameter of the current namespace.
fn set(name: &str, value: &str) -> Result<()> {
    fs::write(Path::new("/proc/sys/net").join(name), value)
        .with_context(|| format!("cannot set net/{name} to {value}"))
}

/// The bridge that all pods of a lab are connected to, in a namespace of its own.
#[derive(Debug)]
pub(crate) struct Switch {
    namespaces: Namespaces,
}

impl Switch {
    /// Makes the bridge.
    pub(crate) fn new(cgroup: &Path) -> Result<Self> {
        let namespaces = Namespaces::new(cgroup, "switch")?;
        namespaces.ip("link add bridge type bridge mcast_snooping 0
             link set bridge up
            ")?;
        Ok(Self { namespaces })
    }

    /// Connects `pod` as the `index`-th, and gives it its addresses.
    ///
    /// To every address that no pod has the pod has an "unreachable" route: a connection to a
    /// Service that nobody redirects fails at once, and with another error than one that is
    /// refused. (Programs on the connect hooks run before the kernel looks for a route.) Asking the
    /// switch to answer that way would not do: the kernel sends such answers once a second.
    ///
    /// The "local" route to its IPv6 address is one that the kernel adds by itself, but in its
    /// own time: connections made until then would fail.
    pub(crate) fn connect(&self, pod: &Namespaces, index: u16) -> Result<Addresses> {
        let addresses = index
            .checked_add(1)
            .filter(|number| *number < u16::MAX)
            .map(Addresses::of)
            .context("no addresses are left")?;
        let holder = pod.holder();
        self.namespaces.ip(&format!(
            "link add pod{index} type veth peer name eth0 netns {holder}
             link set pod{index} master bridge up
            "
        ))?;
        let Addresses { ipv4, ipv6 } = addresses;
        pod.ip(&format!(
            "link set lo up
             link set eth0 up
             address add {ipv4}/16 dev eth0
             address add {ipv6}/64 dev eth0 nodad
             route add local {ipv6}/128 dev eth0
             route add unreachable 0.0.0.0/0
             route add unreachable ::/0
            "
        ))?;
        Ok(addresses)
    }
}

/// The `ip` commands that put `address` on the loopback interface.
pub(crate) fn add_to_loopback(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("address add {address}/32 dev lo\n"),
        IpAddr::V6(address) => format!(
            "address add {address}/128 dev lo nodad
             route add local {address}/128 dev lo
            "
        ),
    }
}
