use splitter_agent::compile::Severity;

use super::scene::{Scene, WITHOUT_STATUS, until};

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_forbidden_for_a_time_are_written_when_they_are_allowed() {
    let scene = Scene::new("forbidden").await;
    let agent = scene.agent("one", WITHOUT_STATUS);
    until("a leader", async || agent.leads()).await;
    scene.forbid_writing();
    let split = scene.split("books").await;
    split.say(&[&agent], &[(Severity::Inactive, "RootMissing")]);
    until("a refusal", async || {
        agent.metric("events_failed_total{code=\"403\"}") >= 2.0
    })
    .await;
    assert!(scene.events().await.is_empty());
    scene.allow_writing();
    until("an event", async || scene.events().await.len() == 1).await;
    assert!(
        agent.metric("events_failed_total{code=\"403\"}") < 60.0,
        "it was tried with pauses"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_may_not_use_its_lease_leads_when_it_may() {
    let scene = Scene::new("leaseless").await;
    scene.forbid_lease();
    let agent = scene.agent("one", WITHOUT_STATUS);
    let split = scene.split("books").await;
    split.say(&[&agent], &[(Severity::Inactive, "RootMissing")]);
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(!agent.leads());
    scene.allow_lease();
    until("an event", async || scene.events().await.len() == 1).await;
    scene.forbid_lease();
    until("no leader", async || !agent.leads()).await;
}
