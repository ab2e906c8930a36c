//! `get`: a number of requests.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::client::{Url, ask};
use crate::signals::Signals;
use crate::tally::Tally;

/// Each over a new connection. Ends with status 1 if one of them failed.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// Such as `http://bookstore.bookstore:14001/books-bought`
    url: Url,

    /// How many requests; a single one's answer is printed as it is
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,

    /// How many at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    parallel: u64,

    /// Pause after each request, in milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    interval: u64,

    /// How long a request may take, in milliseconds
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    timeout: u64,

    /// Print one JSON object for each identity and each kind of error, then the sums
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &GetArgs, signals: Signals) -> Result<ExitCode> {
    thread::spawn(move || {
        signals.wait();
        std::process::exit(130);
    });
    let timeout = Duration::from_millis(arguments.timeout);
    if arguments.count == 1 && !arguments.json {
        return Ok(match ask(&arguments.url, timeout) {
            Ok(answer) => {
                println!("{}", answer.body.trim_end());
                ExitCode::SUCCESS
            }
            Err(failure) => {
                eprintln!("example: {}: {}", failure.kind, failure.message);
                ExitCode::FAILURE
            }
        });
    }
    let started = AtomicU64::new(0);
    let all = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..arguments.parallel {
            scope.spawn(|| {
                let mut own = Tally::default();
                while started.fetch_add(1, Ordering::Relaxed) < arguments.count {
                    own.add(&ask(&arguments.url, timeout));
                    thread::sleep(Duration::from_millis(arguments.interval));
                }
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .merge(own);
            });
        }
    });
    let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    if arguments.json {
        print_json(&all);
    } else {
        print_text(&all);
    }
    Ok(ExitCode::from(u8::from(all.failed > 0)))
}

fn print_json(tally: &Tally) {
    for (identity, count) in &tally.identities {
        println!("{}", json!({"identity": identity, "count": count}));
    }
    for (kind, count) in &tally.errors {
        println!("{}", json!({"error": kind, "count": count}));
    }
    println!("{}", json!({"total": tally.total, "failed": tally.failed}));
}

fn print_text(tally: &Tally) {
    for (identity, count) in &tally.identities {
        println!("{count:>8}  {identity}");
    }
    for (kind, count) in &tally.errors {
        println!("{count:>8}  failed: {kind}");
    }
    for failure in tally.failures.iter().take(3) {
        eprintln!("example: {}: {}", failure.kind, failure.message);
    }
}
