//! Programs of other owners on the path of a pod.

use splitter_api::{AttachMode, Effect, OtherProgram};

use crate::common::agent::BINARY;
use crate::foreign::{EXCLUSIVE, Foreign, MULTI, NAME, OVERRIDE};
use crate::http::{LISTEN, address, get, wait_for, wait_until};
use crate::node::{Node, Place, wait};

const POD: &str = "kubepods/besteffort/podUID/1";

/// What `status` says about a program.
fn told(node: &Node, program: &Foreign) -> Option<OtherProgram> {
    let status = node.status();
    let mut others = status.node.attachment.other_programs.into_iter();
    others.find(|it| it.id == program.id)
}

fn warnings(node: &Node) -> Vec<String> {
    node.status().node.attachment.warnings
}

#[test]
fn an_exclusive_program_above_is_named_with_the_remedy_until_it_is_gone() {
    let node = Node::new("exclusive");
    let _pod = node.pod(POD);
    let theirs = Foreign::attach(&node.path(""), EXCLUSIVE);
    let named = format!("connect4 program {} ({NAME})", theirs.id);

    let (mut agent, server) = node.agent(Place::Outside, &[]);
    agent.wait_for_log("from this cgroup are not split");
    assert!(agent.log().contains(&named), "{}", agent.log());
    // What is logged is told to probes and metrics a moment later.
    let answer = wait_until(server, "/readyz", |answer| answer.body.contains(&named));
    assert!(answer.fails("programs"), "{answer:?}");
    for part in [
        named.as_str(),
        "exclusively",
        "/kubepods: ",
        &format!("connect4 id {}", theirs.id),
    ] {
        assert!(answer.body.contains(part), "{part}: {answer:?}");
    }
    assert_eq!(get(server, "/livez").status, 200);
    let metrics = get(server, "/metrics").body;
    assert!(
        metrics.contains("splitter_pod_cgroups{state=\"lacking\"} 1"),
        "{metrics}"
    );

    theirs.detach();
    wait_for(server, "/readyz", 200);
    assert_eq!(node.count(POD, 10), (5, 5, 0));
}

#[test]
fn a_program_on_the_same_cgroup_that_bears_no_others_is_named_too() {
    for (name, flags) in [("same-0", EXCLUSIVE), ("same-1", OVERRIDE)] {
        let node = Node::new(name);
        let _pod = node.pod(POD);
        let theirs = Foreign::attach(&node.path("kubepods"), flags);
        let (mut agent, _server) = node.agent(Place::Outside, &[]);
        agent.wait_for_log(&format!("connect4 program {} ({NAME})", theirs.id));
    }
}

#[test]
fn a_program_that_ours_replace_for_pods_is_warned_of() {
    let node = Node::new("override");
    let _pod = node.pod(POD);
    let theirs = Foreign::attach(&node.path(""), OVERRIDE);
    let (mut agent, server) = node.agent(Place::Outside, &[]);
    agent.wait_for_log("no longer runs for pods");
    let ready = wait_for(server, "/readyz", 200);
    assert!(ready.body.contains("no longer runs for pods"), "{ready:?}");

    let told = told(&node, &theirs).expect("a program");
    assert_eq!(told.effect, Effect::SwitchedOff);
    assert_eq!(told.mode, Some(AttachMode::Override));
    assert_eq!(told.name.as_deref(), Some(NAME));
    assert_eq!(told.order, None, "{told:?}");
    assert_eq!(warnings(&node).len(), 1);
}

#[test]
fn programs_before_and_after_ours_are_told_with_cgroup_and_order() {
    let node = Node::new("order");
    let _pod = node.pod(POD);
    let first = Foreign::attach(&node.path("kubepods"), MULTI);
    let (_agent, server) = node.agent(Place::Outside, &[]);
    wait_for(server, "/readyz", 200);
    let last = Foreign::attach(&node.path("kubepods"), MULTI);
    let above = Foreign::attach(&node.path(""), MULTI);
    let own = Foreign::attach(&node.path(POD), MULTI);

    let of = |program: &Foreign| {
        let told = told(&node, program).expect("a program");
        (told.effect, told.order, told.cgroup.expect("a cgroup"))
    };
    let (effect, order, cgroup) = of(&first);
    assert_eq!((effect, order), (Effect::Before, Some(1)));
    assert!(cgroup.ends_with("/kubepods"), "{cgroup}");
    let (effect, order, _) = of(&last);
    assert_eq!((effect, order), (Effect::After, Some(3)));
    let (effect, order, cgroup) = of(&above);
    assert_eq!((effect, order), (Effect::After, Some(4)));
    assert!(!cgroup.contains("kubepods"), "{cgroup}");
    let (effect, order, cgroup) = of(&own);
    assert_eq!((effect, order), (Effect::Before, None));
    assert!(cgroup.ends_with("/1"), "{cgroup}");

    let warnings = warnings(&node);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for program in [&first, &own] {
        let named = format!("connect4 program {} ({NAME})", program.id);
        assert!(
            warnings.iter().any(|it| it.contains(&named)),
            "{warnings:?}"
        );
    }
    // The text has all of them.
    let text = node
        .command(Place::Outside)
        .args(["status", "--pin-dir"])
        .arg(node.store.site.lab.pin_directory())
        .output()
        .expect("a command that can be started");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for program in [&first, &last, &above, &own] {
        let named = format!("connect4 {} `{NAME}`", program.id);
        assert!(text.contains(&named), "{text}");
    }
}

#[test]
fn a_second_agent_with_other_pins_on_the_same_cgroup_is_told() {
    let node = Node::new("second");
    let _pod = node.pod(POD);
    let (mut first, server) = node.agent(Place::Outside, &[]);
    wait_for(server, "/readyz", 200);

    let pins = node.store.site.lab.pin_directory();
    let other = pins.join("second");
    let site = &node.store.site;
    let mut second = site.launch(node.command(Place::Outside), &other, &LISTEN);
    let second_server = address(&mut second);
    second.wait_for_log("another splitter-agent's");
    assert!(
        second
            .log()
            .contains(&format!("cleanup --pin-dir {}", pins.display())),
        "{}",
        second.log()
    );
    let answer = wait_until(second_server, "/readyz", |answer| {
        answer.body.contains("something else answered")
    });
    assert!(answer.fails("self-test"), "{answer:?}");
    // The first one decides, and hears of the other.
    assert_eq!(node.count(POD, 10), (5, 5, 0));
    assert_eq!(get(server, "/readyz").status, 200);
    wait("the second agent in the first one's status", || {
        let all = warnings(&node);
        all.iter()
            .any(|it| it.contains(&format!("--pin-dir {}", other.display())))
            .then_some(())
    });
    // Its remedy works: what is left of an agent that has ended is removed.
    first.signal(rustix::process::Signal::TERM);
    first.wait();
    let cleanup = std::process::Command::new(BINARY)
        .args(["cleanup", "--pin-dir"])
        .arg(&pins)
        .output()
        .expect("a command that can be started");
    assert!(cleanup.status.success(), "{cleanup:?}");
    wait_for(second_server, "/readyz", 200);
    assert_eq!(node.count(POD, 10), (5, 5, 0));
}
