//! The table of live sockets, read without a system call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::{MapData, MapInfo};
use splitter_common::layout::{ConnectionRecord, SocketRecord, Stage};
use splitter_common::sockets::FREE;
use splitter_common::{address, outcomes};

use super::load::{PinDirectory, SOCKETS, exists, socket_slots};
use super::maps::MapsError;
use super::sys::table::Table;
use super::ticks;
use super::view::MapUse;

/// The table of live sockets, mapped.
#[derive(Debug)]
pub struct Sockets {
    table: Table<SocketRecord>,
    id: u32,
}

/// A leaf: its id, and which of the leaves that have it one after the other.
pub(super) type LeafKey = (u32, u32);

/// What the slots of the table come to.
#[derive(Debug)]
pub(super) struct SocketUse {
    /// How many of them live sockets have.
    pub(super) slots: MapUse,
    open: HashMap<LeafKey, u64>,
}

impl SocketUse {
    /// How many connections of a leaf have not ended.
    pub(super) fn open(&self, leaf: LeafKey) -> u64 {
        self.open.get(&leaf).copied().unwrap_or_default()
    }
}

/// A connection whose socket lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveConnection {
    /// The socket's cookie (`SO_COOKIE`, and `sk:` of `ss -e` in hexadecimal).
    pub cookie: u64,
    /// What was dialled.
    pub dialled: SocketAddr,
    /// Where it was sent.
    pub endpoint: SocketAddr,
    /// Id of the leaf that it was given to.
    pub leaf_id: u32,
    /// Which of the leaves that have the id one after the other.
    pub incarnation: u32,
    /// The cgroup of the process that called connect(): the lower half of its id; `None` if it is not
    /// known.
    pub cgroup: Option<u32>,
    /// How long ago connect() was called, to a second or so; `None` if it is not known.
    pub age: Option<Duration>,
    /// Whether it has not ended: it may have, while its owner has not closed the socket.
    pub is_open: bool,
}

impl LiveConnection {
    fn new(cookie: u64, record: &ConnectionRecord) -> Self {
        let original = &record.original_dst;
        let started = ConnectionRecord::ticks_of_parts(record.started, record.started_upper);
        let address = |bytes, port| SocketAddr::new(address::from_bytes(bytes), port);
        Self {
            cookie,
            dialled: address(original.frontend_address, original.frontend_port),
            endpoint: address(original.endpoint_address, original.endpoint_port),
            leaf_id: original.leaf_id,
            incarnation: record.incarnation,
            cgroup: (record.cgroup != 0).then_some(record.cgroup),
            age: (started != 0).then(|| ticks::since(started)),
            is_open: outcomes::stage(record.stage) != Stage::Ended,
        }
    }
}

impl Sockets {
    /// The connections of all live sockets that have a slot, in no order. Takes a look at each slot.
    pub fn connections(&self) -> impl Iterator<Item = LiveConnection> + '_ {
        self.owned().filter_map(|(slot, cookie)| {
            let record = self.connection(slot, cookie)?;
            Some(LiveConnection::new(cookie, &record))
        })
    }

    /// The slots that sockets have, with their cookies.
    fn owned(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let slots = 0..self.table.len();
        slots
            .map(|slot| (slot, self.table.count(slot)))
            .filter(|(_, cookie)| *cookie != FREE)
    }

    /// What is in the slot of a socket, if it is still its.
    fn connection(&self, slot: u32, cookie: u64) -> Option<ConnectionRecord> {
        let record = self.table.read(slot)?;
        // It was the same socket's all the time.
        let is_same = record.cookie == cookie && self.table.count(slot) == cookie;
        is_same.then_some(record.connection)
    }

    /// How full the table is, and how many connections of each leaf have not ended. Takes one look at
    /// each slot, a millisecond or two.
    pub(super) fn usage(&self) -> SocketUse {
        let mut usage = SocketUse {
            slots: MapUse {
                entries: 0,
                max_entries: self.slots().into(),
            },
            open: HashMap::new(),
        };
        for (slot, cookie) in self.owned() {
            usage.slots.entries += 1;
            if let Some(record) = self.connection(slot, cookie)
                && outcomes::stage(record.stage) != Stage::Ended
            {
                let leaf = (record.original_dst.leaf_id, record.incarnation);
                *usage.open.entry(leaf).or_default() += 1;
            }
        }
        usage
    }

    /// Opens the pinned table. `None` if there is none of this version: original destinations are
    /// on the sockets themselves then, or nowhere.
    ///
    /// # Errors
    ///
    /// If it cannot be examined, opened or mapped.
    pub fn open(pins: &PinDirectory) -> Result<Option<Self>, MapsError> {
        let path = pins.socket_table();
        if !exists(&path)? {
            return Ok(None);
        }
        // What has another shape is not used by the programs either.
        let Some(slots) = socket_slots(&path) else {
            return Ok(None);
        };
        let map = match MapData::from_pin(&path) {
            Ok(map) => map,
            // Removed in this moment.
            Err(_) if !exists(&path)? => return Ok(None),
            Err(error) => {
                let source = Box::new(error);
                return Err(MapsError::Open { path, source });
            }
        };
        let id = map
            .info()
            .map_err(MapsError::access("examine", SOCKETS))?
            .id();
        Table::map(map.fd().as_fd(), slots, false)
            .map(|table| Some(Self { table, id }))
            .map_err(|source| MapsError::Map {
                name: SOCKETS,
                source,
            })
    }

    /// The kernel's id of the map.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The id of the table that is pinned, if one is.
    pub(super) fn pinned_id(pins: &PinDirectory) -> Option<u32> {
        let info = MapInfo::from_pin(pins.socket_table()).ok()?;
        Some(info.id())
    }

    /// How many slots it has.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.table.len()
    }

    /// How many slots live sockets have. Takes a look at each, a millisecond or two.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.owned().count() as u32
    }
}
