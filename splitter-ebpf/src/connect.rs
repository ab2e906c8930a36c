//! connect(): from the address that was dialled to an endpoint.
//!
//! A miss reads one word of the index, rarely also a bucket of `FRONTENDS`, and creates nothing. A hit reads four array
//! elements, adds to two counters, and stores the original destination. Only
//! where the split for everyone says so is asked which pod it is that connects.

use core::ptr::addr_of;

use aya_ebpf::helpers::bpf_set_retval;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::{debug, trace};
use splitter_common::index::{Answer, Place};
use splitter_common::layout::{
    ClientScope, CounterPlace, CurrentRecord, FrontendKey, LeafRecord, Protocol, SplitRecord,
    Verdict, VerdictCounter,
};
use splitter_common::pick::{self, Lattice};

use crate::context::{self, ALLOW, DENY, Family, Words};
use crate::maps::{CURRENT, ENDPOINTS, FRONTEND_INDEX, FRONTENDS, LEAVES, SPLITS};
use crate::{client, count, original_dst, settings};

/// What connect() and sendmsg() return for what is refused; the helper wants it negated.
pub(crate) const ECONNREFUSED: i32 = 111;

/// How often a frontend is looked up if the record does not confirm it. The second time is
/// needed only if the frontend was removed, and its element recycled for another one, between
/// the lookup and the read of its value; to meet that twice in a row is next to impossible.
const ATTEMPTS: u32 = 2;

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
    let number = context::protocol(context);
    let protocol = if number == Protocol::Tcp as u32 {
        Protocol::Tcp
    } else if number == Protocol::Udp as u32 {
        Protocol::Udp
    } else {
        return ALLOW;
    };
    let mut key = dialled(context, family, protocol);
    match find_for_client(&mut key) {
        Found::Nothing => {
            original_dst::forget(context, family);
            ALLOW
        }
        Found::Inconsistent => doubt(context, family),
        // It fails, so nothing is chosen for it.
        Found::Split(_) if !context::is_of_family(context, family) => ALLOW,
        Found::Split(split) => follow(context, family, &key, split),
    }
}

/// The frontend of everyone at the address in the context.
#[inline(always)]
pub(crate) fn dialled(
    context: &SockAddrContext,
    family: Family,
    protocol: Protocol,
) -> FrontendKey {
    FrontendKey {
        address: bytemuck::cast(context::address(context, family)),
        port: context::port(context),
        protocol,
        padding: 0,
        clients: ClientScope::EVERYONE.0,
    }
}

/// The split that is programmed for a frontend, for the pod that connects or sends. Where that is one of its
/// own, the key is changed to its.
#[inline(always)]
pub(crate) fn find_for_client(key: &mut FrontendKey) -> Found {
    let split = match find_indexed(key) {
        Found::Split(split) => split,
        nothing => return nothing,
    };
    // SAFETY: as in `read!`; read as a number, not as a bool, as in `follow`.
    let asks = unsafe { addr_of!((*split).asks_client).cast::<u8>().read_volatile() };
    if asks != 0 {
        match client::scope() {
            Some(scope) if scope == ClientScope::NEVER_SPLIT.0 => {
                count::verdict(VerdictCounter::NeverSplit);
                return Found::Nothing;
            }
            Some(scope) if scope != ClientScope::EVERYONE.0 => {
                key.clients = scope;
                match find(key) {
                    Found::Nothing => {}
                    own => return own,
                }
            }
            Some(_) => {}
            None => count::verdict(VerdictCounter::ClientUnknown),
        }
    }
    Found::Split(split)
}

/// Leaves a connection alone, since records do not fit together.
#[inline(always)]
fn doubt(context: &SockAddrContext, family: Family) -> i32 {
    count::verdict(VerdictCounter::Inconsistent);
    original_dst::forget(context, family);
    ALLOW
}

/// What is programmed.
pub(crate) enum Found {
    Nothing,
    Inconsistent,
    Split(*const SplitRecord),
}

/// The split that is programmed for a frontend of everyone.
#[inline(always)]
fn find_indexed(key: &FrontendKey) -> Found {
    let place = Place::of(key);
    if let Some(record) = FRONTEND_INDEX.get_ptr(place.slot) {
        // SAFETY: the record is 8 bytes, aligned to 8: one load takes both halves.
        let word = unsafe { record.cast::<u64>().read_volatile() };
        match place.read(bytemuck::cast(word)) {
            Answer::Nothing => return Found::Nothing,
            Answer::Ask => {}
            Answer::At(split) => {
                // No generation: nothing else has led here since the index was read, and what it leads to is
                // used again only after all programs that may have read it.
                if let Some(record) = SPLITS.get_ptr(split)
                    && same_frontend(record, key)
                {
                    return Found::Split(record);
                }
            }
        }
    }
    find(key)
}

/// The split that is programmed for a frontend, as `FRONTENDS` has it.
#[inline(always)]
fn find(key: &FrontendKey) -> Found {
    for _ in 0..ATTEMPTS {
        let Some(value) = FRONTENDS.get_ptr(key) else {
            return Found::Nothing;
        };
        if let Some(split) = confirmed(read!(value, current), key) {
            return Found::Split(split);
        }
    }
    Found::Inconsistent
}

