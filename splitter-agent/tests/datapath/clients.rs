//! Who connects: pods with splits of their own, pods that are never split, and pods that are
//! not known.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use splitter_agent::datapath::{
    Capacity, ClientError, Hierarchy, PodGroup, Programs, Publisher, View,
};
use splitter_agent::objects::ObjectName;
use splitter_agent::plan::{Decision, Frontend};
use splitter_api::Status;
use splitter_common::layout::{ClientScope, Reason};
use testbed::lab::{Pod, Process, client, server};

use crate::common::agent::PATIENCE;
use crate::common::{PORT, Scene, decided, frontend, leaf, load, plan, root, serve, small, split};

const TEAM_A: ClientScope = ClientScope(0xa);
const TEAM_B: ClientScope = ClientScope(0xb);

/// The same frontend, for some clients.
fn of(frontend: Frontend, clients: ClientScope) -> Frontend {
    Frontend {
        clients,
        ..frontend
    }
}

/// A cgroup as that of a pod.
fn group(path: &Path) -> PodGroup {
    let hierarchy = Hierarchy::find().unwrap();
    let group = PodGroup {
        id: fs::metadata(path).unwrap().ino(),
        level: hierarchy.level_of(path).unwrap(),
    };
    assert!(group.level > 0);
    group
}

/// Who answers one connection from a cgroup.
fn answer_in(pod: &Pod, cgroup: &Path, target: SocketAddr) -> String {
    pod.run(|| {
        let own = std::process::id().to_string();
        fs::write(cgroup.join("cgroup.procs"), own).expect("a cgroup to be in");
        client::read_tag(target).expect("an answer")
    })
    .unwrap()
}

fn answer(pod: &Pod, target: SocketAddr) -> String {
    answer_in(pod, pod.cgroup(), target)
}

