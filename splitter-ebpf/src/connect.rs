//! connect(): from the address that was dialled to an endpoint.
//!
//! A miss touches one bucket of `FRONTENDS` and creates nothing. A hit reads four array
//! elements, takes two numbers, and leaves a note in the socket's storage.

use core::ptr::addr_of;

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::{bpf_set_retval, bpf_sk_storage_get};
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::{debug, trace};
use splitter_common::layout::{
    ConnectionRecord, FrontendKey, FrontendValue, Outcome, Protocol, SplitRecord, Verdict,
};
use splitter_common::pick::{self, Lattice};

use crate::context::{self, ALLOW, DENY, Family, Words};
use crate::maps::{CONNECTIONS, ENDPOINTS, FRONTENDS, LEAVES, SPLITS};
use crate::{count, settings};

/// What connect() returns for a refused connection, negated as the helper wants it.
const ECONNREFUSED: i32 = 111;

/// How often a lookup is repeated when the record does not confirm it. A repeat is
/// needed only if an update recycled the element between the lookup and the read of
/// its value, so two in a row are next to impossible.
const ATTEMPTS: u32 = 4;

/// Reads one field of a record in a map. The agent may write other slots at any time,
/// so nothing is assumed about memory that was not read this way.
macro_rules! read {
    ($record:expr, $($field:tt)+) => {
        // SAFETY: `$record` points at a map value that lives as long as the program runs.
        unsafe { addr_of!((*$record).$($field)+).read_volatile() }
    };
}

/// Handles a connect() of a socket of `family`.
#[inline(always)]
pub(crate) fn run(context: &SockAddrContext, family: Family) -> i32 {
    if context::protocol(context) != Protocol::Tcp as u32 {
        return ALLOW;
    }
    let address = context::address(context, family);
    let key = FrontendKey {
        address: bytemuck::cast(address),
        port: context::port(context),
        protocol: Protocol::Tcp,
        padding: 0,
    };
    match find(&key) {
        Found::Nothing => {
            forget(context);
            ALLOW
        }
        Found::Inconsistent => {
            count::outcome(Outcome::Inconsistent);
            forget(context);
            ALLOW
        }
        Found::Split(split) => follow(context, family, &key, split),
    }
}

enum Found {
    Nothing,
    Inconsistent,
    Split(*const SplitRecord),
}

/// The split in force for a frontend.
#[inline(always)]
fn find(key: &FrontendKey) -> Found {
    for _ in 0..ATTEMPTS {
        let Some(value) = FRONTENDS.get_ptr(key) else {
            return Found::Nothing;
        };
        // SAFETY: the value is 8 bytes, aligned to 8: one load takes both halves.
        let word = unsafe { value.cast::<u64>().read_volatile() };
        let FrontendValue { split, generation } = bytemuck::cast(word);
        if let Some(record) = SPLITS.get_ptr(split)
            && read!(record, generation) == generation
            && same_frontend(record, key)
        {
            return Found::Split(record);
        }
    }
    Found::Inconsistent
}

/// Whether a record belongs to a frontend.
#[inline(always)]
fn same_frontend(record: *const SplitRecord, key: &FrontendKey) -> bool {
    let key = core::ptr::from_ref(key).cast::<u32>();
    // SAFETY: both are five words long and aligned to four bytes.
    unsafe {
        let own = addr_of!((*record).frontend).cast::<u32>();
        (0..5).all(|word| own.add(word).read_volatile() == key.add(word).read())
    }
}

/// Does what a split says.
#[inline(always)]
fn follow(
    context: &SockAddrContext,
    family: Family,
    key: &FrontendKey,
    split: *const SplitRecord,
) -> i32 {
    // SAFETY: as in `read!`. Read as a number, not as an enum: what the kernel finds in
    // a map is checked, not believed.
    let verdict = unsafe { addr_of!((*split).verdict).cast::<u8>().read_volatile() };
    if verdict == Verdict::Split as u8 {
        let Some(picked) = pick(split) else {
            count::outcome(Outcome::Inconsistent);
            forget(context);
            return ALLOW;
        };
        count::outcome(Outcome::Split);
        count::leaf(picked.leaf_id);
        if settings::peer_names() && !remember(context, key, &picked) {
            count::outcome(Outcome::PeerNameLost);
        }
        context::replace(context, family, picked.address, picked.port);
        debug!(
            context,
            "{:i} port {} -> {:i} port {}",
            key.address,
            key.port,
            bytemuck::cast::<Words, [u8; 16]>(picked.address),
            picked.port
        );
        return ALLOW;
    }
    if verdict == Verdict::Refuse as u8 {
        count::outcome(Outcome::Refused);
        debug!(context, "{:i} port {} refused", key.address, key.port);
        return refuse(context, family, key);
    }
    count::outcome(Outcome::PassedThrough);
    trace!(context, "{:i} port {} passed", key.address, key.port);
    forget(context);
    ALLOW
}

