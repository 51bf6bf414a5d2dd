//! The objects that are read before anything else: the configuration and the key slots.

use super::{CheckReport, is_finding};
use crate::backend;
use crate::error::{Error, Result};
use crate::id::{ObjectKind, ObjectName};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::{KeySlot, UncheckedConfig};
use crate::repository::Repository;

impl Repository {
    /// The configuration can still be read, and is the one with which the repository was opened.
    pub(super) fn check_config(&self, report: &mut CheckReport) -> Result<()> {
        let name = ObjectName::Config;
        let config = backend::read_whole(&*self.backend, &name, RECORD_BYTES_MAX)
            .and_then(|bytes| UncheckedConfig::parse(&bytes)?.check(&self.metadata));
        match config {
            Ok(config) if config == self.config => Ok(()),
            Ok(_) => {
                report.found(name, "it is not the one with which the repository was opened");
                Ok(())
            }
            Err(error) if is_finding(&error) => {
                report.found(name, super::detail(&error));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Every key slot can be read. Whether its secret opens it only its owner can tell.
    pub(super) fn check_slots(&self, report: &mut CheckReport) -> Result<()> {
        let mut readable = 0u64;
        for (name, _) in self.backend.list(ObjectKind::Key)? {
            let ObjectName::Key(id) = name else { continue };
            let slot = backend::read_whole(&*self.backend, &name, RECORD_BYTES_MAX)
                .and_then(|bytes| KeySlot::parse(id, &bytes));
            match slot {
                Ok(_) => readable += 1,
                // Removed since it was listed.
                Err(Error::Missing { .. }) => {}
                Err(Error::Unsupported { .. }) => readable += 1,
                Err(error) if is_finding(&error) => report.found(name, super::detail(&error)),
                Err(error) => return Err(error),
            }
        }
        if readable == 0 {
            report.found(None, "no key slot can be read: nobody can open the repository any more");
        }
        Ok(())
    }
}
