//! An agent takes over what one before it has attached.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use aya::maps::{MapInfo, loaded_maps};
use splitter_agent::datapath::{PROGRAMS, PinDirectory};
use splitter_api::Status;
use testbed::lab::Process;

use crate::bookstore::Bookstore;
use crate::common::agent::{PATIENCE, weights};
use crate::common::layout_name;
use crate::http::wait_for;
use crate::node::{Node, Place};

#[test]
fn links_as_the_first_version_pinned_them_are_taken_over_under_load() {
    let store = Bookstore::new("old-links");
    store.site.write("split.yaml", &weights(3, 1));
    store.site.start(&[]).kill();
    // That version knew one cgroup only.
    let links = store.site.lab.pin_directory().join("links");
    let names = || {
        let entries = fs::read_dir(&links).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let is_to_cgroup = |name: &String| {
        let program = name.split_once('-').map(|(program, _)| program);
        program.is_some_and(|program| PROGRAMS.contains(&program))
    };
    // It had no program on a tracepoint, either.
    for name in names().into_iter().filter(|name| !is_to_cgroup(name)) {
        fs::remove_file(links.join(name)).unwrap();
    }
    let new_names = names();
    for name in &new_names {
        let (program, _) = name.split_once('-').unwrap();
        fs::rename(links.join(name), links.join(program)).unwrap();
    }
    let status: Status = store.site.json_of_no(&["status"]);
    assert!(status.node.attachment.attached, "{status:?}");
    let mut clients = [store.hammer(), store.hammer()];

    let agent = store.site.start(&[]);

    assert!(
        agent.log().contains("connect4 (Replaced)"),
        "{}",
        agent.log()
    );
    let mut names = names();
    names.retain(is_to_cgroup);
    assert_eq!(names, new_names);
    assert!(
        clients.iter_mut().all(Process::is_running),
        "a connection failed"
    );
    let status = store.site.status();
    assert!(status.node.attachment.attached, "{status:?}");
    drop(clients);
    let split = store.site.wait_for_weights(&[3, 1]);
    assert_eq!(split.generation, 1, "{split:?}");
}

#[test]
fn links_on_a_group_that_has_no_pods_any_more_go_once_the_right_ones_are_there() {
    let node = Node::new("moved");
    let before = node.pod("kubepods/podUID/1");
    let (agent, server) = node.agent(Place::Outside, &[]);
    wait_for(server, "/readyz", 200);
    assert_eq!(node.attached(), ["kubepods"]);
    agent.kill();
    drop(before);

    // The node has been given another cgroup driver meanwhile.
    let _after = node.pod("kubepods.slice/kubepods-podUID.slice/1.scope");
    let (_agent, server) = node.agent(Place::Outside, &[]);
    wait_for(server, "/readyz", 200);
    node.wait_for_attached(&["kubepods.slice"]);
}

/// The ids of the maps that are pinned in a directory.
fn pinned_maps(directory: &Path) -> BTreeSet<u32> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let info = paths.filter_map(|path| MapInfo::from_pin(path).ok());
    info.map(|info| info.id()).collect()
}

#[test]
fn what_an_agent_of_the_layout_before_had_is_gone_and_its_memory_free() {
    let store = Bookstore::new("former");
    store.site.write("split.yaml", &weights(3, 1));
    store.site.start(&[]).kill();
    // By their names of former versions, whose records are others.
    let pins = store.site.lab.pin_directory();
    let path = |name: &str| pins.join(name);
    let (layout, former) = (path(&layout_name(1)), path("v4"));
    let mut old = pinned_maps(&layout);
    assert!(old.len() > 10, "{old:?}");
    let table = PinDirectory::new(&pins).socket_table();
    old.insert(MapInfo::from_pin(&table).unwrap().id());
    fs::rename(&layout, &former).unwrap();
    fs::rename(&table, path("SOCKETS-v1")).unwrap();
    let mut clients = [store.hammer(), store.hammer()];

    let _agent = store.site.start(&[]);
    store.site.wait_for_weights(&[3, 1]);

    let start = Instant::now();
    loop {
        let loaded = loaded_maps().filter_map(|map| Some(map.ok()?.id()));
        let left: Vec<u32> = loaded.filter(|id| old.contains(id)).collect();
        if left.is_empty() && !former.exists() && !path("SOCKETS-v1").exists() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        clients.iter_mut().all(Process::is_running),
        "a connection failed"
    );
    assert!(table.exists());
}
