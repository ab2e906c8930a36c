//! The agent's binary: reads the command line and lets the library do the rest.

use std::process::ExitCode;

fn main() -> ExitCode {
    splitter_agent::cli::main()
}
