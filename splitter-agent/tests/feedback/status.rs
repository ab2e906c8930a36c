use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
use serde_json::Value;
use splitter_agent::compile::Severity;

use super::scene::{Agent, SETTLE, Scene, WITH_STATUS, WITHOUT_STATUS, until};

/// What the API server has as the status.
async fn status(scene: &Scene) -> Value {
    let object = scene
        .splits(WITH_STATUS)
        .get("books")
        .await
        .expect("a split");
    object.data["status"].clone()
}

/// One of its conditions.
async fn condition(scene: &Scene, name: &str) -> Option<Condition> {
    let status = status(scene).await;
    Vec::<Condition>::deserialize(status.get("conditions")?)
        .expect("conditions")
        .into_iter()
        .find(|condition| condition.type_ == name)
}

/// How many statuses an agent has written, once it has counted any: the API server has a status
/// before its answer is there.
async fn statuses_written(agent: &Agent) -> f64 {
    let written = || agent.metric("statuses_written_total");
    until("a count", async || written() > 0.0).await;
    written()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_once_per_change_and_keeps_its_times_across_leaders() {
    let scene = Scene::new("status").await;
    let one = scene.agent("one", WITH_STATUS);
    let split = scene.split("books").await;
    split.say(&[&one], &[(Severity::Accepted, "Accepted")]);
    until("a status", async || {
        condition(&scene, "Accepted").await.is_some()
    })
    .await;
    let accepted = condition(&scene, "Accepted").await.expect("a condition");
    assert_eq!(accepted.status, "True");
    assert_eq!(accepted.observed_generation, Some(split.generation));
    assert_eq!(statuses_written(&one).await, 1.0);
    one.stop().await;

    let other = scene.agent("other", WITH_STATUS);
    split.say(&[&other], &[(Severity::Accepted, "Accepted")]);
    until("another leader", async || other.leads()).await;
    tokio::time::sleep(SETTLE * 4).await;
    assert_eq!(other.metric("statuses_written_total"), 0.0);

    split.say(&[&other], &[(Severity::Inactive, "RootMissing")]);
    until("another status", async || {
        condition(&scene, "Programmed")
            .await
            .is_some_and(|condition| condition.status == "False")
    })
    .await;
    assert_eq!(condition(&scene, "Accepted").await, Some(accepted.clone()));
    let inactive = condition(&scene, "Programmed").await.expect("a condition");
    assert_eq!(inactive.reason, "RootMissing");
    assert!(inactive.last_transition_time > accepted.last_transition_time);
    assert_eq!(statuses_written(&other).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_status_is_written_where_there_is_none() {
    let scene = Scene::new("statusless").await;
    let agent = scene.agent("one", WITHOUT_STATUS);
    let split = scene.split("books").await;
    split.say(&[&agent], &[(Severity::Accepted, "Accepted")]);
    until("an event", async || scene.events().await.len() == 1).await;
    tokio::time::sleep(SETTLE * 2).await;
    assert_eq!(status(&scene).await, Value::Null);
    assert_eq!(agent.metric("statuses_written_total"), 0.0);
}
