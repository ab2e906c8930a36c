//! What is remembered of UDP flows, by [`splitter_common::flows`]: which endpoint each has, and
//! what its answers are shown as.
//!
//! A flow keeps its endpoint for as long as that can be chosen. Mostly the split's record is the one
//! that it was chosen from, and one comparison tells. After a change the endpoint is looked for among the new
//! record's, once: its leaf by its id, and then the endpoint by a binary search, since a leaf's are
//! sorted.

use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::programs::SockAddrContext;
use splitter_common::flows::{
    FlowChoice, FlowKey, FlowRecord, FlowSourceRecord, check_sum, mask_if_below,
};
use splitter_common::layout::{EndpointRecord, FrontendKey, MAX_LEAVES, SplitRecord};

use crate::connect::Picked;
use crate::context::{self, Words};
use crate::maps::{ENDPOINTS, FLOW_SOURCES, FLOWS, LEAVES};

/// Steps of the search for an endpoint: enough for a leaf with a million.
const STEPS: u32 = 20;

/// Reads one field of a record in a map, as in `connect`.
macro_rules! read {
    ($record:expr, $($field:tt)+) => {
        // SAFETY: `$record` points at a map value that lives as long as the program runs.
        unsafe { addr_of!((*$record).$($field)+).read_volatile() }
    };
}

/// The error of a map that has the element already.
const EEXIST: i32 = 17;

/// What is remembered of a flow.
pub(crate) enum Remembered {
    /// The endpoint that was chosen, which can still be chosen.
    Endpoint(Picked),
    /// One that cannot.
    Gone,
    Nothing,
}

/// What a socket sends to a frontend.
pub(crate) struct Flow {
    key: FlowKey,
}

impl Flow {
    /// That of the datagram in the context.
    #[inline(always)]
    pub(crate) fn new(context: &SockAddrContext, frontend: &FrontendKey) -> Self {
        Self {
            key: FlowKey {
                cookie: cookie(context),
                address: frontend.address,
                port: u32::from(frontend.port),
                padding: 0,
            },
        }
    }

    /// What is remembered.
    #[inline(always)]
    pub(crate) fn endpoint(&self, split: *const SplitRecord) -> Remembered {
        let Some(record) = FLOWS.get_ptr_mut(self.key) else {
            return Remembered::Nothing;
        };
        Self::still_there(record, split).map_or(Remembered::Gone, Remembered::Endpoint)
    }

    /// The endpoint that was chosen, if it can still be chosen.
    #[inline(always)]
    fn still_there(record: *mut FlowRecord, split: *const SplitRecord) -> Option<Picked> {
        // SAFETY: the record begins with 8 bytes, aligned to 8: one load takes both halves.
        let word = unsafe { record.cast::<u64>().read_volatile() };
        let FlowChoice {
            generation,
            endpoint,
        } = bytemuck::cast(word);
        let wanted = Wanted {
            // SAFETY: 16 bytes, aligned to 8.
            address: unsafe { context::read_words(addr_of!((*record).address).cast()) },
            port: read!(record, port),
        };
        let at_work = read!(split, generation);
        if generation == at_work
            && let Some(found) = wanted.at(endpoint)
        {
            return Some(found);
        }
        let endpoint = find(split, read!(record, leaf_id), &wanted)?;
        let found = wanted.at(endpoint)?;
        let choice: u64 = bytemuck::cast(FlowChoice {
            generation: at_work,
            endpoint,
        });
        // SAFETY: as above. If the element is another flow's by now, that one's address is looked
        // for again, or it has an endpoint of the same split.
        unsafe {
            addr_of_mut!((*record).choice)
                .cast::<u64>()
                .write_volatile(choice);
        };
        Some(found)
    }

    /// Remembers what was chosen for a new flow, or for one whose endpoint has gone. `false` if
    /// another thread was first. If there is no memory for it, it is chosen anew.
    #[inline(always)]
    pub(crate) fn remember(
        &self,
        split: *const SplitRecord,
        picked: &Picked,
        is_new: bool,
    ) -> bool {
        let record = FlowRecord {
            choice: FlowChoice {
                generation: read!(split, generation),
                endpoint: picked.index,
            },
            address: bytemuck::cast(picked.address),
            leaf_id: picked.leaf_id,
            port: u32::from(picked.port),
        };
        let flag = if is_new { BPF_NOEXIST } else { BPF_ANY };
        FLOWS.insert(self.key, record, flag.into()) != Err(-EEXIST)
    }

