//! The pick: which leaf and which endpoint the n-th connection gets.
//!
//! Connections to a split are counted, and cut into blocks of W, the sum of the
//! leaves' shares. Within a block the connections visit the positions 0..W once
//! each, along a golden lattice: `(step * i + shift) mod W`, with `step` near W / φ and
//! W / step free of large partial quotients. A leaf owns as many neighbouring
//! positions as its share says, so
//!
//! - of every whole block each leaf gets exactly its share;
//! - within a block the error stays below 2 + log2(W) / 4 (three-distance theorem; the
//!   bound is what the tests hold it to);
//! - each block has a fresh shift, a hash of its number, so that no client that
//!   connects in a fixed rhythm falls into step with the leaves.
//!
//! Endpoints of a leaf take turns: each round visits every endpoint once and begins
//! at a fresh place. They need a counter of their own: taking the endpoint from the
//! position instead (`position mod endpoints`) was measured to be off by up to 28
//! within three million connections, where a turn is off by less than one.

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

/// The step of a lattice of `size` positions: near `size` / φ, coprime to `size`, and
/// with the smallest possible largest partial quotient in `size` / `step`, which is what
/// the error within a block grows with (Niederreiter, 1978: the discrepancy of a
/// lattice is bounded by the sum of these quotients).
#[must_use]
pub fn step_for(size: u32) -> u32 {
    if size < 3 {
        return 1;
    }
    // size / φ in whole numbers: 2654435769 = round(2^32 / φ).
    let golden = (u64::from(size) * 2_654_435_769) >> 32;
    let mut best = (u64::MAX, 1);
    // Coprime numbers are dense (at worst some 1 in 10 below 2^32), so a few hundred
    // neighbours always hold one with small quotients.
    for distance in 0..256_u64 {
        for candidate in [golden.wrapping_sub(distance), golden + distance] {
            if candidate == 0 || candidate >= u64::from(size) {
                continue;
            }
            if let Some(quotient) = largest_quotient(u64::from(size), candidate)
                && quotient < best.0
            {
                best = (quotient, candidate as u32);
            }
        }
    }
    best.1
}

/// The largest partial quotient of the continued fraction of a / b; `None` if a and b
/// have a common divisor.
fn largest_quotient(mut a: u64, mut b: u64) -> Option<u64> {
    let mut largest = 0;
    while b != 0 {
        largest = largest.max(a / b);
        (a, b) = (b, a % b);
    }
    (a == 1).then_some(largest)
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
