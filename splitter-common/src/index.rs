//! The index of `FRONTENDS`: finds most frontends by one load, and tells of most other addresses that they
//! are none, where a lookup in the hash costs ten times as much.
//!
//! Each frontend has a slot by its address, port and protocol. A slot says that no frontend has it, which one
//! does, or that several do and `FRONTENDS` has to be asked. What it says of one is confirmed by the record that
//! it leads to; that there is none is believed. So a frontend is programmed once its slot says so.
//!
//! Only frontends for everyone are indexed. Those of some clients are looked up where these say so.

use crate::layout::{FrontendKey, IndexRecord};

/// How many slots there are, of 8 bytes. With 1,000 frontends one slot in 560 has several, with 10,000 one in 8.
pub const SLOTS: u32 = 16_384;

const SLOT_BITS: u32 = SLOTS.trailing_zeros();

const _: () = assert!(SLOTS.is_power_of_two());

/// No frontend has the slot.
const NONE: u32 = 0;
/// Several have.
const SEVERAL: u32 = 1;
/// Set in what stands for a frontend.
const IS_ONE: u32 = 2;

/// Where a frontend is in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which slot it has.
    pub slot: u32,
    /// What stands for it there: one other frontend in two thousand million is taken for it, and found out.
    pub tag: u32,
}

/// What a slot says of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing is programmed for it.
    Nothing,
    /// `FRONTENDS` knows.
    Ask,
    /// It has this index into `SPLITS`, if the record there is its own; else `FRONTENDS` knows.
    At(u32),
}

impl Place {
    /// The place of a frontend. It is the same for all clients.
    ///
    /// Multilinear hashing: each word of the key times an odd number of its own. The upper bits depend on all
    /// of them.
    #[inline(always)]
    #[must_use]
    pub fn of(key: &FrontendKey) -> Self {
        let address: [u32; 4] = bytemuck::cast(key.address);
        let [first, second, third, fourth] = address.map(u64::from);
        let service = u64::from(key.port) << 8 | key.protocol as u64;
        // The fractional parts of the cube roots of the first primes, made odd, as SHA-512 has them.
        let hash = first
            .wrapping_mul(0x428a_2f98_d728_ae23)
            .wrapping_add(second.wrapping_mul(0x7137_4491_23ef_65cd))
            .wrapping_add(third.wrapping_mul(0xb5c0_fbcf_ec4d_3b2f))
            .wrapping_add(fourth.wrapping_mul(0xe9b5_dba5_8189_dbbd))
            .wrapping_add(service.wrapping_mul(0x3956_c25b_f348_b539));
        // Sums of multiples repeat where addresses and ports do; this mixes them (Stafford's variant 13
        // of MurmurHash3's last step, the first half).
        let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self {
            slot: (hash >> (u64::BITS - SLOT_BITS)) as u32,
            tag: (hash >> (u32::BITS - SLOT_BITS)) as u32 | IS_ONE,
        }
    }

    /// What the record in its slot says of a frontend.
    #[inline(always)]
    #[must_use]
    pub fn read(self, record: IndexRecord) -> Answer {
        if record.tag == self.tag {
            Answer::At(record.split)
        } else if record.tag == SEVERAL {
            Answer::Ask
        } else {
            Answer::Nothing
        }
    }
}

/// The record of a slot that these frontends have, each as what stands for it and its index into `SPLITS`.
#[must_use]
pub fn record(frontends: &[(u32, u32)]) -> IndexRecord {
    match frontends {
        [] => IndexRecord {
            split: 0,
            tag: NONE,
        },
        [(tag, split)] => IndexRecord {
            split: *split,
            tag: *tag,
        },
        _ => IndexRecord {
            split: 0,
            tag: SEVERAL,
        },
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeMap;

    use super::*;
    use crate::address;
    use crate::layout::{ClientScope, Protocol};

    fn key(address: [u8; 16], port: u16) -> FrontendKey {
        FrontendKey {
            address,
            port,
            protocol: Protocol::Tcp,
            padding: 0,
            clients: ClientScope::EVERYONE.0,
        }
    }

    #[test]
    fn clients_make_no_difference_and_all_else_does() {
        let everyone = key(address::mapped([10, 96, 0, 10]), 80);
        let own = FrontendKey {
            clients: 7,
            ..everyone
        };
        assert_eq!(Place::of(&everyone), Place::of(&own));
        let others = [
            key(address::mapped([10, 96, 0, 11]), 80),
            key(address::mapped([10, 96, 0, 10]), 81),
            FrontendKey {
                protocol: Protocol::Udp,
                ..everyone
            },
        ];
        for other in others {
            assert_ne!(Place::of(&everyone), Place::of(&other), "{other:?}");
        }
    }

    #[test]
    fn a_slot_answers_for_the_frontends_that_have_it() {
        let [one, two] = [[10, 96, 0, 10], [10, 96, 0, 11]].map(|it| {
            let place = Place::of(&key(address::mapped(it), 80));
            Place { slot: 0, ..place }
        });
        let none = record(&[]);
        assert_eq!(one.read(none), Answer::Nothing);
        let first = record(&[(one.tag, 7)]);
        assert_eq!(one.read(first), Answer::At(7));
        assert_eq!(two.read(first), Answer::Nothing);
        let both = record(&[(one.tag, 7), (two.tag, 8)]);
        assert_eq!(one.read(both), Answer::Ask);
        assert_eq!(two.read(both), Answer::Ask);
    }

    #[test]
    fn nothing_that_stands_for_a_frontend_says_none_or_several() {
        for port in 0..=u16::MAX {
            let tag = Place::of(&key(address::mapped([0; 4]), port)).tag;
            assert!(tag > SEVERAL, "{port}");
        }
    }

    /// Addresses of a cluster are next to each other, and ports are few.
    #[test]
    fn neighbours_are_spread_over_the_slots_as_by_chance() {
        const FRONTENDS: u32 = 2_000;
        let ipv4 = |number: u32| {
            let [.., high, low] = number.to_be_bytes();
            address::mapped([10, 96, high, low])
        };
        let ipv6 = |number: u32| {
            let mut address = [0; 16];
            address[..2].copy_from_slice(&[0xfd, 0x96]);
            address[12..].copy_from_slice(&number.to_be_bytes());
            address
        };
        let families: [&dyn Fn(u32) -> [u8; 16]; 2] = [&ipv4, &ipv6];
        for address in families {
            for ports in [&[80_u16][..], &[80, 443, 8080, 9090]] {
                let mut slots = BTreeMap::<u32, u32>::new();
                for number in 0..FRONTENDS / ports.len() as u32 {
                    for port in ports {
                        let place = Place::of(&key(address(number), *port));
                        *slots.entry(place.slot).or_default() += 1;
                    }
                }
                let several = slots.values().filter(|count| **count > 1).count();
                // Of n balls in b boxes, some n²/2b boxes get a second one.
                let expected = f64::from(FRONTENDS).powi(2) / 2.0 / f64::from(SLOTS);
                assert!((several as f64) < 2.0 * expected, "{several}, {expected}");
            }
        }
    }
}
