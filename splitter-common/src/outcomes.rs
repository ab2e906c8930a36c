//! What came of a connection, as the kernel tells it: by an error on its socket, by a reset that is
//! sent or received, or by nothing but the end of the socket.
//!
//! | stage | told | outcome |
//! |---|---|---|
//! | begun | a reset is received, `ECONNREFUSED` | refused |
//! | begun | `ETIMEDOUT` | timed out |
//! | begun | `ECONNRESET`, `ECONNABORTED`: the client gave up without closing | as at the socket's end |
//! | begun | any other error | unreachable |
//! | begun | the socket ends, and has sent nothing | unreachable |
//! | begun | the socket ends after a second or more | timed out |
//! | begun | the socket ends sooner | abandoned |
//! | established | a reset is received | reset by the endpoint |
//! | established | a reset is received after the client has closed the socket | closed |
//! | established | a reset is sent when the socket is closed; `ECONNABORTED` | reset by the client |
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
const ENETUNREACH: u32 = 101;
const ECONNABORTED: u32 = 103;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;

/// After so many nanoseconds without an answer, nobody has answered.
const PATIENCE: u64 = 1_000_000_000;

/// What a socket says of itself when something is told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// Its error (`sk_err`); 0 if none, or if its owner has fetched it already.
    pub error: u32,
    /// The last error that did not end it (`sk_err_soft`).
    pub soft_error: u32,
    /// Whether it is in state `TCP_CLOSE`.
    pub is_closed: bool,
    /// Whether its owner has closed it.
    pub is_orphan: bool,
    /// Whether it has sent a segment.
    pub has_sent: bool,
    /// How many nanoseconds ago it was connected.
    pub elapsed: u64,
}

/// What an error on a socket means for its connection: `None` if that goes on, or if its end will
/// tell.
#[inline(always)]
#[must_use]
pub const fn of_error(stage: Stage, socket: SocketState) -> Option<Outcome> {
    match (stage, socket.error) {
        (Stage::NotCounted | Stage::Ended, _) | (Stage::Begun, 0) => None,
        (Stage::Begun, ECONNREFUSED) => Some(Outcome::Refused),
        (Stage::Begun, ETIMEDOUT) => Some(Outcome::TimedOut),
        // It is disconnected (`tcp_disconnect`), and no longer knows that it has sent something.
        (Stage::Begun, ECONNRESET | ECONNABORTED) => Some(given_up(socket.elapsed)),
        (Stage::Begun, _) => Some(Outcome::Unreachable),
        (Stage::Established, ECONNRESET | EPIPE) => Some(Outcome::ResetByEndpoint),
        (Stage::Established, ECONNABORTED) => Some(Outcome::ResetByClient),
        (Stage::Established, ETIMEDOUT) => Some(Outcome::Lost),
        (Stage::Established, 0) if socket.is_closed => Some(Outcome::Closed),
        (Stage::Established, 0) => None,
        // With `IP_RECVERR`, ICMP errors are reported on connections that live.
        (Stage::Established, error) if socket.is_closed || error == socket.soft_error => {
            Some(Outcome::Lost)
        }
        (Stage::Established, _) => None,
    }
}

/// What a reset means that the kernel takes for one from the endpoint. It does so also when data comes
/// for a socket that its owner has closed.
#[inline(always)]
#[must_use]
pub const fn of_reset_received(stage: Stage, socket: SocketState) -> Option<Outcome> {
    match stage {
        Stage::NotCounted | Stage::Ended => None,
        Stage::Begun => Some(Outcome::Refused),
        Stage::Established if socket.is_orphan => Some(Outcome::Closed),
        Stage::Established => Some(Outcome::ResetByEndpoint),
    }
}

/// What a reset to the endpoint means. Whatever closes a connection by one closes the socket first; others
/// answer a stray segment, or come before the error that tells why (keepalive).
#[inline(always)]
#[must_use]
pub const fn of_reset_sent(stage: Stage, socket: SocketState) -> Option<Outcome> {
    match stage {
        Stage::Established if socket.is_closed => Some(Outcome::ResetByClient),
        _ => None,
    }
}

/// What the end of a socket means.
#[inline(always)]
#[must_use]
pub const fn of_end(stage: Stage, socket: SocketState) -> Option<Outcome> {
    match stage {
        Stage::NotCounted | Stage::Ended => None,
        Stage::Begun if !socket.has_sent => Some(Outcome::Unreachable),
        Stage::Begun => Some(given_up(socket.elapsed)),
        Stage::Established => Some(match socket.error {
            ETIMEDOUT | EHOSTUNREACH | ENETUNREACH => Outcome::Lost,
            _ => Outcome::Closed,
        }),
    }
}

