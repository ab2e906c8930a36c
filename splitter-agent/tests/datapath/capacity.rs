//! Another capacity: maps of other sizes are made beside those at work, filled, and put to
//! work; whoever is killed at it leaves what the next one can go on with.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use splitter_agent::datapath::{Capacity, Layout, PinDirectory, Programs, Publisher, View};
use splitter_agent::plan::{Frontend, FrontendPlan, Origin};
use testbed::lab::{Lab, Process, client};

use crate::common;
use crate::common::{Scene, frontend, layout_name, leaf, plan, root, serve, small, split};

fn load(pins: &PinDirectory, capacity: Capacity) -> Programs {
    common::load(pins, capacity).unwrap()
}

fn larger() -> Capacity {
    Capacity {
        endpoints: 8192,
        ..small()
    }
}

fn name(layout: &Layout) -> &str {
    layout.path().file_name().unwrap().to_str().unwrap()
}

fn layout_at_work(pins: &PinDirectory) -> String {
    name(&pins.layout_at_work().unwrap().unwrap()).to_owned()
}

/// Directories of maps that there are.
fn layouts(pins: &Path) -> Vec<String> {
    let entries = fs::read_dir(pins).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with('v')).collect();
    names.sort();
    names
}

/// A split whose one leaf is an endpoint.
fn only(endpoint: SocketAddr) -> [(Frontend, FrontendPlan); 1] {
    [(root(), split(vec![leaf("v1", 1, &[endpoint])]))]
}

