//! The pick: which leaf and which endpoint the n-th connection gets.
//!
//! Connections to a split are counted, and cut into blocks of W, the sum of the
//! leaves' shares. Within a block the connections visit the positions 0..W once
//! each, along a golden lattice: `(step * i + shift) mod W`, with `step` near W / φ and
//! the sum of the partial quotients of W / step small. A leaf owns as many neighbouring
//! positions as its share says, so
//!
//! - of every whole block each leaf gets exactly its share;
//! - within a block the error stays below 2 + log2(W) / 4 as long as W is at most 65,536,
//!   below 2 + log2(W) / 3 for any W, and below 10 over the first ten million connections
//!   (measured bounds, which the tests hold it to; it is the nature of lattices that the
//!   error grows with log2(W), and by more than a quarter of it in the long run);
//! - each block has a fresh shift, a hash of its number, so that no client that
//!   connects in a fixed rhythm falls into step with the leaves.
//!
//! Endpoints of a leaf take turns: each round visits every endpoint once and begins
//! at a fresh place. They need a counter of their own: taking the endpoint from the
//! position instead (`position mod endpoints`) was measured to be off by up to 28
//! within three million connections, where a turn is off by less than one.
//!
//! A leaf may have a share and no endpoints. Its turns are counted all the same, and the
//! connections are refused: exactly its share of them, and the others' shares stay as they
//! are. When it has endpoints, counting goes on.

/// Where the connections of a split fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lattice {
    /// W: number of positions, and of connections in a block.
    pub size: u32,
    /// Distance between neighbours in time; coprime to `size`.
    pub step: u32,
    /// Added to every block's shift; below `size`.
    pub shift: u32,
    /// Seed of the blocks' shifts.
    pub seed: u64,
}

impl Lattice {
    /// A lattice of `size` positions. `fraction` / 2^32 of a turn is added to every
    /// shift, so that nodes with the same seed start evenly apart.
    #[must_use]
    pub fn new(size: u32, seed: u64, fraction: u32) -> Self {
        Self {
            size,
            step: step_for(size),
            shift: scale(fraction, size),
            seed,
        }
    }

    /// The position (below `size`) of connection number `n`; `None` if there are no
    /// positions.
    #[inline(always)]
    #[must_use]
    pub fn position(&self, n: u64) -> Option<u32> {
        let size = u64::from(self.size);
        let block = n.checked_div(size)?;
        let index = n.checked_rem(size)?;
        let shift = u64::from(scale(hash(self.seed.wrapping_add(block)), self.size));
        // Below 2^32 * 2^32 even with both shifts added: no overflow.
        (u64::from(self.step) * index + shift + u64::from(self.shift))
            .checked_rem(size)
            .map(|position| position as u32)
    }

    /// The endpoint (below `endpoints`) that takes turn number `turn` of a leaf; `None` if
    /// there are none, and then the connection is refused: the leaf keeps its share. Each leaf
    /// has a seed of its own, so that leaves do not change endpoints in step.
    #[inline(always)]
    #[must_use]
    pub fn endpoint(&self, leaf: u32, turn: u64, endpoints: u32) -> Option<u32> {
        endpoint_at(self.seed.wrapping_add(u64::from(leaf)), turn, endpoints)
    }
}

/// The leaf that owns a position: the first of `leaves` whose interval ends above it.
/// `end` gives the end of a leaf's interval; it never falls from one leaf to the next.
///
/// `None` if no leaf owns the position or `end` gives `None`.
#[inline(always)]
#[must_use]
pub fn leaf_at(position: u32, leaves: u32, mut end: impl FnMut(u32) -> Option<u32>) -> Option<u32> {
    let mut low = 0;
    let mut high = leaves;
    // 64 leaves need 7 steps: a constant bound, so that the verifier can see the end.
    for _ in 0..7 {
        if low >= high {
            break;
        }
        let middle = low + (high - low) / 2;
        if end(middle)? > position {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    (low < leaves).then_some(low)
}

/// The endpoint (below `endpoints`) that takes turn number `turn` of its leaf; `None`
/// if there are none.
#[inline(always)]
#[must_use]
pub fn endpoint_at(seed: u64, turn: u64, endpoints: u32) -> Option<u32> {
    let count = u64::from(endpoints);
    let round = turn.checked_div(count)?;
    let index = turn.checked_rem(count)?;
    // Another constant than the lattice's, so that leaf and endpoint are unrelated.
    let shift = scale(
        hash((seed ^ 0xd1b5_4a32_d192_ed03).wrapping_add(round)),
        endpoints,
    );
    (index + u64::from(shift))
        .checked_rem(count)
        .map(|endpoint| endpoint as u32)
}

/// The step of a lattice of `size` positions: coprime to `size`, near `size` / φ, and such
/// that the partial quotients of `size` / `step` have a small sum. The error within a block
/// is bounded by that sum (Niederreiter, 1978) and measurably grows with it; the largest
/// quotient alone says less.
#[must_use]
pub fn step_for(size: u32) -> u32 {
    if size < 3 {
        return 1;
    }
    // 1.65 log2(size): small enough for what is promised. Where size / φ happens to be next
    // to a whole number in the right way all quotients are 1, and their sum is 1.44 log2(size).
    let enough = u64::from(size).pow(2).ilog2() * 33 / 40;
    // size / φ in whole numbers: 2654435769 = round(2^32 / φ).
    let golden = scale(2_654_435_769, size);
    let mut best = (u32::MAX, 1);
    // Few sizes need more than some dozens of neighbours. Those that do have many divisors,
    // or are so large that the whole search (100 µs) is for the best among the poor.
    for distance in 0..1024 {
        for candidate in [golden.wrapping_sub(distance), golden + distance] {
            if candidate == 0 || candidate >= size {
                continue;
            }
            if let Some(sum) = sum_of_quotients(size, candidate, best.0) {
                best = (sum, candidate);
            }
        }
        if best.0 <= enough {
            break;
        }
    }
    best.1
}

/// The sum of the partial quotients of the continued fraction of a / b; `None` if it is
/// not below `limit`, or a and b have a common divisor.
fn sum_of_quotients(mut a: u32, mut b: u32, limit: u32) -> Option<u32> {
    let mut sum = 0_u32;
    while b != 0 {
        sum = sum.saturating_add(a / b);
        if sum >= limit {
            return None;
        }
        (a, b) = (b, a % b);
    }
    (a == 1).then_some(sum)
}

/// 32 well mixed bits of a number: the upper half of SplitMix64's output function
/// (Steele, Lea and Flood, 2014), which sends neighbouring numbers far apart.
#[inline(always)]
#[must_use]
pub fn hash(value: u64) -> u32 {
    (mix(value) >> 32) as u32
}

/// SplitMix64's output function.
#[inline(always)]
#[must_use]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `fraction` / 2^32 of `size`, rounded down: always below `size` (or 0).
#[inline(always)]
fn scale(fraction: u32, size: u32) -> u32 {
    ((u64::from(fraction) * u64::from(size)) >> 32) as u32
}
