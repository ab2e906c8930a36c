//! What a developer runs, as a library so that tests reach it.

pub mod bench;
pub mod btf_text;
pub mod build_agent;
pub mod build_ebpf;
pub mod check;
pub mod deny;
pub mod image;
pub mod imports;
pub mod kernels;
pub mod ownership;
pub mod sources;
pub mod test;
pub mod toolchain;
