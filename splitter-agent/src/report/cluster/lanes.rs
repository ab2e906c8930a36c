//! Two lanes of what is due: what changed goes first, and what is merely unconfirmed still gets
//! on.

use std::iter::Peekable;

/// After so many writes in a row of what changed, one of what is unconfirmed has its turn.
const IN_A_ROW: u32 = 9;

/// Why something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// It changed lately: people wait for it.
    Changed,
    /// It may well be written already, by another agent or an earlier process, and only the API
    /// server knows.
    Unconfirmed,
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// How many of what changed went before something unconfirmed that waited.
    in_a_row: u32,
}

impl Turns {
    /// From which lane the next comes, given which of them have something; `None` if none has.
    fn choose(&self, has_changed: bool, has_unconfirmed: bool) -> Option<Lane> {
        match (has_changed, has_unconfirmed) {
            (true, true) if self.in_a_row < IN_A_ROW => Some(Lane::Changed),
            (true, false) => Some(Lane::Changed),
            (_, true) => Some(Lane::Unconfirmed),
            (false, false) => None,
        }
    }

    /// Takes the next of what waits in both lanes, and tells from which it is.
    pub(super) fn next<T>(
        &self,
        changed: &mut Peekable<impl Iterator<Item = T>>,
        unconfirmed: &mut Peekable<impl Iterator<Item = T>>,
    ) -> Option<(Lane, T)> {
        let lane = self.choose(changed.peek().is_some(), unconfirmed.peek().is_some())?;
        let next = match lane {
            Lane::Changed => changed.next(),
            Lane::Unconfirmed => unconfirmed.next(),
        };
        Some((lane, next?))
    }

    /// One of this lane had its turn.
    pub(super) fn took(&mut self, lane: Lane) {
        self.in_a_row = match lane {
            Lane::Changed => self.in_a_row.saturating_add(1).min(IN_A_ROW),
            Lane::Unconfirmed => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which lanes have their turn if there is always something in these.
    fn turns(count: usize, has_changed: bool, has_unconfirmed: bool) -> Vec<Lane> {
        let mut turns = Turns::default();
        (0..count)
            .map(|_| {
                let lane = turns.choose(has_changed, has_unconfirmed);
                let lane = lane.expect("something");
                turns.took(lane);
                lane
            })
            .collect()
    }

    #[test]
    fn what_changed_goes_first_and_the_rest_is_not_starved() {
        let both = turns(100, true, true);
        assert_eq!(both[..9], [Lane::Changed; 9]);
        let unconfirmed = both.iter().filter(|lane| **lane == Lane::Unconfirmed);
        assert_eq!(unconfirmed.count(), 10);
        assert_eq!(turns(20, true, false), [Lane::Changed; 20]);
        assert_eq!(turns(20, false, true), [Lane::Unconfirmed; 20]);
        assert_eq!(Turns::default().choose(false, false), None);
    }
}