/// A group below another.
fn subgroup(parent: &Path, name: &str) -> PathBuf {
    let path = parent.join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Servers `everyone`, `a` and `b`, and a split of the root for each; and the root itself, which
/// answers `root` to a pod whose connection is left alone.
struct Shop {
    scene: Scene,
    endpoints: [SocketAddr; 3],
    servers: Vec<Process>,
    _shop: Pod,
}

impl Shop {
    fn new(name: &str) -> Self {
        let scene = Scene::new(name);
        let shop = scene.lab.pod("shop").unwrap();
        let servers = [(1000, "everyone"), (1001, "a"), (1002, "b")]
            .map(|(port, identity)| serve(&shop, port, identity));
        let endpoints = servers.each_ref().map(|(_, endpoint)| *endpoint);
        Self {
            scene,
            endpoints,
            servers: servers.into_iter().map(|(server, _)| server).collect(),
            _shop: shop,
        }
    }

    /// A pod in which the root answers for itself.
    fn pod(&mut self, name: &str) -> Pod {
        let pod = self.scene.lab.pod(name).unwrap();
        pod.add_address(root().address.ip()).unwrap();
        let (server, _) = pod
            .start_ready(|ready| server::tag(PORT, "root", ready))
            .unwrap();
        self.servers.push(server);
        pod
    }

    /// Publishes a split for everyone, and for these scopes.
    fn publish(&mut self, scopes: &[ClientScope]) {
        let to = |endpoint| split(vec![leaf("v1", 1, &[endpoint])]);
        let mut splits = vec![(root(), to(self.endpoints[0]))];
        for scope in scopes {
            let endpoint = self.endpoints[if *scope == TEAM_A { 1 } else { 2 }];
            splits.push((of(root(), *scope), to(endpoint)));
        }
        self.scene.publish(&splits);
    }

    fn set(&mut self, pod: &Pod, scope: ClientScope) {
        let group = group(pod.cgroup());
        self.scene.publisher.set_client(group, scope).unwrap();
    }

    /// Whether the record of the root asks who connects.
    fn asks(&self) -> bool {
        self.scene.view(root()).record.asks_client
    }
}

#[test]
fn pods_with_splits_of_their_own_and_others_are_split_side_by_side() {
    let mut shop = Shop::new("scopes");
    let pods = [shop.pod("one"), shop.pod("two"), shop.pod("three")];
    let vip = root().address;
    let answers = || pods.each_ref().map(|pod| answer(pod, vip));
    shop.set(&pods[0], TEAM_A);
    shop.set(&pods[1], TEAM_B);
    shop.set(&pods[2], ClientScope::EVERYONE);

    shop.publish(&[]);
    assert_eq!(answers(), ["everyone", "everyone", "everyone"]);
    assert!(!shop.asks());

    shop.publish(&[TEAM_A, TEAM_B]);
    assert_eq!(answers(), ["a", "b", "everyone"]);
    assert!(shop.asks());
    assert_eq!(shop.scene.view(of(root(), TEAM_A)).connections, 1);

    // Where there is none for a pod's scope, that for everyone applies.
    shop.publish(&[TEAM_B]);
    assert_eq!(answers(), ["everyone", "b", "everyone"]);

    // A pod's labels change.
    shop.set(&pods[2], TEAM_B);
    shop.set(&pods[1], TEAM_A);
    assert_eq!(answers(), ["everyone", "everyone", "b"]);

    shop.publish(&[]);
    assert_eq!(answers(), ["everyone", "everyone", "everyone"]);
    assert!(!shop.asks());
    assert_eq!(shop.scene.verdict_count("client_unknown"), 0);
    assert_eq!(shop.scene.verdict_count("inconsistent"), 0);
}

#[test]
fn a_split_for_some_clients_leaves_others_alone_and_refuses_as_it_says() {
    let mut shop = Shop::new("some-only");
    let (one, two) = (shop.pod("one"), shop.pod("two"));
    shop.set(&one, TEAM_A);
    shop.set(&two, ClientScope::EVERYONE);
    let passed = decided(Decision::PassThrough(Reason::NoLeafPort), vec![]);
    let only = |decision| {
        [
            (root(), passed.clone()),
            (of(root(), TEAM_A), decided(decision, vec![])),
        ]
    };

    let to_a = split(vec![leaf("v1", 1, &[shop.endpoints[1]])]);
    shop.scene
        .publish(&[(root(), passed.clone()), (of(root(), TEAM_A), to_a)]);
    assert_eq!(answer(&one, root().address), "a");
    assert_eq!(answer(&two, root().address), "root");

    shop.scene
        .publish(&only(Decision::Refuse(Reason::AllWeightsZero)));
    let refused = one
        .run(|| client::read_tag(root().address).map_err(|error| format!("{:?}", error.kind())))
        .unwrap();
    assert_eq!(refused, Err("ConnectionRefused".to_owned()));
    assert_eq!(answer(&two, root().address), "root");
}

#[test]
fn a_pod_that_is_never_split_is_left_alone_at_every_frontend() {
    let mut shop = Shop::new("never");
    let (never, other) = (shop.pod("never"), shop.pod("other"));
    let vip = root().address;
    shop.set(&other, ClientScope::EVERYONE);
    shop.publish(&[]);
    assert!(!shop.asks());

    shop.set(&never, ClientScope::NEVER_SPLIT);
    assert!(shop.asks());
    assert_eq!(
        (answer(&never, vip), answer(&other, vip)),
        ("root".into(), "everyone".into())
    );
    assert_eq!(shop.scene.verdict_count("never_split"), 1);
    // What is published later asks too.
    shop.scene.publish(&[]);
    shop.publish(&[TEAM_A]);
    assert_eq!(answer(&never, vip), "root");

    // Its label is taken away; then it is gone.
    shop.publish(&[]);
    shop.set(&never, ClientScope::EVERYONE);
    assert!(!shop.asks());
    assert_eq!(answer(&never, vip), "everyone");
    shop.set(&never, ClientScope::NEVER_SPLIT);
    let id = group(never.cgroup()).id;
    assert!(shop.scene.publisher.remove_client(id).unwrap());
    assert!(!shop.scene.publisher.remove_client(id).unwrap());
    assert!(!shop.asks());
    assert_eq!(answer(&never, vip), "everyone");
}

#[test]
fn a_pod_that_is_not_known_is_treated_like_everyone_and_counted() {
    let mut shop = Shop::new("unknown");
    let (known, unknown) = (shop.pod("known"), shop.pod("unknown"));
    let vip = root().address;
    // Nobody has to know where nothing depends on it.
    shop.publish(&[]);
    assert_eq!(answer(&unknown, vip), "everyone");
    assert_eq!(shop.scene.verdict_count("client_unknown"), 0);

    shop.publish(&[TEAM_A]);
    // Not even at which level pods are.
    assert_eq!(answer(&unknown, vip), "everyone");
    shop.set(&known, TEAM_A);
    assert_eq!(answer(&known, vip), "a");
    assert_eq!(answer(&unknown, vip), "everyone");
    assert_eq!(shop.scene.verdict_count("client_unknown"), 2);
    assert_eq!(shop.scene.verdict_count("split"), 4);

    let text = shop.scene.command(&["status", "--all"]);
    assert!(text.contains("from pods that are not known 2"), "{text}");
}

#[test]
fn a_pod_is_told_by_its_own_group_wherever_its_containers_are() {
    let mut shop = Shop::new("nested");
    let pod = shop.pod("pod");
    let vip = root().address;
    shop.publish(&[TEAM_A, TEAM_B]);
    // As the kubelet has them: a pod with guaranteed resources, and one below a group of its
    // quality of service.
    let guaranteed = subgroup(pod.cgroup(), "guaranteed");
    let burstable = subgroup(&subgroup(pod.cgroup(), "burstable"), "pod");
    let unknown = subgroup(pod.cgroup(), "besteffort");
    shop.scene
        .publisher
        .set_client(group(&guaranteed), TEAM_A)
        .unwrap();
    shop.scene
        .publisher
        .set_client(group(&burstable), TEAM_B)
        .unwrap();

    for (group, expected) in [
        (guaranteed.clone(), "a"),
        (subgroup(&guaranteed, "container"), "a"),
        (subgroup(&guaranteed, "container/init.scope/nested"), "a"),
        (burstable.clone(), "b"),
        (subgroup(&burstable, "container"), "b"),
        (subgroup(&burstable, "container/payload"), "b"),
        (subgroup(&unknown, "pod/container"), "everyone"),
        (pod.cgroup().to_owned(), "everyone"),
    ] {
        assert_eq!(answer_in(&pod, &group, vip), expected, "{group:?}");
    }
    assert_eq!(shop.scene.verdict_count("client_unknown"), 2);
}

/// As in a node that is a container itself: what is mounted is a part of the hierarchy, and no path
/// there tells how deep it is.
#[test]
fn a_group_is_as_deep_as_it_is_where_only_a_part_of_the_hierarchy_is_mounted() {
    let scene = Scene::new("part");
    let node = scene.lab.pod("node").unwrap();
    let outside = group(&subgroup(&subgroup(node.cgroup(), "kubepods"), "pod"));
    let directory = tempfile::tempdir().unwrap();
    let inside = node
        .run(|| {
            // SAFETY: the flag that is unsafe, that of file descriptors, is not among them.
            unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP | UnshareFlags::NEWNS) }
                .expect("namespaces");
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).expect("mounts of our own");
            // Nothing else is mounted that would show more.
            for mount in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
                let Some((fields, kind)) = mount.split_once(" - ") else {
                    continue;
                };
                if kind.starts_with("cgroup2 ") {
                    let point = fields.split(' ').nth(4).expect("a mount point");
                    unmount(point, UnmountFlags::DETACH).expect("a mount less");
                }
            }
            mount(
                "none",
                directory.path(),
                "cgroup2",
                MountFlags::empty(),
                None,
            )
            .expect("a part of the hierarchy");
            let hierarchy = Hierarchy::find().expect("a hierarchy");
            assert_eq!(hierarchy.root(), directory.path());
            let pod = directory.path().join("kubepods/pod");
            let id = fs::metadata(&pod).expect("the pod's group").ino();
            (id, hierarchy.level_of(&pod).expect("a level"))
        })
        .unwrap();
    assert_eq!(inside, (outside.id, outside.level));
}

