//! The table of live sockets: whom an application sees as its peer, also when the table is full, or
//! there is none, or another agent comes; and that no slot is left when the sockets are dead.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use bytemuck::Zeroable;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use splitter_agent::datapath::{
    CgroupPods, Hierarchy, LiveConnection, PinDirectory, Publisher, Reader, SocketMemory, Sockets,
};
use splitter_common::layout::SocketRecord;
use splitter_common::outcomes::Outcome;
use testbed::lab::{Pod, Process};

use crate::common::{
    Scene, frontend, hold, layout_name, leaf, load, plan, root, serve, small, split,
};
use crate::outcome_storm::connections;
use crate::outcomes::serve_with;

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn sockets(pins: &PinDirectory) -> Sockets {
    Sockets::open(pins).unwrap().expect("a table")
}

/// Waits until so many slots are taken.
pub(crate) fn wait_for_taken(pins: &PinDirectory, expected: u32) {
    if let Err(taken) = await_taken(pins, expected) {
        panic!("{taken} slots are taken, not {expected}");
    }
}

fn await_taken(pins: &PinDirectory, expected: u32) -> Result<(), u32> {
    let end = Instant::now() + PATIENCE;
    loop {
        let taken = sockets(pins).taken();
        if taken == expected {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(taken);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until no slot is taken.
pub(crate) fn wait_for_all_free(pins: &PinDirectory) -> Result<(), String> {
    await_taken(pins, 0).map_err(|taken| format!("{taken} slots are left to sockets that are dead"))
}

/// Has a storm, and another one if a death was not told of, at most three in all.
///
/// A hardened kernel may run no tracing programs on top of some processes: it was seen of the one that manages a virtual
/// machine. Deaths that a softirq handles there, one in 100,000, are told to nobody. What is a
/// fault of the programs happens again.
pub(crate) fn storms(storm: impl Fn() -> Result<(), String>) {
    let results: Vec<String> = (0..3).map_while(|_| storm().err()).collect();
    assert!(results.len() < 3, "{results:?}");
}

/// The links of the programs that free slots; of each there is another one for what is nested.
fn freeing_links(pins: &PinDirectory) -> Vec<PathBuf> {
    links(pins, "tcp_destroy_sock-")
}

fn links(pins: &PinDirectory, prefix: &str) -> Vec<PathBuf> {
    let links = fs::read_dir(pins.path().join("links")).unwrap();
    let links = links.map(|link| link.unwrap().path());
    let is_meant = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(prefix)
    };
    links.filter(is_meant).collect()
}

/// A socket for IPv4 that may wait or not.
fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

fn peer(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let peer = rustix::net::getpeername(socket)?.ok_or(io::ErrorKind::NotConnected)?;
    Ok(SocketAddr::try_from(peer)?)
}

/// An open connection, in a process that asks again and again whom it is connected to, and ends if
/// that is not the target.
fn open(pod: &Pod, target: SocketAddr) -> Process {
    let watch = |ready: testbed::lab::Ready<()>| {
        let connection = TcpStream::connect(target).expect("a connection");
        assert_eq!(connection.peer_addr().expect("a peer"), target);
        ready.signal(&());
        loop {
            assert_eq!(connection.peer_addr().expect("a peer"), target);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    pod.start_ready(watch).unwrap().0
}

#[test]
fn a_split_socket_has_a_slot_for_as_long_as_it_lives() {
    let mut scene = Scene::new("slot");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    assert_eq!(sockets(&scene.pins).slots(), 131_072);

    let first = open(&client, root().address);
    wait_for_taken(&scene.pins, 1);
    // One that is not split has none.
    let direct = open(&client, endpoint);
    let second = open(&client, root().address);
    wait_for_taken(&scene.pins, 2);
    drop(direct);
    drop(first);
    wait_for_taken(&scene.pins, 1);
    drop(second);
    wait_for_taken(&scene.pins, 0);

    let mut reader = Reader::new(scene.pins.clone());
    let usage = |reader: &mut Reader| {
        let usage = reader.read().unwrap().maps["SOCKETS"];
        (usage.entries, usage.max_entries)
    };
    assert_eq!(usage(&mut reader), (0, 131_072));
    let third = open(&client, root().address);
    assert_eq!(usage(&mut reader), (1, 131_072));
    drop(third);
}

#[test]
fn a_socket_that_connects_again_has_one_slot_and_none_when_it_is_not_split() {
    let mut scene = Scene::new("again");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let other = frontend("10.96.0.11:14001");
    let to = split(vec![leaf("v1", 1, &[endpoint])]);
    scene.publish(&[(root(), to.clone()), (other, to)]);
    let pins = scene.pins.clone();

    let (vip, other) = (root().address, other.address);
    let taken = client
        .run(|| {
            let table = sockets(&pins);
            let socket = socket(SocketFlags::empty())?;
            let mut taken = Vec::new();
            for target in [vip, other, endpoint, vip, endpoint, endpoint, other] {
                rustix::net::connect(&socket, &target)?;
                assert_eq!(peer(&socket)?, target);
                taken.push(table.taken());
                rustix::net::connect_unspec(&socket)?;
            }
            drop(socket);
            Ok(taken)
        })
        .unwrap()
        .map_err(|error: Failure| error.0);

    assert_eq!(taken, Ok(vec![1, 1, 0, 1, 0, 0, 1]));
    wait_for_taken(&scene.pins, 0);
}

/// What went wrong in another process.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Takes every slot, or gives every one back.
pub(crate) fn fill(pins: &PinDirectory, is_taken: bool) {
    let map = Map::Array(MapData::from_pin(pins.socket_table()).unwrap());
    let mut slots = Array::<_, [u8; size_of::<SocketRecord>()]>::try_from(map).unwrap();
    for index in 0..slots.len() {
        let mut record = SocketRecord::zeroed();
        if is_taken {
            // Of no socket: cookies are counted from 1.
            record.cookie = u64::MAX - u64::from(index);
        }
        let bytes: [u8; size_of::<SocketRecord>()] = bytemuck::cast(record);
        slots.set(index, bytes, 0).unwrap();
    }
}

#[test]
fn a_full_table_costs_no_connection_its_peers_name() {
    let mut scene = Scene::new("full");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let other = frontend("10.96.0.11:14001");
    let to = split(vec![leaf("v1", 1, &[endpoint])]);
    scene.publish(&[(root(), to.clone()), (other, to)]);
    let (vip, other) = (root().address, other.address);
    let in_table = open(&client, vip);
    wait_for_taken(&scene.pins, 1);
    drop(in_table);
    wait_for_taken(&scene.pins, 0);

    fill(&scene.pins, true);
    let slots = sockets(&scene.pins).slots();
    let mut on_socket = open(&client, vip);
    let pins = scene.pins.clone();
    let result = client
        .run(|| {
            let socket = socket(SocketFlags::empty())?;
            let dial = |target: SocketAddr| -> io::Result<()> {
                rustix::net::connect(&socket, &target)?;
                assert_eq!(peer(&socket)?, target);
                rustix::net::connect_unspec(&socket)?;
                Ok(())
            };
            for target in [vip, other, endpoint, vip] {
                dial(target)?;
            }
            // There is room again: what is on the socket does not count any more.
            fill(&pins, false);
            for target in [other, vip, endpoint, other] {
                dial(target)?;
            }
            assert_eq!(sockets(&pins).taken(), 1);
            fill(&pins, true);
            for target in [endpoint, vip, endpoint] {
                dial(target)?;
            }
            Ok(())
        })
        .unwrap()
        .map_err(|error: Failure| error.0);

    assert_eq!(result, Ok(()));
    assert!(on_socket.is_running(), "its peer had another name");
    assert_eq!(scene.verdict_count("original_dst_lost"), 0);
    drop(on_socket);
    // The deaths of sockets without slots have freed none of others.
    wait_for_taken(&scene.pins, slots);
}

#[test]
fn without_a_table_peers_names_are_on_the_sockets() {
    let mut scene = Scene::with_socket_memory("storage", SocketMemory::Storage);
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    assert!(Sockets::open(&scene.pins).unwrap().is_none());
    assert!(freeing_links(&scene.pins).is_empty());
    let mut reader = Reader::new(scene.pins.clone());
    assert!(!reader.read().unwrap().maps.contains_key("SOCKETS"));

    let mut connection = open(&client, root().address);

    // An agent that uses the table leaves those be.
    let mut programs = load(&scene.pins, small()).unwrap();
    programs.attach(scene.lab.cgroup()).unwrap();
    let second = open(&client, root().address);
    wait_for_taken(&scene.pins, 1);
    assert!(connection.is_running(), "its peer had another name");
    drop(second);
    wait_for_taken(&scene.pins, 0);
    assert!(connection.is_running(), "its peer had another name");
}

#[test]
fn open_connections_keep_their_peers_names_across_a_change_of_the_layout() {
    let mut scene = Scene::new("versions");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let splits = [(root(), split(vec![leaf("v1", 1, &[endpoint])]))];
    scene.publish(&splits);
    // By its name of another version, none of whose maps is used.
    let now = scene.pins.path().join(layout_name(1));
    fs::rename(now, scene.pins.path().join("v1")).unwrap();
    let mut connection = open(&client, root().address);
    wait_for_taken(&scene.pins, 1);
    let old_links = freeing_links(&scene.pins);
    assert_eq!(old_links.len(), 1);

    let mut programs = load(&scene.pins, small()).unwrap();
    let publish = Publisher::of(&programs, 0).unwrap().publish(&plan(&splits));
    assert_eq!(publish.installed.len(), 1);
    programs.attach(scene.lab.cgroup()).unwrap();
    scene.pins.remove_other_layouts(programs.layout()).unwrap();
    assert!(programs.remove_other_socket_tables().unwrap().is_empty());

    let new_links = freeing_links(&scene.pins);
    assert_eq!(new_links.len(), 1, "{new_links:?}");
    assert_ne!(new_links, old_links);
    assert_eq!(links(&scene.pins, "tcp_destroy_sock_nested-").len(), 1);
    let second = open(&client, root().address);
    wait_for_taken(&scene.pins, 2);
    assert!(connection.is_running(), "its peer had another name");
    drop((connection, second));
    wait_for_taken(&scene.pins, 0);
}

#[test]
fn a_table_of_the_version_before_goes_and_its_connections_live_on() {
    let mut scene = Scene::new("former");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve_held(&shop, 80);
    let splits = [(root(), split(vec![leaf("v1", 1, &[endpoint])]))];
    scene.publish(&splits);
    let vip = root().address;
    // By its name that of a version whose records are others: with the programs that use it.
    let old = scene.pins.path().join("SOCKETS-v1");
    fs::rename(scene.pins.socket_table(), &old).unwrap();
    let exchange = |connection: &mut TcpStream| -> io::Result<()> {
        connection.write_all(b"x")?;
        connection.read_exact(&mut [0])
    };
    let (mut before, ()) = client
        .start_ready(move |ready: testbed::lab::Ready<()>| {
            let mut connection = TcpStream::connect(vip).expect("a connection");
            assert_eq!(connection.peer_addr().expect("a peer"), vip);
            exchange(&mut connection).expect("an answer");
            ready.signal(&());
            // Its peer has another name soon; nothing else changes.
            while connection.peer_addr().expect("a peer") == vip {
                std::thread::sleep(Duration::from_millis(1));
            }
            loop {
                assert_eq!(connection.peer_addr().expect("a peer"), endpoint);
                exchange(&mut connection).expect("an answer");
                std::thread::sleep(Duration::from_millis(1));
            }
        })
        .unwrap();

    let mut programs = load(&scene.pins, small()).unwrap();
    assert!(old.exists(), "it is in use");
    programs.attach(scene.lab.cgroup()).unwrap();
    assert!(!old.exists());
    let second = open(&client, vip);
    wait_for_taken(&scene.pins, 1);
    assert!(before.is_running(), "a connection from before was harmed");
    drop((before, second));
    wait_for_taken(&scene.pins, 0);
    // The one from before was of a record that nobody has any more.
    let leaf = scene.view(root()).leaves[0];
    assert_eq!((leaf.lifetime, leaf.outcomes.ended()), (2, 1));
}

/// A server that answers each byte with one.
fn serve_held(pod: &Pod, port: u16) -> (Process, SocketAddr) {
    serve_with(pod, port, |mut connection| {
        std::thread::spawn(move || {
            let mut byte = [0];
            while connection.read_exact(&mut byte).is_ok() {
                let _ = connection.write_all(&byte);
            }
        });
    })
}

#[test]
fn a_slot_has_the_cgroup_of_the_process_that_connected() {
    let mut scene = Scene::new("cgroup");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    // In a group of its own below the pod's, which it leaves when it has connected.
    let (vip, own) = (root().address, client.cgroup().to_owned());
    let nested = own.join("nested");
    fs::create_dir(&nested).unwrap();
    let id = fs::metadata(&nested).unwrap().ino();
    let enter = |group: &Path| {
        let number = std::process::id().to_string();
        fs::write(group.join("cgroup.procs"), number).expect("a group to be in");
    };
    let connected = hold(&client, || {
        enter(&nested);
        let connection = TcpStream::connect(vip).expect("a connection");
        enter(&own);
        connection
    });
    let second = open(&client, vip);
    wait_for_taken(&scene.pins, 2);

    let table = sockets(&scene.pins);
    let mut groups: Vec<u32> = table.connections().filter_map(|it| it.cgroup).collect();
    groups.sort_unstable();
    let of_pod = fs::metadata(client.cgroup()).unwrap().ino();
    let mut expected = [id as u32, of_pod as u32];
    expected.sort_unstable();
    assert_eq!(groups, expected);
    let age = |live: LiveConnection| live.age.is_some_and(|age| age < PATIENCE * 3);
    assert!(table.connections().all(age));

    let hierarchy = Hierarchy::find().unwrap();
    let places = CgroupPods::new(&hierarchy, &BTreeMap::new());
    let place = places.get(id as u32).expect("the group");
    assert_eq!(place.path, nested);
    assert_eq!(place.pod, None);
    fs::remove_dir(&nested).unwrap();
    let places = CgroupPods::new(&hierarchy, &BTreeMap::new());
    assert_eq!(places.get(id as u32), None);
    drop((connected, second));
}

#[test]
fn a_death_that_two_programs_see_frees_one_slot() {
    let mut scene = Scene::new("twice");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    // Held open, it stays attached when its pin is gone.
    let [old] = &freeing_links(&scene.pins)[..] else {
        panic!("not one link");
    };
    let _old = PinnedLink::from_pin(old).unwrap();
    let mut programs = load(&scene.pins, small()).unwrap();
    programs.attach(scene.lab.cgroup()).unwrap();
    assert_eq!(freeing_links(&scene.pins).len(), 1);

    let mut stays = open(&client, root().address);
    for _ in 0..10 {
        let goes = open(&client, root().address);
        wait_for_taken(&scene.pins, 2);
        drop(goes);
        wait_for_taken(&scene.pins, 1);
    }
    assert!(stays.is_running(), "its peer had another name");
    drop(stays);
    wait_for_taken(&scene.pins, 0);
}

#[test]
fn a_table_whose_slots_nobody_freed_is_not_used_again() {
    let mut scene = Scene::new("unfreed");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let cgroup = scene.lab.cgroup().to_owned();
    assert!(scene.programs.is_attached(&cgroup).unwrap());
    let connection = open(&client, root().address);
    wait_for_taken(&scene.pins, 1);

    // As an agent of a version does that does not know it.
    for link in links(&scene.pins, "tcp_destroy_sock") {
        fs::remove_file(link).unwrap();
    }
    assert!(!scene.programs.is_attached(&cgroup).unwrap());
    drop(connection);
    let programs = load(&scene.pins, small()).unwrap();
    wait_for_taken(&scene.pins, 0);
    drop(programs);

    // What the agent at work misses it attaches again.
    scene.programs.attach_beside(&cgroup).unwrap();
    assert!(scene.programs.is_attached(&cgroup).unwrap());
    assert_eq!(freeing_links(&scene.pins).len(), 1);
}

#[test]
fn tables_of_other_versions_go_and_nothing_else_does() {
    let scene = Scene::new("tables");
    let old = scene.pins.path().join("SOCKETS-v999");
    let foreign = scene.pins.path().join("SOCKETS-mine");
    for path in [&old, &foreign] {
        let map = Array::<MapData, u32>::create(4, 0).unwrap();
        map.pin(path).unwrap();
    }
    let removed = scene.programs.remove_other_socket_tables().unwrap();
    assert_eq!(removed, [old]);
    assert!(foreign.exists());
    assert!(scene.pins.socket_table().exists());

    scene.pins.remove().unwrap();
    assert!(foreign.exists());
    assert!(!scene.pins.socket_table().exists());
}

#[test]
fn something_else_in_the_tables_place_is_left_alone_and_sockets_remember_by_themselves() {
    let mut scene = Scene::with_socket_memory("shape", SocketMemory::Storage);
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    // As if an agent at work used it: there is a link.
    let donor = Scene::new("donor");
    let [link] = &freeing_links(&donor.pins)[..] else {
        panic!("not one link");
    };
    let link = FdLink::from(PinnedLink::from_pin(link).unwrap());
    let place = scene.pins.path().join("links/tcp_destroy_sock-1");
    link.pin(place).unwrap();
    let map = Array::<MapData, [u8; 4096]>::create(4, 0).unwrap();
    map.pin(scene.pins.socket_table()).unwrap();

    let mut programs = load(&scene.pins, small()).unwrap();
    programs.attach(scene.lab.cgroup()).unwrap();

    assert!(Sockets::open(&scene.pins).unwrap().is_none());
    let mut connection = open(&client, root().address);
    assert!(connection.is_running());
}

/// Numbers that look random, the same each time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What a client of the storm dials.
#[derive(Clone, Copy)]
struct Targets {
    /// Answered.
    vip: SocketAddr,
    /// Answered as well, by the same server.
    other: SocketAddr,
    endpoint: SocketAddr,
    /// Its endpoint refuses.
    refused: SocketAddr,
    /// Nobody has the address of its endpoint.
    lost: SocketAddr,
}

/// Connects, resets, closes, gives up and connects again, in a random order. Sees each peer by the
/// name that was dialled.
fn misbehave(seed: u64, rounds: u64, targets: Targets) -> Result<u64, Failure> {
    let Targets {
        vip,
        other,
        endpoint,
        refused,
        lost,
    } = targets;
    let mut random = Random(seed);
    let mut kept: Vec<(OwnedFd, SocketAddr)> = Vec::new();
    let mut connections = 0;
    for _ in 0..rounds {
        let target = [vip, other][random.below(2) as usize];
        let blocking = socket(SocketFlags::empty())?;
        match random.below(9) {
            0 => {
                rustix::net::connect(&blocking, &target)?;
                connections += 1;
                assert_eq!(peer(&blocking)?, target);
            }
            1 => {
                rustix::net::connect(&blocking, &target)?;
                connections += 1;
                sockopt::set_socket_linger(&blocking, Some(Duration::ZERO))?;
            }
            2 => {
                let result = rustix::net::connect(&blocking, &refused);
                assert_eq!(result, Err(Errno::CONNREFUSED));
                connections += 1;
            }
            kind @ 3..=4 => {
                // Given up before it is known whether it succeeds.
                let target = if kind == 3 { target } else { lost };
                let socket = socket(SocketFlags::NONBLOCK)?;
                let result = rustix::net::connect(&socket, &target);
                assert_eq!(result, Err(Errno::INPROGRESS));
                connections += 1;
            }
            5 => {
                for target in [target, endpoint, vip] {
                    rustix::net::connect(&blocking, &target)?;
                    connections += u64::from(target != endpoint);
                    assert_eq!(peer(&blocking)?, target);
                    rustix::net::connect_unspec(&blocking)?;
                }
            }
            6 => {
                // Two descriptors for one socket.
                rustix::net::connect(&blocking, &target)?;
                connections += 1;
                let twin = rustix::io::dup(&blocking)?;
                drop(blocking);
                assert_eq!(peer(&twin)?, target);
            }
            _ => {
                rustix::net::connect(&blocking, &target)?;
                connections += 1;
                kept.push((blocking, target));
                if kept.len() > 40 {
                    kept.swap_remove(random.below(40) as usize);
                }
            }
        }
        for (socket, target) in &kept {
            assert_eq!(peer(socket)?, *target);
        }
    }
    Ok(connections)
}

#[test]
fn after_a_storm_of_closes_and_resets_no_slot_is_taken() {
    storms(storm_of_closes_and_resets);
}

fn storm_of_closes_and_resets() -> Result<(), String> {
    const CLIENTS: u64 = 16;
    let rounds = connections() / CLIENTS;
    let mut scene = Scene::new("gone");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    let nobody = |port| SocketAddr::new(shop.ipv4().into(), port);
    let to = |name, endpoint| split(vec![leaf(name, 1, &[endpoint])]);
    // Of a network that the pods have no neighbour in.
    let unanswered = frontend("10.96.0.13:14001");
    let lost: SocketAddr = {
        let [a, b, c, _] = shop.ipv4().octets();
        SocketAddr::from(([a, b, c, 250], 80))
    };
    let (other, refused) = (frontend("10.96.0.11:14001"), frontend("10.96.0.12:14001"));
    scene.publish(&[
        (root(), to("v1", endpoint)),
        (other, to("v1", endpoint)),
        (refused, to("refused", nobody(9))),
        (unanswered, to("lost", lost)),
    ]);
    let targets = Targets {
        vip: root().address,
        other: other.address,
        endpoint,
        refused: refused.address,
        lost: unanswered.address,
    };
    // Some are killed with what they have open.
    let victims: Vec<_> = (0..4)
        .map(|seed| {
            client
                .start(move || {
                    let _ = misbehave(0x5eed + seed, u64::MAX, targets);
                })
                .unwrap()
        })
        .collect();
    let connections: u64 = std::thread::scope(|scope| {
        let storm = |seed| {
            let client = &client;
            move || {
                let misbehave = || misbehave(0xfeed_beef + seed, rounds, targets);
                let done = client.run_within(Duration::from_secs(3600), misbehave);
                done.unwrap().unwrap_or_else(|error| panic!("{}", error.0))
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|seed| scope.spawn(storm(seed))).collect();
        clients.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert!(sockets(&scene.pins).taken() > 0, "the victims' are");
    drop(victims);

    wait_for_all_free(&scene.pins)?;
    // All of them were in the table; none had to be on a socket, and none was lost.
    assert!(scene.verdict_count("split") >= connections);
    assert!(connections >= CLIENTS * rounds, "{connections}");
    assert_eq!(scene.verdict_count("original_dst_lost"), 0);
    assert_eq!(scene.verdict_count("inconsistent"), 0);
    // Something has come of each of them, and it was told once.
    for frontend in [root(), other, refused, unanswered] {
        let leaf = scene.view(frontend).leaves[0];
        assert_eq!(leaf.outcomes.ended(), leaf.lifetime, "{frontend}");
        assert_eq!(leaf.open, 0, "{frontend}");
    }
    let leaf = scene.view(refused).leaves[0];
    assert_eq!(leaf.outcomes.count(Outcome::Refused), leaf.lifetime);
    let leaf = scene.view(unanswered).leaves[0];
    assert_eq!(leaf.outcomes.count(Outcome::Established), 0);
    Ok(())
}

#[test]
fn agents_killed_while_they_load_and_attach_cost_no_peers_name_and_no_slot() {
    let mut scene = Scene::new("murder");
    let (client, shop) = scene.pods();
    let (_server, endpoint) = serve(&shop, 80, "v1");
    scene.publish(&[(root(), split(vec![leaf("v1", 1, &[endpoint])]))]);
    let vip = root().address;
    let mut connection = open(&client, vip);
    let mut busy: Vec<_> = (0..2)
        .map(|_| {
            let reconnect = move || {
                loop {
                    let connection = TcpStream::connect(vip).expect("a connection");
                    assert_eq!(connection.peer_addr().expect("a peer"), vip);
                }
            };
            client.start(reconnect).unwrap()
        })
        .collect();
    let (pins, cgroup) = (scene.pins.clone(), scene.lab.cgroup().to_owned());

    for kill in 0..12_u64 {
        let mut agent = shop
            .start(|| {
                loop {
                    let mut programs = load(&pins, small()).expect("programs that load");
                    programs.attach(&cgroup).expect("programs that attach");
                }
            })
            .unwrap();
        std::thread::sleep(Duration::from_micros(20_000 + 23_333 * kill));
        assert!(agent.is_running(), "an agent failed");
        agent.kill();
    }
    assert!(connection.is_running(), "its peer had another name");
    assert!(
        busy.iter_mut().all(Process::is_running),
        "a connection failed, or its peer had another name"
    );

    let mut programs = load(&pins, small()).unwrap();
    programs.attach(&cgroup).unwrap();
    assert_eq!(freeing_links(&pins).len(), 1);
    drop((connection, busy));
    wait_for_taken(&pins, 0);
    let leaf = scene.view(root()).leaves[0];
    assert_eq!(leaf.outcomes.ended(), leaf.lifetime);
}
