//! The first process in a virtual machine that runs tests: prepares the machine, runs them, says how
//! it went, and switches the machine off.

mod machine;
mod probe;
mod tests;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use guest::{PLAN, Plan, Record};

/// How the first process calls itself for the work, so that it is free to collect what dies.
const WORK: &str = "work";

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(WORK) {
        let console = match Console::open() {
            Ok(console) => console,
            Err(error) => {
                eprintln!("no console: {error:#}");
                return ExitCode::FAILURE;
            }
        };
        if let Err(error) = work(&console) {
            console.say(&Record::Problem(format!("{error:#}")));
        }
        console.say(&Record::Finished);
        return ExitCode::SUCCESS;
    }
    // It switches the machine off in the end.
    if std::process::id() != 1 {
        eprintln!("this is the first process of a virtual machine; see `cargo xtask test-kernels`");
        return ExitCode::FAILURE;
    }
    let prepared = machine::mount_all().and_then(|()| {
        let mut worker = Command::new("/init");
        let worker = worker
            .arg(WORK)
            .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root")]);
        worker.spawn().context("cannot start the work")
    });
    match prepared {
        Ok(worker) => machine::collect_until(worker.id()),
        Err(error) => eprintln!("cannot prepare the machine: {error:#}"),
    }
    machine::switch_off();
    ExitCode::FAILURE
}

fn work(console: &Console) -> Result<()> {
    console.say(&Record::Started {
        release: machine::release(),
    });
    let plan = fs::read(PLAN).context("no plan")?;
    let plan: Plan = serde_json::from_slice(&plan).context("an odd plan")?;
    let deadline = Instant::now() + Duration::from_secs(plan.seconds);
    for module in &plan.modules {
        machine::load_module(module)?;
    }
    machine::prepare()?;
    let programs = probe::programs(&plan.agent, &plan.programs)?;
    console.say(&Record::Programs(programs));
    for test in &plan.tests {
        tests::run(test, deadline, console)?;
    }
    for message in machine::alarming_messages() {
        console.say(&Record::KernelLog(message));
    }
    Ok(())
}

/// The serial console.
struct Console(Mutex<File>);

impl Console {
    fn open() -> Result<Self> {
        let file = OpenOptions::new().write(true).open("/dev/console")?;
        Ok(Self(Mutex::new(file)))
    }

    /// Says something to the host.
    fn say(&self, record: &Record) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A line of its own, whatever the kernel has just written. Nobody is there to be told of a
        // failure; the host notices what it lacks.
        if let Ok(line) = record.to_line() {
            let _ = file.write_all(format!("\n{line}\n").as_bytes());
        }
    }
}