#[test]
fn maps_of_another_capacity_are_filled_beside_those_at_work_and_take_their_place() {
    let mut scene = Scene::new("capacity");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let splits = only(endpoint);
    scene.publish(&splits);
    let vip = root().address;
    // One connection stays open, and asks again and again whom it is connected to.
    let (mut open, ()) = client
        .start_ready(|ready| {
            let connection = TcpStream::connect(vip).expect("a connection");
            ready.signal(&());
            loop {
                assert_eq!(connection.peer_addr().expect("a peer"), vip);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        })
        .unwrap();
    let mut hammer = client.start(|| client::hammer(root().address)).unwrap();
    let wait_for_connections = |hammer: &mut Process| {
        let before = scene.verdict_count("split");
        while scene.verdict_count("split") < before + 20 {
            assert!(hammer.is_running(), "a connection failed");
        }
    };
    wait_for_connections(&mut hammer);
    assert_eq!(layout_at_work(&scene.pins), layout_name(1));
    assert_eq!(
        View::open(&scene.pins).unwrap().maps["ENDPOINTS"].max_entries,
        small_endpoint_slots()
    );

    let mut programs = load(&scene.pins, larger());
    let mut publisher = Publisher::of(&programs, 0).unwrap();

    assert_eq!(name(programs.layout()), layout_name(2));
    assert!(!programs.is_layout_at_work().unwrap());
    assert_eq!(layout_at_work(&scene.pins), layout_name(1));
    // Nothing has been published yet, but what is programmed must not be lost for that.
    let filled: Vec<_> = publisher.programmed().collect();
    assert_eq!(filled.len(), 1);
    assert_eq!(*filled[0].0, root());
    assert_eq!(filled[0].1.leaves, splits[0].1.leaves);
    let report = publisher.publish(&plan(&splits));
    assert!(report.is_empty(), "{report:?}");
    wait_for_connections(&mut hammer);
    let counted = scene.verdict_count("split");

    programs.attach(scene.lab.cgroup()).unwrap();

    assert_eq!(layout_at_work(&scene.pins), layout_name(2));
    assert!(
        scene.verdict_count("split") >= counted,
        "the count of verdicts goes on"
    );
    wait_for_connections(&mut hammer);
    let removed = scene.pins.remove_other_layouts(programs.layout()).unwrap();
    assert_eq!(
        removed.iter().map(name).collect::<Vec<_>>(),
        [layout_name(1)]
    );
    wait_for_connections(&mut hammer);
    assert!(View::open(&scene.pins).unwrap().maps["ENDPOINTS"].max_entries > 8192);
    assert!(open.is_running(), "an open connection lost its peer's name");

    // And back; the first name is free again.
    let mut programs = load(&scene.pins, small());
    assert_eq!(name(programs.layout()), layout_name(1));
    Publisher::of(&programs, 0).unwrap().publish(&plan(&splits));
    programs.attach(scene.lab.cgroup()).unwrap();
    assert_eq!(layout_at_work(&scene.pins), layout_name(1));
    wait_for_connections(&mut hammer);
    assert!(open.is_running(), "an open connection lost its peer's name");
}

#[test]
fn maps_of_another_layout_version_give_way_without_a_connection_failing() {
    let mut scene = Scene::new("version");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let splits = only(endpoint);
    scene.publish(&splits);
    // Of another version by name is as good as by content: an agent looks at the name first.
    let (old, now) = (scene.pins.path().join("v1"), layout_name(1));
    fs::rename(scene.pins.path().join(&now), &old).unwrap();
    let mut hammer = client.start(|| client::hammer(root().address)).unwrap();

    let mut programs = load(&scene.pins, small());

    assert_eq!(name(programs.layout()), now);
    assert!(!programs.is_layout_at_work().unwrap(), "v1 is at work");
    let mut publisher = Publisher::of(&programs, 0).unwrap();
    let report = publisher.publish(&plan(&splits));
    assert_eq!(report.installed.len(), 1, "{report:?}");
    assert_eq!(scene.verdict_count("split"), 0, "the old programs split");
    programs.attach(scene.lab.cgroup()).unwrap();
    assert!(programs.is_layout_at_work().unwrap());
    let removed = scene.pins.remove_other_layouts(programs.layout()).unwrap();
    assert_eq!(removed.iter().map(Layout::path).collect::<Vec<_>>(), [&old]);
    while scene.verdict_count("split") < 20 {
        assert!(hammer.is_running(), "a connection failed");
    }
    assert!(hammer.is_running(), "a connection failed");
}

fn small_endpoint_slots() -> u64 {
    let lab = Lab::new("reference").unwrap();
    let pins = PinDirectory::new(lab.pin_directory());
    let _programs = load(&pins, small());
    View::open(&pins).unwrap().maps["ENDPOINTS"].max_entries
}

#[test]
fn whoever_is_killed_while_the_capacity_changes_leaves_what_the_next_one_goes_on_with() {
    let mut scene = Scene::new("killed");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let splits = only(endpoint);
    scene.publish(&splits);
    let vip = root().address;
    let is_split = || {
        let tags = client.run(|| client::count_tags(vip, 3)).unwrap();
        assert_eq!(tags.count("v1"), 3);
    };
    let huge = Capacity {
        frontends: 128,
        ..small()
    };

    // Killed before a map was made, after they were made, and after they were filled.
    fs::create_dir(scene.pins.path().join(layout_name(2))).unwrap();
    drop(load(&scene.pins, larger()));
    let programs = load(&scene.pins, larger());
    assert_eq!(name(programs.layout()), layout_name(2));
    drop(Publisher::of(&programs, 0).unwrap().publish(&plan(&splits)));
    drop(programs);
    assert_eq!(layout_at_work(&scene.pins), layout_name(1));
    is_split();

    // What was never put to work goes when a third capacity is asked for; what is at work
    // stays, and is taken again by whoever asks for it.
    drop(load(&scene.pins, huge));
    assert_eq!(layouts(scene.pins.path()), [layout_name(1), layout_name(3)]);
    assert_eq!(name(load(&scene.pins, small()).layout()), layout_name(1));
    assert_eq!(layout_at_work(&scene.pins), layout_name(1));
    is_split();

    // Killed after they were put to work, before the old ones were removed.
    let mut programs = load(&scene.pins, larger());
    Publisher::of(&programs, 0).unwrap().publish(&plan(&splits));
    programs.attach(scene.lab.cgroup()).unwrap();
    let new = name(programs.layout()).to_owned();
    drop(programs);
    assert_eq!(layout_at_work(&scene.pins), new);
    is_split();
    let programs = load(&scene.pins, larger());
    assert_eq!(name(programs.layout()), new);
    assert!(programs.is_layout_at_work().unwrap());
    scene.pins.remove_other_layouts(programs.layout()).unwrap();
    assert_eq!(layouts(scene.pins.path()), [new]);
    is_split();
    scene.pins.remove().unwrap();
    assert!(!scene.pins.path().exists());
}

#[test]
fn maps_that_were_replaced_but_not_removed_can_be_put_to_work_again() {
    let mut scene = Scene::new("halfway");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let splits = only(endpoint);
    scene.publish(&splits);
    let mut programs = load(&scene.pins, larger());
    Publisher::of(&programs, 0).unwrap().publish(&plan(&splits));
    programs.attach(scene.lab.cgroup()).unwrap();
    drop(programs);
    assert_eq!(layout_at_work(&scene.pins), layout_name(2));

    let mut programs = load(&scene.pins, small());
    assert_eq!(name(programs.layout()), layout_name(1));
    programs.attach(scene.lab.cgroup()).unwrap();
    assert_eq!(layout_at_work(&scene.pins), layout_name(1));
    let vip = root().address;
    let tags = client.run(|| client::count_tags(vip, 3)).unwrap();
    assert_eq!(tags.count("v1"), 3);
}

#[test]
fn the_agents_own_frontend_has_room_in_maps_that_are_full() {
    // Full of frontends, and full of endpoints.
    for (name, frontends) in [("frontends", 3), ("endpoints", 80)] {
        let capacity = Capacity {
            frontends,
            leaves: 8,
            endpoints: 16,
        };
        own_frontend_has_room(Scene::with(name, capacity, true), frontends);
    }
}

fn own_frontend_has_room(mut scene: Scene, frontends: u32) {
    let endpoints: Vec<SocketAddr> = (0..100)
        .map(|port| SocketAddr::from(([10, 244, 0, 9], 1000 + port)))
        .collect();
    let mut splits = Vec::new();
    for index in 0..80 {
        let service = format!("v{}", index % 5);
        let count = if index < 20 { 100 } else { 1 };
        let frontend = frontend(&format!("10.96.1.{index}:80"));
        splits.push((
            frontend,
            split(vec![leaf(&service, 1, &endpoints[..count])]),
        ));
    }
    let report = scene.publisher.publish(&plan(&splits));
    let (fit, failed) = (report.installed.len(), report.failed.len());
    assert!(failed > 0);
    assert!(fit as u32 <= frontends);

    let mut own = split(vec![leaf("agent", 1, &endpoints[..1])]);
    own.origin.kind = Origin::SELF_TEST;
    let vip = frontend("127.115.112.108:1");
    splits.push((vip, own.clone()));
    let report = scene.publisher.publish(&plan(&splits));
    assert_eq!(report.failed.len(), failed, "{:?}", report.failed);
    assert_eq!(scene.view(vip).plan.leaves, own.leaves);

    // It changes again and again, and other publishers take it over.
    for port in 2000..2050 {
        let endpoint = SocketAddr::from(([127, 0, 0, 1], port));
        own.leaves = vec![leaf("agent", 1, &[endpoint])];
        splits.last_mut().unwrap().1 = own.clone();
        if port % 10 == 0 {
            scene.publisher = Publisher::of(&scene.programs, 0).unwrap();
        }
        let report = scene.publisher.publish(&plan(&splits));
        assert_eq!(report.failed.len(), failed, "{port}");
        assert_eq!(scene.view(vip).plan.leaves, own.leaves);
    }
    // No object has got more room by it, or less.
    assert_eq!(scene.publisher.programmed().count(), fit + 1);
}

#[test]
fn what_did_not_fit_is_programmed_when_room_was_made() {
    let capacity = Capacity {
        frontends: 2,
        leaves: 8,
        endpoints: 16,
    };
    let mut scene = Scene::with("room", capacity, true);
    let endpoint: SocketAddr = "10.244.0.9:80".parse().unwrap();
    let splits: Vec<_> = (0..4)
        .map(|index| {
            let frontend = frontend(&format!("10.96.1.{index}:80"));
            (frontend, split(vec![leaf("v1", 1, &[endpoint])]))
        })
        .collect();
    let report = scene.publisher.publish(&plan(&splits));
    let failed: BTreeSet<_> = report
        .failed
        .iter()
        .map(|(frontend, _)| *frontend)
        .collect();
    assert_eq!(failed.len(), 2);

    // Nothing was freed: nothing has changed.
    let freed = scene.publisher.freed();
    let again = scene.publisher.publish_some(&plan(&splits), &failed);
    assert_eq!((again.installed.len(), again.failed.len()), (0, 2));
    assert_eq!(scene.publisher.freed(), freed);

    // One goes, so one of those that wait gets its place; only they are looked at.
    let gone: BTreeSet<_> = [splits[0].0].into();
    let rest = plan(&splits[1..]);
    scene.publisher.publish_some(&rest, &gone);
    assert_ne!(scene.publisher.freed(), freed);
    let report = scene.publisher.publish_some(&rest, &failed);
    assert_eq!((report.installed.len(), report.failed.len()), (1, 1));
}
