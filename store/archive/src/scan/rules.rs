//! What a scan covers: filter, file systems, threads.

use crate::filter::Filter;
use crate::meta::Stat;
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
}
