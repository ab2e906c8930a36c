//! What is wrong with a file or an object is said, and affects nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use splitter_agent::compile::Severity;

use super::support::{Directory, NAMELESS, documents, file_problem, service, services};

/// Case: FILE-BROKEN
#[test]
fn a_broken_file_keeps_its_last_good_content_and_the_line_is_told() {
    let directory = Directory::new();
    directory.write("sub.yaml", &service("other"));
    fs::create_dir(directory.path("sub")).expect("create");
    directory.write("sub/x.yaml", &service("a"));
    let watched = directory.watch();
    directory.write("sub/x.yaml", "a: 1\nb: 2\nb: 3\n");
    let snapshot = watched.until_problem("InvalidSyntax");
    let problem = file_problem(&snapshot, "sub/x.yaml");
    assert_eq!(
        problem.object.name.namespace,
        directory.root().display().to_string()
    );
    assert_eq!(problem.severity, Severity::Refused);
    assert_eq!(problem.field, "line 3 column 1");
    assert!(
        problem
            .message
            .ends_with("until then its last good content stays in effect")
    );
    assert_eq!(services(&snapshot), ["a", "other"]);
    assert!(snapshot.complete);
    directory.write("sub/x.yaml", &service("b"));
    watched.until_services(&["b", "other"]);
}

#[test]
fn a_file_broken_from_the_start_makes_the_snapshot_incomplete() {
    let directory = Directory::new();
    directory.write("good.yaml", &service("a"));
    directory.write("x.yaml", "{");
    directory.write("y.yaml", "]");
    let watched = directory.watch();
    let snapshot = watched.now();
    assert!(!snapshot.complete);
    assert_eq!(services(&snapshot), ["a"]);
    assert_eq!(snapshot.problems.len(), 2);
    assert!(
        snapshot.problems[0]
            .message
            .ends_with("until then nothing of it is in effect")
    );
    directory.write("x.yaml", &service("x"));
    let snapshot = watched.until("x", |snapshot| services(snapshot) == ["a", "x"]);
    assert!(!snapshot.complete);
    fs::remove_file(directory.path("y.yaml")).expect("remove");
    watched.until_services(&["a", "x"]);
}

#[test]
fn what_is_no_manifest_keeps_the_last_good_content() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("a"));
    let watched = directory.watch();
    for text in ["apiVers", "- a\n- b\n", "\u{0}\u{1}"] {
        directory.write("x.yaml", text);
        let snapshot = watched.until_problem("InvalidSyntax");
        assert_eq!(services(&snapshot), ["a"]);
        directory.write("x.yaml", &service("a"));
        watched.until_services(&["a"]);
    }
}

/// Case: OBJECT-UNREADABLE
#[test]
fn a_file_that_cannot_be_read_keeps_its_last_good_content() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("a"));
    let watched = directory.watch();
    let x = directory.path("x.yaml");

    fs::write(directory.beside("latin1"), b"a: \xe9\n").expect("write");
    fs::rename(directory.beside("latin1"), &x).expect("rename");
    let snapshot = watched.until_problem("InvalidSyntax");
    assert_eq!(file_problem(&snapshot, "x.yaml").field, "line 1 column 4");
    assert_eq!(services(&snapshot), ["a"]);

    symlink("nowhere", directory.beside("dangling")).expect("link");
    fs::rename(directory.beside("dangling"), &x).expect("rename");
    let snapshot = watched.until_problem("Unreadable");
    assert!(
        file_problem(&snapshot, "x.yaml")
            .message
            .contains("a link to nothing")
    );
    assert_eq!(services(&snapshot), ["a"]);

    directory.write("nowhere", &service("b"));
    watched.until_services(&["b"]);

    let _socket = UnixListener::bind(directory.beside("socket")).expect("bind");
    fs::rename(directory.beside("socket"), &x).expect("rename");
    let snapshot = watched.until_problem("Unreadable");
    assert!(
        file_problem(&snapshot, "x.yaml")
            .message
            .contains("not a regular file")
    );
    assert_eq!(services(&snapshot), ["b"]);

    fs::remove_file(&x).expect("remove");
    watched.until_services(&[]);
}