    /// Sees to it that answers are shown as coming from the frontend. Looked at with each datagram, so that it
    /// is not forgotten before the flow is. `false` if there is no memory for it.
    #[inline(always)]
    pub(crate) fn remember_source(&self, frontend: &FrontendKey, picked: &Picked) -> bool {
        let key = FlowKey {
            cookie: self.key.cookie,
            address: bytemuck::cast(picked.address),
            port: u32::from(picked.port),
            padding: 0,
        };
        let address: [u64; 2] = bytemuck::cast(frontend.address);
        let port = u32::from(frontend.port);
        let check = check_sum(&key, address, port);
        if let Some(record) = FLOW_SOURCES.get_ptr(key)
            && read!(record, check) == check
        {
            return true;
        }
        let record = FlowSourceRecord {
            address: frontend.address,
            port,
            padding: 0,
            check,
        };
        FLOW_SOURCES.insert(key, record, BPF_ANY.into()).is_ok()
    }
}

/// What a datagram from this address and port is shown as coming from, if it is an answer to a flow.
#[inline(always)]
pub(crate) fn source(context: &SockAddrContext, source: Words, port: u16) -> Option<(Words, u16)> {
    let key = FlowKey {
        cookie: cookie(context),
        address: bytemuck::cast(source),
        port: u32::from(port),
        padding: 0,
    };
    let record = FLOW_SOURCES.get_ptr(key)?;
    // SAFETY: 16 bytes, aligned to 8.
    let address = unsafe { context::read_words(addr_of!((*record).address).cast()) };
    let port = read!(record, port);
    // Recycled, or about to be: the kernel has forgotten the flow.
    if read!(record, check) != check_sum(&key, bytemuck::cast(address), port) {
        return None;
    }
    Some((address, port as u16))
}

/// An endpoint that is looked for.
struct Wanted {
    address: Words,
    port: u32,
}

impl Wanted {
    /// It, if this is its index into `ENDPOINTS`.
    #[inline(always)]
    fn at(&self, index: u32) -> Option<Picked> {
        let endpoint = ENDPOINTS.get_ptr(index)?;
        // SAFETY: 16 bytes, aligned to 4.
        let address = unsafe { context::read_words(addr_of!((*endpoint).address).cast()) };
        let port = read!(endpoint, port);
        (address == self.address && u32::from(port) == self.port).then(|| Picked {
            address,
            port,
            leaf_id: read!(endpoint, leaf_id),
            index,
            // Of datagrams, what comes of them is not counted.
            incarnation: 0,
        })
    }
}

/// Where an endpoint of a leaf would have to be in `ENDPOINTS`, if the leaf takes any share. A function of
/// its own, since it is rarely needed.
#[inline(never)]
fn find(split: *const SplitRecord, leaf_id: u32, wanted: &Wanted) -> Option<u32> {
    let first_leaf = read!(split, first_leaf);
    let leaf_count = read!(split, leaf_count);
    let mut before = 0;
    let mut range = None;
    for index in 0..MAX_LEAVES {
        if index >= leaf_count {
            break;
        }
        let leaf = LEAVES.get_ptr(first_leaf.wrapping_add(index))?;
        let end = read!(leaf, end);
        if read!(leaf, leaf_id) == leaf_id {
            // Weight 0 says that nothing is to be sent there any more.
            if end != before {
                range = Some((read!(leaf, first_endpoint), read!(leaf, endpoint_count)));
            }
            break;
        }
        before = end;
    }
    let (first, mut count) = range?;
    if count == 0 {
        return None;
    }
    let wanted = Place::new(wanted.address, wanted.port);
    let mut base = first;
    for _ in 0..STEPS {
        let half = count >> 1;
        let probe = base.wrapping_add(half);
        let endpoint = ENDPOINTS.get_ptr(probe)?;
        // On, unless the one in the middle is beyond what is wanted.
        let beyond = wanted.mask_if_below(&place(endpoint));
        base = base.wrapping_add(half & !(beyond as u32));
        count -= half;
    }
    Some(base)
}

/// An address and port, in a form that is quick to compare.
struct Place {
    high: u64,
    low: u64,
    port: u64,
}

impl Place {
    #[inline(always)]
    fn new(address: Words, port: u32) -> Self {
        let [high, low]: [u64; 2] = bytemuck::cast(address);
        Self {
            high: u64::from_be(high),
            low: u64::from_be(low),
            port: u64::from(port),
        }
    }

    /// All ones if it stands before another.
    #[inline(always)]
    fn mask_if_below(&self, other: &Self) -> u64 {
        let is_below = |one: u64, other: u64| mask_if_below(one, other);
        let high = is_below(self.high, other.high);
        let high_beyond = is_below(other.high, self.high);
        let low = is_below(self.low, other.low);
        let low_beyond = is_below(other.low, self.low);
        let port = is_below(self.port, other.port);
        high | (!high_beyond & (low | (!low_beyond & port)))
    }
}

#[inline(always)]
fn place(endpoint: *const EndpointRecord) -> Place {
    // SAFETY: 16 bytes, aligned to 4.
    let address = unsafe { context::read_words(addr_of!((*endpoint).address).cast()) };
    Place::new(address, u32::from(read!(endpoint, port)))
}

#[inline(always)]
fn cookie(context: &SockAddrContext) -> u64 {
    // SAFETY: the helper looks at the socket of the context only.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) }
}
