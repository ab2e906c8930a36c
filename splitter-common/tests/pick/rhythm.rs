//! No client falls into step with the pick. A client that makes every k-th connection
//! sees the leaves in their shares, and the endpoints of a leaf that it takes every k-th
//! turn of alike: the shift of each block and round is fresh.
//!
//! How far its counts may be off follows from theory: the shifts of different blocks are
//! as good as independent, and what a client gets of one block is known exactly.

use splitter_common::pick::{endpoint_at, hash, mix};

use super::Split;
use super::continued_fraction::quotients;

/// Connections or turns of a client that are looked at.
const CALLS: u64 = 20_000;

/// Logarithm of how unlikely it is that chance exceeds what is allowed: e^-18, for each
/// of some 10^5 counts.
const UNLIKELY: f64 = 18.0;

/// What chance may do to a sum of so many independent numbers of this variance, each off
/// its mean by at most `largest` (Bernstein's inequality).
fn chance(numbers: f64, variance: f64, largest: f64) -> f64 {
    (2.0 * numbers * variance * UNLIKELY).sqrt() + largest * UNLIKELY * 2.0 / 3.0
}

/// By how many of its connections to a leaf a client may be off that makes every
/// `cycle`-th connection.
fn allowed(split: &Split, cycle: u32, share: u32) -> f64 {
    let size = split.lattice.size;
    // What the client has of a block lies on a lattice too. A block that it has only begun
    // is off by three and the sum of the partial quotients at most (Niederreiter).
    let step = (u64::from(split.lattice.step) * u64::from(cycle) % u64::from(size)) as u32;
    let divisor = common_divisor(size, step);
    let quotients = quotients(size / divisor, step / divisor).expect("coprime numbers");
    let begun = f64::from(3 + quotients.iter().sum::<u32>());
    let begun = begun.min(f64::from(size.div_ceil(cycle)));
    let blocks = CALLS * u64::from(cycle) / u64::from(size);
    if blocks == 0 {
        return begun;
    }
    // A block holds so many of the client's connections, or one more.
    let [fewer, more] = [size / cycle, size.div_ceil(cycle)]
        .map(|connections| of_one_block(size, step, connections, share));
    let (variance, largest) = (fewer.0.max(more.0), fewer.1.max(more.1));
    chance(blocks.min(CALLS) as f64, variance, largest) + begun
}

/// Variance, and largest distance from the mean, of the number of connections to a leaf,
/// among so many that are `step` apart, over all shifts of the block.
fn of_one_block(size: u32, step: u32, connections: u32, share: u32) -> (f64, f64) {
    let mut points = vec![0_u32; size as usize];
    let mut position = 0;
    for _ in 0..connections {
        points[position as usize] += 1;
        position = ((u64::from(position) + u64::from(step)) % u64::from(size)) as u32;
    }
    let mean = f64::from(connections) * f64::from(share) / f64::from(size);
    let mut count: u32 = points.iter().take(share as usize).sum();
    let (mut squares, mut largest) = (0.0, 0.0_f64);
    for (first, last) in (0..size as usize).zip((0..size as usize).cycle().skip(share as usize)) {
        let error = f64::from(count) - mean;
        squares += error * error;
        largest = largest.max(error.abs());
        count = count + points[last] - points[first];
    }
    (squares / f64::from(size), largest)
}

fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[test]
fn a_client_in_any_cycle_sees_every_leaf_in_its_share() {
    let splits: [&[u32]; 12] = [
        &[1, 1],
        &[1, 2],
        &[9, 1],
        &[5, 3, 2],
        &[99, 1],
        &[50, 30, 20],
        &[999, 1],
        &[500, 500],
        &[9998, 1],
        &[5000, 2500, 2500],
        &[1_000_000, 3_000_000],
        &[u32::MAX / 2, u32::MAX / 3, u32::MAX / 7],
    ];
    for (shares, number) in splits.into_iter().zip(0_u64..) {
        let split = Split::new(shares, mix(number), hash(!number));
        for cycle in 2..=100_u32 {
            for place in [0, 1, cycle / 2, cycle - 1] {
                let mut counts = vec![0_u64; shares.len()];
                for connection in 0..CALLS {
                    counts[split.leaf(connection * u64::from(cycle) + u64::from(place))] += 1;
                }
                for (count, share) in counts.iter().zip(shares) {
                    let ideal = CALLS as f64 * f64::from(*share) / f64::from(split.lattice.size);
                    let error = (*count as f64 - ideal).abs();
                    let allowed = allowed(&split, cycle, *share);
                    assert!(
                        error <= allowed,
                        "{shares:?}: place {place} in a cycle of {cycle} is off by {error} of \
                         {ideal}, and {allowed} is allowed"
                    );
                }
            }
        }
    }
}

#[test]
fn a_client_in_any_cycle_takes_every_endpoint_alike() {
    for endpoints in [2_u32, 3, 4, 5, 8, 10, 12, 50, 100] {
        for cycle in 2..=100_u32 {
            for place in [0, cycle / 2, cycle - 1] {
                let mut counts = vec![0_u64; endpoints as usize];
                for turn in 0..CALLS {
                    let turn = turn * u64::from(cycle) + u64::from(place);
                    let endpoint = endpoint_at(mix(endpoints.into()), turn, endpoints);
                    counts[endpoint.expect("an endpoint") as usize] += 1;
                }
                // A round gives a client each endpoint once at most, so its counts differ by
                // less than those of independent draws do.
                let part = 1.0 / f64::from(endpoints);
                let allowed = chance(CALLS as f64, part * (1.0 - part), 1.0);
                for count in counts {
                    let error = (count as f64 - CALLS as f64 * part).abs();
                    assert!(
                        error <= allowed,
                        "{endpoints} endpoints: place {place} in a cycle of {cycle} is off by \
                         {error}, and {allowed} is allowed"
                    );
                }
            }
        }
    }
}
