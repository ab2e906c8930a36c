//! The lab does what the tests and the demo rely on, and leaves nothing behind.
//!
//! These need root: `cargo xtask test` sees to that.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::fixtures::Tally;
use testbed::lab::{Lab, Pod, Process, client, server};

/// A server of tags in `pod`.
fn serve_tags(pod: &Pod, port: u16, identity: &str) -> Result<Process> {
    Ok(pod
        .start_ready(|ready| server::tag(port, identity, ready))?
        .0)
}

fn tags(pod: &Pod, target: impl Into<SocketAddr>, count: u64) -> Result<Tally> {
    let target = target.into();
    pod.run(|| client::count_tags(target, count))
}

/// The network namespaces that processes of the machine are in.
fn network_namespaces() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").expect("a list of processes");
    processes
        .flatten()
        .filter_map(|process| fs::read_link(process.path().join("ns/net")).ok())
        .collect()
}

fn network_namespace_of(process: u32) -> PathBuf {
    fs::read_link(format!("/proc/{process}/ns/net")).expect("a namespace")
}

/// Waits until `condition` holds, for things that the kernel does in its own time.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn lives(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

#[test]
fn pods_reach_each_other_over_both_families() -> Result<()> {
    let lab = Lab::new("reach")?;
    let (shop, buyer) = (lab.pod("shop")?, lab.pod("buyer")?);
    let _server = serve_tags(&shop, 80, "shop-v1")?;
    for address in [IpAddr::from(shop.ipv4()), IpAddr::from(shop.ipv6())] {
        let tags = tags(&buyer, (address, 80), 200)?;
        assert_eq!((tags.count("shop-v1"), tags.failed()), (200, 0), "{tags:?}");
    }
    Ok(())
}

#[test]
fn addresses_that_no_pod_has_fail_at_once_and_each_time() -> Result<()> {
    let lab = Lab::new("nowhere")?;
    let buyer = lab.pod("buyer")?;
    let before = Instant::now();
    for address in ["10.96.0.10", "fd96::10"] {
        let address: IpAddr = address.parse()?;
        let tags = tags(&buyer, (address, 80), 50)?;
        assert_eq!(tags.errors.get("HostUnreachable"), Some(&50), "{tags:?}");
    }
    assert!(before.elapsed() < Duration::from_secs(2));
    Ok(())
}

#[test]
fn closed_ports_refuse() -> Result<()> {
    let lab = Lab::new("closed")?;
    let (shop, buyer) = (lab.pod("shop")?, lab.pod("buyer")?);
    let tags = tags(&buyer, (shop.ipv4(), 81), 3)?;
    assert_eq!(tags.errors.get("ConnectionRefused"), Some(&3), "{tags:?}");
    Ok(())
}

#[test]
fn a_pod_catches_connections_to_an_added_address() -> Result<()> {
    let lab = Lab::new("added")?;
    let buyer = lab.pod("buyer")?;
    let _server = serve_tags(&buyer, 80, "passed-through")?;
    for address in ["10.96.0.10", "fd96::10"] {
        let address: IpAddr = address.parse()?;
        buyer.add_address(address)?;
        let tags = tags(&buyer, (address, 80), 5)?;
        assert_eq!(tags.count("passed-through"), 5, "{address}: {tags:?}");
    }
    Ok(())
}

#[test]
fn more_connections_than_ports_are_possible() -> Result<()> {
    let lab = Lab::new("many")?;
    let (shop, buyer) = (lab.pod("shop")?, lab.pod("buyer")?);
    let _server = serve_tags(&shop, 80, "shop")?;
    let tags = tags(&buyer, (shop.ipv4(), 80), 60_000)?;
    assert_eq!((tags.count("shop"), tags.failed()), (60_000, 0), "{tags:?}");
    Ok(())
}

#[test]
fn http_requests_are_answered_with_the_identity() -> Result<()> {
    let lab = Lab::new("http")?;
    let (shop, buyer) = (lab.pod("shop")?, lab.pod("buyer")?);
    let (_server, address) = shop.start_ready(|ready| server::identity(0, "shop-v2", ready))?;
    let authority = format!("{}:{}", shop.ipv4(), address.port());
    let answered = buyer.run(|| {
        (0..2_000)
            .filter_map(|_| client::http_get(&authority, "/books-bought").ok())
            .filter(|it| it.status == 200 && it.identity.as_deref() == Some("shop-v2"))
            .count()
    })?;
    assert_eq!(answered, 2_000);
    Ok(())
}

