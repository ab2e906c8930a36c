//! The agent on a real cluster: real nodes, kubelets, containers, kube-proxy and name server, and
//! real connections between pods. Nothing of Kubernetes is imitated.
//!
//! All tests share one cluster and take turns on it: a cluster is up in seconds, but not in no
//! time, and some tests stop parts of it. Whatever a test changes, the next one finds as
//! [`TestCluster::enter`](test_cluster::TestCluster::enter) promises.

mod access;
mod agents;
mod canary;
mod clients;
mod crd;
mod definition;
mod garbage;
mod helm;
mod kube_proxy;
mod leaves;
mod life;
mod load;
mod names;
mod namespace;
mod node;
mod observe;
mod outage;
mod quota;
mod routes;
mod test_cluster;
mod uninstall;
mod user;

#[path = "../support/documented.rs"]
mod documented;
#[path = "../support/kustomization.rs"]
mod kustomization;
