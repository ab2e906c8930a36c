//! The records in the BPF maps, byte for byte.
//!
//! Every record is `#[repr(C)]` without implicit padding (bytemuck refuses it), in
//! the host's byte order except for addresses, which are bytes in network order.
//! Ports are in host order, and what is a choice among names is an enum, so that
//! `bpftool map dump` reads well.
//!
//! A change of any record here, or of a map's name, is a new [`LAYOUT_VERSION`]: the maps are
//! pinned below a directory of that name, and two versions never share a map.
//!
//! ```text
//! FRONTENDS {address, port, protocol, clients} ─► CURRENT[..] = {split, generation}
//!                                                                │   must carry the same key
//!                  SPLITS[split] ◄───────────────────────────────┤   and generation
//!                    │                                           │   must carry the same key
//!                    │             FRONTEND_INDEX[..] = {split, tag}
//!                    │
//!                    ├► first_counter ─► COUNTERS[..]   connections of the split, and of each leaf
//!                    └► first_leaf ─► LEAVES[..] ─► first_endpoint ─► ENDPOINTS[..]
//! ```

use bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};

/// Version of the records below, and the name of the directory that the maps are
/// pinned in (`v6`).
pub const LAYOUT_VERSION: u32 = 6;

/// Version of [`SocketRecord`] and of what its table means. The table is pinned beside the
/// layouts, under a name of its own (`SOCKETS-v2`), and so outlives a change of the layout:
/// sockets that are open then keep their records.
pub const SOCKETS_VERSION: u32 = 2;

/// Slots of the table of live sockets: a power of two, so that a cookie's low bits are an index.
pub const SOCKET_SLOTS: u32 = 131_072;

/// Most leaves that one split may have. The kernel finds a leaf by a binary search,
/// whose number of steps the verifier must see to be bounded.
pub const MAX_LEAVES: u32 = 64;

/// Transport protocol, by its IANA number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, NoUninit, CheckedBitPattern)]
pub enum Protocol {
    /// Transmission Control Protocol.
    Tcp = 6,
    /// User Datagram Protocol.
    Udp = 17,
    /// Stream Control Transmission Protocol.
    Sctp = 132,
}

/// What a client dials, and the key of `FRONTENDS`. Aligned to 4 bytes, so that the
/// kernel fills and compares it in words.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, NoUninit, CheckedBitPattern)]
pub struct FrontendKey {
    /// Address in the form of [`crate::address`].
    pub address: [u8; 16],
    /// Port in host order.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Always 0.
    pub padding: u8,
    /// Whose connections: a [`ClientScope`], 0 for everyone's.
    pub clients: u32,
}

/// Whose connections an entry is about: everyone's, or those of some pods of the node.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct ClientScope(pub u32);

impl ClientScope {
    /// Everyone's.
    pub const EVERYONE: Self = Self(0);

    /// Nobody's: the scope of pods whose connections are never split. No frontend has it.
    pub const NEVER_SPLIT: Self = Self(u32::MAX);
}

/// What stands behind a [`FrontendKey`] in `FRONTENDS`. The same for as long as the frontend
/// is programmed: an update of a hash element is an insertion and a removal, and a reader that
/// is past the one and not yet at the other finds neither.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FrontendValue {
    /// Index into `CURRENT`.
    pub current: u32,
}

/// A slot of the index of `FRONTENDS`, see [`crate::index`]: one aligned 64-bit word, read and
/// written whole.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct IndexRecord {
    /// Index into `SPLITS`: what is programmed for the frontend that has the slot.
    pub split: u32,
    /// What stands for that frontend; 0 if no frontend has the slot, 1 if several have.
    pub tag: u32,
}

/// Which record is programmed: one aligned 64-bit word, read and written whole, since no BPF
/// map updates more than that atomically. A store to it is what changes a split, and one to the index for
/// those that are looked up there alone.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct CurrentRecord {
    /// Index into `SPLITS`.
    pub split: u32,
    /// Must equal the generation of that record. Hash elements are recycled while a
    /// reader may still hold them (kernel commit 0fd7c5d43339, 6.1), so what was read
    /// is believed only if the record confirms it.
    pub generation: u32,
}

