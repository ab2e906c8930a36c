//! Pins: foreign shapes, other layouts, locks, and leaving nothing behind.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use aya::maps::{Array, MapData};
use rustix::fs::{FlockOperation, flock};
use splitter_agent::datapath::{MapsError, PinDirectory, PinError, View, attached_programs};
use testbed::lab::{Lab, Pod, client, server};

use crate::common::{PORT, Scene, layout_name, leaf, load, root, serve, small, split};

#[test]
fn a_pinned_map_of_another_shape_is_detected_before_it_is_opened() {
    let lab = Lab::new("shape").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    pins.create().unwrap();
    let foreign = pins.path().join(layout_name(1));
    fs::create_dir(&foreign).unwrap();
    for name in ["FRONTENDS", "SPLITS"] {
        Array::<MapData, [u8; 4096]>::create(4, 0)
            .unwrap()
            .pin(foreign.join(name))
            .unwrap();
    }

    let error = View::open(&pins).unwrap_err();
    assert!(matches!(error, MapsError::Shape { .. }), "{error}");
    let place = format!("{}/FRONTENDS", layout_name(1));
    assert!(error.to_string().contains(&place), "{error}");

    // An agent makes its own maps beside it.
    let programs = load(&pins, small()).unwrap();
    assert_eq!(programs.layout().path(), pins.path().join(layout_name(2)));
}

#[test]
fn maps_of_other_layouts_go_and_nothing_else_does() {
    let lab = Lab::new("layouts").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    let programs = load(&pins, small()).unwrap();
    let seventh = layout_name(7);
    for name in ["v0", "v999", &seventh, "vendor", "v1-x"] {
        fs::create_dir(pins.path().join(name)).unwrap();
    }
    Array::<MapData, u32>::create(4, 0)
        .unwrap()
        .pin(pins.path().join("v0/FRONTENDS"))
        .unwrap();

    let removed = pins.remove_other_layouts(programs.layout()).unwrap();

    let removed: Vec<_> = removed
        .iter()
        .map(splitter_agent::datapath::Layout::path)
        .collect();
    let expected = ["v0", &seventh, "v999"].map(|name| pins.path().join(name));
    assert_eq!(removed, expected);
    assert!(pins.path().join("vendor").exists());
    assert!(pins.path().join("v1-x").exists());
    assert!(programs.layout().map("FRONTENDS").exists());
}

#[test]
fn only_one_agent_at_a_time_gets_the_lock() {
    let lab = Lab::new("lock").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    pins.create().unwrap();
    let lock = pins.lock().unwrap();
    assert!(matches!(pins.lock(), Err(PinError::Locked(_))));
    drop(lock);
    assert!(pins.lock().is_ok());
}

#[test]
fn whether_an_agent_is_at_work_can_be_seen_and_who_looks_keeps_none_from_starting() {
    let lab = Lab::new("look").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    assert!(!pins.is_locked().unwrap());
    pins.create().unwrap();
    assert!(!pins.is_locked().unwrap());

    // What looking takes for a moment, held for longer than that.
    let look = fs::File::open(pins.path()).unwrap();
    flock(&look, FlockOperation::NonBlockingLockShared).unwrap();
    let other = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        // Closing it would not do: processes of other tests may have the descriptor, too.
        flock(&look, FlockOperation::Unlock).unwrap();
    });
    let lock = pins.lock().unwrap();
    other.join().unwrap();
    assert!(pins.is_locked().unwrap());
    drop(lock);
    assert!(!pins.is_locked().unwrap());
}

#[test]
fn pins_only_go_on_a_bpf_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let pins = PinDirectory::new(directory.path().join("pins"));
    let error = pins.create().unwrap_err();
    assert!(matches!(error, PinError::NotBpfFileSystem(_)), "{error}");
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
}

