//! Leaves have their shares: exactly after whole blocks, nearly at any time.

use proptest::prelude::*;
use splitter_common::layout::MAX_LEAVES;

use super::{Split, bound};

/// Follows so many connections from the beginning of a block, and looks at the error of
/// every leaf after each of them.
fn check(shares: &[u32], seed: u64, fraction: u32, block: u64, connections: u64) {
    let split = Split::new(shares, seed, fraction);
    let size = i64::from(split.lattice.size);
    let first = block * u64::from(split.lattice.size);
    // In parts of 1 / W of a connection, so that everything is a whole number.
    let allowed = (bound(split.lattice.size) * size as f64) as i64;
    let mut counts = vec![0_i64; shares.len()];
    let error = |count: i64, done: i64, leaf: usize| count * size - done * i64::from(shares[leaf]);
    for (n, done) in (first..first + connections).zip(0_i64..) {
        let leaf = split.leaf(n);
        // A leaf's error falls while others are picked and jumps when it is: its extremes
        // are just before and just after.
        let before = error(counts[leaf], done, leaf);
        counts[leaf] += 1;
        let after = error(counts[leaf], done + 1, leaf);
        assert!(
            before >= -allowed && after <= allowed,
            "{shares:?} seed {seed} fraction {fraction}: leaf {leaf} is off by {before} or \
             {after} / {size} at connection {n}"
        );
        if (done + 1) % size == 0 {
            for (leaf, count) in counts.iter().enumerate() {
                assert_eq!(
                    error(*count, done + 1, leaf),
                    0,
                    "{shares:?} after {n}: leaf {leaf}"
                );
            }
        }
    }
    for (leaf, count) in counts.iter().enumerate() {
        let error = error(*count, connections as i64, leaf);
        assert!(
            error.abs() <= allowed,
            "{shares:?}: leaf {leaf} is off by {error} / {size}"
        );
        assert!(
            shares[leaf] > 0 || *count == 0,
            "{shares:?}: leaf {leaf} has no share"
        );
    }
}

#[test]
fn common_weights_are_exact_over_ten_million_connections() {
    for (shares, seed) in [
        (&[1, 999][..], 1),
        (&[1, 9999], 2),
        (&[9999, 1], 3),
        (&[3, 0, 7, 90], 4),
        (&[65_535, 1], 5),
        (&[999_999, 1], 6),
    ] {
        check(shares, seed, (seed as u32) << 29, 0, 10_000_000);
    }
}

#[test]
fn small_weights_are_exact_over_a_million_connections() {
    for shares in [
        &[1][..],
        &[1, 1],
        &[1, 2],
        &[1, 1, 1],
        &[9, 1],
        &[1, 99],
        &[50, 51],
    ] {
        check(shares, 6, 0, 0, 1_000_000);
    }
}

#[test]
fn the_largest_sums_keep_to_their_shares() {
    for shares in [
        &[1, u32::MAX - 1][..],
        &[u32::MAX - 1, 1],
        &[u32::MAX / 2, u32::MAX / 2],
        &[1, u32::MAX / 3, 1, u32::MAX / 2],
        &[u32::MAX],
        &[u32::MAX / 64; 64],
    ] {
        check(shares, 7, u32::MAX, 0, 1_000_000);
        // Up to the last block whose numbers fit 64 bits.
        check(shares, 7, u32::MAX, u64::from(u32::MAX), 10_000);
    }
    check(
        &[1_431_655_765, 1_431_655_764, 1_431_655_766],
        8,
        9,
        0,
        10_000_000,
    );
}

#[test]
fn leaves_without_a_share_are_never_picked_wherever_they_stand() {
    for shares in [
        &[0, 0, 5][..],
        &[5, 0, 0, 3],
        &[5, 0, 0],
        &[0, 1, 0],
        &[0, 3, 0, 7, 0],
    ] {
        check(shares, 9, 1 << 31, 0, 10_000);
    }
}

fn share() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), 1..10_u32, 1..1000_u32]
}

fn shares_of(share: impl Strategy<Value = u32>) -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(share, 1..=MAX_LEAVES as usize)
        .prop_filter("no leaf has a share", |shares| {
            shares.iter().any(|share| *share > 0)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_small_shares_are_kept_to(
        shares in shares_of(share()),
        seed: u64,
        fraction: u32,
        block in 0..1_u64 << 32,
        part in 0..1000_u64,
    ) {
        let size: u32 = shares.iter().sum();
        check(&shares, seed, fraction, block, u64::from(size) * (2000 + part) / 1000);
    }

    #[test]
    fn any_large_shares_are_kept_to(
        shares in shares_of(prop_oneof![Just(0), 0..u32::MAX / MAX_LEAVES]),
        seed: u64,
        fraction: u32,
        connections in 0..20_000_u64,
    ) {
        check(&shares, seed, fraction, 0, connections);
    }

    #[test]
    fn any_two_leaves_keep_to_their_shares(
        size in 2..u32::MAX,
        part: u32,
        seed: u64,
        fraction: u32,
        connections in 0..20_000_u64,
    ) {
        let share = ((u64::from(part) * u64::from(size)) >> 32) as u32;
        check(&[share, size - share], seed, fraction, 0, connections);
    }
}
