//! Every way in which a manifest can change.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use splitter_agent::source::manifests::{self, SourceError};

use super::support::{Directory, documents, service, services, watch};

#[test]
fn the_first_snapshot_is_complete() {
    let directory = Directory::new();
    directory.write("b.yml", &service("b"));
    fs::create_dir_all(directory.path("deep/er")).expect("create");
    directory.write(
        "deep/er/a.yaml",
        &documents(&[&service("a1"), "# nothing\n", &service("a2")]),
    );
    directory.write(
        "c.json",
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}}"#,
    );
    directory.write("notes.txt", &service("no"));
    directory.write(".hidden.yaml", &service("no"));
    fs::create_dir(directory.path(".git")).expect("create");
    directory.write(".git/x.yaml", &service("no"));
    let watched = directory.watch();
    let snapshot = watched.now();
    assert_eq!(services(&snapshot), ["a1", "a2", "b", "c"]);
    assert!(snapshot.complete);
    assert_eq!(snapshot.problems, []);
}

#[test]
fn an_empty_directory_is_complete() {
    let directory = Directory::new();
    let watched = directory.watch();
    assert!(watched.now().complete);
    watched.until_services(&[]);
}

#[test]
fn a_directory_that_is_missing_is_an_error_that_names_it() {
    let directory = Directory::new();
    let missing = directory.beside("missing");
    let error = manifests::watch(&missing).expect_err("missing");
    assert!(matches!(error, SourceError::Missing { .. }));
    assert!(error.to_string().contains(&missing.display().to_string()));
    directory.write("file", "");
    let error = manifests::watch(&directory.path("file")).expect_err("a file");
    assert!(matches!(error, SourceError::NotADirectory { .. }));
}

#[test]
fn files_are_followed_however_they_are_written() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("v0"));
    let watched = directory.watch();
    let x = directory.path("x.yaml");
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(directory.root());
        let status = command.status().expect("a shell");
        assert!(status.success(), "{script}");
    };

    directory.write("x.yaml", &service("v1"));
    watched.until_services(&["v1"]);
    fs::write(directory.beside("new"), service("v2")).expect("write");
    fs::rename(directory.beside("new"), &x).expect("rename");
    watched.until_services(&["v2"]);
    directory.write(".x.yaml.tmp", &service("v3"));
    fs::rename(directory.path(".x.yaml.tmp"), &x).expect("rename");
    watched.until_services(&["v3"]);
    shell("sed -i s/v3/v4/ x.yaml");
    watched.until_services(&["v4"]);
    shell("sed s/v4/v5/ x.yaml > ../copy && cp ../copy x.yaml");
    watched.until_services(&["v5"]);
    shell("sed s/v5/v6/ x.yaml > ../copy && mv ../copy x.yaml");
    watched.until_services(&["v6"]);
    shell("sed s/v6/v7/ x.yaml > ../copy && rm x.yaml && cp ../copy x.yaml");
    watched.until_services(&["v7"]);
    shell("sed s/v7/v8/ x.yaml > ../copy && ln -f ../copy x.yaml");
    watched.until_services(&["v8"]);
    shell("rm x.yaml");
    watched.until_services(&[]);
}

#[test]
fn directories_are_followed() {
    let directory = Directory::new();
    let watched = directory.watch();
    fs::create_dir_all(directory.path("a/b/c")).expect("create");
    directory.write("a/b/c/x.yaml", &service("x"));
    watched.until_services(&["x"]);
    directory.write("a/b/c/x.yaml", &service("other"));
    watched.until_services(&["other"]);
    fs::rename(directory.path("a/b"), directory.path("z")).expect("rename");
    watched.until_services(&["other"]);
    directory.write("z/c/x.yaml", &service("w"));
    watched.until_services(&["w"]);
    fs::rename(directory.path("z"), directory.beside("z")).expect("rename");
    watched.until_services(&[]);
    fs::write(directory.beside("z/c/x.yaml"), service("v")).expect("write");
    fs::rename(directory.beside("z"), directory.path("y")).expect("rename");
    watched.until_services(&["v"]);
    fs::remove_dir_all(directory.path("y")).expect("remove");
    watched.until_services(&[]);
}

#[test]
fn files_that_come_with_a_new_directory_are_not_missed() {
    let directory = Directory::new();
    let watched = directory.watch();
    for round in 0..200 {
        let name = format!("d{round}");
        fs::create_dir(directory.path(&name)).expect("create");
        directory.write(&format!("{name}/x.yaml"), &service("x"));
        let start = Instant::now();
        watched.until_services(&["x"]);
        // Well before the directory would be listed again in any case.
        assert!(start.elapsed() < Duration::from_secs(5));
        fs::remove_dir_all(directory.path(&name)).expect("remove");
        watched.until_services(&[]);
    }
}