#[test]
fn a_pipe_does_not_stop_the_watching() {
    let directory = Directory::new();
    let made = std::process::Command::new("mkfifo")
        .arg(directory.path("x.yaml"))
        .status();
    assert!(made.expect("mkfifo").success());
    let watched = directory.watch();
    assert_eq!(file_problem(&watched.now(), "x.yaml").reason, "Unreadable");
    directory.write("y.yaml", &service("other"));
    watched.until("other", |snapshot| services(snapshot) == ["other"]);
}

/// Case: FILE-TOO-LARGE
#[test]
fn a_file_that_is_too_large_is_refused_by_name() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("a"));
    let watched = directory.watch();
    let file = fs::File::create(directory.path("x.yaml")).expect("create");
    file.set_len(65 * 1024 * 1024).expect("grow");
    drop(file);
    let snapshot = watched.until_problem("TooLarge");
    assert!(
        file_problem(&snapshot, "x.yaml")
            .message
            .contains("68157440")
    );
    assert_eq!(services(&snapshot), ["a"]);
}

#[test]
fn a_directory_named_like_a_manifest_is_a_directory() {
    let directory = Directory::new();
    let watched = directory.watch();
    fs::create_dir(directory.path("x.yaml")).expect("create");
    directory.write("x.yaml/y.yaml", &service("other"));
    watched.until_services(&["other"]);
}

/// Case: OBJECT-ISOLATED
#[test]
fn a_bad_object_leaves_its_neighbours_alone() {
    let directory = Directory::new();
    let text = documents(&[&service("a"), NAMELESS, &service("b")]);
    directory.write("x.yaml", &text);
    let watched = directory.watch();
    let snapshot = watched.now();
    assert_eq!(services(&snapshot), ["a", "b"]);
    assert!(snapshot.complete);
    assert_eq!(snapshot.problems.len(), 1);
    let problem = &snapshot.problems[0];
    assert_eq!(problem.object.kind, "Service");
    assert_eq!(problem.severity, Severity::Refused);
    assert!(problem.field.starts_with("metadata"), "{problem:?}");
    assert!(problem.message.ends_with("(x.yaml line 10)"), "{problem:?}");
    // Refused, not kept: what the file said of it before counts no more.
    directory.write("x.yaml", &text.replace("name: b", "name: [b]"));
    let snapshot = watched.until("b refused", |snapshot| services(snapshot) == ["a"]);
    assert_eq!(snapshot.problems.len(), 2);
}

#[test]
fn unknown_kinds_are_ignored() {
    let directory = Directory::new();
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
    directory.write(
        "x.yaml",
        &documents(&[deployment, &service("a"), deployment]),
    );
    let watched = directory.watch();
    watched.until_services(&["a"]);
}

#[test]
fn lists_are_read_item_by_item() {
    let directory = Directory::new();
    let item =
        |name: &str| format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}}}");
    let inner = format!("{{apiVersion: v1, kind: List, items: [{}]}}", item("c"));
    directory.write(
        "x.yaml",
        &format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}\n- {{apiVersion: v1, kind: Service}}\n- {}\n- \
             {inner}\n---\napiVersion: v1\nkind: List\nitems: []\n",
            item("a"),
            item("b"),
        ),
    );
    directory.write(
        "typed.yaml",
        "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: d}\n",
    );
    let watched = directory.watch();
    let snapshot = watched.now();
    assert_eq!(services(&snapshot), ["a", "b", "c", "d"]);
    assert_eq!(snapshot.problems.len(), 1);
    let message = &snapshot.problems[0].message;
    assert!(message.ends_with("(x.yaml line 1, item 2)"), "{message}");
}

#[test]
fn only_known_lists_are_unpacked() {
    let directory = Directory::new();
    let items = "items:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n";
    directory.write(
        "x.yaml",
        &documents(&[
            &format!("apiVersion: example.org/v1\nkind: AllowList\n{items}"),
            &format!("apiVersion: example.org/v1\nkind: ServiceList\n{items}"),
            "apiVersion: v1\nkind: List\nitems: null\n",
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSliceList\nitems:\n- {metadata: {name: e}, \
             addressType: IPv4}\n",
        ]),
    );
    let watched = directory.watch();
    let snapshot = watched.now();
    assert_eq!(services(&snapshot), [] as [&str; 0]);
    assert_eq!(snapshot.objects.endpoint_slices.len(), 1);
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);

    directory.write("x.yaml", "apiVersion: v1\nkind: List\nitems: 7\n");
    let snapshot = watched.until_problem("Unreadable");
    assert!(
        snapshot.problems[0]
            .message
            .starts_with("7 is not a Kubernetes object")
    );
}

