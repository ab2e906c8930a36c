//! What `cargo xtask test` runs in other kernels: a few telling tests, in few kernels, at once.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::thread;

use anyhow::Result;
use testbed::packages;

use super::download::Store;
use super::list::{self, BRIEF, Kernel};
use super::{KernelArgs, machine, packages_of, platforms, requirements, run_in};

/// Program and test. That the kernel takes all programs, and a log without complaints, are looked at
/// anyhow.
const TESTS: [(&str, &str); 11] = [
    (
        "datapath",
        "connect::a_connection_to_the_vip_lands_on_a_leaf_and_sees_the_vip_as_its_peer",
    ),
    (
        "datapath",
        "connect::an_ipv6_vip_is_split_among_ipv6_endpoints",
    ),
    (
        "datapath",
        "connect::a_refused_connection_fails_at_once_with_connection_refused",
    ),
    ("datapath", "outcomes::attempts_that_fail_are_told_apart"),
    (
        "datapath",
        "outcomes::bytes_and_ends_of_connections_are_what_both_sides_saw",
    ),
    (
        "datapath",
        "outcomes::resets_are_told_apart_by_who_sent_them",
    ),
    (
        "datapath",
        "sockets::a_split_socket_has_a_slot_for_as_long_as_it_lives",
    ),
    (
        "datapath",
        "sockets::without_a_table_peers_names_are_on_the_sockets",
    ),
    (
        "datapath",
        "udp::a_connected_socket_of_either_family_reaches_a_leaf_and_sees_the_vip_as_its_peer",
    ),
    (
        "datapath",
        "udp::a_refused_datagram_or_connect_fails_at_once",
    ),
    (
        "datapath",
        "udp::an_unconnected_socket_of_either_family_sends_to_a_leaf_and_is_answered_by_the_vip",
    ),
];

/// How long the tests of one kernel may take, in seconds. They take some two minutes on an idle machine.
const TIMEOUT: u64 = 1200;

/// A kernel in which tests cannot be run on this machine.
#[derive(Debug)]
pub struct Unavailable {
    /// What `--kernel` calls it.
    pub kernel: &'static str,
    /// The reason.
    pub reason: String,
}

/// Gets an emulator and kernels, as far as they can be had here, and runs the tests in those. Gives
/// back the others.
///
/// # Errors
///
/// When a test failed in a kernel, or the programs cannot be built.
pub fn run_brief() -> Result<Vec<Unavailable>> {
    let kernels = BRIEF.iter().filter_map(|name| list::by_name(name).ok());
    let kernels: Vec<Kernel> = kernels.filter(|it| it.platform.is_host()).collect();
    let platforms = platforms(&kernels);
    let emulators = packages::ensure(&requirements(&platforms)).and_then(|()| {
        platforms
            .iter()
            .try_for_each(|it| machine::try_emulator(*it))
    });
    if let Err(error) = emulators {
        let reason = format!("{error:#}");
        let unavailable = kernels.iter().map(|kernel| Unavailable {
            kernel: kernel.name,
            reason: reason.clone(),
        });
        return Ok(unavailable.collect());
    }
    let mut store = Store::new(BTreeMap::new())?;
    let mut machines = Vec::new();
    let mut unavailable = Vec::new();
    for kernel in kernels {
        match packages_of(&kernel, &mut store) {
            Ok(packages) => machines.push((kernel, packages)),
            Err(error) => unavailable.push(Unavailable {
                kernel: kernel.name,
                reason: format!("{error:#}"),
            }),
        }
    }
    if machines.is_empty() {
        return Ok(unavailable);
    }
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let jobs = machine::affordable(processors.min(machines.len()));
    if jobs == 0 {
        unavailable.extend(machines.iter().map(|(kernel, _)| Unavailable {
            kernel: kernel.name,
            reason: "there is not enough free memory for a virtual machine".to_owned(),
        }));
        return Ok(unavailable);
    }
    let arguments = KernelArgs {
        kernels: Vec::new(),
        tests: vec!["datapath".to_owned()],
        jobs: u8::try_from(jobs).unwrap_or(1),
        timeout: TIMEOUT,
        debian_mirror: None,
        ubuntu_mirror: None,
        filters: TESTS.iter().map(|(_, test)| (*test).to_owned()).collect(),
        arguments: vec!["--exact".to_owned()],
    };
    run_in(&machines, &mut store, &arguments, &TESTS)?;
    Ok(unavailable)
}
