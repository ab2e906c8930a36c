//! The maps. Their records are in [`splitter_common::layout`]. The sizes here are the
//! defaults; the agent sets the real ones when it creates the maps.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, SkStorage};
use aya_ebpf::macros::btf_map;
use splitter_common::flows::{FLOWS as MAX_FLOWS, FlowKey, FlowRecord, FlowSourceRecord};
use splitter_common::index::SLOTS;
use splitter_common::layout::{
    ClientNames, ClientRecord, ConnectionRecord, CounterRecord, CurrentRecord, EndpointRecord,
    FrontendKey, FrontendNames, FrontendValue, IndexRecord, LeafNames, LeafRecord, LeafStats,
    MAX_CLIENTS, OutcomeRecord, PodLevels, PodNames, SOCKET_SLOTS, SocketRecord, SplitRecord,
    VERDICT_COUNTERS,
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Where most frontends are, and what is none, by [`splitter_common::index`].
#[btf_map]
pub(crate) static FRONTEND_INDEX: Array<IndexRecord, { SLOTS as usize }, MMAPABLE> = Array::new();

/// What clients dial, to the place in `CURRENT` that says which split is programmed.
#[btf_map]
pub(crate) static FRONTENDS: HashMap<FrontendKey, FrontendValue, 65_536, NO_PREALLOC> =
    HashMap::new();

/// Which split is programmed for each frontend.
#[btf_map]
pub(crate) static CURRENT: Array<CurrentRecord, 81_920, MMAPABLE> = Array::new();

/// The pods of this node, by the ids of their cgroups. Looked at only where a split says so.
#[btf_map]
pub(crate) static CLIENTS: HashMap<u64, ClientRecord, { MAX_CLIENTS as usize }, NO_PREALLOC> =
    HashMap::new();

/// At which levels of the hierarchy the pods' cgroups are.
#[btf_map]
pub(crate) static POD_LEVELS: Array<PodLevels, 1, MMAPABLE> = Array::new();

/// Splits. A slot is written only while no frontend points at it.
#[btf_map]
pub(crate) static SPLITS: Array<SplitRecord, 81_920, MMAPABLE> = Array::new();

/// Leaves of all splits; each split's stand together.
#[btf_map]
pub(crate) static LEAVES: Array<LeafRecord, 163_840, MMAPABLE> = Array::new();

/// Endpoints of all leaves; each leaf's stand together.
#[btf_map]
pub(crate) static ENDPOINTS: Array<EndpointRecord, 262_144, MMAPABLE> = Array::new();

/// Counters of connections: those of a split and of its leaves stand together.
#[btf_map]
pub(crate) static COUNTERS: Array<CounterRecord, 102_400, MMAPABLE> = Array::new();

/// Counters of leaves that live as long as the leaf is part of a split.
#[btf_map]
pub(crate) static LEAF_STATS: PerCpuArray<LeafStats, 65_536> = PerCpuArray::new();

/// Connections that were refused because the leaf that they fell to has no endpoints, by leaf id.
#[btf_map]
pub(crate) static LEAF_REFUSALS: Array<u64, 163_840, MMAPABLE> = Array::new();

/// What came of the connections to leaves, by leaf id.
#[btf_map]
pub(crate) static LEAF_OUTCOMES: HashMap<u32, OutcomeRecord, 163_840, NO_PREALLOC> = HashMap::new();

/// Verdicts on connections to frontends, by [`splitter_common::layout::VerdictCounter`].
#[btf_map]
pub(crate) static VERDICTS: PerCpuArray<u64, { VERDICT_COUNTERS }> = PerCpuArray::new();

/// Live sockets that were split: their connections.
#[btf_map]
pub(crate) static SOCKETS: Array<SocketRecord, { SOCKET_SLOTS as usize }, MMAPABLE> = Array::new();

/// The same, stored on the sockets themselves that have no slot in `SOCKETS`.
#[btf_map]
pub(crate) static ORIGINAL_DST: SkStorage<ConnectionRecord> = SkStorage::new();

/// The endpoints of UDP flows, by socket and frontend.
#[btf_map]
pub(crate) static FLOWS: LruHashMap<FlowKey, FlowRecord, { MAX_FLOWS as usize }> =
    LruHashMap::new();

/// The frontends of UDP flows, by socket and endpoint.
#[btf_map]
pub(crate) static FLOW_SOURCES: LruHashMap<FlowKey, FlowSourceRecord, { MAX_FLOWS as usize }> =
    LruHashMap::new();

/// For people: who asks for the split of a frontend.
#[btf_map]
pub(crate) static FRONTEND_NAMES: HashMap<FrontendKey, FrontendNames, 65_536, NO_PREALLOC> =
    HashMap::new();

/// For people: what a scope of clients stands for.
#[btf_map]
pub(crate) static CLIENT_NAMES: HashMap<u32, ClientNames, { MAX_CLIENTS as usize }, NO_PREALLOC> =
    HashMap::new();

/// For people: the pods of this node, by the ids of their cgroups.
#[btf_map]
pub(crate) static POD_NAMES: HashMap<u64, PodNames, { MAX_CLIENTS as usize }, NO_PREALLOC> =
    HashMap::new();

/// For people: what a leaf id stands for.
#[btf_map]
pub(crate) static LEAF_NAMES: HashMap<u32, LeafNames, 65_536, NO_PREALLOC> = HashMap::new();
