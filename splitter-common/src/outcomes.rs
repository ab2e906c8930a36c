//! What came of a connection, as the kernel tells it: by an error on its socket, by a reset that is
//! sent or received, or by nothing but the end of the socket.
//!
//! | stage | told | outcome |
//! |---|---|---|
//! | begun | a reset is received, `ECONNREFUSED` | refused |
//! | begun | `ETIMEDOUT` | timed out |
//! | begun | any other error | unreachable |
//! | begun | the socket ends, and has sent nothing | unreachable |
//! | begun | the socket ends after a second or more | timed out |
//! | begun | the socket ends sooner | abandoned |
//! | established | a reset is received | reset by the endpoint |
//! | established | a reset is sent | reset by the client |
//! | established | `ETIMEDOUT`, or another error that ends it | lost |
//! | established | the socket ends | closed |
//!
//! That the endpoint has accepted it is not told, unless the agent asks for it: it is known from what was
//! acknowledged, when something else is told. It is counted then, too.
//!
//! An application may give up before the kernel does, most of them after some seconds. By then the
//! kernel has sent its first SYN again, which it does after one second (RFC 6298, 2.1): nobody has
//! answered.

use crate::layout::{HISTOGRAM_BUCKETS, Stage};

/// What became of a connection.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The endpoint accepted it. Not an end.
    Established = 0,
    /// The endpoint's host answered that nobody listens.
    Refused = 1,
    /// Nobody answered.
    TimedOut = 2,
    /// It could not be sent, or a router said that there is no way.
    Unreachable = 3,
    /// The client gave up within a second, before there was an answer.
    Abandoned = 4,
    /// It was established, and closed in order.
    Closed = 5,
    /// It was established, and the endpoint's side reset it.
    ResetByEndpoint = 6,
    /// It was established, and the client's side reset it: it was closed with data unread, or
    /// without waiting for what was sent.
    ResetByClient = 7,
    /// It was established, and the endpoint no longer answered.
    Lost = 8,
}

/// Number of outcomes.
pub const OUTCOMES: usize = Outcome::ALL.len();

impl Outcome {
    /// Every outcome, in the order of the indexes.
    pub const ALL: [Self; 9] = [
        Self::Established,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Abandoned,
        Self::Closed,
        Self::ResetByEndpoint,
        Self::ResetByClient,
        Self::Lost,
    ];

    /// Whether it is that of a connection that was not established, though nobody but the network
    /// or the endpoint is to blame.
    #[must_use]
    pub const fn is_failed_attempt(self) -> bool {
        matches!(self, Self::Refused | Self::TimedOut | Self::Unreachable)
    }

    /// Whether it is the end of a connection that was established.
    #[must_use]
    pub const fn ends_established(self) -> bool {
        matches!(
            self,
            Self::Closed | Self::ResetByEndpoint | Self::ResetByClient | Self::Lost
        )
    }
}

const EPIPE: u32 = 32;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;

/// After so many nanoseconds without an answer, nobody has answered.
const PATIENCE: u64 = 1_000_000_000;

/// What an error on a socket means for its connection: `None` if that goes on. `is_closed` says whether
/// the socket is in state `TCP_CLOSE`: an ICMP error may be reported on a connection that lives.
#[inline(always)]
#[must_use]
pub const fn of_error(stage: Stage, error: u32, is_closed: bool) -> Option<Outcome> {
    match stage {
        Stage::NotCounted | Stage::Ended => None,
        Stage::Begun => Some(match error {
            ECONNREFUSED => Outcome::Refused,
            ETIMEDOUT => Outcome::TimedOut,
            _ => Outcome::Unreachable,
        }),
        Stage::Established => match error {
            ECONNRESET | EPIPE => Some(Outcome::ResetByEndpoint),
            ETIMEDOUT => Some(Outcome::Lost),
            _ if is_closed => Some(Outcome::Lost),
            _ => None,
        },
    }
}

/// What a reset from the endpoint means.
#[inline(always)]
#[must_use]
pub const fn of_reset_received(stage: Stage) -> Option<Outcome> {
    match stage {
        Stage::NotCounted | Stage::Ended => None,
        Stage::Begun => Some(Outcome::Refused),
        Stage::Established => Some(Outcome::ResetByEndpoint),
    }
}

/// What a reset to the endpoint means. `is_answer` says whether it answers a segment: it ends the
/// connection only if that is closed already.
#[inline(always)]
#[must_use]
pub const fn of_reset_sent(stage: Stage, is_answer: bool, is_closed: bool) -> Option<Outcome> {
    match stage {
        Stage::Established if !is_answer || is_closed => Some(Outcome::ResetByClient),
        _ => None,
    }
}