#[test]
fn pods_at_more_levels_than_can_be_told_apart_are_refused_by_name() {
    let mut scene = Scene::new("levels");
    let pod = |level| PodGroup {
        id: 1_000_000 + u64::from(level),
        level,
    };
    for level in 1..=8 {
        scene.publisher.set_client(pod(level), TEAM_A).unwrap();
    }
    let error = scene.publisher.set_client(pod(9), TEAM_A).unwrap_err();
    assert!(matches!(error, ClientError::TooManyLevels(9)), "{error}");
    assert!(error.to_string().contains("8 levels"), "{error}");
    scene.publisher.remove_client(pod(3).id).unwrap();
    scene.publisher.set_client(pod(9), TEAM_A).unwrap();
    let error = scene.publisher.set_client(pod(0), TEAM_A).unwrap_err();
    assert!(matches!(error, ClientError::Root), "{error}");
    let known: BTreeSet<u8> = scene
        .publisher
        .clients()
        .map(|(pod, _)| pod.level)
        .collect();
    assert_eq!(known, [1, 2, 4, 5, 6, 7, 8, 9].into());
}

#[test]
fn more_pods_than_fit_are_refused_and_the_others_stay() {
    let mut scene = Scene::new("many-pods");
    let pod = |number: u64| PodGroup {
        id: 1_000_000 + number,
        level: 3,
    };
    for number in 0..16_384 {
        scene.publisher.set_client(pod(number), TEAM_A).unwrap();
    }
    let error = scene.publisher.set_client(pod(20_000), TEAM_A).unwrap_err();
    assert!(matches!(error, ClientError::Full), "{error}");
    // One that is there may change all the same.
    scene.publisher.set_client(pod(7), TEAM_B).unwrap();
    scene.publisher.remove_client(pod(8).id).unwrap();
    scene.publisher.set_client(pod(20_000), TEAM_A).unwrap();
    assert_eq!(scene.publisher.clients().count(), 16_384);
}