/// A pod of the node, keyed by the id of its cgroup in `CLIENTS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ClientRecord {
    /// Its [`ClientScope`]. In one 64-bit word with `cgroup`, read whole.
    pub scope: u32,
    /// The lower half of the cgroup's id, which no other cgroup has at the time: confirms that
    /// the element was not recycled.
    pub cgroup: u32,
    /// How deep the cgroup is; the root of the hierarchy is 0. For whoever takes over.
    pub level: u32,
    /// Always 0.
    pub padding: u32,
}

/// Most levels that pods' cgroups may be at, on one node.
pub const MAX_POD_LEVELS: usize = 8;

/// At which levels of the hierarchy pods' cgroups are: one aligned 64-bit word, read and
/// written whole.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PodLevels {
    /// The deepest first, as most pods are below a group of their quality of service; 0, the
    /// level of the root, ends the list.
    pub levels: [u8; MAX_POD_LEVELS],
}

/// Most pods in `CLIENTS` and in `POD_NAMES`, and most names of scopes.
pub const MAX_CLIENTS: u32 = 16_384;

/// What the kernel does with a connection to a frontend.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern)]
pub enum Verdict {
    /// The slot is free, or no longer programmed.
    Free = 0,
    /// Rewrite the destination to an endpoint of a leaf.
    Split = 1,
    /// Refuse with ECONNREFUSED.
    Refuse = 2,
    /// Leave the destination alone. The record is there to say why.
    PassThrough = 3,
}

/// Why a frontend is not split.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, NoUninit, CheckedBitPattern)]
pub enum Reason {
    /// It is split.
    None = 0,
    /// Every weight is 0: the author said "nowhere".
    AllWeightsZero = 1,
    /// No leaf with a weight above 0 has a ready endpoint.
    NoReadyEndpoints = 2,
    /// No leaf is a Service that exists, other than an ExternalName.
    NoLeafService = 3,
    /// No leaf Service has a port of this number and protocol.
    NoLeafPort = 4,
    /// Only TCP and UDP are split.
    ProtocolNotSplit = 5,
    /// The object that asks for the split was refused.
    ObjectRefused = 6,
    /// No leaf Service with this port has addresses of the frontend's family.
    NoLeafFamily = 7,
    /// Objects that decide it are of a kind that is not followed at present.
    NotKnownYet = 8,
    /// It is split for some clients only, and these are others.
    OtherClients = 9,
}

/// A split: what the kernel does with connections to one frontend. Immutable while a
/// frontend points at it, but for `asks_client`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern)]
pub struct SplitRecord {
    /// The frontend that this record belongs to.
    pub frontend: FrontendKey,
    /// Seed of the shifts of the lattice's blocks.
    pub seed: u64,
    /// Generation of the record; grows by one with each that is published.
    pub generation: u32,
    /// W: the sum of the leaves' shares, and the length of a block in connections.
    pub size: u32,
    /// Step of the lattice, coprime to `size`.
    pub step: u32,
    /// This node's part of the shift, below `size` (0 if `size` is 0).
    pub shift: u32,
    /// First of its records in `COUNTERS`, see [`CounterPlace`].
    pub first_counter: u32,
    /// First leaf in `LEAVES`.
    pub first_leaf: u32,
    /// Number of leaves, at most [`MAX_LEAVES`].
    pub leaf_count: u32,
    /// What to do.
    pub verdict: Verdict,
    /// Why it is not split.
    pub reason: Reason,
    /// Whether to ask which pod it is that connects, and to look for a split for that pod's
    /// scope: set in the record for everyone if there is one for others, or if a pod of the node
    /// is never split. The one thing that may change while a frontend points at the record.
    pub asks_client: bool,
    /// Always 0.
    pub padding: u8,
}

