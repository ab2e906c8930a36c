//! A file is used as a whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use super::support::{Directory, SHORT, documents, file_problem, service, services};

/// Opens a file as editors and shells do, which empties it.
fn truncate(directory: &Directory, name: &str) -> File {
    File::create(directory.path(name)).expect("create")
}

#[test]
fn a_file_that_a_writer_holds_open_keeps_its_content_until_closed() {
    let directory = Directory::new();
    directory.write("x.yaml", &documents(&[&service("a"), &service("b")]));
    let watched = directory.watch();
    let mut writer = truncate(&directory, "x.yaml");
    watched.keeps_services(&["a", "b"]);
    // Valid on its own, but not all.
    write!(writer, "{}", service("c")).expect("write");
    watched.keeps_services(&["a", "b"]);
    write!(writer, "---\n{}", service("d")).expect("write");
    watched.keeps_services(&["a", "b"]);
    drop(writer);
    watched.until_services(&["c", "d"]);
}

#[test]
fn it_is_kept_also_when_other_files_change() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("a"));
    let watched = directory.watch();
    let mut writer = truncate(&directory, "x.yaml");
    // Makes the whole directory be listed again.
    std::fs::create_dir(directory.path("new")).expect("create");
    directory.write("new/y.yaml", &service("other"));
    watched.until("other", |snapshot| services(snapshot).contains(&"other"));
    watched.keeps_services(&["a", "other"]);
    write!(writer, "{}", service("b")).expect("write");
    drop(writer);
    watched.until_services(&["b", "other"]);
}

#[test]
fn a_new_file_is_not_used_until_closed() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("a"));
    let watched = directory.watch();
    let mut writer = truncate(&directory, "y.yaml");
    write!(writer, "{}", service("b")).expect("write");
    watched.keeps_services(&["a"]);
    assert!(watched.now().complete);
    write!(writer, "---\n{}", service("c")).expect("write");
    drop(writer);
    watched.until_services(&["a", "b", "c"]);
}

#[test]
fn a_file_being_written_at_the_start_makes_the_snapshot_incomplete() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("a"));
    let mut writer = truncate(&directory, "y.yaml");
    let watched = directory.watch();
    assert!(!watched.now().complete);
    assert_eq!(services(&watched.now()), ["a"]);
    write!(writer, "{}", service("b")).expect("write");
    drop(writer);
    watched.until_services(&["a", "b"]);
}

/// Case: FILE-BEING-WRITTEN
#[test]
fn a_writer_that_stays_is_reported() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("a"));
    let watched = directory.watch();
    let writer = OpenOptions::new()
        .append(true)
        .open(directory.path("x.yaml"));
    let mut writer = writer.expect("open");
    // Makes somebody look at the file at all.
    writer
        .set_permissions(PermissionsExt::from_mode(0o600))
        .expect("chmod");
    let snapshot = watched.until_problem("BeingWritten");
    let problem = file_problem(&snapshot, "x.yaml");
    assert!(
        problem
            .message
            .contains("its last good content stays in effect")
    );
    assert_eq!(services(&snapshot), ["a"]);
    assert!(snapshot.complete);
    writeln!(writer, "---\n{}", service("b")).expect("write");
    drop(writer);
    watched.until_services(&["a", "b"]);
}

#[test]
fn what_is_truncated_and_later_completed_is_never_seen_by_half() {
    let directory = Directory::new();
    let whole: Vec<_> = (0..50).map(|n| format!("s{n:02}")).collect();
    let text = |names: &[String]| {
        let services: Vec<_> = names.iter().map(|name| service(name)).collect();
        documents(&services.iter().map(String::as_str).collect::<Vec<_>>())
    };
    directory.write("x.yaml", &text(&whole));
    let watched = directory.watch();
    let names: Vec<&str> = whole.iter().map(String::as_str).collect();
    for _ in 0..20 {
        let mut writer = truncate(&directory, "x.yaml");
        for chunk in text(&whole).as_bytes().chunks(500) {
            writer.write_all(chunk).expect("write");
            assert_eq!(services(&watched.now()), names);
        }
        drop(writer);
        assert_eq!(services(&watched.now()), names);
    }
    // Closed by half: that is what the file says, by all that anybody can know.
    directory.write("x.yaml", &text(&whole[..10]));
    watched.until_services(&names[..10]);
    directory.write("x.yaml", &text(&whole));
    watched.until_services(&names);
}

#[test]
fn reading_does_not_keep_a_writer_waiting() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("a"));
    let watched = directory.watch();
    let start = std::time::Instant::now();
    for round in 0..500 {
        directory.write("x.yaml", &service(&format!("v-{round}")));
    }
    // A lease that is not given up holds a writer for 45 seconds.
    assert!(start.elapsed().as_secs() < 15);
    watched.until_services(&["v-499"]);
    thread::sleep(SHORT);
    watched.until_services(&["v-499"]);
}
