//! Who is the leader: a decision about a Lease, without I/O.
//!
//! Clocks of nodes differ, so no timestamp in the Lease is ever compared with a clock of
//! ours. A candidate notes when it saw the record change, and takes over when the record has
//! stood still for as long as its holder said it may.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::LeaseSpec;

/// What the record says of its holder is believed within these bounds.
const PERMITTED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// There is no Lease: create it.
    Create,
    /// Nobody holds it, or its holder has been silent for too long: take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// Another holds it for at least so long.
    Wait(Duration),
}

/// A Lease as this process has followed it.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    spec: Option<LeaseSpec>,
    since: Option<Instant>,
}

impl Observed {
    /// Takes note of what the Lease says now; `true` if its holder is another than before.
    pub(super) fn see(&mut self, spec: Option<LeaseSpec>, now: Instant) -> bool {
        if self.since.is_some() && self.spec == spec {
            return false;
        }
        let before = self.holder().to_owned();
        self.spec = spec;
        self.since = Some(now);
        self.holder() != before
    }

    /// The holder; empty if there is none.
    pub(super) fn holder(&self) -> &str {
        self.spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_deref())
            .unwrap_or_default()
    }

    /// What to do now; `ours` is how long a Lease lasts that does not say.
    pub(super) fn decide(&self, me: &str, ours: Duration, now: Instant) -> Action {
        let Some(spec) = &self.spec else {
            return Action::Create;
        };
        match self.holder() {
            "" => return Action::Acquire,
            holder if holder == me => return Action::Renew,
            _ => {}
        }
        let lasts = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(ours, Duration::from_secs)
            .clamp(PERMITTED.0, PERMITTED.1);
        let seen = self
            .since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        match lasts.checked_sub(seen) {
            Some(rest) if !rest.is_zero() => Action::Wait(rest),
            _ => Action::Acquire,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    const OURS: Duration = Duration::from_secs(60);

    fn held(holder: &str, renewed: i64, lasts: i32) -> Option<LeaseSpec> {
        Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).expect("a time"))),
            lease_duration_seconds: Some(lasts),
            ..LeaseSpec::default()
        })
    }

    fn seen(spec: Option<LeaseSpec>, now: Instant) -> Observed {
        let mut observed = Observed::default();
        observed.see(spec, now);
        observed
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken_at_once() {
        let now = Instant::now();
        assert_eq!(
            seen(None, now).decide("me", OURS, now),
            Action::Create,
            "no Lease"
        );
        for spec in [Some(LeaseSpec::default()), held("", 5, 60)] {
            assert_eq!(
                seen(spec.clone(), now).decide("me", OURS, now),
                Action::Acquire,
                "{spec:?}"
            );
        }
    }

    #[test]
    fn our_own_lease_is_renewed_even_by_a_process_that_just_started() {
        let now = Instant::now();
        let observed = seen(held("me", 5, 60), now);
        assert_eq!(observed.decide("me", OURS, now), Action::Renew);
    }

    #[test]
    fn an_old_timestamp_from_a_clock_that_is_wrong_does_not_cost_the_holder_its_lease() {
        let now = Instant::now();
        let observed = seen(held("other", 5, 60), now);
        assert_eq!(
            observed.decide("me", OURS, now + Duration::from_secs(59)),
            Action::Wait(Duration::from_secs(1))
        );
        assert_eq!(
            observed.decide("me", OURS, now + Duration::from_secs(60)),
            Action::Acquire
        );
    }

    #[test]
    fn a_renewal_starts_the_wait_again() {
        let start = Instant::now();
        let mut observed = seen(held("other", 5, 60), start);
        let renewed = start + Duration::from_secs(50);
        assert!(!observed.see(held("other", 5, 60), start + Duration::from_secs(30)));
        assert!(!observed.see(held("other", 6, 60), renewed));
        assert_eq!(
            observed.decide("me", OURS, renewed + Duration::from_secs(20)),
            Action::Wait(Duration::from_secs(40))
        );
    }

    #[test]
    fn nonsense_in_the_record_is_bounded() {
        let now = Instant::now();
        for (lasts, wait) in [
            (-1, OURS),
            (i32::MAX, PERMITTED.1),
            (i32::MIN, OURS),
            (0, PERMITTED.0),
        ] {
            assert_eq!(
                seen(held("other", 5, lasts), now).decide("me", OURS, now),
                Action::Wait(wait),
                "{lasts}"
            );
        }
    }
}
