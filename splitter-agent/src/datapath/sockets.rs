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
    /// How long ago connect() was called, to a second or so; `None` if it is not known.
    pub age: Option<Duration>,
    /// Whether it has not ended: it may have, while its owner has not closed the socket.
    pub is_open: bool,
}

impl LiveConnection {
    fn new(cookie: u64, record: &ConnectionRecord) -> Self {
        let original = &record.original_dst;
        let address = |bytes, port| SocketAddr::new(address::from_bytes(bytes), port);
        Self {
            cookie,
            dialled: address(original.frontend_address, original.frontend_port),
            endpoint: address(original.endpoint_address, original.endpoint_port),
            leaf_id: original.leaf_id,
            incarnation: record.incarnation,
            age: (record.started != 0).then(|| ticks::since(record.started)),
            is_open: outcomes::stage(record.stage) != Stage::Ended,
        }
    }
}

impl Sockets {
    /// The connections of all live sockets that have a slot, in no order. Takes a look at each slot.
    pub fn connections(&self) -> impl Iterator<Item = LiveConnection> + '_ {
        (0..self.table.len()).filter_map(|slot| {
            let cookie = self.table.count(slot);
            if cookie == FREE {
                return None;
            }
            let record = self.table.read(slot)?;
            // It was the same socket's all the time.
            let is_same = record.cookie == cookie && self.table.count(slot) == cookie;
            is_same.then(|| LiveConnection::new(cookie, &record.connection))
        })
    }

    /// How many connections of each leaf have not ended.
    pub(super) fn open_by_leaf(&self) -> HashMap<LeafKey, u64> {
        let mut open = HashMap::new();
        for connection in self.connections().filter(|connection| connection.is_open) {
            *open
                .entry((connection.leaf_id, connection.incarnation))
                .or_default() += 1;
        }
        open
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
        let taken = (0..self.table.len()).filter(|slot| self.table.count(*slot) != FREE);
        taken.count() as u32
    }

    pub(super) fn map_use(&self) -> MapUse {
        MapUse {
            entries: self.taken().into(),
            max_entries: self.slots().into(),
        }
    }
}
