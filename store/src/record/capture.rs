//! What a snapshot record says of the capture that made it: how consistent it is, and how long the lock was held.

use serde::{Deserialize, Serialize};

/// What moment a snapshot shows. Never more is claimed than was reached.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// A live walk: each file as it was when it was read.
    #[default]
    None,
    /// One instant of the file system; the application was not asked.
    Filesystem,
    /// One instant of an application that held still.
    Application,
}

impl Consistency {
    /// Its name, as records and messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Filesystem => "filesystem",
            Self::Application => "application",
        }
    }
}

/// Figures of a capture. Durations are nanoseconds of a clock that never jumps; "locked" is from the request for the lock
/// to the acknowledged unlock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureInfo {
    /// What the snapshot shows.
    pub level: Consistency,
    /// A pass of a capture that was not finished: a base for the next one, not for restoring.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub draft: bool,
    /// The lock adapter.
    pub lock: String,
    /// How the changes of the last moment were found: `journal`, `walk`, `snapshot` or `live`.
    pub changes: String,
    /// From the request for the lock to the acknowledged unlock; None where nothing was locked.
    pub locked_ns: Option<u64>,
    /// Of that: the request itself.
    pub request_ns: u64,
    /// Of that: the application finished what it had begun.
    pub drain_ns: u64,
    /// Of that: our own work under the lock.
    pub freeze_ns: u64,
    /// Of that: the release.
    pub release_ns: u64,
    /// Entries that were held under the lock.
    pub residual_files: u64,
    /// Bytes of their content.
    pub residual_bytes: u64,
    /// Passes before the lock.
    pub warm_passes: u32,
    /// The databases in it.
    pub databases: Vec<String>,
}

impl CaptureInfo {
    /// What the lock cost beyond the application's own draining, nanoseconds.
    pub fn own_ns(&self) -> Option<u64> {
        self.locked_ns.map(|locked| locked.saturating_sub(self.drain_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The levels are ordered by what they promise, and their names are what is stored.
    #[test]
    fn levels() {
        assert!(Consistency::None < Consistency::Filesystem);
        assert!(Consistency::Filesystem < Consistency::Application);
        for level in [Consistency::None, Consistency::Filesystem, Consistency::Application] {
            let stored = crate::record::to_cbor(&level);
            assert_eq!(&stored[1..], level.name().as_bytes());
        }
    }

    // What a later program adds is skipped, what an older one lacks is empty.
    #[test]
    fn fields_may_come_and_go() {
        let info = CaptureInfo { locked_ns: Some(30), drain_ns: 10, ..CaptureInfo::default() };
        assert_eq!(info.own_ns(), Some(20));
        let bytes = crate::record::to_cbor(&info);
        let read: CaptureInfo = ciborium::from_reader(bytes.as_slice()).unwrap();
        assert_eq!(read, info);
        let empty: CaptureInfo = ciborium::from_reader([0xa0].as_slice()).unwrap();
        assert_eq!(empty, CaptureInfo::default());
    }
}
