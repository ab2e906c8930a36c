//! The names of this node's pods, for people: `connections` tells by them whose a connection is.

use std::collections::BTreeMap;

use splitter_common::layout::PodNames;

use crate::datapath::maps::MapsError;
use crate::datapath::view::{pod_names, write_text};
use crate::objects::ObjectName;

use super::publisher::Publisher;

impl Publisher {
    /// Names pods, by the ids of their cgroups. Other names are forgotten unless they are to be kept.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn name_pods(
        &mut self,
        names: &BTreeMap<u64, ObjectName>,
        is_kept: impl Fn(u64) -> bool,
    ) -> Result<(), MapsError> {
        let map = &mut self.maps.pod_names;
        self.pod_names.retain(|id, _| {
            let stays = names.contains_key(id) || is_kept(*id);
            if !stays {
                // Of a group that is gone; if it cannot be removed, the next agent does.
                let _ = map.remove(id);
            }
            stays
        });
        for (id, name) in names {
            if self.pod_names.get(id) == Some(name) {
                continue;
            }
            let record = PodNames {
                namespace: write_text(&name.namespace),
                name: write_text(&name.name),
            };
            map.insert(
                id,
                bytemuck::cast::<_, [u8; size_of::<PodNames>()]>(record),
                0,
            )
            .map_err(MapsError::access("write", "POD_NAMES"))?;
            self.pod_names.insert(*id, name.clone());
        }
        Ok(())
    }

    /// Finds out which names another agent left.
    pub(super) fn recover_pod_names(&mut self) -> Result<(), MapsError> {
        self.pod_names = pod_names(&self.maps)?;
        Ok(())
    }
}