/// Whether a leaf can take its share, and if not, why. A leaf that cannot has no interval, and the
/// others share what it would get; or it keeps its interval without endpoints, and what falls
/// there is refused.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, NoUninit, CheckedBitPattern)]
pub enum LeafState {
    /// Takes its share.
    Ready = 0,
    /// Has endpoints, none of them ready; those that still serve while they terminate
    /// take its share.
    Terminating = 1,
    /// Weight 0: never picked.
    WeightZero = 2,
    /// The Service does not exist, or is an ExternalName.
    ServiceMissing = 3,
    /// The Service has no port of the frontend's number and protocol.
    PortMissing = 4,
    /// No endpoint is ready.
    NoReadyEndpoints = 5,
    /// The Service has no addresses of the frontend's family.
    FamilyMissing = 6,
    /// Whether it can take its share is not known: objects that tell are of a kind that is
    /// not followed at present.
    NotKnownYet = 7,
}

/// A leaf of a split.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern)]
pub struct LeafRecord {
    /// Weight as configured, times the power of ten that makes all weights of the
    /// split whole. For people; the kernel looks at `end`.
    pub weight: u64,
    /// End (exclusive) of the leaf's interval of lattice positions; it begins where
    /// the leaf before ends. An empty interval is never picked.
    pub end: u32,
    /// First endpoint in `ENDPOINTS`.
    pub first_endpoint: u32,
    /// Number of endpoints. With none, the leaf's share of the connections is refused.
    pub endpoint_count: u32,
    /// Index into `LEAF_STATS` and `LEAF_REFUSALS`, and key of `LEAF_OUTCOMES` and `LEAF_NAMES`.
    pub leaf_id: u32,
    /// Which leaf the id stands for: never the same for two leaves that have it one after the other.
    pub incarnation: u32,
    /// Whether it can take its share.
    pub state: LeafState,
    /// Always 0.
    pub padding: [u8; 3],
}

/// An endpoint of a leaf.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct EndpointRecord {
    /// Address in the form of [`crate::address`].
    pub address: [u8; 16],
    /// The leaf that it belongs to.
    pub leaf_id: u32,
    /// Port in host order.
    pub port: u16,
    /// Always 0.
    pub padding: u16,
}

/// Counts in a [`CounterRecord`].
pub const COUNTS_IN_RECORD: u32 = 8;

/// Counts of connections, on a cache line of their split's own. A connection adds to two of them, that of
/// the split and that of a leaf: so these stand together, and splits apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct CounterRecord {
    /// Connections counted, by [`CounterPlace`].
    pub counts: [u64; COUNTS_IN_RECORD as usize],
}

/// Where in `COUNTERS` a count is. The split's is the first of its first record, and those of the leaves
/// follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterPlace {
    /// Index of the record.
    pub record: u32,
    /// Which of its counts, below [`COUNTS_IN_RECORD`].
    pub count: u32,
}

impl CounterPlace {
    /// That of a split, by its [`SplitRecord::first_counter`].
    #[inline(always)]
    #[must_use]
    pub const fn of_split(first_counter: u32) -> Self {
        Self {
            record: first_counter,
            count: 0,
        }
    }

    /// That of a leaf of the split, counted from 0.
    #[inline(always)]
    #[must_use]
    pub const fn of_leaf(first_counter: u32, leaf: u32) -> Self {
        let number = leaf.wrapping_add(1);
        Self {
            record: first_counter.wrapping_add(number / COUNTS_IN_RECORD),
            count: number % COUNTS_IN_RECORD,
        }
    }

    /// How many records a split with so many leaves has.
    #[must_use]
    pub const fn records(leaves: u32) -> u32 {
        leaves / COUNTS_IN_RECORD + 1
    }
}

/// Per-CPU counters of a leaf, over all changes of weights.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct LeafStats {
    /// Connections that were given an endpoint of this leaf.
    pub connections: u64,
}

