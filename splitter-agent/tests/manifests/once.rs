//! Files read once, to judge them.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

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
    assert_eq!(problem.reason, "InvalidSyntax");
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
fn a_pipe_that_is_named_is_read() {
    let directory = Directory::new();
    let pipe = directory.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let writer = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::write(pipe, documents(&[&service("a"), NAMELESS])))
    };
    // Named twice it is read once: it has one end.
    let snapshot = manifests::read_once(&[pipe.clone(), pipe.clone()]).expect("read");
    writer.join().expect("a writer").expect("written");
    assert!(snapshot.complete);
    assert_eq!(services(&snapshot), ["a"]);
    let place = format!("({} line 10)", pipe.display());
    assert!(snapshot.problems[0].message.ends_with(&place));
}

#[test]
fn standard_input_is_read() {
    for name in ["-", "/dev/stdin"] {
        let mut check = Command::new(env!("CARGO_BIN_EXE_splitter-agent"))
            .args(["check", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("splitter-agent");
        let mut stdin = check.stdin.take().expect("standard input");
        stdin.write_all(NAMELESS.as_bytes()).expect("write");
        drop(stdin);
        let output = check.wait_with_output().expect("output");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.ends_with("(/dev/stdin line 1)\n"), "{text}");
    }
}

#[test]
fn a_path_that_is_missing_is_an_error_that_names_it() {
    let directory = Directory::new();
    let error = manifests::read_once(&[directory.path("missing")]).expect_err("missing");
    assert!(matches!(error, SourceError::Missing { .. }));
    assert!(error.to_string().contains("missing does not exist"));
}
