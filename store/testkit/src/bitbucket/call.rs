//! The calls of the contract, from the first line of a request.

use serde::{Deserialize, Serialize};

/// A call of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Asks for the lock.
    Lock,
    /// Starts the backup task.
    Start,
    /// Asks for the states of database and files.
    Status,
    /// Tells how far the client is.
    Progress,
    /// Gives the lock back.
    Unlock,
    /// Cancels the backup task.
    Cancel,
    /// Asks whether there is a lock.
    LockInfo,
    /// Asks for the version.
    Properties,
    /// Asks how the instance is.
    Health,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Lock,
        Self::Start,
        Self::Status,
        Self::Progress,
        Self::Unlock,
        Self::Cancel,
        Self::LockInfo,
        Self::Properties,
        Self::Health,
    ];

    /// The call that a method and a path (below the context) mean.
    pub fn of(method: &str, path: &str) -> Option<Self> {
        Some(match (method, path) {
            ("POST", "/mvc/maintenance/lock") => Self::Lock,
            ("DELETE", "/mvc/maintenance/lock") => Self::Unlock,
            ("GET", "/mvc/maintenance/lock") => Self::LockInfo,
            ("POST", "/mvc/admin/backups") => Self::Start,
            ("POST", "/mvc/admin/backups/progress/client") => Self::Progress,
            ("GET", "/mvc/maintenance") => Self::Status,
            ("POST", "/mvc/maintenance") => Self::Cancel,
            ("GET", "/rest/api/1.0/application-properties") => Self::Properties,
            ("GET", "/status") => Self::Health,
            _ => return None,
        })
    }

    /// True where no log-in is asked for.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Properties | Self::Health)
    }

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Start => "start",
            Self::Status => "status",
            Self::Progress => "progress",
            Self::Unlock => "unlock",
            Self::Cancel => "cancel",
            Self::LockInfo => "lock-info",
            Self::Properties => "properties",
            Self::Health => "health",
        }
    }

    /// The call of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|call| call.name() == name)
    }
}