/// A verdict that is counted: index into the per-CPU counters `VERDICTS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictCounter {
    /// Rewritten to an endpoint.
    Split = 0,
    /// Refused with ECONNREFUSED, as every connection to its frontend.
    Refused = 1,
    /// Passed through, as its record says.
    PassedThrough = 2,
    /// Passed through, since a record did not confirm what led to it.
    Inconsistent = 3,
    /// Rewritten, but there was no memory to store the original destination:
    /// getpeername() shows the endpoint. Counted as `Split` too.
    OriginalDstLost = 4,
    /// Refused with ECONNREFUSED, since the leaf that it fell to has a share and no endpoints.
    RefusedByLeaf = 5,
    /// The pod that connected is not in `CLIENTS`, though who it is might have mattered. It was
    /// treated like everyone; counted as what became of that too.
    ClientUnknown = 6,
    /// Passed through, since the pod is never split.
    NeverSplit = 7,
}

/// Number of counters in `VERDICTS`.
pub const VERDICT_COUNTERS: usize = VerdictCounter::ALL.len();

impl VerdictCounter {
    /// Every counter, in the order of the indexes.
    pub const ALL: [Self; 8] = [
        Self::Split,
        Self::Refused,
        Self::PassedThrough,
        Self::Inconsistent,
        Self::OriginalDstLost,
        Self::RefusedByLeaf,
        Self::ClientUnknown,
        Self::NeverSplit,
    ];
}

/// The original destination of a split socket, so that getpeername() shows it. Believed only while
/// the socket's peer is the endpoint in it: a socket may be disconnected and connected again
/// elsewhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct OriginalDstRecord {
    /// The address that was dialled.
    pub frontend_address: [u8; 16],
    /// The endpoint's address.
    pub endpoint_address: [u8; 16],
    /// The leaf that was picked.
    pub leaf_id: u32,
    /// The port that was dialled, in host order.
    pub frontend_port: u16,
    /// The endpoint's port, in host order.
    pub endpoint_port: u16,
}

/// How far a connection has come. Each is counted once on its way: when it leaves a stage.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern)]
pub enum Stage {
    /// Not followed: outcomes are not counted.
    NotCounted = 0,
    /// connect() was called. Whether the endpoint has accepted it is found out when something
    /// else happens.
    Begun = 1,
    /// The endpoint has accepted it.
    Established = 2,
    /// It has come to an end, whether or not it was established; its socket is still there.
    Ended = 3,
}

/// What is remembered of a split connection for as long as its socket lives: in the table of live
/// sockets or in socket storage.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ConnectionRecord {
    /// What was dialled, and what was picked.
    pub original_dst: OriginalDstRecord,
    /// When connect() was called, in ticks of the kernel's timer (its `jiffies_64`): the lower 32 bits
    /// of the number, 0 with those above if it is not known.
    pub started: u32,
    /// The cgroup of the process that called it: the lower half of the cgroup's id, which no other
    /// cgroup has at the time. 0 of UDP sockets.
    pub cgroup: u32,
    /// Which leaf it was given to: [`LeafRecord::incarnation`]. Its id may be another's by now, or
    /// of other maps.
    pub incarnation: u32,
    /// The next 16 bits of that number. All 48 last for thousands of years.
    pub started_upper: u16,
    /// A [`Stage`].
    pub stage: u8,
    /// Always 0.
    pub padding: u8,
}

impl ConnectionRecord {
    /// A number of ticks as it is stored: for `started` and `started_upper`.
    #[inline(always)]
    #[must_use]
    pub const fn parts_of_ticks(ticks: u64) -> (u32, u16) {
        (ticks as u32, (ticks >> 32) as u16)
    }

    /// The number of ticks that is stored so.
    #[inline(always)]
    #[must_use]
    pub const fn ticks_of_parts(started: u32, started_upper: u16) -> u64 {
        (started_upper as u64) << 32 | started as u64
    }
}

/// A slot of the table of live sockets, `SOCKETS`: see [`crate::sockets`]. A cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SocketRecord {
    /// The cookie of the socket that has the slot (`SO_COOKIE`); 0 if none has.
    pub cookie: u64,
    /// Its connection. Nobody's if the slot is free.
    pub connection: ConnectionRecord,
}

