//! What came of the connections to leaves.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use splitter_common::outcomes::Outcome;

use crate::datapath::OutcomeCounts;

use super::family::{Observations, counters, gauges, histograms};
use super::splits::{Active, Row};

/// What came of an attempt, as the label `result` says it.
const RESULTS: [(Outcome, &str); 5] = [
    (Outcome::Established, "established"),
    (Outcome::Refused, "refused"),
    (Outcome::TimedOut, "timed_out"),
    (Outcome::Unreachable, "unreachable"),
    (Outcome::Abandoned, "abandoned"),
];

/// How what was established ended, as the label `reason` says it.
const REASONS: [(Outcome, &str); 4] = [
    (Outcome::Closed, "closed"),
    (Outcome::ResetByEndpoint, "reset_by_endpoint"),
    (Outcome::ResetByClient, "reset_by_client"),
    (Outcome::Lost, "lost"),
];

/// Ranges of handshakes that have a series: from 64 microseconds to 8.4 seconds, each four times the one
/// before but for the last.
const HANDSHAKES: [u32; 10] = [6, 8, 10, 12, 14, 16, 18, 20, 22, 23];

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, active: &Active<'_>) -> fmt::Result {
    counters(
        encoder,
        "connections",
        "Connections that were given an endpoint of the backend, by what came of the attempt; established \
         ones count when they end, unless handshakes are measured",
        labelled(active, "result", &RESULTS),
    )?;
    counters(
        encoder,
        "connections_closed",
        "Established connections that have ended, by how",
        labelled(active, "reason", &REASONS),
    )?;
    gauges(
        encoder,
        "connections_open",
        "Connections to the backend that have not ended, as far as their sockets have a slot in the \
         table of live sockets",
        active
            .leaves()
            .filter_map(|row| Some((row.labels(), row.open?))),
    )?;
    counters(
        encoder,
        "bytes",
        "Bytes that clients sent to the backend, or received from it, in connections that have ended",
        active.leaves().flat_map(|row| {
            let bytes = |of: fn(&OutcomeCounts) -> u64| row.outcomes.map_or(0, of);
            [
                (
                    with(row, "direction", "sent"),
                    bytes(OutcomeCounts::bytes_sent),
                ),
                (
                    with(row, "direction", "received"),
                    bytes(OutcomeCounts::bytes_received),
                ),
            ]
        }),
    )?;
    histograms(
        encoder,
        "connect_duration_seconds",
        "From connect() until the backend has accepted the connection; only with `--outcomes handshakes`",
        active.leaves().filter_map(|row| {
            let handshakes = handshakes(row.outcomes?)?;
            Some((row.labels(), handshakes))
        }),
    )
}

type Labels<'a> = [(&'static str, &'a str); 4];

fn with<'a>(row: Row<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    let [namespace, service, backend] = row.labels();
    [namespace, service, backend, (name, value)]
}

/// A series for each leaf and outcome: also where nothing was counted, so that `rate` sees the first.
fn labelled<'a>(
    active: &Active<'a>,
    label: &'static str,
    outcomes: &'a [(Outcome, &'static str)],
) -> impl Iterator<Item = (Labels<'a>, u64)> {
    active.leaves().flat_map(move |row| {
        outcomes.iter().map(move |(outcome, word)| {
            let count = row.outcomes.map_or(0, |counts| counts.count(*outcome));
            (with(row, label, word), count)
        })
    })
}

/// How long handshakes took; `None` if they are not measured.
fn handshakes(counts: &OutcomeCounts) -> Option<Observations> {
    let handshakes = counts.handshakes();
    if handshakes.count() == 0 {
        return None;
    }
    let mut bounds = HANDSHAKES.iter().map(|power| 1_u64 << power).peekable();
    let mut buckets = Vec::with_capacity(HANDSHAKES.len() + 1);
    let mut below = 0;
    for (bound, count) in handshakes.buckets() {
        below += count;
        let ends_here = bounds.next_if(|next| Some(*next) == bound);
        if let Some(microseconds) = ends_here {
            buckets.push((microseconds as f64 / 1e6, std::mem::take(&mut below)));
        }
    }
    buckets.push((f64::INFINITY, below));
    Some(Observations {
        sum: handshakes.sum as f64 / 1e6,
        buckets,
    })
}