/// The split at an index into `CURRENT`, if it is that of the frontend.
#[inline(always)]
fn confirmed(current: u32, key: &FrontendKey) -> Option<*const SplitRecord> {
    let current = CURRENT.get_ptr(current)?;
    // SAFETY: the value is 8 bytes, aligned to 8: one load takes both halves.
    let word = unsafe { current.cast::<u64>().read_volatile() };
    let CurrentRecord { split, generation } = bytemuck::cast(word);
    let record = SPLITS.get_ptr(split)?;
    (read!(record, generation) == generation && same_frontend(record, key)).then_some(record)
}

/// Whether a record belongs to a frontend.
#[inline(always)]
fn same_frontend(record: *const SplitRecord, key: &FrontendKey) -> bool {
    let key = core::ptr::from_ref(key).cast::<u32>();
    // SAFETY: both are six words long and aligned to four bytes.
    unsafe {
        let own = addr_of!((*record).frontend).cast::<u32>();
        (0..size_of::<FrontendKey>() / 4)
            .all(|word| own.add(word).read_volatile() == key.add(word).read())
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
        let picked = match choose(context, key, split) {
            Chosen::Endpoint(picked) => picked,
            Chosen::Refusal => return refuse(context, family, key),
            Chosen::Inconsistent => return doubt(context, family),
        };
        if settings::keep_original_dst() && !original_dst::remember(context, key, &picked) {
            count::verdict(VerdictCounter::OriginalDstLost);
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
        count::verdict(VerdictCounter::Refused);
        debug!(context, "{:i} port {} refused", key.address, key.port);
        return refuse(context, family, key);
    }
    count::verdict(VerdictCounter::PassedThrough);
    trace!(context, "{:i} port {} passed", key.address, key.port);
    original_dst::forget(context, family);
    ALLOW
}

/// Makes connect() fail with ECONNREFUSED; that of a UDP socket with EPERM where the kernel cannot
/// say more from a program.
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
    if key.protocol == Protocol::Udp {
        // Nothing answers a connect() of UDP, so that only an error can tell.
        return DENY;
    }
    original_dst::forget(context, family);
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

/// What a split gives a connection, or a flow.
pub(crate) enum Chosen {
    Endpoint(Picked),
    /// It falls to a leaf without endpoints.
    Refusal,
    /// A record is not what another says it is.
    Inconsistent,
}

/// Chooses an endpoint of a split, and counts what is chosen.
#[inline(always)]
pub(crate) fn choose(
    context: &SockAddrContext,
    key: &FrontendKey,
    split: *const SplitRecord,
) -> Chosen {
    let Some(leaf) = pick_leaf(split) else {
        return Chosen::Inconsistent;
    };
    let leaf_id = read!(leaf.record, leaf_id);
    let endpoints = read!(leaf.record, endpoint_count);
    if endpoints == 0 {
        count::verdict(VerdictCounter::RefusedByLeaf);
        count::leaf_refusal(leaf_id);
        debug!(
            context,
            "{:i} port {} refused: its leaf has no endpoints", key.address, key.port
        );
        return Chosen::Refusal;
    }
    let Some(picked) = pick_endpoint(&leaf, leaf_id, endpoints) else {
        return Chosen::Inconsistent;
    };
    count::verdict(VerdictCounter::Split);
    count::leaf(leaf_id);
    Chosen::Endpoint(picked)
}

/// The endpoint that a connection gets.
pub(crate) struct Picked {
    pub(crate) address: Words,
    pub(crate) port: u16,
    pub(crate) leaf_id: u32,
    /// Its index into `ENDPOINTS`.
    pub(crate) index: u32,
    pub(crate) incarnation: u32,
}

/// The leaf that a connection falls to.
struct PickedLeaf {
    record: *const LeafRecord,
    lattice: Lattice,
    /// Which of the split's leaves it is.
    index: u32,
    /// How many connections it had before.
    turn: u64,
}

/// Picks a leaf. `None` if a record is not what its split says it is.
#[inline(always)]
fn pick_leaf(split: *const SplitRecord) -> Option<PickedLeaf> {
    let first_counter = read!(split, first_counter);
    let first_leaf = read!(split, first_leaf);
    let lattice = Lattice {
        size: read!(split, size),
        step: read!(split, step),
        shift: read!(split, shift),
        seed: read!(split, seed),
    };
    let position = lattice.position(count::next(CounterPlace::of_split(first_counter))?)?;
    let index = pick::leaf_at(position, read!(split, leaf_count), |index| {
        let leaf = LEAVES.get_ptr(first_leaf.wrapping_add(index))?;
        Some(read!(leaf, end))
    })?;
    Some(PickedLeaf {
        record: LEAVES.get_ptr(first_leaf.wrapping_add(index))?,
        turn: count::next(CounterPlace::of_leaf(first_counter, index))?,
        lattice,
        index,
    })
}

/// Picks one of a leaf's endpoints. `None` if a record is not what its leaf says it is.
#[inline(always)]
fn pick_endpoint(leaf: &PickedLeaf, leaf_id: u32, endpoints: u32) -> Option<Picked> {
    let endpoint = leaf.lattice.endpoint(leaf.index, leaf.turn, endpoints)?;
    let index = read!(leaf.record, first_endpoint).wrapping_add(endpoint);
    let endpoint = ENDPOINTS.get_ptr(index)?;
    // SAFETY: the address is 16 bytes, aligned to 4 as the record's first field.
    let address = unsafe { context::read_words(addr_of!((*endpoint).address).cast()) };
    Some(Picked {
        address,
        port: read!(endpoint, port),
        leaf_id,
        index,
        incarnation: read!(leaf.record, incarnation),
    })
}
