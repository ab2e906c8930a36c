//! The pick, held to what it promises: on the code that the kernel programs and the
//! agent share, for any weights, seeds and numbers of endpoints.
//!
//! Most of what is promised holds at *every* n, so the tests look at every n. Where
//! chance comes in, the seeds are fixed: a test that passes once passes always.

mod continued_fraction;
mod discrepancy;
mod lookup;
mod refused;
mod rhythm;
mod shares;
mod step;
mod turns;

use splitter_common::pick::{self, Lattice};

/// A split among leaves, without its endpoints.
struct Split {
    lattice: Lattice,
    ends: Vec<u32>,
}

impl Split {
    fn new(shares: &[u32], seed: u64, fraction: u32) -> Self {
        let ends: Vec<u32> = shares
            .iter()
            .scan(0_u32, |end, share| {
                *end += share;
                Some(*end)
            })
            .collect();
        let size = ends.last().copied().unwrap_or(0);
        Self {
            lattice: Lattice::new(size, seed, fraction),
            ends,
        }
    }

    /// The leaf of connection number `n`.
    fn leaf(&self, n: u64) -> usize {
        let position = self.lattice.position(n).expect("a lattice with positions");
        let leaf = pick::leaf_at(position, self.ends.len() as u32, |leaf| {
            self.ends.get(leaf as usize).copied()
        });
        leaf.expect("a leaf for every position") as usize
    }
}

/// By how many connections a leaf may be off at any time.
fn bound(size: u32) -> f64 {
    let part = if size <= 1 << 16 { 4.0 } else { 3.0 };
    2.0 + f64::from(size).log2() / part
}