#[test]
fn an_agent_that_takes_over_knows_the_pods_and_names_and_goes_on() {
    let mut shop = Shop::new("taken-over");
    let (one, never) = (shop.pod("one"), shop.pod("never"));
    let vip = root().address;
    shop.set(&one, TEAM_A);
    shop.set(&never, ClientScope::NEVER_SPLIT);
    let names = BTreeMap::from([
        (TEAM_A, "namespace=team-a, app=web".to_owned()),
        (TEAM_B, "namespace=team-b".to_owned()),
    ]);
    shop.scene.publisher.name_scopes(&names).unwrap();
    shop.publish(&[TEAM_A]);
    let known = |publisher: &Publisher| publisher.clients().collect::<BTreeMap<_, _>>();
    let before = known(&shop.scene.publisher);
    assert_eq!(before.len(), 2);

    shop.scene.publisher = Publisher::open(&shop.scene.pins, 0).unwrap();

    assert_eq!(known(&shop.scene.publisher), before);
    assert_eq!(
        (answer(&one, vip), answer(&never, vip)),
        ("a".into(), "root".into())
    );
    let status: Status =
        serde_json::from_str(&shop.scene.command(&["status", "-o", "json"])).unwrap();
    let found: Vec<_> = status
        .splits
        .iter()
        .map(|split| (split.frontend.as_str(), split.clients.as_deref()))
        .collect();
    let frontend = "10.96.0.10:14001/TCP";
    assert_eq!(
        found,
        [
            (frontend, None),
            (frontend, Some("namespace=team-a, app=web"))
        ]
    );
    let text = shop.scene.command(&["explain", "10.96.0.10:14001"]);
    let line = "for connections from pods with namespace=team-a, app=web";
    assert!(text.contains(line), "{text}");

    // It removes what is gone, and everything is as before.
    shop.publish(&[]);
    shop.scene.publisher.name_scopes(&BTreeMap::new()).unwrap();
    for (pod, _) in before {
        shop.scene.publisher.remove_client(pod.id).unwrap();
    }
    assert!(!shop.asks());
    assert_eq!(answer(&never, vip), "everyone");
}

