//! `cargo xtask test-kernels`: the tests of the data path inside other kernels, in virtual machines.
//!
//! - `list`: the kernels, and where they come from;
//! - `download`, `unpack`: packages of the distributions;
//! - `programs`, `initramfs`: what runs in a virtual machine;
//! - `brief`: the tests that are part of `cargo xtask test`;
//! - `machine`: running it; the first process in it is the package `guest`;
//! - `outcome`, `table`: how it went.

mod brief;
mod download;
mod initramfs;
pub mod list;
mod machine;
mod outcome;
mod programs;
mod table;
mod unpack;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use guest::{Plan, Test};
use testbed::packages::{self, Requirement};
use testbed::workspace::{replace_file, say, short, target_directory};

use self::download::Store;
use self::list::{Archive, KERNELS, Kernel, MODULES};
use self::outcome::Outcome;
use self::programs::Programs;
use self::table::Row;
use crate::image::{Platform, program};

pub use self::brief::{Unavailable, run_brief};

/// The test programs that can be run.
const TESTS: [&str; 2] = ["datapath", "attach"];

/// How long a machine may take beside the tests: to start and to stop.
const MARGIN: Duration = Duration::from_secs(180);

/// How much of what failed tests say is printed.
const FAILURE_LINES: usize = 60;

/// What `cargo xtask test-kernels` takes.
#[derive(Args, Clone, Debug)]
pub struct KernelArgs {
    /// A kernel to run the tests in; can be repeated [default: all]
    #[arg(long = "kernel", value_name = "NAME", value_parser = list::by_name)]
    kernels: Vec<Kernel>,

    /// A program of the agent's tests; can be repeated [default: all that are named here]
    #[arg(long = "test", value_name = "PROGRAM", value_parser = PossibleValuesParser::new(TESTS))]
    tests: Vec<String>,

    /// How many machines may run at once; each has two processors and 2 GiB of memory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,

    /// How long the tests of one kernel may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    timeout: u64,

    /// A mirror of Debian's archive [default: the one that apt uses on this machine]
    #[arg(long, value_name = "URL")]
    debian_mirror: Option<String>,

    /// A mirror of Ubuntu's archive [default: the one that apt uses on this machine, or the main one]
    #[arg(long, value_name = "URL")]
    ubuntu_mirror: Option<String>,

    /// Run the tests alone whose name contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,

