//! The steps: edit the TrafficSplit, wait until it is in force, count who answers.

use std::{
    num::NonZeroU64,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    client::Tally,
    interrupt,
    judge::{Row, judge},
    scene::Scene,
    screen::{Progress, Screen},
};

/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(40);

/// How many requests to make, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// In each step.
    pub(crate) requests: u64,
    /// In a second; `None` is as many as possible.
    pub(crate) rate: Option<NonZeroU64>,
}

impl Pace {
    /// How many to make at once.
    fn batch(self) -> u64 {
        match self.rate {
            Some(rate) => rate.get().saturating_mul(FRAME.as_millis() as u64) / 1_000,
            None => self.requests / 20,
        }
        .clamp(1, 1_000)
    }

    /// How long `requests` should take.
    fn time_for(self, requests: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(requests as f64 / rate.get() as f64)
        })
    }
}

/// Plays all steps and returns the lines of the final table.
pub(crate) fn play(scene: &mut Scene, pace: Pace, screen: &mut Screen) -> Result<Vec<Row>> {
    let scenario = scene.scenario;
    let mut rows = Vec::new();
    for (index, weights) in scenario.steps.iter().copied().enumerate() {
        let mut progress = Progress {
            step: index + 1,
            steps: scenario.steps.len(),
            leaves: scenario.leaves,
            weights,
            requests: pace.requests,
            in_force_after: None,
            tally: Tally::default(),
        };
        screen.draw(&progress)?;

        let edited = Instant::now();
        scene.manifests.set_weights(weights)?;
        scene.agent.wait_in_force(scenario, weights)?;
        progress.in_force_after = Some(edited.elapsed());
        screen.draw(&progress)?;

        let begin = Instant::now();
        while progress.tally.requests() < pace.requests {
            interrupt::check()?;
            let made = progress.tally.requests();
            let batch = pace.batch().min(pace.requests - made);
            let tally = scene.client.request(&scene.client_pod, batch)?;
            progress.tally.merge(tally);
            screen.draw(&progress)?;
            sleep(pace.time_for(made + batch).saturating_sub(begin.elapsed()));
        }
        let judged = judge(progress.step, scenario.leaves, weights, &progress.tally);
        screen.finish(&progress, &judged)?;
        rows.extend(judged);
    }
    Ok(rows)
}
