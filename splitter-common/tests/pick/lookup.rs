//! The edges: which leaf owns a position, and what happens where there is nothing to
//! pick.

use proptest::prelude::*;
use splitter_common::layout::MAX_LEAVES;
use splitter_common::pick::{Lattice, endpoint_at, leaf_at};

fn first_that_ends_above(ends: &[u32], position: u32) -> Option<u32> {
    let leaf = ends.iter().position(|end| *end > position)?;
    Some(leaf as u32)
}

fn look_up(ends: &[u32], position: u32) -> Option<u32> {
    leaf_at(position, ends.len() as u32, |leaf| {
        ends.get(leaf as usize).copied()
    })
}

#[test]
fn the_search_agrees_with_a_scan_for_any_number_of_leaves() {
    for leaves in 0..=MAX_LEAVES {
        // Intervals of 0 to 3 positions.
        let mut end = 0;
        let ends: Vec<u32> = (0..leaves)
            .map(|leaf| {
                end += leaf * 7 % 4;
                end
            })
            .collect();
        for position in (0..=end + 1).chain([u32::MAX]) {
            let expected = first_that_ends_above(&ends, position);
            assert_eq!(look_up(&ends, position), expected, "{ends:?} at {position}");
        }
    }
}

#[test]
fn a_search_among_too_many_leaves_stays_among_them() {
    for leaves in [65, 127, 128, 129, 1000, u32::MAX] {
        for position in [0, 1, 63, 64, 65, 1000, u32::MAX - 1, u32::MAX] {
            let found = leaf_at(position, leaves, |leaf| {
                assert!(leaf < leaves, "leaf {leaf} of {leaves}");
                Some(leaf.saturating_add(1))
            });
            assert!(
                found.is_none_or(|leaf| leaf < leaves),
                "{found:?} of {leaves}"
            );
        }
    }
}

#[test]
fn a_leaf_that_cannot_be_read_ends_the_search() {
    assert_eq!(leaf_at(0, 3, |_| None), None);
}

#[test]
fn there_is_no_position_and_no_endpoint_only_where_there_are_none() {
    for n in [0, 1, u64::MAX] {
        assert_eq!(Lattice::new(0, n, u32::MAX).position(n), None);
        assert_eq!(endpoint_at(n, n, 0), None);
        assert_eq!(Lattice::new(1, n, u32::MAX).position(n), Some(0));
        assert_eq!(endpoint_at(n, n, 1), Some(0));
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    for size in [1, 2, 3, 1 << 31, u32::MAX - 1, u32::MAX] {
        for n in [
            0,
            u64::from(size) - 1,
            u64::from(size),
            u64::MAX - 1,
            u64::MAX,
        ] {
            for seed in [0, 1, u64::MAX] {
                // The largest step and shift that a record may hold, not only those of `new`.
                let lattice = Lattice {
                    size,
                    step: u32::MAX,
                    shift: size - 1,
                    seed,
                };
                assert!(lattice.position(n).is_some_and(|position| position < size));
                assert!(endpoint_at(seed, n, size).is_some_and(|endpoint| endpoint < size));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn positions_and_endpoints_are_always_in_range(
        size in 1..=u32::MAX,
        step: u32,
        shift: u32,
        seed: u64,
        n: u64,
    ) {
        let lattice = Lattice { size, step, shift, seed };
        prop_assert!(lattice.position(n).is_some_and(|position| position < size));
        prop_assert!(endpoint_at(seed, n, size).is_some_and(|endpoint| endpoint < size));
    }

    #[test]
    fn the_shift_of_a_node_is_its_fraction_of_the_block(size: u32, seed: u64, fraction: u32) {
        let shift = Lattice::new(size, seed, fraction).shift;
        prop_assert!(shift < size || size == 0);
        let ideal = f64::from(fraction) / 4_294_967_296.0 * f64::from(size);
        prop_assert!((f64::from(shift) - ideal).abs() <= 1.0);
    }

    #[test]
    fn the_search_agrees_with_a_scan(
        shares in proptest::collection::vec(
            prop_oneof![Just(0_u32), 1..10_u32, 1..u32::MAX / MAX_LEAVES],
            0..=MAX_LEAVES as usize,
        ),
        position: u32,
    ) {
        let mut ends = Vec::new();
        let mut end = 0;
        for share in shares {
            end += share;
            ends.push(end);
        }
        let edges: Vec<u32> = ends.iter().flat_map(|end| [end.saturating_sub(1), *end, end + 1]).collect();
        for position in edges.into_iter().chain([0, position]) {
            prop_assert_eq!(look_up(&ends, position), first_that_ends_above(&ends, position));
        }
    }
}