#[test]
fn many_connections_are_served_at_the_same_time() -> Result<()> {
    let lab = Lab::new("open")?;
    let (shop, buyer) = (lab.pod("shop")?, lab.pod("buyer")?);
    let (_server, _) = shop.start_ready(|ready| server::identity(80, "shop", ready))?;
    let target = SocketAddr::from((shop.ipv6(), 80));
    let answers = buyer.run(|| -> Result<usize, String> {
        let ask = |connection: &mut TcpStream| -> std::io::Result<usize> {
            connection.write_all(b"HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n")?;
            let mut answer = [0; 512];
            let length = connection.read(&mut answer)?;
            Ok(usize::from(answer[..length].ends_with(b"\r\n\r\n")))
        };
        let mut answers = 0;
        (0..100)
            .map(|_| TcpStream::connect(target))
            .collect::<std::io::Result<Vec<_>>>()
            .and_then(|mut open| {
                // Twice each: they stay open.
                for _ in 0..2 {
                    for connection in &mut open {
                        answers += ask(connection)?;
                    }
                }
                Ok(answers)
            })
            .map_err(|error| error.to_string())
    })?;
    assert_eq!(answers, Ok(200));
    Ok(())
}

#[test]
fn processes_run_in_the_cgroup_of_their_pod() -> Result<()> {
    let lab = Lab::new("cgroup")?;
    let pod = lab.pod("pod")?;
    let expected = pod.cgroup().file_name().unwrap().to_str().unwrap();
    assert_eq!(pod.cgroup().parent(), Some(lab.cgroup()));
    let membership = pod.run(|| fs::read_to_string("/proc/self/cgroup").unwrap_or_default())?;
    let output = pod.command("cat").arg("/proc/self/cgroup").output()?;
    for text in [membership, String::from_utf8(output.stdout)?] {
        let own = text.lines().find(|line| line.starts_with("0::"));
        assert!(own.is_some_and(|line| line.ends_with(expected)), "{text}");
    }
    Ok(())
}

#[test]
fn results_of_any_size_come_back() -> Result<()> {
    let lab = Lab::new("results")?;
    let pod = lab.pod("pod")?;
    let base = 40;
    assert_eq!(pod.run(|| base + 2)?, 42);
    let long = pod.run(|| "x".repeat(1_000_000))?;
    assert_eq!(long.len(), 1_000_000);
    let failed: Result<u8, String> = pod.run(|| Err("no".to_owned()))?;
    assert_eq!(failed, Err("no".to_owned()));
    Ok(())
}

#[test]
fn panics_inside_a_pod_come_back_as_errors_that_quote_them() -> Result<()> {
    let lab = Lab::new("panics")?;
    let pod = lab.pod("wobbly")?;
    let number = 7;
    let error = pod.run(|| assert_eq!(number, 8, "the number")).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("wobbly: panicked at "), "{text}");
    assert!(
        text.contains("tests/lab.rs") && text.contains("the number"),
        "{text}"
    );
    let error = pod
        .start_ready::<(), _>(|_| panic!("before it was ready"))
        .unwrap_err();
    assert!(error.to_string().contains("before it was ready"), "{error}");
    Ok(())
}

#[test]
fn a_process_that_ends_without_an_answer_is_an_error() -> Result<()> {
    let lab = Lab::new("silent")?;
    let pod = lab.pod("pod")?;
    let error = pod.run::<(), _>(|| std::process::exit(3)).unwrap_err();
    assert!(error.to_string().contains("exit code 3"), "{error}");
    let error = pod.start_ready::<(), _>(drop).unwrap_err();
    assert!(error.to_string().contains("without an answer"), "{error}");
    Ok(())
}

#[test]
fn a_process_that_takes_too_long_is_killed() -> Result<()> {
    let lab = Lab::new("slow")?;
    let pod = lab.pod("pod")?;
    let before = Instant::now();
    let error = pod
        .run_within(Duration::from_millis(50), || sleep(Duration::from_secs(30)))
        .unwrap_err();
    assert!(before.elapsed() < Duration::from_secs(5));
    assert!(error.to_string().contains("within 50ms"), "{error}");
    Ok(())
}

#[test]
fn commands_run_in_the_pod_and_in_the_current_directory() -> Result<()> {
    let lab = Lab::new("command")?;
    let pod = lab.pod("pod")?;
    let output = pod
        .command("sh")
        .args(["-c", "pwd; ip -brief address show dev eth0"])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains(&pod.ipv4().to_string()), "{text}");
    assert!(text.contains(&pod.ipv6().to_string()), "{text}");
    let here = std::env::current_dir()?;
    assert_eq!(text.lines().next(), here.to_str());
    Ok(())
}

