//! `load`: requests until told to stop.

use std::mem;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::client::{Url, ask};
use crate::signals::Signals;
use crate::tally::Tally;

/// Each over a new connection. Prints a JSON object now and then, and one with everything at the
/// end; ends with status 1 if a request failed.
#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// Such as `http://bookstore.bookstore:14001/books-bought`
    #[arg(env = "URL")]
    url: Url,

    /// How long, in seconds [default: until SIGTERM]
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,

    /// How many requests at a time
    #[arg(long, env = "PARALLEL", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=256))]
    parallel: u64,

    /// Pause after each request, in milliseconds
    #[arg(long, env = "INTERVAL", default_value_t = 10, value_name = "MS")]
    interval: u64,

    /// How long a request may take, in milliseconds
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    timeout: u64,

    /// How often to tell the counts since the last time, in seconds; 0 is never
    #[arg(long, env = "REPORT", default_value_t = 10, value_name = "SECONDS")]
    report: u64,
}

/// What was counted: since the last report, and before.
#[derive(Default)]
struct Counts {
    recent: Tally,
    before: Tally,
}

pub(crate) fn run(arguments: &LoadArgs, signals: Signals) -> Result<ExitCode> {
    let start = Instant::now();
    let timeout = Duration::from_millis(arguments.timeout);
    let end = arguments
        .duration
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .and_then(|duration| start.checked_add(duration));
    let counts = Mutex::new(Counts::default());
    let (signalled, signal) = mpsc::channel::<()>();
    thread::spawn(move || {
        signals.wait();
        drop(signalled);
    });
    thread::scope(|scope| {
        // A worker ends when the one who told it to go on has gone.
        let mut workers = Vec::new();
        for _ in 0..arguments.parallel {
            let (go_on, stop) = mpsc::channel::<()>();
            workers.push(go_on);
            let counts = &counts;
            let pause = Duration::from_millis(arguments.interval);
            scope.spawn(move || {
                loop {
                    let result = ask(&arguments.url, timeout);
                    locked(counts).recent.add(&result);
                    if stop.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Disconnected) {
                        break;
                    }
                }
            });
        }
        let report = Duration::from_secs(arguments.report);
        let report = if report.is_zero() {
            Duration::MAX
        } else {
            report
        };
        loop {
            let left = end.map_or(Duration::MAX, |end| {
                end.saturating_duration_since(Instant::now())
            });
            let waited = signal.recv_timeout(report.min(left).min(Duration::from_secs(86_400)));
            if waited == Err(mpsc::RecvTimeoutError::Disconnected) || left <= report {
                break;
            }
            if arguments.report > 0 {
                tell(&mut locked(&counts));
            }
        }
        drop(workers);
    });
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut all = counts.before;
    all.merge(counts.recent);
    let seconds = start.elapsed().as_secs_f64();
    let mut summary = json!(all);
    summary["seconds"] = json!(seconds);
    println!("{summary}");
    Ok(ExitCode::from(u8::from(all.failed > 0)))
}

fn locked(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints the counts since the last time.
fn tell(counts: &mut Counts) {
    let recent = mem::take(&mut counts.recent);
    let line = json!({"identities": recent.identities, "errors": recent.errors});
    println!("{line}");
    counts.before.merge(recent);
}
