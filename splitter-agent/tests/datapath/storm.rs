//! Under load: no connection fails, and each gets what was programmed while it was made.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use splitter_agent::datapath::{Publisher, View};
use splitter_agent::plan::FrontendPlan;
use testbed::lab::{Process, client};

use crate::common::agent::PATIENCE;
use crate::common::{Scene, expected, frontend, leaf, plan, root, serve, split};

/// One connection of a client under load.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Attempt {
    /// Nanoseconds on the monotonic clock, which all processes share.
    started: u64,
    ended: u64,
    /// Who answered, or what went wrong.
    answer: Result<String, String>,
}

fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned()
}

/// Connects without pause for as long as it is to, by the number of connections that it has made.
fn attempts(target: SocketAddr, goes_on: impl Fn(usize) -> bool) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    while goes_on(attempts.len()) {
        let started = now();
        let answer = client::read_tag(target).map_err(|error| error.to_string());
        attempts.push(Attempt {
            started,
            ended: now(),
            answer,
        });
    }
    attempts
}

/// A state that was programmed: from when it may have been, until when it may have been.
struct Phase {
    from: u64,
    until: u64,
    allowed: Vec<&'static str>,
}

/// Case: CHANGE-WHOLE
#[test]
fn under_a_storm_of_changes_every_connection_gets_what_was_programmed_while_it_was_made() {
    const CLIENTS: u32 = 16;
    const DURATION: Duration = Duration::from_secs(4);
    // In an emulated machine, where the clients keep the publisher from its processor, it takes longer.
    const CHANGES: u64 = 100;
    const CONNECTIONS: u64 = 1000;
    const FASTEST: Duration = Duration::from_millis(1);
    let mut scene = Scene::new("storm");
    let directory = tempfile::tempdir().unwrap();
    let end = directory.path().join("end");
    let (client, shop) = scene.pods();
    let names = ["a", "b", "c", "d"];
    let servers: Vec<_> = (1000..)
        .zip(names)
        .map(|(port, name)| serve(&shop, port, name))
        .collect();
    let endpoint = |index: usize| servers[index].1;
    // Weights, weights of 0, endpoints, and all of them at once.
    let states: [(FrontendPlan, Vec<&'static str>); 6] = [
        (
            split(vec![
                leaf("v1", 1, &[endpoint(0)]),
                leaf("v2", 1, &[endpoint(1)]),
            ]),
            vec!["a", "b"],
        ),
        (
            split(vec![
                leaf("v1", 1, &[endpoint(0)]),
                leaf("v2", 0, &[endpoint(1)]),
            ]),
            vec!["a"],
        ),
        (
            split(vec![
                leaf("v1", 0, &[endpoint(0)]),
                leaf("v2", 1, &[endpoint(1)]),
            ]),
            vec!["b"],
        ),
        (
            split(vec![
                leaf("v1", 0, &[endpoint(0)]),
                leaf("v2", 1, &[endpoint(2)]),
            ]),
            vec!["c"],
        ),
        (
            split(vec![
                leaf("v1", 1, &[endpoint(3)]),
                leaf("v2", 3, &[endpoint(1), endpoint(2)]),
            ]),
            vec!["b", "c", "d"],
        ),
        (split(vec![leaf("v3", 1, &[endpoint(3)])]), vec!["d"]),
    ];
    scene.publish(&[(root(), states[0].0.clone())]);
    let mut phases = vec![Phase {
        from: 0,
        until: u64::MAX,
        allowed: states[0].1.clone(),
    }];

    let vip = root().address;
    let (changes, attempts) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| client.run_within(4 * PATIENCE, || attempts(vip, |_| !end.exists())))
            })
            .collect();
        let start = Instant::now();
        let mut changes: u64 = 0;
        let mut connections = 0;
        let mut pace = FASTEST;
        let mut due = start;
        // One that cannot go on ends at once.
        while clients.iter().all(|client| !client.is_finished())
            && (start.elapsed() < DURATION || changes < CHANGES || connections < CONNECTIONS)
        {
            changes += 1;
            let (state, allowed) = &states[changes as usize % states.len()];
            let from = now();
            let report = scene.publisher.publish(&plan(&[(root(), state.clone())]));
            assert!(report.failed.is_empty(), "{report:?}");
            // What was programmed may still be met by who was in the middle of connect();
            // such a connection began before the flip, and so before `until`.
            if let Some(last) = phases.last_mut() {
                last.until = now();
            }
            phases.push(Phase {
                from,
                until: u64::MAX,
                allowed: allowed.clone(),
            });
            // A thousand changes a second; fewer if a connection takes longer, since one that meets
            // many states tells nothing. The first ones tell of the clients' start.
            if changes.is_multiple_of(5) {
                connections = scene.verdict_count("split");
                let each = u32::try_from(connections).unwrap_or(u32::MAX) / CLIENTS;
                if each > 1 {
                    pace = FASTEST.max(start.elapsed() / each);
                }
            }
            due = (due + pace).max(Instant::now());
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        fs::write(&end, []).unwrap();
        let attempts: Vec<Attempt> = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap().unwrap())
            .collect();
        (changes, attempts)
    });

    assert!(changes >= CHANGES, "only {changes} changes");
    assert!(
        attempts.len() as u64 >= CONNECTIONS,
        "only {}",
        attempts.len()
    );
    let mut telling = 0;
    for attempt in &attempts {
        let answer = attempt.answer.as_deref();
        let answer = answer.unwrap_or_else(|error| panic!("a connection failed: {error}"));
        // Phases are in order of time: the first one that ended after the attempt began.
        let first = phases.partition_point(|phase| phase.until < attempt.started);
        let during = || {
            phases[first..]
                .iter()
                .take_while(|phase| phase.from <= attempt.ended)
        };
        telling += usize::from(during().count() <= 2);
        let met = during().any(|phase| phase.allowed.contains(&answer));
        assert!(
            met,
            "{answer} answered when it was not programmed: {attempt:?}"
        );
    }
    // Enough of them were made while so few states were programmed that a wrong answer
    // would have been seen.
    assert!(telling > 300, "only {telling} of {} tell", attempts.len());
    assert_eq!(scene.verdict_count("inconsistent"), 0);
}