/// An agent may be killed between two of its writes: what it had not yet brought up to date, the
/// next one does.
#[test]
fn records_that_do_not_ask_though_they_should_are_put_right_by_the_next_agent() {
    let mut shop = Shop::new("asking");
    let one = shop.pod("one");
    shop.set(&one, TEAM_A);
    shop.publish(&[TEAM_A]);
    let record = shop.scene.view(root()).record;
    let layout = shop.scene.programs.layout().path().to_owned();
    let mut splits: aya::maps::Array<_, [u8; 64]> = aya::maps::Array::try_from(
        aya::maps::Map::Array(aya::maps::MapData::from_pin(layout.join("SPLITS")).unwrap()),
    )
    .unwrap();
    let index = (0..splits.len())
        .find(|index| splits.get(index, 0).unwrap() == bytemuck::bytes_of(&record))
        .unwrap();
    let mut bytes = splits.get(&index, 0).unwrap();
    let at = std::mem::offset_of!(splitter_common::layout::SplitRecord, asks_client);
    bytes[at] = 0;
    splits.set(index, bytes, 0).unwrap();
    assert_eq!(answer(&one, root().address), "everyone");

    shop.scene.publisher = Publisher::open(&shop.scene.pins, 0).unwrap();

    assert_eq!(answer(&one, root().address), "a");
}

#[test]
fn maps_of_another_capacity_know_the_pods_too() {
    let mut shop = Shop::new("clients-capacity");
    let one = shop.pod("one");
    shop.set(&one, TEAM_A);
    shop.publish(&[TEAM_A]);

    let capacity = Capacity {
        endpoints: 8192,
        ..small()
    };
    let mut programs: Programs = load(&shop.scene.pins, capacity).unwrap();
    shop.scene.publisher = Publisher::of(&programs, 0).unwrap();
    programs.attach(shop.scene.lab.cgroup()).unwrap();
    shop.scene
        .pins
        .remove_other_layouts(programs.layout())
        .unwrap();

    assert_eq!(shop.scene.publisher.clients().count(), 1);
    assert_eq!(answer(&one, root().address), "a");
    assert!(shop.asks());
}

