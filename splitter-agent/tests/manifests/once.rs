//! Files read once, to judge them.

use std::fs;

use splitter_agent::source::manifests::{self, SourceError};

use super::support::{Directory, NAMELESS, documents, service, services};

#[test]
fn files_and_directories_are_read_together() {
    let directory = Directory::new();
    fs::create_dir(directory.path("sub")).expect("create");
    directory.write("sub/a.yaml", &service("a"));
    directory.write("sub/.hidden.yaml", &service("no"));
    directory.write("named", &documents(&[&service("b"), NAMELESS]));
    let paths = [directory.path("sub"), directory.path("named")];
    let snapshot = manifests::read_once(&paths).expect("read");
    assert_eq!(services(&snapshot), ["a", "b"]);
    assert!(snapshot.complete);
    assert_eq!(snapshot.problems.len(), 1);
    let place = format!("({} line 10)", directory.path("named").display());
    assert!(snapshot.problems[0].message.ends_with(&place));
}

#[test]
fn a_broken_file_is_a_problem_and_makes_the_snapshot_incomplete() {
    let directory = Directory::new();
    directory.write("x.yaml", "a: [");
    directory.write("y.yaml", &service("other"));
    let paths = [directory.path("x.yaml"), directory.path("y.yaml")];
    let snapshot = manifests::read_once(&paths).expect("read");
    assert!(!snapshot.complete);
    assert_eq!(services(&snapshot), ["other"]);
    let problem = &snapshot.problems[0];
    assert_eq!(
        problem.object.to_string(),
        format!("File {}", paths[0].display())
    );
    assert_eq!(problem.reason, "NotYaml");
}

#[test]
fn an_object_in_two_of_the_files_is_told() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("a"));
    directory.write("y.yaml", &service("a"));
    let paths = [directory.path("y.yaml"), directory.path("x.yaml")];
    let snapshot = manifests::read_once(&paths).expect("read");
    let told: Vec<_> = snapshot
        .problems
        .iter()
        .map(|problem| problem.reason)
        .collect();
    assert_eq!(told, ["DuplicateObject"]);
}

#[test]
fn a_path_that_is_missing_is_an_error_that_names_it() {
    let directory = Directory::new();
    let error = manifests::read_once(&[directory.path("missing")]).expect_err("missing");
    assert!(matches!(error, SourceError::Missing { .. }));
    assert!(error.to_string().contains("missing does not exist"));
}