#[test]
fn a_pin_directory_that_others_may_write_to_is_refused_with_the_remedy() {
    let lab = Lab::new("owner").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    pins.create().unwrap();
    let set = |path: &Path, owner, mode| {
        std::os::unix::fs::chown(path, Some(owner), None).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let links = pins.path().join("links");
    for (path, owner, mode) in [
        (pins.path(), 0, 0o702),
        (pins.path(), 0, 0o720),
        (pins.path(), 0, 0o1777),
        (pins.path(), 1000, 0o700),
        (&links, 1000, 0o700),
        (&links, 0, 0o777),
    ] {
        set(path, owner, mode);
        for error in [pins.create().unwrap_err(), pins.remove().unwrap_err()] {
            assert!(matches!(error, PinError::Unsafe { .. }), "{error}");
            let remedy = format!("chown root {0} && chmod go-w {0}", path.display());
            assert!(error.to_string().contains(&remedy), "{error}");
        }
        set(path, 0, 0o700);
        pins.create().unwrap();
    }

    // What is above it counts as well, but for the sticky bit.
    let above = pins.path().join("above");
    fs::create_dir(&above).unwrap();
    let below = PinDirectory::new(above.join("splitter"));
    set(&above, 0, 0o777);
    assert!(matches!(below.create(), Err(PinError::Unsafe { .. })));
    set(&above, 0, 0o1777);
    below.create().unwrap();
    assert_eq!(fs::metadata(below.path()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn what_others_pinned_is_left_alone() {
    let lab = Lab::new("foreign").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    drop(load(&pins, small()).unwrap());
    let foreign = pins.path().join("vendor");
    std::fs::create_dir(&foreign).unwrap();

    pins.remove().unwrap();

    assert!(foreign.exists());
    assert!(!pins.path().join(layout_name(1)).exists());
    let root = PinDirectory::new("/sys/fs/bpf");
    assert!(matches!(root.create(), Err(PinError::NotOwn(_))));
    assert!(matches!(root.remove(), Err(PinError::NotOwn(_))));

    // Something of the same form that is not ours.
    std::fs::create_dir_all(pins.path().join("links/theirs")).unwrap();
    assert!(matches!(pins.remove(), Err(PinError::Foreign(_))));
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("v20/release")).unwrap();
    let elsewhere = PinDirectory::new(directory.path());
    assert!(matches!(
        elsewhere.remove(),
        Err(PinError::NotBpfFileSystem(_))
    ));
    assert!(directory.path().join("v20/release").exists());
}

#[test]
fn removing_the_pins_detaches_the_programs() {
    let mut scene = Scene::new("detach");
    let client = scene.lab.pod("client").unwrap();
    let vip = root().address;
    client.add_address(vip.ip()).unwrap();
    let (_own, _) = client
        .start_ready(|ready| server::tag(PORT, "root", ready))
        .unwrap();
    let (_leaf, endpoint) = serve(&client, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    assert_eq!(
        client
            .run(|| client::count_tags(vip, 1))
            .unwrap()
            .count("v1"),
        1
    );
    assert!(
        attached_programs(&scene.pins)
            .unwrap()
            .iter()
            .all(|program| program.cgroup_id.is_some())
    );

    scene.pins.remove().unwrap();

    assert_eq!(
        client
            .run(|| client::count_tags(vip, 1))
            .unwrap()
            .count("root"),
        1
    );
    assert!(!scene.pins.path().exists());
}

#[test]
fn programs_follow_when_another_cgroup_is_asked_for() {
    let mut scene = Scene::new("move");
    let (old, new) = scene.pods();
    let (_leaf, endpoint) = serve(&new, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let vip = root().address;
    for pod in [&old, &new] {
        pod.add_address(vip.ip()).unwrap();
    }
    let serve_root = |pod: &Pod| {
        pod.start_ready(|ready| server::tag(PORT, "root", ready))
            .unwrap()
    };
    let _servers = (serve_root(&old), serve_root(&new));

    scene.programs.attach(new.cgroup()).unwrap();

    assert_eq!(
        old.run(|| client::count_tags(vip, 1))
            .unwrap()
            .count("root"),
        1
    );
    assert_eq!(
        new.run(|| client::count_tags(vip, 1)).unwrap().count("v1"),
        1
    );
}
