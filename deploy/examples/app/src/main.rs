//! What runs in the examples and in tests on a cluster: HTTP servers that tell their identity, name
//! servers, and a client that counts who answers it.
//!
//! The client opens a new connection for each request, because a connection is what splitter
//! splits. Both are small on purpose: threads and the standard library.

mod client;
mod get;
mod http;
mod load;
mod names;
mod serve;
mod signals;
mod tally;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Servers that tell their identity, and a client that counts them
#[derive(Debug, Parser)]
#[command(name = "example", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer every request with who it was that answered
    Serve(serve::ServeArgs),
    /// Answer every question for a name with one address
    Names(names::NamesArgs),
    /// Ask an URL a number of times and count who answered
    Get(get::GetArgs),
    /// Ask an URL until told to stop, and report what came of it
    Load(load::LoadArgs),
    /// Do nothing, to be a pod that commands are run in
    Idle,
}

fn main() -> ExitCode {
    // Before any thread is started: they inherit which signals wait.
    let signals = signals::Signals::block();
    let result = match Cli::parse().command {
        Command::Serve(arguments) => serve::run(&arguments, &signals),
        Command::Names(arguments) => names::run(&arguments, &signals),
        Command::Get(arguments) => get::run(&arguments, signals),
        Command::Load(arguments) => load::run(&arguments, signals),
        Command::Idle => {
            signals.wait();
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("example: error: {error:#}");
        ExitCode::from(3)
    })
}
