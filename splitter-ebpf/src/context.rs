//! Reading and writing `struct bpf_sock_addr`, and the verdicts on it.
//!
//! Every access is a volatile one of a single field: the verifier allows only loads
//! and stores of a field's own width at its own offset, and the compiler must neither
//! merge nor split them (copying an array between raw places becomes a call of
//! `memmove`, whose pointer arithmetic the verifier refuses without CAP_PERFMON).

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::programs::SockAddrContext;

/// The verdict that lets connect() go on.
pub(crate) const ALLOW: i32 = 1;
/// The verdict that makes connect() fail.
pub(crate) const DENY: i32 = 0;

/// The state of a UDP socket that is connected (`TCP_ESTABLISHED`, include/net/tcp_states.h).
const CONNECTED: u32 = 1;

/// Which of the address fields a hook uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `user_ip4`.
    V4,
    /// `user_ip6`.
    V6,
}

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// The third word of an IPv4-mapped address, in network order.
pub(crate) const MAPPED: u32 = 0xffff_u32.to_be();
/// 127.0.0.1.
pub(crate) const LOOPBACK_V4: Words = [0, 0, MAPPED, 0x7f00_0001_u32.to_be()];
/// `::1`.
pub(crate) const LOOPBACK_V6: Words = [0, 0, 0, 1_u32.to_be()];
/// 255.255.255.255.
pub(crate) const BROADCAST_V4: Words = [0, 0, MAPPED, u32::MAX];
/// `ff02::1`, all nodes of a link.
pub(crate) const MULTICAST_V6: Words = [0xff02_0000_u32.to_be(), 0, 0, 1_u32.to_be()];

/// Index of the loopback device in every network namespace (`LOOPBACK_IFINDEX` in
/// include/net/flow.h).
const LOOPBACK_DEVICE: u32 = 1;

/// An address as four words in network order, IPv4 as IPv4-mapped.
pub(crate) type Words = [u32; 4];

/// The protocol number of the socket.
#[inline(always)]
pub(crate) fn protocol(context: &SockAddrContext) -> u32 {
    // SAFETY: the kernel hands the program a valid context; the field may be read.
    unsafe { addr_of!((*context.sock_addr).protocol).read_volatile() }
}

/// Whether what the loopback device answers reaches the socket: it does unless the
/// socket is bound to another device (`SO_BINDTODEVICE`).
#[inline(always)]
pub(crate) fn can_reach_loopback(context: &SockAddrContext) -> bool {
    // SAFETY: as in `protocol`; a connecting socket is never null, and its fields may be
    // read (kernel 5.3).
    let device = unsafe {
        let socket = addr_of!((*context.sock_addr).__bindgen_anon_1.sk).read_volatile();
        addr_of!((*socket).bound_dev_if).read_volatile()
    };
    device == 0 || device == LOOPBACK_DEVICE
}

/// Whether a TCP socket may have been connected, or have tried to be, before this connect(): the
/// kernel keeps the address then, also when the socket was disconnected since.
#[inline(always)]
pub(crate) fn was_connected(context: &SockAddrContext, family: Family) -> bool {
    // SAFETY: as in `can_reach_loopback`; these fields may be read since 5.1.
    unsafe {
        let socket = addr_of!((*context.sock_addr).__bindgen_anon_1.sk).read_volatile();
        match family {
            Family::V4 => addr_of!((*socket).dst_ip4).read_volatile() != 0,
            Family::V6 => {
                let words = read_words(addr_of!((*socket).dst_ip6).cast());
                words[0] | words[1] | words[2] | words[3] != 0
            }
        }
    }
}

/// The peer of a UDP socket that is connected: its address, and its port in host order. An IPv6 socket with
/// an IPv4-mapped peer has it in both families.
#[inline(always)]
pub(crate) fn peer(context: &SockAddrContext, family: Family) -> Option<(Words, u16)> {
    // SAFETY: as in `can_reach_loopback`; these fields may be read since 5.1. The port is the first half of
    // its field where that is 32 bits wide (before 5.18).
    unsafe {
        let socket = addr_of!((*context.sock_addr).__bindgen_anon_1.sk).read_volatile();
        if addr_of!((*socket).state).read_volatile() != CONNECTED {
            return None;
        }
        let address = match family {
            Family::V4 => [0, 0, MAPPED, addr_of!((*socket).dst_ip4).read_volatile()],
            Family::V6 => read_words(addr_of!((*socket).dst_ip6).cast()),
        };
        let port = addr_of!((*socket).dst_port).cast::<u16>().read_volatile();
        Some((address, u16::from_be(port)))
    }
}

/// Whether the address that the application gave is of the hook's family, as it says. The kernel runs the
/// hooks of connect() before it refuses another.
#[inline(always)]
pub(crate) fn is_of_family(context: &SockAddrContext, family: Family) -> bool {
    // SAFETY: as in `protocol`.
    let number = unsafe { addr_of!((*context.sock_addr).user_family).read_volatile() };
    number
        == match family {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        }
}

/// The address in the context.
#[inline(always)]
pub(crate) fn address(context: &SockAddrContext, family: Family) -> Words {
    match family {
        Family::V4 => {
            // SAFETY: as in `protocol`; IPv4 hooks may read `user_ip4`.
            let v4 = unsafe { addr_of!((*context.sock_addr).user_ip4).read_volatile() };
            [0, 0, MAPPED, v4]
        }
        // SAFETY: as in `protocol`; IPv6 hooks may read the four words of `user_ip6`.
        Family::V6 => unsafe { read_words(addr_of!((*context.sock_addr).user_ip6).cast()) },
    }
}

/// The four words of an address in a context or a record.
///
/// # Safety
///
/// They must be readable and aligned.
#[inline(always)]
pub(crate) unsafe fn read_words(words: *const u32) -> Words {
    // SAFETY: the caller's.
    unsafe {
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}

/// The port in the context, in host order.
#[inline(always)]
pub(crate) fn port(context: &SockAddrContext) -> u16 {
    // SAFETY: as in `protocol`. The kernel shows the 16-bit port in a 32-bit field.
    let port = unsafe { addr_of!((*context.sock_addr).user_port).read_volatile() };
    u16::from_be(port as u16)
}

/// Replaces address and port (in host order).
#[inline(always)]
pub(crate) fn replace(context: &SockAddrContext, family: Family, address: Words, port: u16) {
    // SAFETY: as in `protocol`; hooks of the family may write these fields, whole words
    // each.
    unsafe {
        match family {
            Family::V4 => {
                addr_of_mut!((*context.sock_addr).user_ip4).write_volatile(address[3]);
            }
            Family::V6 => {
                let words = addr_of_mut!((*context.sock_addr).user_ip6).cast::<u32>();
                words.write_volatile(address[0]);
                words.add(1).write_volatile(address[1]);
                words.add(2).write_volatile(address[2]);
                words.add(3).write_volatile(address[3]);
            }
        }
        addr_of_mut!((*context.sock_addr).user_port).write_volatile(u32::from(port.to_be()));
    }
}
