//! What was measured, for people.

use std::fmt::Display;
use std::fs;
use std::time::Duration;

use super::agent::{Agent, Done, Scrapes, Start};
use super::changes::{Burst, Times};
use super::cluster::Cluster;
use super::objects::Size;
use super::requests::Requests;

/// What is measured, and where.
pub(crate) fn print_machine(size: Size) {
    let (splits, slices, endpoints) = (size.splits, size.slices(), size.endpoints());
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{splits} {}s, {endpoints} endpoints in {slices} EndpointSlices",
        size.api.kind()
    );
    println!("Linux {}, {processors} processors", release.trim());
}

pub(crate) fn print_made(cluster: &Cluster) {
    line("objects made in", seconds(cluster.took));
}

pub(crate) fn print_start(start: &Start, agent: &Agent) {
    head("start");
    line(
        "from the process's start to every split in the maps",
        seconds(start.programmed),
    );
    line("from the process's start to /readyz", seconds(start.ready));
    line("user and system time for it", seconds(agent.cpu()));
    line(
        "times that a root was compiled for it",
        agent.compilations(),
    );
    print_memory("after it", agent);
}

pub(crate) fn print_memory(when: &str, agent: &Agent) {
    let memory = agent.memory();
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    line(&format!("resident memory {when}"), mib(memory.resident));
    line("  of it the agent's own, not mapped", mib(memory.anonymous));
    line("  most so far", mib(memory.highest));
}

pub(crate) fn print_rest(
    time: Duration,
    cpu: Duration,
    requests: &Requests,
    without_agent: &Requests,
) {
    head(&format!("at rest, {} s", time.as_secs()));
    print_load(time, cpu, requests, without_agent);
}

pub(crate) fn print_leader(
    time: Duration,
    cpu: Duration,
    requests: &Requests,
    without_agent: &Requests,
) {
    head(&format!(
        "as the leader, which tells of every split first, {} s",
        time.as_secs()
    ));
    print_load(time, cpu, requests, without_agent);
}

fn print_load(time: Duration, cpu: Duration, requests: &Requests, without_agent: &Requests) {
    let share = cpu.as_secs_f64() / time.as_secs_f64() * 100.0;
    line("of one processor", format!("{share:.2} %"));
    let per_minute = |count: u64| format!("{:.1}", count as f64 * 60.0 / time.as_secs_f64());
    line(
        "requests per minute that the API server finished",
        per_minute(requests.total()),
    );
    line(
        "  of them its own, as without an agent",
        per_minute(without_agent.total()),
    );
    for (what, count) in requests.beyond(without_agent) {
        line(&format!("  {what}"), per_minute(count));
    }
    print_machine_load();
}

pub(crate) fn print_scrapes(scrapes: Scrapes) {
    head(&format!("/metrics, read {} times", scrapes.times.len()));
    line(
        "size",
        format!("{:.1} MiB", scrapes.bytes as f64 / 1_048_576.0),
    );
    let times = Spread::of(scrapes.times);
    line("median", format!("{:.1?}", times.at(50)));
    line("longest", format!("{:.1?}", times.at(100)));
}

pub(crate) fn print_changes_head(count: usize) {
    head(&format!(
        "until a change is in the maps, {count} changes one after the other"
    ));
    println!("{:<64}{:>12}{:>12}{:>12}", "", "p50", "p99", "longest");
}

pub(crate) fn print_changes(what: &str, times: Times) {
    for (from, times) in [("watch", times.from_watch), ("request", times.from_request)] {
        print_spread(&format!("{what}, from the {from}"), times);
    }
}

pub(crate) fn print_burst(changes: usize, burst: Burst, done: &Done) {
    head(&format!(
        "{changes} changes of EndpointSlices as fast as the API server takes them"
    ));
    let per_second = burst.lags.len() as f64 / burst.took.as_secs_f64();
    line("changes per second", format!("{per_second:.0}"));
    line("of one processor", format!("{:.0} %", done.cpu * 100.0));
    line("publications", format!("{:.0}", done.publications));
    line("  each, on average", format!("{:.2?}", done.publication));
    if let Some(last) = burst.lags.last() {
        line("the last one, from the watch", format!("{last:.2?}"));
    }
    println!("{:<64}{:>12}{:>12}{:>12}", "", "p50", "p99", "longest");
    print_spread("all of them, from the watch", burst.lags);
    print_machine_load();
}

/// What else goes on counts too.
fn print_machine_load() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    line("load of the machine, all in all", load);
}

fn print_spread(what: &str, times: Vec<Duration>) {
    let times = Spread::of(times);
    println!(
        "{what:<64}{:>12.2?}{:>12.2?}{:>12.2?}",
        times.at(50),
        times.at(99),
        times.at(100)
    );
}

fn head(title: &str) {
    println!("\n{title}:");
}

fn line(what: &str, value: impl Display) {
    println!("{what:<56}{value:>12}");
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Durations in their order.
struct Spread(Vec<Duration>);

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The duration that so many percent do not exceed.
    fn at(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let at = (self.0.len() * percent / 100).min(last);
        self.0.get(at).copied().unwrap_or_default()
    }
}
