//! Parity: extra objects from which lost or damaged packs are computed again, without any key.
//!
//! Packs are gathered into groups of up to K; each group gets M parity objects, and any K of its K + M objects give the
//! others (Reed-Solomon over the sealed bytes). The code runs over stripes, each part of which has a checksum, so what
//! is lost may be whole objects or scattered bytes of many.
//!
//! **Order.** A group is *announced* first: one commit puts its packs and the names of its parity objects, fresh random
//! ones, into the catalogue. Then the objects are written; then a second commit makes the group *complete*, but only if
//! its announcement is still there. Therefore a parity object that the head does not name will never be named by any:
//! either its announcement was taken out, and no commit puts one back, or the object would not have been written. So
//! whoever lists the objects and *then* reads a head may remove those that it does not name, at once, whoever is at
//! work; no clock and no fence is needed. An announcement of a run that died is taken over by the next `parity add`.
//!
//! **What counts.** Checksums in parity objects are in the clear: they find damage and mean nothing else. What is
//! restored is believed only when its BLAKE3 is the one in the catalogue.
//!
//! **Packs that die.** A pack that is condemned and deleted is one loss for its group. A group that can heal nothing any
//! more is spent; prune takes it out of the catalogue and removes its objects ([`Repository::tidy_parity`]).
//!
//! Knows nothing of chunks, frames and snapshots.
//!
//! [`Repository::tidy_parity`]: crate::Repository::tidy_parity

mod add;
mod code;
mod encode;
mod entry;
mod group;
mod heal;
mod layout;
mod object;
mod plan;
mod status;
mod survey;
mod tidy;
mod verify;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod object_tests;
#[cfg(test)]
mod plan_tests;

pub use add::{ParityProgress, ParityReport};
pub use entry::{Groups, ParityEntry, ParityObjects};
pub use heal::Healed;
pub use object::{ParityDescription, describe};
pub use plan::{ParityPlan, PlannedGroup};
pub use status::{GroupStatus, ParityStatus};
pub use tidy::{ParityRemoval, Tidied};
pub use verify::ParityCheck;

/// Length of a stripe in new groups: 64 KiB.
pub const STRIPE_BYTES: u32 = 64 << 10;

/// How to form groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParityOptions {
    /// Most packs in a group.
    pub data: usize,
    /// Parity objects of each group: so many of its objects may be lost.
    pub parity: usize,
    /// Form groups anew that have lost packs, have room for more, or have less parity.
    pub regroup: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl Default for ParityOptions {
    fn default() -> Self {
        Self { data: 10, parity: 2, regroup: false, dry_run: false }
    }
}