/// What the end of a socket means, or another connect() of it. `has_sent` says whether a segment was sent,
/// `elapsed` how many nanoseconds ago it was connected.
#[inline(always)]
#[must_use]
pub const fn of_end(stage: Stage, has_sent: bool, elapsed: u64) -> Option<Outcome> {
    match stage {
        Stage::NotCounted | Stage::Ended => None,
        Stage::Begun if !has_sent => Some(Outcome::Unreachable),
        Stage::Begun if elapsed >= PATIENCE => Some(Outcome::TimedOut),
        Stage::Begun => Some(Outcome::Abandoned),
        Stage::Established => Some(Outcome::Closed),
    }
}

/// The stage that a number in a record stands for; one that is none is not counted.
#[inline(always)]
#[must_use]
pub const fn stage(number: u32) -> Stage {
    match number {
        1 => Stage::Begun,
        2 => Stage::Established,
        3 => Stage::Ended,
        _ => Stage::NotCounted,
    }
}

/// Which bucket of a histogram counts a value: the number of its binary digits, or the last.
#[inline(always)]
#[must_use]
pub const fn bucket(value: u64) -> usize {
    // Bit by bit: BPF has no instruction that counts leading zeros.
    let (mut bucket, mut rest) = (0, value);
    let mut step = 32;
    while step > 0 {
        if rest >> step > 0 {
            rest >>= step;
            bucket += step;
        }
        step /= 2;
    }
    let digits = bucket + (rest > 0) as usize;
    if digits < HISTOGRAM_BUCKETS {
        digits
    } else {
        HISTOGRAM_BUCKETS - 1
    }
}

/// What the values in a bucket are below; `None` for the last, which has no bound.
#[must_use]
pub const fn bound(bucket: usize) -> Option<u64> {
    if bucket + 1 < HISTOGRAM_BUCKETS {
        Some(1 << bucket)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    const STAGES: [Stage; 4] = [
        Stage::NotCounted,
        Stage::Begun,
        Stage::Established,
        Stage::Ended,
    ];

    #[test]
    fn what_has_ended_or_is_not_counted_has_no_outcome() {
        for stage in [Stage::NotCounted, Stage::Ended] {
            for flag in [false, true] {
                assert_eq!(of_error(stage, ECONNREFUSED, flag), None);
                assert_eq!(of_reset_received(stage), None);
                assert_eq!(of_reset_sent(stage, flag, true), None);
                assert_eq!(of_end(stage, flag, PATIENCE), None);
            }
        }
    }

    #[test]
    fn an_established_connection_never_fails_as_an_attempt_and_the_reverse() {
        let all = |stage| {
            let errors = (0..200).flat_map(move |error| {
                [false, true].map(|is_closed| of_error(stage, error, is_closed))
            });
            let others = [false, true].into_iter().flat_map(move |flag| {
                [
                    of_reset_received(stage),
                    of_reset_sent(stage, flag, flag),
                    of_reset_sent(stage, flag, !flag),
                    of_end(stage, flag, 0),
                    of_end(stage, flag, PATIENCE),
                ]
            });
            errors.chain(others).flatten().collect::<Vec<_>>()
        };
        assert!(
            all(Stage::Established)
                .iter()
                .all(|end| end.ends_established())
        );
        assert!(all(Stage::Begun).iter().all(|end| !end.ends_established()));
        assert!(!all(Stage::Begun).contains(&Outcome::Established));
    }

    #[test]
    fn an_error_that_leaves_the_connection_alive_ends_nothing() {
        const EHOSTUNREACH: u32 = 113;
        assert_eq!(of_error(Stage::Established, EHOSTUNREACH, false), None);
        assert_eq!(
            of_error(Stage::Established, EHOSTUNREACH, true),
            Some(Outcome::Lost)
        );
        assert_eq!(of_reset_sent(Stage::Established, true, false), None);
    }

    #[test]
    fn who_gives_up_within_a_second_has_abandoned_the_attempt() {
        let of = |elapsed| of_end(Stage::Begun, true, elapsed);
        assert_eq!(of(PATIENCE - 1), Some(Outcome::Abandoned));
        assert_eq!(of(PATIENCE), Some(Outcome::TimedOut));
        assert_eq!(
            of_end(Stage::Begun, false, PATIENCE),
            Some(Outcome::Unreachable)
        );
    }

    #[test]
    fn every_value_is_below_the_bound_of_its_bucket_and_not_below_the_one_before() {
        let edges = (0..64).flat_map(|shift| {
            let edge = 1_u64 << shift;
            [edge - 1, edge, edge + 1]
        });
        for value in edges.chain([u64::MAX]) {
            let bucket = bucket(value);
            assert!(bound(bucket).is_none_or(|bound| value < bound), "{value}");
            let before = bucket.checked_sub(1).and_then(bound);
            assert!(before.is_none_or(|before| value >= before), "{value}");
        }
    }

    #[test]
    fn stages_and_outcomes_are_known_by_their_numbers() {
        for known in STAGES {
            assert_eq!(stage(known as u32), known);
        }
        assert_eq!(stage(4), Stage::NotCounted);
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }
}
