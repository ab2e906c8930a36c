//! The records of UDP flows, byte for byte, and how they are confirmed.
//!
//! A flow is what one socket sends to one frontend without being connected to it. `FLOWS` has the
//! endpoint that was chosen for it, `FLOW_SOURCES` what the answers are to be shown as. Both forget
//! what was used least recently when they are full (`BPF_MAP_TYPE_LRU_HASH`).
//!
//! The kernel recycles elements of such maps while a reader may hold them, so nothing that was
//! read is believed unconfirmed:
//!
//! - A [`FlowRecord`] says in one 64-bit word for which record of a split it was chosen, and
//!   which endpoint it is. If that is the record at work, and the endpoint has the address that is in the
//!   record, it is one that may be chosen now. If not, its address is looked for among those.
//! - A [`FlowSourceRecord`] has a check sum over itself and its key.

use bytemuck::{NoUninit, Pod, Zeroable};

/// How many flows are remembered, on the whole node. Both maps are made of that size at once: they take
/// 16 MiB.
pub const FLOWS: u32 = 65_536;

/// A socket, and an address and port that it sends to or is answered from.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit)]
pub struct FlowKey {
    /// The socket's cookie (`SO_COOKIE`).
    pub cookie: u64,
    /// Address in the form of [`crate::address`].
    pub address: [u8; 16],
    /// Port in host order.
    pub port: u32,
    /// Always 0.
    pub padding: u32,
}

/// What was chosen for a flow, keyed by its socket and frontend in `FLOWS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowRecord {
    /// Which endpoint, and of which split.
    pub choice: FlowChoice,
    /// The endpoint's address.
    pub address: [u8; 16],
    /// The leaf that it belongs to.
    pub leaf_id: u32,
    /// The endpoint's port, in host order.
    pub port: u32,
}

/// Which endpoint of which split: one aligned 64-bit word, read and written whole.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowChoice {
    /// Generation of the split's record.
    pub generation: u32,
    /// Index into `ENDPOINTS`; it holds while that record is at work.
    pub endpoint: u32,
}

/// What an endpoint's answers are shown as, keyed by their socket and source in `FLOW_SOURCES`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowSourceRecord {
    /// The address that was sent to.
    pub address: [u8; 16],
    /// The port that was sent to, in host order.
    pub port: u32,
    /// Always 0.
    pub padding: u32,
    /// [`check_sum`] of key and record.
    pub check: u64,
}

/// Confirms that a record, which this was read of, is the one that was written for a key. Two
/// halves of different records agree by chance once in 2^64.
///
/// Multilinear hashing: each word times an odd number of its own (mixed from its place).
#[inline(always)]
#[must_use]
pub fn check_sum(key: &FlowKey, address: [u64; 2], port: u32) -> u64 {
    let [cookie, first, second, key_port]: [u64; 4] = bytemuck::cast(*key);
    // The fractional parts of the square roots of the first primes, made odd, as SHA-512 has them.
    cookie
        .wrapping_mul(0x6a09_e667_f3bc_c909)
        .wrapping_add(first.wrapping_mul(0xbb67_ae85_84ca_a73b))
        .wrapping_add(second.wrapping_mul(0x3c6e_f372_fe94_f82b))
        .wrapping_add(key_port.wrapping_mul(0xa54f_f53a_5f1d_36f1))
        .wrapping_add(address[0].wrapping_mul(0x510e_527f_ade6_82d1))
        .wrapping_add(address[1].wrapping_mul(0x9b05_688c_2b3e_6c1f))
        .wrapping_add(u64::from(port).wrapping_mul(0x1f83_d9ab_fb41_bd6b))
        // Not 0 for what was never written.
        .wrapping_add(0x5be0_cd19_137e_2179)
}

/// All ones if `one` is below `other`, else 0: without a branch, since each would double what
/// the verifier has to look at in a binary search.
#[inline(always)]
#[must_use]
pub fn mask_if_below(one: u64, other: u64) -> u64 {
    // The borrow of the subtraction (Warren, Hacker's Delight, 2-13).
    let borrow = (!one & other) | ((!one | other) & one.wrapping_sub(other));
    0_u64.wrapping_sub(borrow >> 63)
}

const _: () = {
    assert!(size_of::<FlowKey>() == 32);
    assert!(size_of::<FlowRecord>() == 32);
    assert!(size_of::<FlowSourceRecord>() == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_tells_which_number_is_less() {
        let numbers = [
            0,
            1,
            2,
            7,
            u64::MAX / 2,
            u64::MAX / 2 + 1,
            u64::MAX - 1,
            u64::MAX,
        ];
        for one in numbers {
            for other in numbers {
                let expected = if one < other { u64::MAX } else { 0 };
                assert_eq!(mask_if_below(one, other), expected, "{one} {other}");
            }
        }
    }

    #[test]
    fn a_check_sum_changes_with_every_bit() {
        let key = FlowKey {
            cookie: 4711,
            address: [7; 16],
            port: 53,
            padding: 0,
        };
        let own = check_sum(&key, [1, 2], 53);
        for bit in 0..64 {
            let other = FlowKey {
                cookie: key.cookie ^ (1 << bit),
                ..key
            };
            assert_ne!(check_sum(&other, [1, 2], 53), own);
            assert_ne!(check_sum(&key, [1 ^ (1 << bit), 2], 53), own);
            assert_ne!(check_sum(&key, [1, 2 ^ (1 << bit)], 53), own);
        }
        for bit in 0..16 {
            assert_ne!(check_sum(&key, [1, 2], 53 ^ (1 << bit)), own);
            let other = FlowKey {
                port: key.port ^ (1 << bit),
                ..key
            };
            assert_ne!(check_sum(&other, [1, 2], 53), own);
        }
    }
}
