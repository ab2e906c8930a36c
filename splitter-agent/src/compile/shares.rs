//! From weights of any size to shares that the kernel can count in.

/// Largest sum of shares: they are counted in 32 bits, with room to spare for a
/// position each of [`splitter_common::layout::MAX_LEAVES`] leaves.
const LARGEST_SUM: u128 = (u32::MAX - 64) as u128;

/// Shares in the ratio of the weights, without a common divisor.
///
/// The ratio is exact as long as the sum fits. Beyond that shares are rounded by largest
/// remainder, and a weight above 0 keeps a share of at least 1. Weights that are all 0
/// give shares that are all 0.
#[must_use]
pub fn shares(weights: &[u128]) -> Vec<u32> {
    let mut weights = weights.to_vec();
    divide_by_common_divisor(&mut weights);
    let sum = shrink(&mut weights);
    if sum > LARGEST_SUM {
        apportion(&mut weights, sum);
        divide_by_common_divisor(&mut weights);
    }
    weights
        .into_iter()
        .map(|weight| u32::try_from(weight).unwrap_or(u32::MAX))
        .collect()
}

fn divide_by_common_divisor(weights: &mut [u128]) {
    let divisor = weights.iter().copied().fold(0, common_divisor);
    if divisor > 1 {
        for weight in weights {
            *weight /= divisor;
        }
    }
}

fn common_divisor(a: u128, b: u128) -> u128 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Drops low bits until the sum stays below 2^96, so that its product with a share
/// fits; gives the sum. What is dropped is 2^32 times finer than a share.
fn shrink(weights: &mut [u128]) -> u128 {
    const LARGEST: u128 = 1 << 96;
    loop {
        let sum = weights
            .iter()
            .try_fold(0u128, |sum, weight| sum.checked_add(*weight));
        match sum {
            Some(sum) if sum < LARGEST => return sum,
            _ => {
                for weight in weights.iter_mut().filter(|weight| **weight > 1) {
                    *weight >>= 1;
                }
            }
        }
    }
}

/// Scales the weights, whose sum is `sum`, to a sum of `LARGEST_SUM`.
fn apportion(weights: &mut [u128], sum: u128) {
    let mut remainders: Vec<(u128, usize)> = Vec::with_capacity(weights.len());
    let mut total = 0;
    for (index, weight) in weights.iter_mut().enumerate() {
        if *weight == 0 {
            continue;
        }
        let product = *weight * LARGEST_SUM;
        let share = product / sum;
        if share > 0 {
            remainders.push((product % sum, index));
        }
        *weight = share.max(1);
        total += *weight;
    }
    // Fewer are left over than there are remainders, since each is below one share.
    // Equal remainders: the first leaf first.
    remainders.sort_by_key(|(remainder, index)| (std::cmp::Reverse(*remainder), *index));
    let left_over = usize::try_from(LARGEST_SUM.saturating_sub(total)).unwrap_or(usize::MAX);
    for (_, index) in remainders.iter().take(left_over) {
        if let Some(share) = weights.get_mut(*index) {
            *share += 1;
        }
    }
    // Those that were raised to 1 are paid for by the largest.
    let excess = total.saturating_sub(LARGEST_SUM);
    if let Some(largest) = weights.iter_mut().max() {
        *largest = largest.saturating_sub(excess).max(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_weights_are_exact() {
        assert_eq!(shares(&[]), Vec::<u32>::new());
        assert_eq!(shares(&[0, 0]), [0, 0]);
        assert_eq!(shares(&[90, 10]), [9, 1]);
        assert_eq!(shares(&[1_000_000_000, 500_000_000]), [2, 1]);
        assert_eq!(shares(&[0, 7]), [0, 1]);
        assert_eq!(shares(&[3, 3, 3]), [1, 1, 1]);
        assert_eq!(shares(&[u128::from(u32::MAX) - 65, 1]), [u32::MAX - 65, 1]);
    }

    #[test]
    fn large_weights_are_scaled() {
        assert_eq!(shares(&[u128::MAX, u128::MAX]), [1, 1]);
        assert_eq!(shares(&[u128::MAX, 1]), [u32::MAX - 65, 1]);
        let many = [vec![u128::MAX], vec![1; 63]].concat();
        let scaled = shares(&many);
        assert_eq!(scaled[0], u32::MAX - 64 - 63);
        assert!(scaled[1..].iter().all(|share| *share == 1));
    }

    fn weight() -> impl Strategy<Value = u128> {
        prop_oneof![
            Just(0),
            0..1000u128,
            any::<u32>().prop_map(u128::from),
            any::<u128>()
        ]
    }

    proptest! {
        #[test]
        fn what_holds_for_any_weights(weights in proptest::collection::vec(weight(), 0..=64)) {
            let shares = shares(&weights);
            prop_assert_eq!(shares.len(), weights.len());
            let sum: u128 = shares.iter().map(|share| u128::from(*share)).sum();
            prop_assert!(sum <= LARGEST_SUM);
            for (weight, share) in weights.iter().zip(&shares) {
                prop_assert_eq!(*weight > 0, *share > 0);
            }
            let divisor = shares.iter().map(|share| u128::from(*share)).fold(0, common_divisor);
            prop_assert!(divisor <= 1);
            prop_assert_eq!(divisor == 0, weights.iter().all(|weight| *weight == 0));
        }

        #[test]
        fn ratios_are_exact_when_they_fit(
            small in proptest::collection::vec(0..60_000_000u32, 1..=64),
            factor in 1..=u128::from(u64::MAX),
        ) {
            let weights: Vec<u128> = small.iter().map(|w| u128::from(*w) * factor).collect();
            let shares = shares(&weights);
            for (a, share_a) in small.iter().zip(&shares) {
                for (b, share_b) in small.iter().zip(&shares) {
                    prop_assert_eq!(
                        u64::from(*a) * u64::from(*share_b),
                        u64::from(*b) * u64::from(*share_a)
                    );
                }
            }
        }

        #[test]
        fn scaled_shares_are_off_by_little(
            weights in proptest::collection::vec(any::<u64>().prop_map(u128::from), 2..=64),
        ) {
            let shares = shares(&weights);
            let weight_sum: u128 = weights.iter().sum();
            let share_sum: u128 = shares.iter().map(|share| u128::from(*share)).sum();
            prop_assume!(weight_sum > 0);
            for (weight, share) in weights.iter().zip(&shares) {
                let wanted = *weight as f64 / weight_sum as f64;
                let given = f64::from(*share) / share_sum as f64;
                prop_assert!((wanted - given).abs() < 128.0 / share_sum as f64 + 1e-12);
            }
        }
    }
}
