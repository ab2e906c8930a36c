//! Endpoints of a leaf take turns.

use proptest::prelude::*;
use splitter_common::pick::endpoint_at;

/// Counts the turns of each endpoint, and what each should have had.
struct Tally {
    counts: Vec<i64>,
    ideal: f64,
}

impl Tally {
    fn new(endpoints: u32) -> Self {
        Self {
            counts: vec![0; endpoints as usize],
            ideal: 0.0,
        }
    }

    /// Takes these turns among the first `endpoints`, and gives the largest error that
    /// any of them had after any turn.
    fn take(&mut self, seed: u64, turns: std::ops::Range<u64>, endpoints: u32) -> f64 {
        let mut largest = 0.0_f64;
        for turn in turns {
            let endpoint = endpoint_at(seed, turn, endpoints).expect("an endpoint") as usize;
            let before = self.counts[endpoint] as f64 - self.ideal;
            self.counts[endpoint] += 1;
            self.ideal += 1.0 / f64::from(endpoints);
            let after = self.counts[endpoint] as f64 - self.ideal;
            largest = largest.max(before.abs()).max(after.abs());
        }
        for count in self.counts.iter().take(endpoints as usize) {
            largest = largest.max((*count as f64 - self.ideal).abs());
        }
        largest
    }
}

/// What adding up fractions may cost.
const ROUNDING: f64 = 1e-6;

#[test]
fn at_any_turn_every_endpoint_is_less_than_one_off() {
    for endpoints in [1, 2, 3, 7, 10, 64, 100, 999, 1000] {
        let error = Tally::new(endpoints).take(1, 0..1_000_000, endpoints);
        assert!(error < 1.0 + ROUNDING, "{endpoints}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_any_whole_round_every_endpoint_has_one_turn(
        seed: u64,
        round in 0..1_u64 << 50,
        endpoints in 1..=1000_u32,
    ) {
        let first = round * u64::from(endpoints);
        let turns = first..first + u64::from(endpoints);
        let mut visited: Vec<u32> =
            turns.map(|turn| endpoint_at(seed, turn, endpoints).expect("an endpoint")).collect();
        visited.sort_unstable();
        prop_assert!(visited.into_iter().eq(0..endpoints));
    }

    #[test]
    fn at_any_turn_any_number_of_endpoints_is_less_than_one_off(
        seed: u64,
        endpoints in 1..=1000_u32,
        turns in 0..10_000_u64,
    ) {
        let error = Tally::new(endpoints).take(seed, 0..turns, endpoints);
        prop_assert!(error < 1.0 + ROUNDING, "{error}");
    }

    /// The counter goes on when the number of endpoints changes, in the middle of a round
    /// both of the old number and of the new one. Each of the two cut rounds is one that an
    /// endpoint may have had its turn in, or not: with each change the error may grow by
    /// two, and by no more.
    #[test]
    fn each_change_of_the_endpoints_adds_less_than_two(
        seed: u64,
        phases in proptest::collection::vec((1..=1000_u32, 0..5000_u64), 1..5),
    ) {
        let always_there = phases.iter().map(|(endpoints, _)| *endpoints).min().unwrap_or(1);
        let mut tally = Tally::new(1000);
        let (mut first, mut allowed) = (0, 1.0 + ROUNDING);
        for (endpoints, turns) in phases {
            tally.take(seed, first..first + turns, endpoints);
            first += turns;
            for count in tally.counts.iter().take(always_there as usize) {
                let error = (*count as f64 - tally.ideal).abs();
                prop_assert!(error < allowed, "{error} of {allowed}");
            }
            allowed += 2.0;
        }
    }
}