/// Buckets of a histogram: the first counts what is below 1, each other one what is below twice
/// the bound of the one before, and the last also everything above.
pub const HISTOGRAM_BUCKETS: usize = 32;

/// What came of the connections to a leaf, keyed by its id in `LEAF_OUTCOMES`. Every counter only
/// grows. A connection is counted in `established` if it got so far, and at its end in exactly one of
/// the others.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct OutcomeRecord {
    /// Which leaf it is: [`LeafRecord::incarnation`].
    pub incarnation: u64,
    /// How many came to which end, or were established: by [`crate::outcomes::Outcome`].
    pub counts: [u64; crate::outcomes::OUTCOMES],
    /// Bytes that clients sent, without what was sent again.
    pub bytes_sent: u64,
    /// Bytes that clients received.
    pub bytes_received: u64,
    /// Sum of the times that handshakes took, in microseconds.
    pub handshake_sum: u64,
    /// Sum of the round-trip times at the end, in microseconds.
    pub round_trip_sum: u64,
    /// Sum of the lifetimes, in milliseconds.
    pub lifetime_sum: u64,
    /// How long handshakes took, in microseconds; only if that is asked for.
    pub handshakes: [u64; HISTOGRAM_BUCKETS],
    /// Smoothed round-trip times of connections when they ended, in microseconds.
    pub round_trips: [u64; HISTOGRAM_BUCKETS],
    /// From connect() to the end of connections that were established, in milliseconds.
    pub lifetimes: [u64; HISTOGRAM_BUCKETS],
}

/// A NUL-terminated name. `i8`, since that is what `cargo xtask build-ebpf` marks as
/// text for `bpftool`.
pub type Text<const N: usize> = [i8; N];

/// Who asks for a split, keyed by its frontend in `FRONTEND_NAMES`. Never read by the
/// kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FrontendNames {
    /// Namespace of the root Service.
    pub root_namespace: Text<64>,
    /// Name of the root Service.
    pub root: Text<64>,
    /// Kind of the object that asks for the split.
    pub kind: Text<32>,
    /// Namespace of that object.
    pub namespace: Text<64>,
    /// Name of that object.
    pub name: Text<256>,
}

/// A leaf's names, keyed by its id in `LEAF_NAMES`. Never read by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct LeafNames {
    /// Namespace of the root Service.
    pub root_namespace: Text<64>,
    /// Name of the root Service.
    pub root: Text<64>,
    /// Name of the leaf: its Service, and what else tells it from others of the root.
    pub leaf: Text<256>,
}

/// The name of a scope, keyed by it in `CLIENT_NAMES`. Never read by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ClientNames {
    /// Which pods, for example `namespace=team-a, app=web`.
    pub clients: Text<256>,
}

/// A pod of the node, keyed by the id of its cgroup in `POD_NAMES`. Never read by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct PodNames {
    /// Its namespace.
    pub namespace: Text<64>,
    /// Its name.
    pub name: Text<256>,
}

const _: () = {
    assert!(size_of::<FrontendKey>() == 24);
    assert!(size_of::<FrontendValue>() == 4);
    assert!(size_of::<CurrentRecord>() == 8);
    assert!(size_of::<ClientRecord>() == 16);
    assert!(size_of::<PodLevels>() == 8);
    assert!(size_of::<SplitRecord>() == 64);
    assert!(size_of::<LeafRecord>() == 32);
    assert!(size_of::<EndpointRecord>() == 24);
    assert!(size_of::<CounterRecord>() == 64);
    assert!(size_of::<OriginalDstRecord>() == 40);
    assert!(size_of::<ConnectionRecord>() == 56);
    assert!(size_of::<SocketRecord>() == 64);
    assert!(size_of::<OutcomeRecord>() == (1 + 9 + 5 + 3 * HISTOGRAM_BUCKETS) * 8);
    assert!(SOCKET_SLOTS.is_power_of_two());
};
