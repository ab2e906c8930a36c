use std::time::Duration;

use splitter_agent::compile::Severity;

use super::scene::{SETTLE, Scene, WITHOUT_STATUS, until};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_one_writes_and_every_event_is_there_once() {
    let scene = Scene::new("once").await;
    let one = scene.agent("one", WITHOUT_STATUS);
    let other = scene.agent("other", WITHOUT_STATUS);
    let split = scene.split("books").await;
    split.say(
        &[&one, &other],
        &[
            (Severity::Inactive, "RootMissing"),
            (Severity::Warning, "LeafNotReady"),
        ],
    );
    until("two events", async || scene.events().await.len() == 2).await;
    tokio::time::sleep(SETTLE * 6).await;
    assert_eq!(scene.reasons().await, ["LeafNotReady", "RootMissing"]);
    assert!(
        scene
            .events()
            .await
            .iter()
            .all(|event| event.series.is_none())
    );
    assert_eq!(
        one.metric("events_written_total") + other.metric("events_written_total"),
        2.0
    );
    assert_ne!(one.leads(), other.leads());
    one.stop().await;
    other.stop().await;
    assert_eq!(scene.holder().await, None, "it was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_dies_another_takes_over_and_writes_nothing_twice() {
    let scene = Scene::new("killed").await;
    let one = scene.agent("one", WITHOUT_STATUS);
    until("a leader", async || one.leads()).await;
    let other = scene.agent("other", WITHOUT_STATUS);
    let split = scene.split("books").await;
    split.say(&[&one, &other], &[(Severity::Inactive, "RootMissing")]);
    until("an event", async || scene.events().await.len() == 1).await;
    assert!(!other.leads());
    one.kill();
    until("another leader", async || other.leads()).await;
    let pens = scene.split("pens").await;
    pens.say(&[&other], &[(Severity::Refused, "InvalidWeight")]);
    until("the other's event", async || {
        scene.events().await.len() == 2
    })
    .await;
    tokio::time::sleep(SETTLE * 4).await;
    assert_eq!(scene.reasons().await, ["InvalidWeight", "RootMissing"]);
    assert_eq!(other.metric("events_written_total"), 1.0);
    assert!(
        scene
            .events()
            .await
            .iter()
            .all(|event| event.series.is_none())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_hands_over_to_one_that_starts() {
    let scene = Scene::new("handover").await;
    let one = scene.agent("one", WITHOUT_STATUS);
    until("a leader", async || one.leads()).await;
    one.stop().await;
    // So that the other need not wait until it runs out.
    assert_eq!(scene.holder().await, None);
    let other = scene.agent("other", WITHOUT_STATUS);
    until("another leader", async || other.leads()).await;
    assert_eq!(scene.holder().await.as_deref(), Some("other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_lease_is_taken_writes_no_more() {
    let scene = Scene::new("taken").await;
    let one = scene.agent("one", WITHOUT_STATUS);
    until("a leader", async || one.leads()).await;
    // Whoever writes to the Lease without asking.
    let patch = r#"{"spec":{"holderIdentity":"stranger"}}"#;
    scene.kubectl(&[
        "patch",
        "lease",
        "splitter-agent",
        "--type=merge",
        "-p",
        patch,
    ]);
    until("no leader", async || !one.leads()).await;
    let split = scene.split("books").await;
    split.say(&[&one], &[(Severity::Inactive, "RootMissing")]);
    tokio::time::sleep(SETTLE * 4).await;
    if !one.leads() {
        assert!(scene.events().await.is_empty());
    }
    // The stranger never renews, so the finding is written in the end.
    until("an event", async || scene.events().await.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_gives_up_before_another_takes_over_and_catches_up_later() {
    let scene = Scene::new("cut-off").await;
    let (one, mut proxy) = scene.agent_behind_proxy("one").await;
    until("a leader", async || one.leads()).await;
    let other = scene.agent("other", WITHOUT_STATUS);
    proxy.fall_silent();
    until("another leader", async || {
        if one.leads() && other.leads() {
            // What an agent tells of itself may be late where it does not get a processor; what
            // it may write is decided by the clock.
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!(one.leads() && other.leads()), "two leaders");
        }
        other.leads()
    })
    .await;
    assert_eq!(scene.holder().await.as_deref(), Some("other"));

    let split = scene.split("books").await;
    split.say(&[&one], &[(Severity::Inactive, "RootMissing")]);
    other.stop().await;
    proxy.carry();
    until("an event", async || scene.events().await.len() == 1).await;
    until("the lead", async || one.leads()).await;
}