    /// Arguments for the test programs
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs tests in kernels and prints a table of the results.
///
/// # Errors
///
/// When something is missing or cannot be built, or a test failed in a kernel.
pub fn run(arguments: &KernelArgs) -> Result<()> {
    let mut kernels = arguments.kernels.clone();
    if kernels.is_empty() {
        kernels = KERNELS.to_vec();
    }
    let platforms = platforms(&kernels);
    for platform in &platforms {
        if !platform.is_host() && list::commands(*platform).is_none() {
            bail!(
                "this machine is not {platform}, and no commands for {platform} are listed in \
                 xtask/src/kernels/list.rs: choose other kernels with --kernel"
            );
        }
    }
    packages::ensure(&requirements(&platforms))?;
    let mirrors = [
        (Archive::Debian, &arguments.debian_mirror),
        (Archive::Ubuntu, &arguments.ubuntu_mirror),
    ];
    let mirrors = mirrors.into_iter().filter_map(|(archive, mirror)| {
        let mirror = mirror.as_deref()?.trim_end_matches('/');
        Some((archive, mirror.to_owned()))
    });
    let mut store = Store::new(mirrors.collect())?;
    let mut machines = Vec::new();
    for kernel in kernels {
        machines.push((kernel, packages_of(&kernel, &mut store)?));
    }
    run_in(&machines, &mut store, arguments, &[])
}

/// What these kernels run on.
fn platforms(kernels: &[Kernel]) -> Vec<Platform> {
    let platforms: BTreeSet<_> = kernels.iter().map(|kernel| kernel.platform).collect();
    platforms.into_iter().collect()
}

/// The packages of a kernel, which are downloaded if they are not there.
fn packages_of(kernel: &Kernel, store: &mut Store) -> Result<Vec<PathBuf>> {
    let packages = kernel.packages.iter();
    packages.map(|package| store.get(package)).collect()
}

/// Runs tests in kernels, whose packages are there, and prints a table of the results. A kernel in which
/// one of the tests in `expected` was not run has failed.
fn run_in(
    kernels: &[(Kernel, Vec<PathBuf>)],
    store: &mut Store,
    arguments: &KernelArgs,
    expected: &[(&str, &str)],
) -> Result<()> {
    let of_kernels: Vec<_> = kernels.iter().map(|(kernel, _)| *kernel).collect();
    let tests: Vec<&str> = TESTS
        .into_iter()
        .filter(|test| arguments.tests.is_empty() || arguments.tests.iter().any(|it| it == test))
        .collect();
    let mut programs = BTreeMap::new();
    for platform in platforms(&of_kernels) {
        programs.insert(platform, programs::build(platform, &tests, store)?);
    }

    let directory = target_directory()?.join("kernels");
    let queue: VecDeque<_> = kernels.iter().enumerate().collect();
    let queue = Mutex::new(queue);
    let next = || lock(&queue).pop_front();
    let results = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while let Some((number, (kernel, packages))) = next() {
                    let machine = Machine {
                        kernel,
                        packages,
                        expected,
                        programs: &programs[&kernel.platform],
                        directory: &directory,
                    };
                    let started = Instant::now();
                    let result = machine.run(arguments);
                    lock(&results).insert(number, (result, started.elapsed()));
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut rows = Vec::new();
    for (kernel, (result, took)) in of_kernels.iter().zip(results.into_values()) {
        let outcome = result.with_context(|| format!("the kernel {}", kernel.name))?;
        rows.push(Row {
            kernel: kernel.name,
            outcome,
            took,
        });
    }
    let count = programs.values().map(|it| it.kernel_programs.len()).max();
    print!("{}", table::table(&rows, count.unwrap_or(0)));
    let failed: Vec<_> = rows
        .iter()
        .filter(|row| !row.outcome.is_success())
        .collect();
    if !failed.is_empty() {
        let names: Vec<_> = failed.iter().map(|row| row.kernel).collect();
        bail!(
            "tests failed in {}; the consoles are in {}",
            names.join(", "),
            short(&directory)
        );
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this machine needs to run kernels of these platforms.
fn requirements(platforms: &[Platform]) -> Vec<Requirement> {
    let mut requirements = program::requirements(platforms);
    for platform in platforms {
        let package: &[&str] = match platform {
            Platform::Amd64 => &["qemu-system-x86"],
            Platform::Arm64 => &["qemu-system-arm"],
        };
        let emulator = machine::emulator(*platform);
        requirements.push(Requirement::program(emulator, "to boot kernels", package));
    }
    requirements.extend([
        Requirement::program("apt-get", "to download kernels", &["apt"]),
        Requirement::program("dpkg-deb", "to unpack kernels", &["dpkg"]),
        Requirement::program("xz", "to unpack the modules of kernels", &["xz-utils"]),
        Requirement::program("zstd", "to unpack the modules of kernels", &["zstd"]),
        Requirement::program("ldd", "to find the libraries of programs", &["libc-bin"]),
        Requirement::program("mount", "which tests call", &["mount"]),
        Requirement::program("unshare", "which tests call", &["util-linux"]),
        packages::IP,
    ]);
    requirements
}

/// A kernel that is about to run.
struct Machine<'a> {
    kernel: &'a Kernel,
    packages: &'a [PathBuf],
    programs: &'a Programs,
    directory: &'a Path,
    expected: &'a [(&'a str, &'a str)],
}

impl Machine<'_> {
    fn run(&self, arguments: &KernelArgs) -> Result<Outcome> {
        let name = self.kernel.name;
        let unpacked = unpack::kernel(self.packages, &MODULES)?;
        let mut initramfs = self.programs.initramfs.clone();
        let mut modules = Vec::new();
        for (module, content) in &unpacked.modules {
            let path = format!("/modules/{module}.ko");
            initramfs.file(&path, 0o644, content);
            modules.push(path);
        }
        let plan = self.plan(modules, arguments);
        initramfs.file(guest::PLAN, 0o644, &serde_json::to_vec(&plan)?);
        let path = |end: &str| self.directory.join(format!("{name}{end}"));
        let (image, file_system, log) = (path(".vmlinuz"), path(".cpio"), path(".log"));
        replace_file(&image, &unpacked.image)?;
        replace_file(&file_system, &initramfs.finish())?;
        say(format_args!(
            "booting {name}; its console goes to {}",
            short(&log)
        ));
        let started = Instant::now();
        let limit = Duration::from_secs(arguments.timeout) + MARGIN;
        let expected = self.expected.iter();
        let expected = expected.map(|(program, test)| ((*program).to_owned(), (*test).to_owned()));
        let expected: Vec<_> = expected.collect();
        let boot = || {
            let outcome = Outcome::expecting(expected.clone());
            machine::run(self.kernel, &image, &file_system, &log, limit, outcome)
        };
        let mut outcome = boot()?;
        // Emulators have faults as well.
        if !outcome.has_started() {
            say(format_args!(
                "{name} did not start: {}; booting it once more",
                outcome.remarks().join("; ")
            ));
            outcome = boot()?;
        }
        // It is large, and made again each time.
        let _ = fs::remove_file(&file_system);
        say(format_args!(
            "{name}: {} passed, {} failed ({} s)",
            outcome.passed(),
            outcome.failed(),
            started.elapsed().as_secs()
        ));
        for line in outcome.failures().take(FAILURE_LINES) {
            eprintln!("  {line}");
        }
        Ok(outcome)
    }

    fn plan(&self, modules: Vec<String>, arguments: &KernelArgs) -> Plan {
        let of_tests: Vec<_> = [&arguments.filters, &arguments.arguments]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let tests = self.programs.tests.iter().map(|(name, program)| Test {
            name: name.clone(),
            program: program.clone(),
            arguments: of_tests.clone(),
        });
        Plan {
            modules,
            agent: self.programs.agent.clone(),
            programs: self.programs.kernel_programs.clone(),
            tests: tests.collect(),
            seconds: arguments.timeout,
        }
    }
}
