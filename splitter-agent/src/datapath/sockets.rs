//! The table of live sockets, read without a system call.

use std::os::fd::AsFd;

use aya::maps::{MapData, MapInfo};
use splitter_common::layout::SocketRecord;
use splitter_common::sockets::FREE;

use super::load::{PinDirectory, SOCKETS, exists, socket_slots};
use super::maps::MapsError;
use super::sys::table::Table;
use super::view::MapUse;

/// The table of live sockets, mapped.
#[derive(Debug)]
pub struct Sockets {
    table: Table<SocketRecord>,
    id: u32,
}

impl Sockets {
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
