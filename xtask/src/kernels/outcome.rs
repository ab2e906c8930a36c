//! How a run went, from what the guest says on its console.

use std::collections::{BTreeMap, BTreeSet};

use guest::{Parsed, Programs, Record};

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Ignored,
}

/// What is known of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    release: Option<String>,
    programs: Option<Programs>,
    /// By the program's name and the test's.
    tests: BTreeMap<(String, String), Option<Verdict>>,
    problems: Vec<String>,
    kernel_log: Vec<String>,
    broken: usize,
    is_finished: bool,
    /// Tests that must be among those that are run, by the program's name and the test's.
    expected: Vec<(String, String)>,
    /// What test programs say of failures, by program.
    failures: BTreeMap<String, Vec<String>>,
    telling_failures: BTreeSet<String>,
}

impl Outcome {
    /// Whatever becomes of a run in which all of these tests, and perhaps others, have to be run: by the
    /// program's name and the test's.
    pub(super) fn expecting(expected: Vec<(String, String)>) -> Self {
        Self {
            expected,
            ..Self::default()
        }
    }

    /// Takes the next line of the console.
    pub(super) fn take(&mut self, line: &str) {
        let record = match Record::parse(line) {
            Parsed::Record(record) => record,
            Parsed::Broken => {
                self.broken += 1;
                return;
            }
            Parsed::None => {
                if line.contains("Kernel panic - not syncing") {
                    self.problems.push(line.trim().to_owned());
                }
                return;
            }
        };
        match record {
            Record::Started { release } => self.release = Some(release),
            Record::Problem(problem) => self.problems.push(problem),
            Record::Programs(programs) => {
                if let Some(complaint) = &programs.complaint {
                    self.problems.push(format!("the agent: {complaint}"));
                }
                self.programs = Some(programs);
            }
            Record::Listed { program, tests } => {
                for test in tests {
                    self.tests.entry((program.clone(), test)).or_default();
                }
            }
            Record::Output {
                program,
                harness: true,
                line,
            } => self.take_output(program, line),
            Record::Output { .. } => {}
            Record::Ended { program, failure } => {
                // That tests failed is said of each of them.
                let verdicts = self.tests.iter().filter(|((of, _), _)| *of == program);
                let mut verdicts = verdicts.map(|(_, verdict)| *verdict);
                let is_explained = verdicts.clone().all(|verdict| verdict.is_some())
                    && verdicts.any(|verdict| verdict == Some(Verdict::Failed));
                if let Some(failure) = failure.filter(|_| !is_explained) {
                    self.problems.push(format!("{program}: {failure}"));
                }
            }
            Record::KernelLog(message) => self.kernel_log.push(message),
            Record::Finished => self.is_finished = true,
        }
    }

    /// A line of the test harness.
    fn take_output(&mut self, program: String, line: String) {
        if let Some((test, verdict)) = verdict(&line) {
            self.tests.insert((program, test.to_owned()), Some(verdict));
        } else if line == "failures:" {
            self.telling_failures.insert(program);
        } else if self.telling_failures.contains(&program) {
            self.failures.entry(program).or_default().push(line);
        }
    }

    /// The machine has ended, or was ended for this reason.
    pub(super) fn end(&mut self, reason: Option<String>) {
        match reason {
            Some(reason) => self.problems.push(reason),
            None if !self.is_finished && self.problems.is_empty() => self
                .problems
                .push("the machine stopped before the tests were done".to_owned()),
            None => {}
        }
        if self.is_finished {
            let lacking = self
                .expected
                .iter()
                .filter(|test| !self.tests.contains_key(test));
            let lacking = lacking.map(|(program, test)| format!("no such test: {program} {test}"));
            self.problems.extend(lacking);
        }
        if self.tests.is_empty() && self.problems.is_empty() {
            self.problems
                .push("no test was run: does the filter match?".to_owned());
        }
    }

    fn count(&self, wanted: Option<Verdict>) -> usize {
        self.tests
            .values()
            .filter(|verdict| **verdict == wanted)
            .count()
    }

    /// How many tests passed.
    pub(super) fn passed(&self) -> usize {
        self.count(Some(Verdict::Passed))
    }

