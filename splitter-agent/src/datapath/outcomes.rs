//! What came of the connections to a leaf, as it is read.

use splitter_common::layout::{HISTOGRAM_BUCKETS, OutcomeRecord};
use splitter_common::outcomes::{Outcome, bound};

use super::maps::Maps;

/// What came of the connections to a leaf since it became part of the split. Every count only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeCounts {
    record: OutcomeRecord,
}

impl Default for OutcomeCounts {
    fn default() -> Self {
        Self {
            record: bytemuck::Zeroable::zeroed(),
        }
    }
}

/// How often a quantity was in which range.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<'a> {
    counts: &'a [u64; HISTOGRAM_BUCKETS],
    /// The sum of all values.
    pub sum: u64,
}

impl OutcomeCounts {
    /// Those of a leaf; none where they are not counted.
    pub(super) fn of(maps: &Maps, leaf_id: u32) -> Self {
        let Some(mut record) = maps.outcomes(leaf_id) else {
            return Self::default();
        };
        record.incarnation = 0;
        Self { record }
    }

    /// How many connections came to this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.record.counts[outcome as usize]
    }

    /// Attempts that failed: refused, timed out, or unreachable. Those that the client gave up at once
    /// are not among them.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.sum(Outcome::is_failed_attempt)
    }

    /// Connections that have come to an end, whether or not they were established.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.sum(|outcome| outcome != Outcome::Established)
    }

    fn sum(&self, is_meant: impl Fn(Outcome) -> bool) -> u64 {
        let meant = Outcome::ALL
            .into_iter()
            .filter(|outcome| is_meant(*outcome));
        meant.map(|outcome| self.count(outcome)).sum()
    }

    /// Bytes that clients sent in connections that have ended.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.record.bytes_sent
    }

    /// Bytes that clients received in connections that have ended.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.record.bytes_received
    }

    /// How long handshakes took, in microseconds.
    #[must_use]
    pub fn handshakes(&self) -> Histogram<'_> {
        Histogram {
            counts: &self.record.handshakes,
            sum: self.record.handshake_sum,
        }
    }

    /// Smoothed round-trip times of connections when they ended, in microseconds.
    #[must_use]
    pub fn round_trips(&self) -> Histogram<'_> {
        Histogram {
            counts: &self.record.round_trips,
            sum: self.record.round_trip_sum,
        }
    }

    /// How long connections lasted, in milliseconds.
    #[must_use]
    pub fn lifetimes(&self) -> Histogram<'_> {
        Histogram {
            counts: &self.record.lifetimes,
            sum: self.record.lifetime_sum,
        }
    }
}

impl Histogram<'_> {
    /// The ranges by what values in them are below, `None` for the last, and how many values were in
    /// each.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let counts = self.counts.iter().enumerate();
        counts.map(|(bucket, count)| (bound(bucket), *count))
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A value that so much of all values are below, from 0 to 1: to a factor of two. `None` if there
    /// are none, or it is in the last range.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let wanted = self.count() as f64 * part;
        let mut below = 0;
        for (bound, count) in self.buckets() {
            below += count;
            if count > 0 && below as f64 >= wanted {
                return bound;
            }
        }
        None
    }
}