/// Connects without pause until dropped; each answer must be one of these.
fn hammer(pod: &Pod, target: SocketAddr, allowed: &[&'static str]) -> Process {
    let allowed = allowed.to_vec();
    pod.start(move || {
        loop {
            let answer = client::read_tag(target).expect("an answer");
            assert!(allowed.contains(&answer.as_str()), "{answer} answered");
        }
    })
    .unwrap()
}

/// What is told of a change is that it is never a miss: then the root would answer.
#[test]
fn a_change_under_load_shows_the_old_split_or_the_new_one_and_never_a_miss() {
    let mut shop = Shop::new("flips");
    let pods = [shop.pod("one"), shop.pod("two"), shop.pod("three")];
    shop.set(&pods[0], TEAM_A);
    shop.set(&pods[1], TEAM_B);
    shop.set(&pods[2], ClientScope::EVERYONE);
    let [everyone, a, b] = shop.endpoints;
    // Frontends that share buckets of the hash, of which all are changed each time.
    let others: Vec<Frontend> = (0..40)
        .map(|number| frontend(&format!("10.96.1.{number}:80")))
        .collect();
    let to = |endpoint, share| {
        let (first, second) = (leaf("v1", share, &[endpoint]), leaf("v2", 1, &[endpoint]));
        split(vec![first, second])
    };
    let with = |round: u32| {
        let share = 1 + round % 2;
        let team_a = if round.is_multiple_of(2) { a } else { b };
        let mut splits = vec![
            (root(), to(everyone, share)),
            (of(root(), TEAM_A), to(team_a, share)),
            (of(root(), TEAM_B), to(b, share)),
        ];
        splits.extend(others.iter().map(|other| (*other, to(everyone, share))));
        plan(&splits)
    };
    shop.scene.publisher.publish(&with(0));
    let vip = root().address;
    let mut clients: Vec<Process> = [
        hammer(&pods[0], vip, &["a", "b"]),
        hammer(&pods[1], vip, &["b"]),
        hammer(&pods[2], vip, &["everyone"]),
    ]
    .into();

    let start = Instant::now();
    let before = shop.scene.verdict_count("split");
    let mut rounds = 0;
    while rounds < 500 || shop.scene.verdict_count("split") < before + 3000 {
        assert!(start.elapsed() < PATIENCE, "only {rounds} changes");
        rounds += 1;
        let summary = shop.scene.publisher.publish(&with(rounds));
        assert!(summary.failed.is_empty(), "{summary:?}");
        std::thread::sleep(Duration::from_millis(1));
    }

    assert!(
        clients.iter_mut().all(Process::is_running),
        "a connection went elsewhere"
    );
    drop(clients);
    assert_eq!(shop.scene.verdict_count("inconsistent"), 0);
    assert_eq!(shop.scene.verdict_count("client_unknown"), 0);
}

/// A pod's labels may change while it connects.
#[test]
fn a_pod_whose_scope_changes_under_load_is_never_unknown() {
    let mut shop = Shop::new("relabelled");
    let pod = shop.pod("pod");
    shop.set(&pod, TEAM_A);
    shop.publish(&[TEAM_A, TEAM_B]);
    let mut clients = [
        hammer(&pod, root().address, &["a", "b"]),
        hammer(&pod, root().address, &["a", "b"]),
    ];
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < 20_000 || shop.scene.verdict_count("split") < 1000 {
        assert!(start.elapsed() < PATIENCE, "only {rounds} changes");
        rounds += 1;
        shop.set(&pod, if rounds % 2 == 0 { TEAM_A } else { TEAM_B });
    }
    assert!(
        clients.iter_mut().all(Process::is_running),
        "a connection went elsewhere"
    );
    drop(clients);
    assert_eq!(shop.scene.verdict_count("client_unknown"), 0);
    let views = View::open(&shop.scene.pins).unwrap().frontends;
    assert!(views[&of(root(), TEAM_A)].connections > 0);
    assert!(views[&of(root(), TEAM_B)].connections > 0);
    assert_eq!(views[&root()].connections, 0);
}

#[test]
fn names_of_pods_are_there_for_whoever_takes_over_and_go_with_their_groups() {
    let mut scene = Scene::new("names");
    let name = |name| ObjectName::new("shop", name);
    let both = BTreeMap::from([(7, name("a")), (8, name("b"))]);
    let named = |scene: &Scene| View::open(&scene.pins).unwrap().pod_names;
    scene.publisher.name_pods(&both, |_| false).unwrap();
    assert_eq!(named(&scene), both);

    scene.publisher = Publisher::open(&scene.pins, 0).unwrap();
    // Of those that were not told of again yet, one is still there.
    let told = BTreeMap::from([(9, name("c"))]);
    scene.publisher.name_pods(&told, |id| id == 8).unwrap();
    let expected = BTreeMap::from([(8, name("b")), (9, name("c"))]);
    assert_eq!(named(&scene), expected);
    // A group's number that comes again is another pod's.
    let again = BTreeMap::from([(9, name("d"))]);
    scene.publisher.name_pods(&again, |_| false).unwrap();
    assert_eq!(named(&scene), again);

    // Maps of another capacity have them, too.
    let larger = Capacity {
        frontends: 128,
        ..small()
    };
    let mut programs = load(&scene.pins, larger).unwrap();
    let _publisher = Publisher::of(&programs, 0).unwrap();
    programs.attach(scene.lab.cgroup()).unwrap();
    scene.pins.remove_other_layouts(programs.layout()).unwrap();
    assert_eq!(named(&scene), again);
}
