//! What the process uses, under the names that every Prometheus client library gives it.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use rustix::param::{clock_ticks_per_second, page_size};

use super::family::{counter, gauge};

/// Read from `/proc` when it is asked for.
#[derive(Debug)]
pub(super) struct Process;

/// What `/proc/self/stat` says (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// User and system time, in ticks.
    cpu_ticks: u64,
    /// Time of its start since boot, in ticks.
    start_ticks: u64,
    /// Resident memory, in pages.
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything; the
        // first field after it is the third.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine was booted, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let stat = fs::read_to_string("/proc/self/stat");
        if let Some(stat) = stat.ok().as_deref().and_then(Stat::parse) {
            let seconds = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
            counter(
                encoder,
                "process_cpu_seconds",
                "User and system time that the agent has used",
                &seconds(stat.cpu_ticks),
            )?;
            gauge(
                encoder,
                "process_resident_memory_bytes",
                "Memory of the agent that is in RAM",
                &(stat.resident_pages.saturating_mul(page_size() as u64)),
            )?;
            if let Some(boot) = boot_time() {
                gauge(
                    encoder,
                    "process_start_time_seconds",
                    "When the agent was started",
                    &(boot + seconds(stat.start_ticks)),
                )?;
            }
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            gauge(
                encoder,
                "process_open_fds",
                "File descriptors that the agent has open",
                // Without the one that lists them.
                &(descriptors.count().saturating_sub(1) as u64),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_and_spaces_does_not_confuse() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 3 0 999 1000 55 0";
        let expected = Stat {
            cpu_ticks: 42,
            start_ticks: 999,
            resident_pages: 55,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }
}
