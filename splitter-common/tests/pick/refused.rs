//! A leaf with a share and no endpoints: what falls to it is refused.

use proptest::prelude::*;
use splitter_common::layout::MAX_LEAVES;

use super::Split;

/// What became of connections.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Of each leaf, how many its endpoints got.
    landed: Vec<Vec<u64>>,
    /// Of each leaf, how many were refused.
    refused: Vec<u64>,
}

/// Connects so often, as the kernel does: `turns` are the leaves' counters.
fn connect(split: &Split, turns: &mut [u64], endpoints: &[u32], first: u64, count: u64) -> Outcome {
    let mut outcome = Outcome {
        landed: endpoints
            .iter()
            .map(|count| vec![0; *count as usize])
            .collect(),
        refused: vec![0; endpoints.len()],
    };
    for n in first..first + count {
        let leaf = split.leaf(n);
        let endpoint = split
            .lattice
            .endpoint(leaf as u32, turns[leaf], endpoints[leaf]);
        turns[leaf] += 1;
        match endpoint {
            Some(endpoint) => outcome.landed[leaf][endpoint as usize] += 1,
            None => outcome.refused[leaf] += 1,
        }
    }
    outcome
}

fn leaves() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let share = prop_oneof![Just(0), 1..10_u32, 1..200_u32];
    let endpoints = prop_oneof![Just(0), 1..5_u32];
    proptest::collection::vec((share, endpoints), 1..=MAX_LEAVES as usize)
        .prop_filter("no leaf has a share", |leaves| {
            leaves.iter().any(|(share, _)| *share > 0)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_every_block_exactly_the_share_of_the_leaves_without_endpoints_is_refused(
        leaves in leaves(),
        seed: u64,
        fraction: u32,
        blocks in 1..4_u64,
    ) {
        let (shares, endpoints): (Vec<u32>, Vec<u32>) = leaves.into_iter().unzip();
        let split = Split::new(&shares, seed, fraction);
        let mut turns = vec![0; shares.len()];
        let count = blocks * u64::from(split.lattice.size);

        let outcome = connect(&split, &mut turns, &endpoints, 0, count);

        for (leaf, share) in shares.iter().enumerate() {
            let due = blocks * u64::from(*share);
            let landed: u64 = outcome.landed[leaf].iter().sum();
            let expected = if endpoints[leaf] == 0 { (0, due) } else { (due, 0) };
            prop_assert_eq!((landed, outcome.refused[leaf]), expected, "leaf {}", leaf);
        }
    }

    #[test]
    fn endpoints_that_come_and_go_move_nothing_between_leaves(
        leaves in leaves(),
        seed: u64,
        phases in proptest::collection::vec((1..300_u64, any::<u64>()), 1..5),
    ) {
        let (shares, endpoints): (Vec<u32>, Vec<u32>) = leaves.into_iter().unzip();
        let split = Split::new(&shares, seed, 0);
        let mut turns = vec![0; shares.len()];
        let mut first = 0;
        for (count, present) in phases {
            // Which of the leaves have their endpoints in this phase.
            let now: Vec<u32> = endpoints
                .iter()
                .enumerate()
                .map(|(leaf, count)| if present >> (leaf % 64) & 1 == 1 { *count } else { 0 })
                .collect();
            let due: Vec<u64> = (0..shares.len())
                .map(|leaf| (first..first + count).filter(|n| split.leaf(*n) == leaf).count() as u64)
                .collect();

            let outcome = connect(&split, &mut turns, &now, first, count);

            for (leaf, due) in due.into_iter().enumerate() {
                let landed: u64 = outcome.landed[leaf].iter().sum();
                let expected = if now[leaf] == 0 { (0, due) } else { (due, 0) };
                prop_assert_eq!((landed, outcome.refused[leaf]), expected, "leaf {}", leaf);
            }
            first += count;
        }
    }
}