/// Case: FILE-NOT-OBJECT
#[test]
fn a_document_that_is_no_object_is_a_warning() {
    let directory = Directory::new();
    directory.write(
        "values.yaml",
        &documents(&["image: {tag: v1}\n", &service("a")]),
    );
    let watched = directory.watch();
    let snapshot = watched.now();
    assert_eq!(services(&snapshot), ["a"]);
    let [problem] = snapshot.problems.as_slice() else {
        panic!("{snapshot:#?}");
    };
    assert_eq!(
        (problem.severity, problem.reason),
        (Severity::Warning, "NotAnObject")
    );
    assert!(
        problem.message.ends_with("(values.yaml line 1)"),
        "{problem:?}"
    );
    assert!(snapshot.objects.refused.is_empty());
    // Half of what makes an object is a slip.
    directory.write("values.yaml", "kind: Service\nmetadata: {name: a}\n");
    let snapshot = watched.until_problem("Unreadable");
    assert_eq!(snapshot.problems[0].severity, Severity::Refused);
}

/// Case: OBJECT-UNREADABLE
#[test]
fn what_was_refused_is_known_by_name() {
    let directory = Directory::new();
    let bad = service("a").replace("port: 80", "port: 0");
    directory.write("x.yaml", &documents(&[&bad, &service("b")]));
    let snapshot = directory.watch().now();
    assert_eq!(services(&snapshot), ["b"]);
    let refused: Vec<_> = snapshot
        .objects
        .refused
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(refused, ["Service default/a"]);
}

#[test]
fn names_of_files_cannot_control_a_terminal() {
    let directory = Directory::new();
    directory.write(
        "x\u{1b}[2J\n\u{202e}.yaml",
        &documents(&[NAMELESS, "a: 1\n"]),
    );
    directory.write("y\u{1b}[2J\n\u{202e}.yaml", "{");
    let snapshot = directory.watch().now();
    assert_eq!(snapshot.problems.len(), 3);
    for problem in snapshot.problems {
        let text = problem.to_string();
        assert!(!text.contains(['\u{1b}', '\n', '\u{202e}']), "{text:?}");
    }
}

/// Case: OBJECT-DUPLICATE
#[test]
fn of_an_object_given_twice_the_first_is_used() {
    let directory = Directory::new();
    let address = |last: u8| service("a").replace("10.96.0.10", &format!("10.96.0.{last}"));
    let used = |snapshot: &splitter_agent::source::Snapshot| {
        format!("{:?}", snapshot.objects.services.values().next())
    };
    directory.write("b.yaml", &documents(&[&address(1), &address(2)]));
    let watched = directory.watch();
    let snapshot = watched.until_problem("DuplicateObject");
    assert!(used(&snapshot).contains("10.96.0.1"));
    let problem = &snapshot.problems[0];
    assert_eq!(problem.object.to_string(), "Service default/a");
    assert!(problem.message.contains("b.yaml line 10"), "{problem:?}");
    assert!(
        problem.message.contains("b.yaml line 1 is used"),
        "{problem:?}"
    );

    directory.write("a.yaml", &address(3));
    let snapshot = watched.until("told of both", |snapshot| snapshot.problems.len() == 2);
    assert!(used(&snapshot).contains("10.96.0.3"));
    assert!(
        snapshot.problems[0]
            .message
            .contains("b.yaml line 1 gives it again")
    );
    assert!(
        snapshot.problems[0]
            .message
            .contains("a.yaml line 1 is used")
    );

    fs::remove_file(directory.path("b.yaml")).expect("remove");
    watched.until_services(&["a"]);
    fs::rename(directory.path("a.yaml"), directory.path("z.yaml")).expect("rename");
    watched.keeps_services(&["a"]);
    watched.until_services(&["a"]);
}