#[test]
fn a_rewrite_of_the_same_size_in_the_same_millisecond_is_not_missed() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("v-00"));
    let watched = directory.watch();
    for round in 1..=50 {
        // Stamps have the granularity of the kernel's tick: these two have the same.
        directory.write("x.yaml", &service("v-aa"));
        directory.write("x.yaml", &service(&format!("v-{round:02}")));
        let start = Instant::now();
        watched.until_services(&[&format!("v-{round:02}")]);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_burst_of_rewrites_ends_in_the_last_content() {
    let directory = Directory::new();
    let watched = directory.watch();
    for round in 0..1_000 {
        directory.write("x.yaml", &service(&format!("v-{round}")));
    }
    watched.until_services(&["v-999"]);
    watched.keeps_services(&["v-999"]);
}

#[test]
fn several_writers_at_a_time_are_followed() {
    let directory = Directory::new();
    let watched = directory.watch();
    thread::scope(|scope| {
        for writer in 0..4 {
            let directory = &directory;
            scope.spawn(move || {
                for round in 0..500 {
                    let name = format!("{writer}-{}.yaml", round % 2);
                    directory.write(&name, &service(&format!("s{writer}-{round}")));
                }
            });
        }
    });
    watched.until_services(&[
        "s0-498", "s0-499", "s1-498", "s1-499", "s2-498", "s2-499", "s3-498", "s3-499",
    ]);
}

#[test]
fn a_change_whose_event_was_lost_is_not() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("x"));
    directory.write("y.yaml", &service("y0"));
    directory.write("late.yaml", "");
    let watched = directory.watch();
    // Takes a while to read, during which more happens than the kernel remembers.
    let others = "{apiVersion: v1, kind: Other}\n---\n".repeat(60_000);
    directory.write("large.yaml", &format!("{others}{}", service("large")));
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
    let limit: usize = limit.trim().parse().expect("a number");
    for round in 0..limit + 1_000 {
        let name = ["x.yaml", "y.yaml"][round % 2];
        let file = OpenOptions::new().append(true).open(directory.path(name));
        drop(file.expect("open"));
    }
    directory.write("late.yaml", &service("late"));
    watched.until("large", |snapshot| services(snapshot).contains(&"large"));
    let start = Instant::now();
    watched.until_services(&["large", "late", "x", "y0"]);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn links_to_files_and_directories_elsewhere_are_followed() {
    let directory = Directory::new();
    fs::create_dir(directory.beside("shared")).expect("create");
    fs::write(directory.beside("shared/a.yaml"), service("a1")).expect("write");
    fs::write(directory.beside("b"), service("b1")).expect("write");
    let watched = directory.watch();
    symlink(directory.beside("shared"), directory.path("dir")).expect("link");
    symlink(directory.beside("b"), directory.path("b.yaml")).expect("link");
    watched.until_services(&["a1", "b1"]);
    fs::write(directory.beside("shared/a.yaml"), service("a2")).expect("write");
    watched.until_services(&["a2", "b1"]);
    fs::write(directory.beside("b"), service("b2")).expect("write");
    watched.until_services(&["a2", "b2"]);
    fs::write(directory.beside("b.new"), service("b3")).expect("write");
    fs::rename(directory.beside("b.new"), directory.beside("b")).expect("rename");
    watched.until_services(&["a2", "b3"]);
    fs::remove_file(directory.path("dir")).expect("remove");
    fs::remove_file(directory.path("b.yaml")).expect("remove");
    watched.until_services(&[]);
}

#[test]
fn loops_of_links_end() {
    let directory = Directory::new();
    fs::create_dir(directory.path("a")).expect("create");
    directory.write("a/x.yaml", &service("x"));
    symlink("..", directory.path("a/up")).expect("link");
    symlink(".", directory.path("a/same")).expect("link");
    symlink("a", directory.path("b")).expect("link");
    let watched = directory.watch();
    watched.until_services(&["x"]);
    symlink("self.yaml", directory.path("self.yaml")).expect("link");
    watched.until_problem("Unreadable");
    directory.write("a/x.yaml", &service("other"));
    watched.until("other", |snapshot| services(snapshot) == ["other"]);
}

#[test]
fn a_link_as_the_directory_itself_may_lead_elsewhere() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("x"));
    fs::create_dir(directory.beside("other")).expect("create");
    fs::write(directory.beside("other/y.yaml"), service("other")).expect("write");
    symlink("manifests", directory.beside("current")).expect("link");
    let watched = watch(&directory.beside("current"));
    watched.until_services(&["x"]);
    symlink("other", directory.beside("next")).expect("link");
    fs::rename(directory.beside("next"), directory.beside("current")).expect("rename");
    let start = Instant::now();
    watched.until_services(&["other"]);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn nothing_is_sent_when_nothing_differs() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("x"));
    let mut watched = directory.watch();
    watched.snapshots.mark_unchanged();
    directory.write("x.yaml", &service("x"));
    directory.write("x.yaml", &format!("# a comment\n{}", service("x")));
    directory.write(
        "y.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: y}\n",
    );
    directory.write("notes.txt", "x");
    thread::sleep(Duration::from_millis(100));
    assert!(!watched.snapshots.has_changed().expect("still watched"));
    directory.write("x.yaml", &service("z"));
    watched.until_services(&["z"]);
    assert!(watched.snapshots.has_changed().expect("still watched"));
}

#[test]
fn dropping_the_handle_ends_the_watching() {
    let directory = Directory::new();
    let (snapshots, handle) = manifests::watch(&directory.root()).expect("can be watched");
    drop(handle);
    assert!(snapshots.has_changed().is_err());
}
