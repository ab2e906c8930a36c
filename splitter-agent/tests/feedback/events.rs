use std::time::{Duration, Instant};

use splitter_agent::compile::Severity;

use super::scene::{SETTLE, Scene, WITHOUT_STATUS, until};

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_describe_shows_what_is_wrong_with_a_split() {
    let scene = Scene::new("described").await;
    let agent = scene.agent("one", WITHOUT_STATUS);
    let split = scene.split("books").await;
    split.say(
        &[&agent],
        &[
            (Severity::Inactive, "RootMissing"),
            (Severity::Accepted, "Accepted"),
        ],
    );
    until("two events", async || scene.events().await.len() == 2).await;
    let description = scene.kubectl(&["describe", "trafficsplit", "books"]);
    let line = |reason: &str| {
        description
            .lines()
            .find(|line| line.contains(reason))
            .unwrap_or_else(|| panic!("no {reason} in {description}"))
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let missing = line("RootMissing");
    assert!(missing.starts_with("Warning RootMissing"), "{missing}");
    assert!(
        missing.ends_with("splitter.dev/agent spec.service: said to be RootMissing"),
        "{missing}"
    );
    assert!(line("Accepted").starts_with("Normal Accepted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_finding_becomes_a_series_with_few_writes() {
    let scene = Scene::new("flapping").await;
    let agent = scene.agent("one", WITHOUT_STATUS);
    let split = scene.split("books").await;
    let start = Instant::now();
    let mut turns = 0;
    while start.elapsed() < Duration::from_secs(15) {
        split.say(&[&agent], &[(Severity::Warning, "LeafNotReady")]);
        tokio::time::sleep(SETTLE * 2).await;
        split.say(&[&agent], &[]);
        tokio::time::sleep(SETTLE * 2).await;
        turns += 1;
    }
    split.say(&[&agent], &[(Severity::Warning, "LeafNotReady")]);
    until("a series", async || {
        scene
            .events()
            .await
            .iter()
            .any(|event| event.series.is_some())
    })
    .await;
    let events = scene.events().await;
    assert_eq!(events.len(), 1);
    let count = events[0].series.as_ref().map_or(0, |series| series.count);
    assert!((2..=turns + 1).contains(&count), "{count} of {turns}");
    // One write each five seconds is permitted here.
    let most = start.elapsed().as_secs() / 5 + 1;
    // The API server has an Event before its answer is there.
    let written = || agent.metric("events_written_total");
    until("two writes", async || written() >= 2.0).await;
    assert!(written() <= most as f64, "{}", written());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reverted_while_objects_settle_is_not_written() {
    let scene = Scene::new("reverted").await;
    let agent = scene.agent("one", WITHOUT_STATUS);
    until("a leader", async || agent.leads()).await;
    for attempt in 0.. {
        assert!(attempt < 20, "the machine stood still in each attempt");
        let name = format!("books-{attempt}");
        let split = scene.split(&name).await;
        let reasons = async || -> Vec<String> {
            let events = scene.events().await.into_iter();
            let of_split = events.filter(|event| {
                let regarding = event.regarding.as_ref();
                regarding.and_then(|it| it.name.as_ref()) == Some(&name)
            });
            of_split.filter_map(|event| event.reason).collect()
        };
        let start = Instant::now();
        split.say(&[&agent], &[(Severity::Inactive, "RootMissing")]);
        tokio::time::sleep(SETTLE / 5).await;
        split.say(&[&agent], &[(Severity::Inactive, "NoLeafService")]);
        tokio::time::sleep(SETTLE / 5).await;
        split.say(&[&agent], &[(Severity::Accepted, "Accepted")]);
        // On a machine that stood still meanwhile, each of them may have lasted.
        if start.elapsed() < SETTLE {
            until("an event", async || !reasons().await.is_empty()).await;
            tokio::time::sleep(SETTLE * 4).await;
            assert_eq!(reasons().await, ["Accepted"]);
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finding_in_a_namespace_that_is_being_deleted_does_not_hold_up_others() {
    let scene = Scene::new("terminating").await;
    let doomed = Scene::new("doomed").await;
    // Without a namespace controller it stays as it is.
    let lost = doomed.split("books").await;
    doomed.kubectl(&["delete", "namespace", &doomed.namespace, "--wait=false"]);
    let agent = scene.agent("one", WITHOUT_STATUS);
    lost.say(&[&agent], &[(Severity::Inactive, "RootMissing")]);
    tokio::time::sleep(SETTLE * 2).await;
    let split = scene.split("books").await;
    split.say(&[&agent], &[(Severity::Inactive, "RootMissing")]);
    until("an event", async || scene.events().await.len() == 1).await;
    assert!(doomed.events().await.is_empty());
    let failed = || agent.metric("events_failed_total{code=\"403\"}");
    until("a refusal", async || failed() > 0.0).await;
    assert_eq!(failed(), 1.0);
}
