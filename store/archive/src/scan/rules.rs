//! What a scan covers: filter, file systems, threads.

use crate::filter::Filter;
use crate::meta::Stat;
use crate::path;
use std::collections::BTreeSet;

/// The rules of one scan, shared by all of its threads.
#[derive(Debug)]
pub(crate) struct ScanRules {
    pub(crate) filter: Filter,
    /// The devices that the scan stays on; None: it goes wherever the tree leads.
    pub(crate) devices: Option<BTreeSet<u64>>,
}

impl ScanRules {
    /// Whether the scan goes into this directory.
    pub(crate) fn descends(&self, stat: &Stat) -> bool {
        let inside = |devices: &BTreeSet<u64>| devices.contains(&stat.device);
        stat.is_directory() && self.devices.as_ref().is_none_or(inside)
    }

    /// The directories about which markers among these paths decide: they have to be walked as a whole.
    pub(crate) fn marked<'k>(
        &self,
        paths: impl Iterator<Item = &'k Vec<u8>>,
        outer: &[&Vec<u8>],
    ) -> Vec<Vec<u8>> {
        let markers = self.filter.markers();
        let is_marker = |key: &&Vec<u8>| {
            markers.iter().any(|marker| marker.name == path::file_name(key))
                && super::root_of(outer, key).is_some_and(|root| root.len() < key.len())
        };
        paths
            .filter(is_marker)
            .filter_map(|key| path::parent_key(key).map(<[u8]>::to_vec))
            .collect()
    }
}
