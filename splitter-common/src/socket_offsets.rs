//! Where the programs find in the kernel's own structures what they read of a socket. No record of a map: the
//! agent gives it to the programs when it loads them.

use bytemuck::{Pod, Zeroable};

/// Where members are in the kernel's `struct sock`, and in its `struct tcp_sock`, in bytes: taken from
/// the type information of the kernel that runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SocketOffsets {
    /// `sock.__sk_common.skc_cookie`, 64 bits.
    pub cookie: u32,
    /// `sock.__sk_common.skc_state`, 8 bits.
    pub state: u32,
    /// `sock.__sk_common.skc_flags`, a long.
    pub flags: u32,
    /// `sock.__sk_common.skc_dport`, 16 bits in network order.
    pub peer_port: u32,
    /// `sock.sk_err`, 32 bits.
    pub error: u32,
    /// `sock.sk_err_soft`, 32 bits.
    pub soft_error: u32,
    /// `tcp_sock.srtt_us`, 32 bits: eighths of a microsecond.
    pub round_trip: u32,
    /// `tcp_sock.total_retrans`, 32 bits.
    pub sent_again: u32,
    /// `tcp_sock.segs_out`, 32 bits.
    pub segments_sent: u32,
    /// `tcp_sock.bytes_acked`, 64 bits.
    pub bytes_acknowledged: u32,
    /// `tcp_sock.rcv_nxt`, 32 bits.
    pub next_received: u32,
    /// `tcp_sock.bytes_sent`, 64 bits.
    pub bytes_sent: u32,
    /// `tcp_sock.bytes_retrans`, 64 bits.
    pub bytes_sent_again: u32,
    /// `tcp_sock.bytes_received`, 64 bits.
    pub bytes_received: u32,
}
