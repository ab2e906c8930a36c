//! Files and directories that are replaced as a whole: at no moment is a Service lost
//! that is in the old state and in the new.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::support::{Directory, Observer, documents, service, services};

/// Swaps the content of a mounted ConfigMap as the kubelet does.
fn swap(root: &Path, version: &str, files: &[(&str, &str)]) {
    let data = format!("..{version}");
    fs::create_dir(root.join(&data)).expect("create");
    for (name, text) in files {
        fs::write(root.join(&data).join(name), text).expect("write");
    }
    let old = fs::read_link(root.join("..data"));
    symlink(&data, root.join("..data_tmp")).expect("link");
    fs::rename(root.join("..data_tmp"), root.join("..data")).expect("rename");
    for (name, _) in files {
        let path = root.join(name);
        if path.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), path).expect("link");
        }
    }
    if let Ok(old) = old {
        let kept: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        for entry in fs::read_dir(root.join(&old)).expect("list") {
            let name = entry.expect("list").file_name();
            if !kept.contains(&name.to_str().expect("a name")) {
                fs::remove_file(root.join(&name)).expect("remove");
            }
        }
        fs::remove_dir_all(root.join(old)).expect("remove");
    }
}

#[test]
fn a_mounted_config_map_is_followed() {
    let directory = Directory::new();
    let root = directory.root();
    swap(
        &root,
        "v0",
        &[("x.yaml", &service("x0")), ("y.yaml", &service("kept"))],
    );
    let watched = directory.watch();
    watched.until_services(&["kept", "x0"]);
    let observer = Observer::of(&watched, "kept");
    for round in 1..=20 {
        let name = format!("x{round}");
        let start = Instant::now();
        let files = [("x.yaml", service(&name)), ("y.yaml", service("kept"))];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        swap(&root, &format!("v{round}"), &files);
        watched.until_services(&["kept", &name]);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    swap(&root, "less", &[("y.yaml", &service("kept"))]);
    watched.until_services(&["kept"]);
    assert!(!observer.has_lost());
}

#[test]
fn a_file_deleted_and_written_anew_is_never_missed() {
    let directory = Directory::new();
    let text = |version: &str| documents(&[&service("kept"), &service(version)]);
    directory.write("x.yaml", &text("v"));
    let watched = directory.watch();
    let observer = Observer::of(&watched, "kept");
    for round in 0..100 {
        let version = format!("v{round}");
        let start = Instant::now();
        fs::remove_file(directory.path("x.yaml")).expect("remove");
        directory.write("x.yaml", &text(&version));
        let gap = start.elapsed();
        watched.until_services(&["kept", &version]);
        // On a busy machine it may be gone for so long that it counts as gone.
        assert!(!observer.has_lost() || gap > Duration::from_millis(20));
    }
}

#[test]
fn a_file_that_is_renamed_keeps_its_objects_without_a_duplicate() {
    let directory = Directory::new();
    directory.write("a.yaml", &service("kept"));
    let mut watched = directory.watch();
    watched.snapshots.mark_unchanged();
    fs::rename(directory.path("a.yaml"), directory.path("b.yaml")).expect("rename");
    thread::sleep(Duration::from_millis(100));
    fs::rename(directory.path("b.yaml"), directory.path("a.yaml")).expect("rename");
    thread::sleep(Duration::from_millis(100));
    assert!(!watched.snapshots.has_changed().expect("still watched"));
    watched.until_services(&["kept"]);
}

#[test]
fn the_directory_itself_may_be_deleted_and_come_back() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("old"));
    let watched = directory.watch();
    for round in 0..5 {
        fs::remove_dir_all(directory.root()).expect("remove");
        let snapshot = watched.until_problem("Unreadable");
        assert_eq!(snapshot.problems[0].object.kind, "Directory");
        let version = format!("v{round}");
        fs::create_dir(directory.root()).expect("create");
        directory.write("x.yaml", &service(&version));
        watched.until_services(&[&version]);
        // It is watched again, not only found by looking from time to time.
        let start = Instant::now();
        directory.write("x.yaml", &service("again"));
        watched.until_services(&["again"]);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn what_was_deleted_with_the_directory_is_withdrawn() {
    let directory = Directory::new();
    fs::create_dir(directory.path("sub")).expect("create");
    directory.write("x.yaml", &service("x"));
    directory.write("sub/x.yaml", &service("z"));
    let watched = directory.watch();
    fs::remove_dir_all(directory.root()).expect("remove");
    let snapshot = watched.until("empty", |snapshot| services(snapshot).is_empty());
    assert!(snapshot.complete);
    watched.until_problem("Unreadable");
}

#[test]
fn the_directory_itself_may_be_renamed_away_and_another_put_in_its_place() {
    let directory = Directory::new();
    directory.write("x.yaml", &documents(&[&service("kept"), &service("x")]));
    let watched = directory.watch();
    let observer = Observer::of(&watched, "kept");
    fs::rename(directory.root(), directory.beside("old")).expect("rename");
    let snapshot = watched.until_problem("Unreadable");
    assert!(snapshot.complete);
    watched.keeps_services(&["kept", "x"]);
    fs::create_dir(directory.root()).expect("create");
    thread::sleep(Duration::from_millis(100));
    directory.write("other.yaml", &documents(&[&service("kept"), &service("z")]));
    watched.until_services(&["kept", "z"]);
    assert!(!observer.has_lost());
    fs::write(directory.beside("old/x.yaml"), service("no")).expect("write");
    directory.write("other.yaml", &service("last"));
    let snapshot = watched.until("last", |snapshot| services(snapshot).contains(&"last"));
    assert_eq!(services(&snapshot), ["last"]);
}

#[test]
fn an_empty_directory_in_its_place_withdraws_what_it_held() {
    let directory = Directory::new();
    directory.write("x.yaml", &service("x"));
    let watched = directory.watch();
    fs::rename(directory.root(), directory.beside("old")).expect("rename");
    fs::create_dir(directory.root()).expect("create");
    watched.until_services(&[]);
}

#[test]
fn git_checkout_is_followed() {
    let directory = Directory::new();
    let git = |arguments: &[&str]| {
        let status = std::process::Command::new("git")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=x", "-c", "user.email=x@example.com", "-C"])
            .arg(directory.root())
            .args(arguments)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        assert!(status.expect("git").success(), "{arguments:?}");
    };
    git(&["init"]);
    for version in ["one", "two"] {
        directory.write("x.yaml", &documents(&[&service("kept"), &service(version)]));
        git(&["add", "."]);
        git(&["commit", "-m", version]);
        git(&["tag", version]);
    }
    let watched = directory.watch();
    for version in ["one", "two", "one", "two"] {
        git(&["checkout", version]);
        watched.until_services(&["kept", version]);
    }
}
