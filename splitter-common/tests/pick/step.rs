//! The step of a lattice.

use proptest::prelude::*;
use splitter_common::pick::{hash, step_for};

use super::continued_fraction::quotients;

/// The largest sum of partial quotients for a size. If all are 1, there are 1.44 for each
/// bit of the size, and that is the least.
fn largest_sum(size: u32) -> f64 {
    3.0 + 1.75 * f64::from(size).log2()
}

fn check(size: u32) {
    let step = step_for(size);
    assert!(step > 0 && step < size, "{size}: {step}");
    let quotients =
        quotients(size, step).unwrap_or_else(|| panic!("{step} and {size} have a common divisor"));
    let sum: u32 = quotients.iter().sum();
    assert!(
        f64::from(sum) <= largest_sum(size),
        "{size} / {step}: {quotients:?}"
    );
    let limit = if size <= 65_536 { 6 } else { 12 };
    assert!(
        quotients.iter().all(|quotient| *quotient <= limit),
        "{size} / {step}: {quotients:?}"
    );
}

#[test]
fn there_is_a_step_of_one_where_there_is_no_choice() {
    assert_eq!([0, 1, 2].map(step_for), [1, 1, 1]);
}

#[test]
fn steps_are_coprime_to_the_size_and_have_small_quotients() {
    let fibonacci = [89, 144, 75_025, 2_971_215_073];
    // Products of the first primes, which have the fewest coprime neighbours.
    let primorials = [30, 210, 2310, 30_030, 510_510, 9_699_690, 223_092_870];
    let largest = [u32::MAX, u32::MAX - 64, 1 << 31];
    let sampled = (5000..100_000).step_by(7);
    for size in (3..5000)
        .chain(sampled)
        .chain(fibonacci)
        .chain(primorials)
        .chain(largest)
    {
        check(size);
    }
    for number in 0..5000 {
        check(hash(number).max(3));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_size_has_a_step(size in 3..=u32::MAX) {
        check(size);
    }
}
