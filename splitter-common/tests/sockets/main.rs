//! The table of live sockets: whatever happens in whatever order, a socket has at most one slot,
//! and none when it is dead.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use splitter_common::sockets::{FREE, Slots, claim, find, free, ways};

/// Slots in plain memory. A slot is told by its index.
struct Memory(Vec<AtomicU64>);

impl Memory {
    fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| AtomicU64::new(FREE)).collect())
    }

    fn mask(&self) -> u32 {
        self.0.len() as u32 - 1
    }

    /// Who has which slot.
    fn owners(&self) -> BTreeMap<u64, u32> {
        let owners = (0..).zip(&self.0);
        let owners = owners.map(|(index, owner)| (owner.load(Ordering::Acquire), index));
        let taken: Vec<_> = owners.filter(|(owner, _)| *owner != FREE).collect();
        let count = taken.len();
        let owners: BTreeMap<_, _> = taken.into_iter().collect();
        assert_eq!(owners.len(), count, "a socket has two slots");
        owners
    }
}

impl Slots for Memory {
    type Slot = usize;

    fn slot(&self, index: u32) -> Option<usize> {
        let index = index as usize;
        (index < self.0.len()).then_some(index)
    }

    fn owner(&self, slot: usize) -> u64 {
        self.0[slot].load(Ordering::Acquire)
    }

    fn exchange(&self, slot: usize, from: u64, to: u64) -> bool {
        let result = self.0[slot].compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        result.is_ok()
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// connect() of a socket that may have been connected before.
    Connects(u64),
    /// A socket dies, and so many programs see it.
    Dies(u64, u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // Few slots and few sockets, so that they meet all the time.
    let event = (1_u64..=24, 0_u8..=6).prop_map(|(cookie, kind)| match kind {
        0..=3 => Event::Connects(cookie),
        times => Event::Dies(cookie, times - 3),
    });
    proptest::collection::vec(event, 0..200)
}

proptest! {
    #[test]
    fn slots_are_those_of_live_sockets_in_whatever_order_sockets_come_and_die(
        events in events(),
        size in 1_u32..=4,
    ) {
        let memory = Memory::new(1 << size);
        let mask = memory.mask();
        let mut expected = BTreeMap::new();
        for event in events {
            match event {
                Event::Connects(cookie) => {
                    let before = memory.owners();
                    let slot = claim(&memory, mask, cookie).map(|slot| slot as u32);
                    if let Some(had) = expected.get(&cookie) {
                        prop_assert_eq!(slot, Some(*had), "it moved");
                    } else if let Some(slot) = slot {
                        prop_assert!(ways(mask, cookie).contains(&slot));
                        prop_assert!(!before.values().any(|taken| *taken == slot));
                        expected.insert(cookie, slot);
                    } else {
                        // Both are others'.
                        for way in ways(mask, cookie) {
                            prop_assert!(before.values().any(|taken| *taken == way));
                        }
                    }
                }
                Event::Dies(cookie, times) => {
                    let had = expected.remove(&cookie).is_some();
                    for time in 0..times {
                        let freed = free(&memory, mask, cookie);
                        prop_assert_eq!(freed, had && time == 0);
                    }
                }
            }
            prop_assert_eq!(&memory.owners(), &expected);
            for cookie in 1..=24 {
                let found = find(&memory, mask, cookie).map(|slot| slot as u32);
                prop_assert_eq!(found, expected.get(&cookie).copied());
            }
        }
        for cookie in 1..=24 {
            free(&memory, mask, cookie);
        }
        prop_assert!(memory.owners().is_empty());
    }

    #[test]
    fn two_sockets_with_the_same_ways_have_one_each_and_a_third_has_none(
        low in 0_u64..16,
        high in 1_u64..1 << 40,
    ) {
        let memory = Memory::new(16);
        let cookies = [(high << 4) | low, ((high + 1) << 4) | low, ((high + 2) << 4) | (low ^ 1)];
        let [first, second, third] = cookies.map(|cookie| claim(&memory, 15, cookie));
        prop_assert!(first.is_some() && second.is_some() && first != second);
        prop_assert_eq!(third, None);
        prop_assert!(!free(&memory, 15, cookies[2]));
        prop_assert!(free(&memory, 15, cookies[0]));
        prop_assert_eq!(claim(&memory, 15, cookies[2]), first);
    }
}

/// A socket without a cookie has no slot, though free slots have the same word in them.
#[test]
fn a_death_without_a_cookie_frees_nothing() {
    let memory = Memory::new(4);
    assert!(!free(&memory, 3, FREE));
    assert!(claim(&memory, 3, 8).is_some());
    assert!(!free(&memory, 3, FREE));
    assert_eq!(memory.owners().len(), 1);
}

#[test]
fn sockets_of_many_cpus_that_claim_and_free_at_once_never_share_a_slot() {
    const CPUS: u64 = 4;
    const ROUNDS: u64 = 50_000;
    let memory = Memory::new(8);
    let mask = memory.mask();
    let claimed: u64 = std::thread::scope(|scope| {
        let run = |cpu: u64| {
            let memory = &memory;
            move || {
                let mut claimed = 0;
                for round in 1..=ROUNDS {
                    // A cookie of its own; all of them meet in few slots.
                    let cookie = ((round * CPUS + cpu) * 0x9e37_79b9) | (1 << 60);
                    let Some(slot) = claim(memory, mask, cookie) else {
                        continue;
                    };
                    claimed += 1;
                    assert_eq!(memory.owner(slot), cookie);
                    std::thread::yield_now();
                    assert_eq!(find(memory, mask, cookie), Some(slot));
                    assert_eq!(claim(memory, mask, cookie), Some(slot));
                    assert!(free(memory, mask, cookie));
                    assert!(!free(memory, mask, cookie));
                }
                claimed
            }
        };
        let cpus: Vec<_> = (0..CPUS).map(|cpu| scope.spawn(run(cpu))).collect();
        cpus.into_iter().map(|cpu| cpu.join().unwrap()).sum()
    });
    assert!(claimed > ROUNDS, "only {claimed} claims");
    assert!(memory.owners().is_empty());
}