/// Makes connect() fail with ECONNREFUSED.
///
/// Where the kernel cannot say that from a program, the destination becomes port 0 of
/// the loopback address. Nothing can listen on port 0, since bind() takes it for "any
/// free port", so the socket's own network answers with a reset before connect()
/// returns (to a blocking socket) or with the first poll (to a non-blocking one). It is
/// 127.0.0.1 and ::1, and no other loopback address, because those are what the
/// redirect rules of sidecars leave alone.
#[inline(always)]
fn refuse(context: &SockAddrContext, family: Family, key: &FrontendKey) -> i32 {
    if settings::has_set_retval() {
        // SAFETY: the helper only stores the number.
        let _ = unsafe { bpf_set_retval(-ECONNREFUSED) };
        return DENY;
    }
    forget(context);
    let dialled: Words = bytemuck::cast(key.address);
    let is_v4 = dialled[2] == context::MAPPED && dialled[0] == 0 && dialled[1] == 0;
    let address = match (is_v4, context::can_reach_loopback(context)) {
        (true, true) => context::LOOPBACK_V4,
        (false, true) => context::LOOPBACK_V6,
        // A socket that is bound to another device never sees the reset, and would wait
        // for minutes. TCP to these fails in connect(), with ENETUNREACH.
        (true, false) => context::BROADCAST_V4,
        (false, false) => context::MULTICAST_V6,
    };
    context::replace(context, family, address, 0);
    ALLOW
}

/// What the pick came to.
struct Picked {
    address: Words,
    port: u16,
    leaf_id: u32,
}

/// Picks an endpoint. `None` if a record is not what its split says it is.
#[inline(always)]
fn pick(split: *const SplitRecord) -> Option<Picked> {
    let sequence = read!(split, sequence);
    let first_leaf = read!(split, first_leaf);
    let lattice = Lattice {
        size: read!(split, size),
        step: read!(split, step),
        shift: read!(split, shift),
        seed: read!(split, seed),
    };
    let position = lattice.position(count::next(sequence)?)?;
    let index = pick::leaf_at(position, read!(split, leaf_count), |index| {
        let leaf = LEAVES.get_ptr(first_leaf.wrapping_add(index))?;
        Some(read!(leaf, end))
    })?;
    let leaf = LEAVES.get_ptr(first_leaf.wrapping_add(index))?;
    let turn = count::next(sequence.wrapping_add(1).wrapping_add(index))?;
    let endpoint = lattice.endpoint(index, turn, read!(leaf, endpoint_count))?;
    let endpoint = ENDPOINTS.get_ptr(read!(leaf, first_endpoint).wrapping_add(endpoint))?;
    // SAFETY: the address is 16 bytes, aligned to 4 as the record's first field.
    let address = unsafe { context::read_words(addr_of!((*endpoint).address).cast()) };
    Some(Picked {
        address,
        port: read!(endpoint, port),
        leaf_id: read!(leaf, leaf_id),
    })
}

/// Lets the socket remember what it dialled. `false` if there is no memory for it.
#[inline(always)]
fn remember(context: &SockAddrContext, key: &FrontendKey, picked: &Picked) -> bool {
    let mut record = ConnectionRecord {
        frontend_address: key.address,
        endpoint_address: bytemuck::cast(picked.address),
        leaf_id: picked.leaf_id,
        frontend_port: key.port,
        endpoint_port: picked.port,
    };
    // SAFETY: the socket in the context is valid while the program runs, and the map is
    // one of socket storage. The initial value is used only if the storage is new.
    unsafe {
        let socket = (*context.sock_addr).__bindgen_anon_1.sk;
        let stored = bpf_sk_storage_get(
            core::ptr::from_ref(&CONNECTIONS).cast_mut().cast(),
            socket.cast(),
            core::ptr::from_mut(&mut record).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
        .cast::<ConnectionRecord>();
        if stored.is_null() {
            return false;
        }
        // A socket that connects again has storage already. Its calls are serialised by
        // the socket lock, so plain words do.
        let from = core::ptr::from_ref(&record).cast::<u64>();
        let to = stored.cast::<u64>();
        for word in 0..size_of::<ConnectionRecord>() / 8 {
            to.add(word).write_volatile(from.add(word).read_volatile());
        }
    }
    true
}

/// Makes the socket forget a VIP that it dialled before: nothing runs when a socket is
/// disconnected, so the next connect() has to clear what no longer holds. Costs a
/// pointer test where the socket has no storage.
#[inline(always)]
fn forget(context: &SockAddrContext) {
    // SAFETY: only looks at the socket of the context.
    let stored = unsafe { CONNECTIONS.get_ptr_mut(context) };
    if !stored.is_null() {
        // SAFETY: a non-null pointer is to the socket's own record. Port 0 is never a
        // peer's, so the record will not be believed again.
        unsafe { core::ptr::addr_of_mut!((*stored).endpoint_port).write_volatile(0) };
    }
}