#[test]
fn names_resolve_inside_the_pod_only() -> Result<()> {
    let lab = Lab::new("hosts")?;
    let (shop, buyer) = (lab.pod("shop")?, lab.pod("buyer")?);
    let (_server, _) = shop.start_ready(|ready| server::identity(14001, "shop", ready))?;
    // The second time, the first is replaced.
    buyer.set_hosts(&[("shop.old", shop.ipv4().into())])?;
    buyer.set_hosts(&[("shop.town", shop.ipv4().into())])?;
    let get = |name: &'static str| {
        buyer.run(move || {
            client::http_get(name, "/")
                .map(|response| response.identity)
                .map_err(|error| error.to_string())
        })
    };
    assert_eq!(get("shop.town:14001")?, Ok(Some("shop".to_owned())));
    assert!(get("shop.old:14001")?.is_err());
    let outside = fs::read_to_string("/etc/hosts")?;
    assert!(!outside.contains("shop.town"), "{outside}");
    Ok(())
}

#[test]
fn published_names_work_with_ip_netns_exec_until_dropped() -> Result<()> {
    let lab = Lab::new("names")?;
    let pod = lab.pod("pod")?;
    let name = lab.name();
    let address = IpAddr::from(Ipv4Addr::new(10, 96, 0, 10));
    let published = pod.publish_name(name, &[("shop.town", address)])?;
    let again = pod.publish_name(name, &[]).unwrap_err();
    assert!(again.to_string().contains("in use"), "{again}");
    let output = Command::new("ip")
        .args(["netns", "exec", name, "sh", "-c"])
        .arg("ip -brief address; getent hosts shop.town")
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains(&pod.ipv4().to_string()), "{text}");
    assert!(text.contains("10.96.0.10"), "{text}");
    drop(published);
    for directory in ["/run/netns", "/etc/netns"] {
        assert!(!Path::new(directory).join(name).exists());
    }
    Ok(())
}

/// What a lab consists of, as seen from outside.
struct Traces {
    name: String,
    cgroup: PathBuf,
    pins: PathBuf,
    processes: Vec<u32>,
    namespaces: Vec<PathBuf>,
}

/// A lab with everything in it that could stay behind, and what to look for afterwards.
fn furnish(lab: &Lab) -> Result<(Vec<Pod>, Vec<Process>, Traces)> {
    let (shop, buyer) = (lab.pod("shop")?, lab.pod("buyer")?);
    buyer.set_hosts(&[("shop.town", shop.ipv4().into())])?;
    let server = serve_tags(&shop, 80, "shop")?;
    let sleeper = buyer.start(|| sleep(Duration::from_secs(600)))?;
    fs::create_dir_all(lab.pin_directory().join("v1"))?;
    let processes = vec![
        shop.process_id(),
        buyer.process_id(),
        server.id(),
        sleeper.id(),
    ];
    let traces = Traces {
        name: lab.name().to_owned(),
        cgroup: lab.cgroup().to_owned(),
        pins: lab.pin_directory(),
        namespaces: processes
            .iter()
            .copied()
            .map(network_namespace_of)
            .collect(),
        processes,
    };
    assert!(network_namespaces().is_superset(&traces.namespaces.iter().cloned().collect()));
    Ok((vec![shop, buyer], vec![server, sleeper], traces))
}

fn assert_gone(traces: &Traces) {
    assert!(!traces.cgroup.exists(), "the cgroup is left");
    assert!(!traces.pins.exists(), "pins are left");
    for process in &traces.processes {
        assert!(!lives(*process), "process {process} is left");
    }
    let left = network_namespaces();
    for namespace in &traces.namespaces {
        assert!(!left.contains(namespace), "{} is left", namespace.display());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("a list of mounts");
    assert!(!mounts.contains(&traces.name), "a mount is left");
}

#[test]
fn dropping_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::new("drop")?;
    let (pods, processes, traces) = furnish(&lab)?;
    drop((processes, pods, lab));
    assert_gone(&traces);
    Ok(())
}

#[test]
fn dropping_the_lab_first_leaves_nothing_behind_either() -> Result<()> {
    let lab = Lab::new("drop-first")?;
    let (pods, processes, traces) = furnish(&lab)?;
    drop(lab);
    assert!(pods[0].run(|| ()).is_err(), "a pod outlived its lab");
    drop((pods, processes));
    assert_gone(&traces);
    Ok(())
}

