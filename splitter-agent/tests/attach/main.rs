//! Where the programs are attached, and who else is there: real cgroups, laid out as kubelets
//! and container runtimes do it.

#[path = "../common/mod.rs"]
mod common;

#[path = "../agent/bookstore.rs"]
#[allow(dead_code, reason = "another test binary uses the rest")]
mod bookstore;
#[path = "../report/http.rs"]
#[allow(dead_code, reason = "another test binary uses the rest")]
mod http;

mod foreign;
mod neighbours;
mod node;
mod places;
mod pods;
mod takeover;
