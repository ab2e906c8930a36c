//! The kernel programs: they pick an endpoint when a socket connects, and show the
//! application the original destination, the address that it dialled.
//!
//! | program | hook | job |
//! |---|---|---|
//! | `connect4`, `connect6` | `cgroup/connect4`, `cgroup/connect6` | [`connect`] |
//! | `getpeername4`, `getpeername6` | `cgroup/getpeername4`, `cgroup/getpeername6` | [`original_dst`] |
//! | `sendmsg4`, `sendmsg6`, `recvmsg4`, `recvmsg6` | `cgroup/sendmsg4`, ... | [`datagrams`], [`flows`] |
//! | `tcp_destroy_sock` | tracepoint `tcp_destroy_sock` | [`sockets`], [`outcomes`] |
//! | `inet_sk_error_report`, `tcp_receive_reset`, `tcp_send_reset`, `inet_sock_set_state` | tracepoints of these names | [`outcomes`] |
//! | `tcp_destroy_sock_nested`, ... | the same, but for `inet_sock_set_state` | what happens while those run |
//!
//! They need fetching atomic operations (5.12) and what is older. What a kernel may lack
//! beyond that is behind a constant in [`settings`] that the agent sets when it loads
//! the programs.
//!
//! On any doubt a program leaves the destination alone and counts why: a mistake here
//! must never cost a connection.
//!
//! For the host this is an empty program, so that the workspace builds as a whole.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    not(target_arch = "bpf"),
    expect(
        rustdoc::broken_intra_doc_links,
        reason = "the modules are there for the BPF target only"
    )
)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        internal_features,
        reason = "BPF has no AtomicU64::fetch_add; the intrinsic is the only way to a fetching add"
    )
)]

#[cfg(target_arch = "bpf")]
mod client;
#[cfg(target_arch = "bpf")]
mod connect;
#[cfg(target_arch = "bpf")]
mod context;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod datagrams;
#[cfg(target_arch = "bpf")]
mod flows;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod original_dst;
#[cfg(target_arch = "bpf")]
mod outcomes;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod settings;
#[cfg(target_arch = "bpf")]
mod sockets;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