#[test]
fn a_panic_leaves_nothing_behind() -> Result<()> {
    let mut found = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new("panic").expect("a lab");
        let (_pods, _processes, traces) = furnish(&lab).expect("furniture");
        found = Some(traces);
        std::panic::resume_unwind(Box::new("a test fails"));
    }));
    assert!(outcome.is_err());
    assert_gone(&found.expect("traces"));
    Ok(())
}

#[test]
fn a_copy_in_a_child_process_does_not_take_the_lab_down() -> Result<()> {
    let lab = Lab::new("copy")?;
    let pod = lab.pod("pod")?;
    let helper = lab.pod("helper")?;
    // The closure owns what it captures, and drops it: in the child.
    let mut server = Some(serve_tags(&pod, 80, "pod")?);
    helper.run(|| drop(server.take()))?;
    assert_eq!(tags(&helper, (pod.ipv4(), 80), 1)?.count("pod"), 1);
    drop(server);
    Ok(())
}

#[test]
fn two_labs_at_once_do_not_meet() -> Result<()> {
    let (one, two) = (Lab::new("same")?, Lab::new("same")?);
    assert_ne!(one.name(), two.name());
    let (shop_one, shop_two) = (one.pod("shop")?, two.pod("shop")?);
    assert_eq!(shop_one.ipv4(), shop_two.ipv4());
    let _server_one = serve_tags(&shop_one, 80, "one")?;
    let _server_two = serve_tags(&shop_two, 80, "two")?;
    let (buyer_one, buyer_two) = (one.pod("buyer")?, two.pod("buyer")?);
    assert_eq!(tags(&buyer_one, (shop_one.ipv4(), 80), 5)?.count("one"), 5);
    assert_eq!(tags(&buyer_two, (shop_two.ipv4(), 80), 5)?.count("two"), 5);
    drop((shop_one, one));
    assert_eq!(tags(&buyer_two, (shop_two.ipv4(), 80), 5)?.count("two"), 5);
    Ok(())
}

/// The environment variable that tells this test binary to be the process that gets killed, and
/// where to write what it made.
const VICTIM: &str = "LAB_TEST_VICTIM";

#[test]
fn what_a_killed_process_leaves_is_swept() -> Result<()> {
    if let Some(report) = std::env::var_os(VICTIM) {
        let lab = Lab::new("victim")?;
        let (pods, _processes, traces) = furnish(&lab)?;
        let _published = pods[0].publish_name(lab.name(), &[])?;
        let mut text = format!(
            "{}\n{}\n{}\n",
            traces.name,
            traces.cgroup.display(),
            traces.pins.display()
        );
        for process in traces.processes {
            text += &format!("{process}\n");
        }
        let unfinished = Path::new(&report).with_extension("new");
        fs::write(&unfinished, text)?;
        fs::rename(&unfinished, &report)?;
        sleep(Duration::from_secs(600));
        unreachable!("it was to be killed");
    }

    let report = std::env::temp_dir().join(format!("lab-test-victim-{}", std::process::id()));
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "what_a_killed_process_leaves_is_swept"])
        .env(VICTIM, &report)
        .stdout(std::process::Stdio::null())
        .spawn()?;
    eventually("the victim has made its lab", || report.exists());
    let text = fs::read_to_string(&report)?;
    fs::remove_file(&report)?;
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let (name, cgroup, pins) = (next(), PathBuf::from(next()), PathBuf::from(next()));
    let processes: Vec<u32> = lines.map(|line| line.parse().expect("a number")).collect();
    assert_eq!(processes.len(), 4);
    let namespaces: Vec<_> = processes
        .iter()
        .copied()
        .map(network_namespace_of)
        .collect();

    victim.kill()?;
    victim.wait()?;
    eventually("its processes die with it", || {
        !processes.iter().copied().any(lives)
    });
    // Other tests of this binary make labs meanwhile, and may have swept already.
    drop(Lab::new("sweeper")?);
    for directory in ["/run/netns", "/etc/netns"] {
        assert!(!Path::new(directory).join(&name).exists());
    }
    assert_gone(&Traces {
        name,
        cgroup,
        pins,
        processes,
        namespaces,
    });
    Ok(())
}

#[test]
fn a_pod_is_set_up_quickly() -> Result<()> {
    let lab = Lab::new("quick")?;
    let fastest = (0..5)
        .map(|index| {
            let before = Instant::now();
            lab.pod(&format!("pod-{index}"))
                .map(|pod| (before.elapsed(), pod))
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .map(|(time, _)| time)
        .min();
    // Some 10 ms on an idle machine.
    assert!(fastest < Some(Duration::from_millis(150)), "{fastest:?}");
    Ok(())
}
