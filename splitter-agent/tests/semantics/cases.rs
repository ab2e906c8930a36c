//! The tables of cases in `docs/semantics.md`, against the tests that cite them, the README's edge
//! cases, and the reasons in the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testbed::workspace::root;

const TABLES: &str = "docs/semantics.md";

/// What a doc comment begins with that cites cases, separated by commas.
const CITATION: &str = "/// Case: ";

/// Nothing is wrong with what is accepted; and a directory cannot be watched only where the machine
/// has no watches left.
const WITHOUT_CASE: [&str; 2] = ["Accepted", "NotWatched"];

/// Every case has an id of its own, and a test that proves it; every id that a test cites is that
/// of a case.
#[test]
fn every_case_is_proved_by_a_test() {
    let cases = cases();
    let mut cited = BTreeSet::new();
    for package in ["splitter-agent", "splitter-common", "testbed"] {
        for directory in ["src", "tests"] {
            find_citations(&root().join(package).join(directory), &mut cited);
        }
    }
    let unproved: Vec<_> = cases.difference(&cited).collect();
    assert!(
        unproved.is_empty(),
        "cases that no test cites: {unproved:?}"
    );
    let unknown: Vec<_> = cited.difference(&cases).collect();
    assert!(
        unknown.is_empty(),
        "cited, but not in {TABLES}: {unknown:?}"
    );
}

#[test]
fn every_edge_case_of_the_readme_is_a_case() {
    let cases = cases();
    let readme = read(&root().join("README.md"));
    let (_, section) = readme.split_once("\n## Edge cases\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("another section");
    let rows: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 2, "a table with a head");
    for row in &rows[2..] {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let ids: Vec<&str> = words(cells.last().copied().unwrap_or_default()).collect();
        assert!(!ids.is_empty(), "no id in the last column: {row}");
        for id in ids {
            assert!(cases.contains(id), "{id} is not in {TABLES}");
        }
    }
}

/// Every reason that the agent gives has a case, and every reason word in the tables is one that
/// the agent gives.
#[test]
fn reasons_of_cases_are_those_of_the_agent() {
    let source = read(&root().join("splitter-agent/src/reason.rs"));
    let constants = source.lines().filter(|line| line.starts_with("pub const "));
    let given: BTreeSet<&str> = constants
        .filter_map(|line| line.split('"').nth(1))
        .filter(|reason| !WITHOUT_CASE.contains(reason))
        .collect();
    assert!(!given.is_empty(), "no reasons");
    let text = read(&root().join(TABLES));
    let rows = rows(&text).into_iter();
    let reported: BTreeSet<&str> = rows.flat_map(|row| words(row[3])).collect();
    assert_eq!(given, reported);
}

/// The ids of all cases.
fn cases() -> BTreeSet<String> {
    let mut cases = BTreeSet::new();
    for row in rows(&read(&root().join(TABLES))) {
        let id = row[0].trim_matches('`');
        assert!(cases.insert(id.to_owned()), "{id} is there more than once");
    }
    assert!(!cases.is_empty(), "no cases in {TABLES}");
    cases
}

/// The rows of the tables of cases, cell by cell.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut is_of_cases = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        is_of_cases = line.starts_with('|') && (is_of_cases || cells[0] == "id");
        let is_head = cells[0] == "id" || cells[0].starts_with("---");
        if is_of_cases && !is_head {
            let has_id = cells[0].starts_with('`') && cells[0].ends_with('`');
            assert!(has_id && cells.len() == 4, "not a row of a case: {line}");
            rows.push(cells);
        }
    }
    rows
}

/// The words in backquotes.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Adds the ids that the tests below a directory cite.
fn find_citations(directory: &Path, cited: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory of the workspace") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            find_citations(&path, cited);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read(&path);
            let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
            for (number, line) in lines.iter().enumerate() {
                if let Some(ids) = line.strip_prefix(CITATION) {
                    assert!(
                        is_of_test(&lines[number + 1..]),
                        "{}:{}: not directly at a test",
                        path.display(),
                        number + 1
                    );
                    cited.extend(ids.split(", ").map(str::to_owned));
                }
            }
        }
    }
}

/// Whether a doc comment that these lines follow is that of a test.
fn is_of_test(following: &[&str]) -> bool {
    let mut attributes = following.iter().take_while(|line| line.starts_with("#["));
    attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
