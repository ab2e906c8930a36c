//! Connections that break, and servers that are away.

use std::time::Duration;

use testbed::fixtures::CuttableProxy;
use tokio::time::Instant;

use super::definition::{definition, split};
use super::listing::service;
use super::observer::Observer;
use super::server::Server;

/// A server with a split and a Service, and a source that reaches it through a proxy and
/// has listed everything.
async fn through_proxy() -> (Server, CuttableProxy, Observer) {
    let server = Server::start().await;
    server.apply(&definition(&["v1alpha4"])).await;
    server.apply(&split("v1alpha4", "web")).await;
    server.apply(&service("web")).await;
    let proxy = CuttableProxy::to(server.address());
    let client = server.client_at(None, proxy.address()).await;
    let mut observer = Observer::of(client);
    observer.until_complete().await;
    (server, proxy, observer)
}

#[tokio::test]
async fn a_watch_that_breaks_is_taken_up_again() {
    let (server, mut proxy, mut observer) = through_proxy().await;
    for name in ["a", "b", "c"] {
        proxy.cut();
        server.apply(&service(name)).await;
        observer
            .until("told of a new Service", |it| {
                it.names("Service").contains(&name)
            })
            .await;
    }
    assert_eq!(observer.deleted, [""; 0]);
    assert_eq!(observer.completes, 1);
}

#[tokio::test]
async fn what_happened_while_the_server_was_out_of_reach_is_told_afterwards() {
    let (server, mut proxy, mut observer) = through_proxy().await;
    proxy.refuse();
    server.delete(&service("web")).await;
    server.apply(&service("new")).await;
    server.delete(&split("v1alpha4", "web")).await;
    observer
        .until_metric("splitter_source_synced{kind=\"TrafficSplit\"} 0")
        .await;
    observer.wait(Duration::from_secs(4)).await;
    assert_eq!(observer.deleted, [""; 0]);

    proxy.carry();
    let back = Instant::now();
    observer
        .until("told what happened", |it| {
            it.deleted.len() == 2 && it.names("Service") == ["kubernetes", "new"]
        })
        .await;
    assert!(
        back.elapsed() < Duration::from_secs(10),
        "{:?}",
        back.elapsed()
    );
    for kind in ["Service", "EndpointSlice", "TrafficSplit"] {
        observer
            .until_metric(&format!("splitter_source_synced{{kind=\"{kind}\"}} 1"))
            .await;
    }
    assert_eq!(observer.completes, 1);
}

/// A server that was started anew cannot say what happened before, so everything is
/// listed again.
#[tokio::test]
async fn what_a_restarted_server_does_not_list_is_gone() {
    let (server, mut proxy, mut observer) = through_proxy().await;
    proxy.refuse();
    server.delete(&service("web")).await;
    server.delete(&split("v1alpha4", "web")).await;
    server.restart().await;
    assert_eq!(observer.deleted, [""; 0]);

    proxy.carry();
    observer
        .until("told what is gone", |it| it.deleted.len() == 2)
        .await;
    assert!(
        observer.metrics().contains("code=\"410\""),
        "{}",
        observer.metrics()
    );
    assert_eq!(observer.names("Service"), ["kubernetes"]);
    assert_eq!(observer.completes, 1);
    server.apply(&service("new")).await;
    observer
        .until("told of a new Service", |it| {
            it.names("Service").contains(&"new")
        })
        .await;
}

#[tokio::test]
async fn a_source_may_start_before_its_server() {
    let server = Server::start().await;
    server.apply(&service("web")).await;
    let mut proxy = CuttableProxy::to(server.address());
    proxy.fall_silent();
    let client = server.client_at(None, proxy.address()).await;
    let mut observer = Observer::of(client);
    observer.wait(Duration::from_secs(3)).await;
    proxy.refuse();
    observer.wait(Duration::from_secs(3)).await;
    assert_eq!((observer.completes, observer.known.len()), (0, 0));
    proxy.carry();
    observer.until_complete().await;
    assert_eq!(observer.names("Service"), ["kubernetes", "web"]);
}

/// Whatever moment a first list is broken at, the next one is whole.
#[tokio::test]
async fn lists_that_break_off_take_nothing_away() {
    let (server, mut proxy, mut observer) = through_proxy().await;
    for number in 0..40 {
        server.apply(&service(&format!("many-{number}"))).await;
    }
    observer
        .until("told of all", |it| it.names("Service").len() == 42)
        .await;
    let client = server.client_at(None, proxy.address()).await;
    let mut second = Observer::of(client);
    for pause in [5, 10, 20, 40, 80] {
        second.wait(Duration::from_millis(pause)).await;
        proxy.cut();
    }
    second.until_complete().await;
    assert_eq!(second.names("Service").len(), 42);
    server.apply(&service("last")).await;
    for observer in [&mut observer, &mut second] {
        observer
            .until("told of the last", |it| {
                it.names("Service").contains(&"last")
            })
            .await;
        assert_eq!(observer.deleted, [""; 0]);
    }
}

/// To the agent this looks as if the server ended each watch without an error.
#[tokio::test]
async fn watches_that_end_at_once_are_not_asked_for_again_without_a_pause() {
    let (server, mut proxy, mut observer) = through_proxy().await;
    let before = proxy.accepted();
    for _ in 0..40 {
        proxy.cut();
        observer.wait(Duration::from_millis(100)).await;
    }
    // Of four kinds, with pauses of 0.4 s to 0.8 s, then twice that, and so on.
    let connections = proxy.accepted() - before;
    assert!(connections < 60, "{connections}");
    server.apply(&service("new")).await;
    observer
        .until("told of a new Service", |it| {
            it.names("Service").contains(&"new")
        })
        .await;
    assert_eq!(observer.deleted, [""; 0]);
}