/// Case: WEIGHT-ZERO-ONE
#[test]
fn a_weight_of_0_gets_nothing_once_the_change_is_settled() {
    const DURATION: Duration = Duration::from_millis(200);
    let mut scene = Scene::new("zero");
    let (client, shop) = scene.pods();
    let (_one, one) = serve(&shop, 1000, "one");
    let (_two, two) = serve(&shop, 1001, "two");
    let with = |first, second| {
        plan(&[(
            root(),
            split(vec![leaf("v1", first, &[one]), leaf("v2", second, &[two])]),
        )])
    };
    let vip = root().address;
    let mut after = 0;
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < 20 || after <= 100 {
        assert!(start.elapsed() < PATIENCE, "only {after} after a change");
        rounds += 1;
        scene.publisher.publish(&with(1, 1));
        let begun = Instant::now();
        let goes_on = |made| begun.elapsed() < DURATION || made < 30;
        let (settled, attempts) = std::thread::scope(|scope| {
            let client = scope.spawn(|| client.run(|| attempts(vip, goes_on)));
            std::thread::sleep(Duration::from_millis(30));
            scene.publisher.publish(&with(1, 0));
            scene.publisher.synchronize();
            (now(), client.join().unwrap().unwrap())
        });
        for attempt in attempts.iter().filter(|attempt| attempt.started > settled) {
            assert_eq!(attempt.answer.as_deref(), Ok("one"));
            after += 1;
        }
    }
}

#[test]
fn killed_in_the_middle_of_whatever_it_does_a_publisher_leaves_valid_maps() {
    let mut scene = Scene::new("killed");
    let (client, shop) = scene.pods();
    let (_one, one) = serve(&shop, 1000, "one");
    let (_two, two) = serve(&shop, 1001, "two");
    let steady = frontend("10.96.0.20:14001");
    let with = |round: usize| {
        let mut splits = vec![(
            steady,
            split(vec![
                leaf("steady-1", 3, &[one]),
                leaf("steady-2", 1, &[two]),
            ]),
        )];
        let name = format!("v{}", round % 5);
        let endpoints = if round.is_multiple_of(3) {
            vec![one, two]
        } else {
            vec![two]
        };
        splits.push((
            root(),
            split(vec![
                leaf(&name, 1 + round as u32 % 7, &endpoints),
                leaf("w", 1, &[one]),
            ]),
        ));
        if round.is_multiple_of(2) {
            splits.push((
                frontend("10.96.0.30:80"),
                split(vec![leaf(&name, 1, &endpoints)]),
            ));
        }
        plan(&splits)
    };
    scene.publish(&with(0).frontends.into_iter().collect::<Vec<_>>());
    let (vip, steady_vip) = (root().address, steady.address);
    let mut clients: Vec<_> = [vip, steady_vip]
        .into_iter()
        .map(|target| {
            client
                .start(move || {
                    loop {
                        client::read_tag(target).expect("a connection that does not fail");
                    }
                })
                .unwrap()
        })
        .collect();
    let Scene {
        lab,
        pins,
        programs,
        publisher,
    } = scene;
    drop(publisher);

    for kill in 0..25_u64 {
        let mut agent = shop
            .start(|| {
                let mut publisher = Publisher::open(&pins, 0).expect("maps to take over");
                for round in 0.. {
                    let report = publisher.publish(&with(round));
                    assert!(report.failed.is_empty(), "{report:?}");
                }
            })
            .unwrap();
        std::thread::sleep(Duration::from_micros(15_000 + 1_777 * kill));
        assert!(agent.is_running(), "the publisher failed");
        agent.kill();
        let view = View::open(&pins).unwrap();
        assert!(view.inconsistent.is_empty(), "{:?}", view.inconsistent);
        assert!(view.frontends.contains_key(&root()));
    }

    let start = Instant::now();
    while View::open(&pins).unwrap().frontends[&steady].connections <= 100 {
        assert!(start.elapsed() < PATIENCE, "nobody connects");
    }
    assert!(
        clients.iter_mut().all(Process::is_running),
        "a connection failed"
    );
    drop(clients);
    // The split that no change touched has the same record and has not lost a count.
    let view = View::open(&pins)
        .unwrap()
        .frontends
        .remove(&steady)
        .unwrap();
    assert_eq!(view.record.generation, 2);
    let counts: Vec<u64> = view.leaves.iter().map(|leaf| leaf.connections).collect();
    assert_eq!(counts, expected(&view, view.connections));
    assert_eq!(
        view.leaves.iter().map(|leaf| leaf.lifetime).sum::<u64>(),
        view.connections
    );
    drop((programs, lab));
}