    /// How many tests failed, or did not come to an end.
    pub(super) fn failed(&self) -> usize {
        self.count(Some(Verdict::Failed)) + self.count(None)
    }

    /// Whether all is well.
    pub(super) fn is_success(&self) -> bool {
        self.is_finished && self.problems.is_empty() && self.failed() == 0
    }

    /// Whether the kernel came as far as its first process.
    pub(super) fn has_started(&self) -> bool {
        self.release.is_some()
    }

    /// What `uname -r` says.
    pub(super) fn release(&self) -> &str {
        self.release.as_deref().unwrap_or("did not start")
    }

    /// How many programs are loaded.
    pub(super) fn programs(&self) -> usize {
        self.programs.as_ref().map_or(0, |programs| programs.loaded)
    }

    /// How the programs refuse a connection.
    pub(super) fn refusal(&self) -> &'static str {
        match self.programs.as_ref().and_then(|it| it.chooses_error) {
            Some(true) => "error",
            Some(false) => "rewrite",
            None => "?",
        }
    }

    /// What has to be said about it beside the numbers, a line each.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = self.problems.clone();
        for ((program, test), verdict) in &self.tests {
            match verdict {
                Some(Verdict::Failed) => remarks.push(format!("failed: {program} {test}")),
                None => remarks.push(format!("did not end: {program} {test}")),
                Some(Verdict::Passed | Verdict::Ignored) => {}
            }
        }
        if self.broken > 0 && self.count(None) > 0 {
            remarks.push(format!(
                "{} lines of the console cannot be read: results may have been lost",
                self.broken
            ));
        }
        let warnings = self.programs.iter().flat_map(|it| &it.warnings);
        remarks.extend(warnings.map(|warning| format!("the agent warns: {warning}")));
        let log = self.kernel_log.iter();
        remarks.extend(log.map(|message| format!("the kernel's log: {message}")));
        remarks
    }

    /// What the test programs say of failures.
    pub(super) fn failures(&self) -> impl Iterator<Item = &str> {
        self.failures.values().flatten().map(String::as_str)
    }
}

