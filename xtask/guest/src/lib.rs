//! What `cargo xtask test-kernels` and the first process of its virtual machines say to each other.
//!
//! The host puts a [`Plan`] into the initramfs. The guest answers on the serial console, one
//! [`Record`] a line. The kernel writes there too, at any time and into the middle of a line, so that
//! a record has a mark before it and is JSON: one that something was written into is noticed.

use serde::{Deserialize, Serialize};

/// Where the plan is in the guest.
pub const PLAN: &str = "/plan.json";

/// What comes before each record.
const MARK: &str = "@guest@ ";

/// What the guest is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Modules to load, in this order.
    pub modules: Vec<String>,
    /// The agent, which is asked whether the kernel takes the programs.
    pub agent: String,
    /// The names of the programs.
    pub programs: Vec<String>,
    /// What to run, one after the other.
    pub tests: Vec<Test>,
    /// How long all tests together may take.
    pub seconds: u64,
}

/// A test program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// Its path.
    pub program: String,
    /// Its arguments: filters, and options of the test harness.
    pub arguments: Vec<String>,
}

/// What the guest has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The kernel has started the first process.
    Started {
        /// What `uname -r` says.
        release: String,
    },
    /// Something that the tests need could not be prepared.
    Problem(String),
    /// How the kernel took the programs.
    Programs(Programs),
    /// The tests that a program is going to run.
    Listed {
        /// The program's name.
        program: String,
        /// The tests' names.
        tests: Vec<String>,
    },
    /// A line that a test program has printed.
    Output {
        /// The program's name.
        program: String,
        /// Whether it is of the harness; else of standard error, where only those write that got
        /// past the harness.
        harness: bool,
        /// The line.
        line: String,
    },
    /// A test program has ended.
    Ended {
        /// Its name.
        program: String,
        /// How, in words; nothing if it has succeeded.
        failure: Option<String>,
    },
    /// Something alarming in the kernel's log.
    KernelLog(String),
    /// There is nothing left to do.
    Finished,
}

/// How the kernel took the programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// How many are loaded and pinned.
    pub loaded: usize,
    /// Whether a program can choose the error of a connect(); unknown if the agent did not get that
    /// far.
    pub chooses_error: Option<bool>,
    /// What the agent complains about, if it does not split.
    pub complaint: Option<String>,
    /// What it warns of: what it does without on this kernel.
    pub warnings: Vec<String>,
}

impl Record {
    /// The line that says it, without its end.
    ///
    /// # Errors
    ///
    /// Never: a record is of texts and numbers alone.
    pub fn to_line(&self) -> serde_json::Result<String> {
        // What JSON leaves as it is and a terminal might not.
        let json: String = serde_json::to_string(self)?
            .chars()
            .map(|c| match c {
                '\u{20}'..='\u{7e}' => c.to_string(),
                _ => {
                    let mut units = [0; 2];
                    let units = c.encode_utf16(&mut units);
                    units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
                }
            })
            .collect();
        Ok(format!("{MARK}{json}"))
    }

    /// Reads a line of the console.
    #[must_use]
    pub fn parse(line: &str) -> Parsed {
        // The kernel may have been in the middle of a line of its own.
        let Some((_, json)) = line.split_once(MARK) else {
            return Parsed::None;
        };
        match serde_json::from_str(json.trim_end()) {
            Ok(record) => Parsed::Record(record),
            Err(_) => Parsed::Broken,
        }
    }
}

/// What a line of the console is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A record.
    Record(Record),
    /// A record that something was written into.
    Broken,
    /// Something else: the kernel's.
    None,
}

/// Whether a message of the kernel tells of a fault in it. That a processor was slow is none: it is
/// an emulated one.
#[must_use]
pub fn is_alarming(message: &str) -> bool {
    [
        "BUG: ",
        "WARNING: ",
        "Oops",
        "general protection fault",
        "Kernel panic",
    ]
    .iter()
    .any(|word| message.contains(word))
        && !message.contains("soft lockup")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(line: &str) -> Record {
        Record::Output {
            program: "datapath".to_owned(),
            harness: true,
            line: line.to_owned(),
        }
    }

    #[test]
    fn a_record_survives_its_way() {
        for record in [
            output("test connect::x ... ok"),
            output("left: \"\u{1b}[1mä\u{1f980}\"\t\\ \r"),
            Record::Programs(Programs::default()),
            Record::Finished,
        ] {
            let line = record.to_line().unwrap();
            assert!(
                line.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                "{line}"
            );
            assert_eq!(Record::parse(&line), Parsed::Record(record.clone()));
            // As a terminal ends it, and behind something of the kernel's.
            let late = format!("[    3.1] random: crng {line}\r");
            assert_eq!(Record::parse(&late), Parsed::Record(record));
        }
    }

    #[test]
    fn a_record_that_the_kernel_wrote_into_is_told_from_the_kernels_own_lines() {
        let line = output("test connect::x ... ok").to_line().unwrap();
        let (start, end) = line.split_at(40);
        let broken = format!("{start}[    3.1] random: crng init done\r");
        assert_eq!(Record::parse(&broken), Parsed::Broken);
        assert_eq!(Record::parse(end), Parsed::None);
        assert_eq!(Record::parse("[    0.0] Linux version 6.1"), Parsed::None);
    }

    #[test]
    fn faults_of_the_kernel_are_alarming_and_a_slow_processor_is_not() {
        assert!(is_alarming(
            "WARNING: CPU: 0 PID: 1 at kernel/bpf/verifier.c:1"
        ));
        assert!(is_alarming("BUG: kernel NULL pointer dereference"));
        assert!(!is_alarming(
            "watchdog: BUG: soft lockup - CPU#1 stuck for 22s!"
        ));
        assert!(!is_alarming(
            "bridge: filtering via arp/ip/ip6tables is no longer available"
        ));
    }
}
