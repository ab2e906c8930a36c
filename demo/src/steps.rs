//! The steps: change the split, wait until it is programmed, count who answers.

use std::num::NonZeroU64;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::fixtures::Tally;

use crate::evaluate::{Row, evaluate};
use crate::interrupt;
use crate::scenario::Scenario;
use crate::screen::{Progress, Screen};

/// Where steps are played.
pub(crate) trait Stage {
    /// What is played.
    fn scenario(&self) -> &'static Scenario;

    /// The steps, one after another.
    fn steps(&self) -> Vec<Step>;

    /// What makes a change, to be put after "after".
    fn change_by(&self) -> &'static str;

    /// The names of the places where requests are made; a single one needs none.
    fn places(&self) -> Vec<String>;

    /// Makes the change of a step, and returns when it was made.
    fn change(&mut self, step: &Step) -> Result<Instant>;

    /// Waits until connections are split by these weights everywhere.
    fn wait_programmed(&mut self, weights: [u64; 2]) -> Result<()>;

    /// Makes so many requests in each place, and returns who answered in the order of the places.
    fn request(&mut self, count: u64) -> Result<Vec<Tally>>;
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The weights.
    pub(crate) weights: [u64; 2],
    /// The command that brings them, if one does.
    pub(crate) command: Option<String>,
}

/// How many requests to make, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// In each step and each place.
    pub(crate) requests: u64,
    /// In a second and each place; `None` is as many as possible.
    pub(crate) rate: Option<NonZeroU64>,
    /// How often the screen is drawn.
    pub(crate) frame: Duration,
    /// In how many parts a step is, where there is no rate.
    pub(crate) parts: u64,
}

impl Pace {
    /// How many to make at once.
    fn batch(self) -> u64 {
        let batch = match self.rate {
            Some(rate) => rate.get().saturating_mul(self.frame.as_millis() as u64) / 1_000,
            None => self.requests / self.parts.max(1),
        };
        batch.clamp(1, 1_000)
    }

    /// How long `requests` should take.
    fn time_for(self, requests: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(requests as f64 / rate.get() as f64)
        })
    }
}

/// Plays all steps and returns the rows of the final table.
pub(crate) fn play(stage: &mut impl Stage, pace: Pace, screen: &mut Screen) -> Result<Vec<Row>> {
    let leaves = stage.scenario().leaves;
    let steps = stage.steps();
    let places = stage.places();
    let mut rows = Vec::new();
    for (number, step) in (1..).zip(&steps) {
        let mut counted: Vec<(String, Tally)> = places
            .iter()
            .map(|place| (place.clone(), Tally::default()))
            .collect();
        let mut progress = Progress {
            steps: steps.len(),
            change_by: stage.change_by(),
            command: step.command.clone(),
            requests: pace.requests * places.len() as u64,
            programmed_after: None,
            errors: Tally::default().errors,
            rows: evaluate(number, leaves, step.weights, &counted),
        };
        screen.draw(&progress)?;

        let changed = stage.change(step)?;
        stage.wait_programmed(step.weights)?;
        progress.programmed_after = Some(changed.elapsed());
        screen.draw(&progress)?;

        let begin = Instant::now();
        let mut made = 0;
        while made < pace.requests {
            interrupt::check()?;
            let batch = pace.batch().min(pace.requests - made);
            for ((_, tally), more) in counted.iter_mut().zip(stage.request(batch)?) {
                tally.merge(&more);
            }
            made += batch;
            progress.errors = Tally::sum(counted.iter().map(|(_, tally)| tally)).errors;
            progress.rows = evaluate(number, leaves, step.weights, &counted);
            screen.draw(&progress)?;
            sleep(pace.time_for(made).saturating_sub(begin.elapsed()));
        }
        screen.finish(&progress)?;
        rows.append(&mut progress.rows);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_what_the_rate_allows_in_a_frame_and_never_nothing() {
        let pace = |requests, rate, parts| Pace {
            requests,
            rate: NonZeroU64::new(rate),
            frame: Duration::from_millis(40),
            parts,
        };
        assert_eq!(pace(1_000, 750, 20).batch(), 30);
        assert_eq!(pace(10, 6, 20).batch(), 1);
        assert_eq!(pace(1_000, 0, 20).batch(), 50);
        assert_eq!(pace(10, 0, 20).batch(), 1);
        assert_eq!(pace(1_000, 0, 1).batch(), 1_000);
    }
}