/// "test connect::works ... ok"
fn verdict(line: &str) -> Option<(&str, Verdict)> {
    let (test, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let verdict = match verdict.split([',', ' ']).next()? {
        "ok" => Verdict::Passed,
        "FAILED" => Verdict::Failed,
        "ignored" => Verdict::Ignored,
        _ => return None,
    };
    let test = test
        .split_once(" - should panic")
        .map_or(test, |(test, _)| test);
    Some((test, verdict))
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

    fn listed(tests: &[&str]) -> Record {
        Record::Listed {
            program: "datapath".to_owned(),
            tests: tests.iter().map(|it| (*it).to_owned()).collect(),
        }
    }

    fn ended(failure: Option<&str>) -> Record {
        Record::Ended {
            program: "datapath".to_owned(),
            failure: failure.map(str::to_owned),
        }
    }

    fn outcome(records: &[Record]) -> Outcome {
        let mut outcome = Outcome::default();
        for record in records {
            outcome.take(&record.to_line().unwrap());
        }
        outcome
    }

    fn started() -> Record {
        Record::Started {
            release: "6.1.0".to_owned(),
        }
    }

    #[test]
    fn a_run_in_which_every_listed_test_passed_is_a_success() {
        let mut outcome = outcome(&[
            started(),
            Record::Programs(Programs {
                loaded: 4,
                chooses_error: Some(true),
                ..Programs::default()
            }),
            listed(&["a::b", "c", "d"]),
            output("running 3 tests"),
            output("test a::b ... ok"),
            output("test c - should panic ... ok"),
            output("test d ... ignored, not here"),
            output("test result: ok. 2 passed; 0 failed; 1 ignored"),
            ended(None),
            Record::Finished,
        ]);
        outcome.end(None);
        assert!(outcome.is_success(), "{outcome:?}");
        assert_eq!((outcome.passed(), outcome.failed()), (2, 0));
        assert_eq!((outcome.release(), outcome.programs()), ("6.1.0", 4));
        assert_eq!(outcome.refusal(), "error");
        assert_eq!(outcome.remarks(), [""; 0]);
    }

    #[test]
    fn a_failed_test_is_named_with_what_it_said() {
        let mut outcome = outcome(&[
            started(),
            listed(&["a", "b"]),
            output("test a ... ok"),
            output("test b ... FAILED"),
            output("failures:"),
            output("assertion `left == right` failed"),
            ended(Some("exit status: 101")),
            Record::Finished,
        ]);
        outcome.end(None);
        assert!(!outcome.is_success());
        assert_eq!((outcome.passed(), outcome.failed()), (1, 1));
        assert_eq!(outcome.remarks(), ["failed: datapath b"]);
        let said: Vec<_> = outcome.failures().collect();
        assert_eq!(said, ["assertion `left == right` failed"]);
    }

    #[test]
    fn a_test_without_a_result_has_failed_whatever_the_reason() {
        let mut hung = outcome(&[
            started(),
            listed(&["a", "b"]),
            output("test a ... FAILED"),
            output("test b has been running for over 60 seconds"),
            ended(Some("time is up")),
            Record::Finished,
        ]);
        hung.end(None);
        assert!(!hung.is_success());
        assert_eq!(
            hung.remarks(),
            [
                "datapath: time is up",
                "failed: datapath a",
                "did not end: datapath b"
            ]
        );

        let mut lost = outcome(&[started(), listed(&["a"])]);
        let line = output("test a ... ok").to_line().unwrap();
        lost.take(&format!("{}[  9.1] random", &line[..50]));
        lost.take(&Record::Finished.to_line().unwrap());
        lost.end(None);
        assert!(!lost.is_success());
        assert_eq!(lost.failed(), 1);
        assert!(
            lost.remarks()[1].contains("cannot be read"),
            "{:?}",
            lost.remarks()
        );
    }

    #[test]
    fn a_test_that_has_to_be_run_and_is_not_there_is_missed() {
        let wanted = ["a", "b"].map(|test| ("datapath".to_owned(), test.to_owned()));
        let mut outcome = Outcome::expecting(wanted.to_vec());
        for record in [
            started(),
            listed(&["a"]),
            output("test a ... ok"),
            ended(None),
            Record::Finished,
        ] {
            outcome.take(&record.to_line().unwrap());
        }
        outcome.end(None);
        assert!(!outcome.is_success());
        assert_eq!(outcome.remarks(), ["no such test: datapath b"]);
    }

    #[test]
    fn what_the_agent_does_without_is_told_and_no_failure() {
        let mut outcome = outcome(&[
            started(),
            Record::Programs(Programs {
                loaded: 8,
                chooses_error: Some(false),
                complaint: None,
                warnings: vec!["this kernel has no tracepoint x".to_owned()],
            }),
            listed(&["a"]),
            output("test a ... ok"),
            ended(None),
            Record::Finished,
        ]);
        outcome.end(None);
        assert!(outcome.is_success(), "{outcome:?}");
        assert_eq!(
            outcome.remarks(),
            ["the agent warns: this kernel has no tracepoint x"]
        );
    }

    #[test]
    fn a_kernel_that_panics_or_stops_is_told() {
        let mut panicked = outcome(&[started(), listed(&["a"])]);
        panicked.take("[    5.2] Kernel panic - not syncing: Fatal exception");
        panicked.end(None);
        assert!(
            panicked.remarks()[0].contains("Kernel panic"),
            "{panicked:?}"
        );
        assert!(!panicked.is_success());

        let mut silent = Outcome::default();
        silent.end(None);
        assert!(!silent.is_success());
        assert!(!silent.has_started() && panicked.has_started());
        assert_eq!(silent.release(), "did not start");
        assert!(silent.remarks()[0].contains("stopped"), "{silent:?}");
    }

    #[test]
    fn a_kernel_that_does_not_take_the_programs_and_a_filter_that_matches_nothing_are_no_success() {
        let mut refused = outcome(&[
            started(),
            Record::Programs(Programs {
                complaint: Some("this kernel lacks what the programs need".to_owned()),
                ..Programs::default()
            }),
            Record::Finished,
        ]);
        refused.end(None);
        assert!(!refused.is_success());
        assert!(refused.remarks()[0].contains("lacks"), "{refused:?}");

        let mut empty = outcome(&[started(), listed(&[]), ended(None), Record::Finished]);
        empty.end(None);
        assert!(!empty.is_success());
    }
}
