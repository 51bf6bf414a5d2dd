//! Which snapshot a copy builds on: the nearest one that lies on both sides already.

use std::collections::BTreeMap;
use stillpoint_store::record::Original;
use stillpoint_store::{RepositoryId, Snapshot};

/// Snapshots of the destination by what they are copies of.
pub(super) type Twins = BTreeMap<Original, Snapshot>;

/// The snapshot of the source that differs least, by what the records say, and its twin in the destination: the
/// parent, or else the one of the same paths, if possible of the same host, that is nearest in time.
pub(super) fn choose<'s>(
    wanted: &Snapshot,
    source: RepositoryId,
    live: &'s [Snapshot],
    twins: &'s Twins,
) -> Option<(&'s Snapshot, &'s Snapshot)> {
    let is_parent = |snapshot: &Snapshot| wanted.record.parent == Some(snapshot.id);
    live.iter()
        .filter(|one| one.id != wanted.id)
        .filter(|one| is_parent(one) || one.record.paths == wanted.record.paths)
        .filter_map(|one| Some((one, twins.get(&one.original(source))?)))
        .min_by_key(|(one, _)| {
            let distance = one.record.time.as_nanos() - wanted.record.time.as_nanos();
            (!is_parent(one), one.record.host != wanted.record.host, distance.abs(), one.id)
        })
}
