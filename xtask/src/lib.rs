//! Everything a developer runs, as a library: the lab that demo, tests and benchmarks share.

pub mod bench;
pub mod btf_text;
pub mod build_agent;
pub mod build_ebpf;
pub mod chart;
pub mod check;
pub mod cluster;
pub mod demo;
pub mod deny;
pub mod image;
pub mod lab;
pub mod mounts;
pub mod ownership;
pub mod packages;
pub mod preflight;
pub mod sources;
pub mod test;
pub mod tools;
pub mod workspace;