/// What it means that nobody waits for an answer any more.
const fn given_up(elapsed: u64) -> Outcome {
    if elapsed >= PATIENCE {
        Outcome::TimedOut
    } else {
        Outcome::Abandoned
    }
}

/// The stage that a number in a record stands for; one that is none is not counted.
#[inline(always)]
#[must_use]
pub const fn stage(number: u8) -> Stage {
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

    /// Sockets in every state that matters.
    fn sockets() -> impl Iterator<Item = SocketState> {
        let flags = (0..8_u8).flat_map(|flags| (0..150).map(move |error| (flags, error)));
        flags.flat_map(|(flags, error)| {
            [(0, 0), (EHOSTUNREACH, PATIENCE)].map(|(soft_error, elapsed)| SocketState {
                error,
                soft_error,
                is_closed: flags & 1 != 0,
                is_orphan: flags & 2 != 0,
                has_sent: flags & 4 != 0,
                elapsed,
            })
        })
    }

    /// Everything that may come of a connection in a stage.
    fn all(stage: Stage) -> Vec<Outcome> {
        let told = sockets().flat_map(|socket| {
            [
                of_error(stage, socket),
                of_reset_received(stage, socket),
                of_reset_sent(stage, socket),
                of_end(stage, socket),
            ]
        });
        told.flatten().collect()
    }

    #[test]
    fn what_has_ended_or_is_not_counted_has_no_outcome() {
        assert_eq!(all(Stage::NotCounted), []);
        assert_eq!(all(Stage::Ended), []);
    }

    #[test]
    fn an_established_connection_never_fails_as_an_attempt_and_the_reverse() {
        let established = all(Stage::Established);
        assert!(established.iter().all(|end| end.ends_established()));
        let begun = all(Stage::Begun);
        assert!(begun.iter().all(|end| !end.ends_established()));
        assert!(!begun.contains(&Outcome::Established));
    }

    #[test]
    fn every_socket_that_ends_ends_what_was_counted() {
        for socket in sockets() {
            assert!(of_end(Stage::Begun, socket).is_some());
            assert!(of_end(Stage::Established, socket).is_some());
        }
    }

    #[test]
    fn an_error_that_leaves_the_connection_alive_ends_nothing() {
        let mut socket = SocketState {
            error: EHOSTUNREACH,
            ..SocketState::default()
        };
        assert_eq!(of_error(Stage::Established, socket), None);
        assert_eq!(of_reset_sent(Stage::Established, socket), None);
        socket.soft_error = EHOSTUNREACH;
        assert_eq!(of_error(Stage::Established, socket), Some(Outcome::Lost));
        socket.soft_error = 0;
        socket.is_closed = true;
        assert_eq!(of_error(Stage::Established, socket), Some(Outcome::Lost));
        // Timestamps are reported like errors.
        let nothing = SocketState::default();
        assert_eq!(of_error(Stage::Begun, nothing), None);
        assert_eq!(of_error(Stage::Established, nothing), None);
    }

    #[test]
    fn a_keepalive_that_nobody_answers_is_a_loss_though_a_reset_is_sent_first() {
        let mut socket = SocketState::default();
        assert_eq!(of_reset_sent(Stage::Established, socket), None);
        socket.error = ETIMEDOUT;
        assert_eq!(of_error(Stage::Established, socket), Some(Outcome::Lost));
    }

    #[test]
    fn who_gives_up_within_a_second_has_abandoned_the_attempt() {
        let mut socket = SocketState {
            has_sent: true,
            elapsed: PATIENCE - 1,
            ..SocketState::default()
        };
        assert_eq!(of_end(Stage::Begun, socket), Some(Outcome::Abandoned));
        socket.error = ECONNRESET;
        assert_eq!(of_error(Stage::Begun, socket), Some(Outcome::Abandoned));
        socket.elapsed = PATIENCE;
        assert_eq!(of_error(Stage::Begun, socket), Some(Outcome::TimedOut));
        assert_eq!(of_end(Stage::Begun, socket), Some(Outcome::TimedOut));
        socket.has_sent = false;
        assert_eq!(of_end(Stage::Begun, socket), Some(Outcome::Unreachable));
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
            assert_eq!(stage(known as u8), known);
        }
        assert_eq!(stage(4), Stage::NotCounted);
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }
}
