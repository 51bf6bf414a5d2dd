//! A whole file system as what is locked: no write gets through while it is frozen (FIFREEZE).
//!
//! The application is in the middle of something; its files are as after a power cut. Needs CAP_SYS_ADMIN.

use super::guarded::Guarded;
use super::keeper::Keeper;
use super::order::{Hitch, Order, TakeError};
use super::sys;
use super::{Drain, Level, LockAdapter, Rehearsal, Tell, whole};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// CAP_SYS_ADMIN in the mask of /proc/self/status.
const SYS_ADMIN: u64 = 1 << 21;

/// File systems that are frozen together.
pub struct FsFreeze {
    paths: Vec<PathBuf>,
    guarded: Guarded,
}

impl FsFreeze {
    /// Freezes the file systems that these directories are on; each file system once, in this order.
    pub fn new(paths: Vec<PathBuf>, keeper: Keeper, tell: Tell) -> Self {
        let paths: Vec<PathBuf> = paths.iter().map(|path| whole(path)).collect();
        let order = Order::FsFreeze(Held { paths: paths.clone(), frozen: None });
        Self { paths, guarded: Guarded::new(keeper, order, tell) }
    }
}

fn refuse(what: String, hint: &str) -> Error {
    Error::Refused { what, hint: Some(hint.into()) }
}

/// The device numbers of file systems; each may stand there once.
fn devices(paths: &[PathBuf]) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for path in paths {
        let device = path.metadata().map(|stat| stat.dev()).map_err(|error| {
            refuse(format!("{}: {error}", path.display()), "name a directory that exists")
        })?;
        if found.contains(&device) {
            return Err(refuse(
                format!("{} is on a file system that is named already", path.display()),
                "name one directory of each file system",
            ));
        }
        found.push(device);
    }
    Ok(found)
}

fn may_freeze() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & SYS_ADMIN != 0)
}

impl LockAdapter for FsFreeze {
    fn level(&self) -> Level {
        Level::Filesystem
    }

    fn rehearse(&mut self) -> Result<Rehearsal> {
        if !may_freeze() {
            return Err(refuse(
                "freezing a file system needs the capability CAP_SYS_ADMIN".into(),
                "run as root, or choose another lock",
            ));
        }
        let devices = devices(&self.paths)?;
        if devices.is_empty() {
            return Err(refuse("no file system is named".into(), "name a directory on it"));
        }
        // The watchdog starts, and makes its directory, before that is looked at.
        let notes = self.guarded.rehearse()?;
        let state = self.guarded.keeper().state_dir();
        if state.metadata().is_ok_and(|stat| devices.contains(&stat.dev())) {
            return Err(refuse(
                format!("{} is on a file system that would be frozen", state.display()),
                "choose another state directory, with --state-dir",
            ));
        }
        let names: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        Ok(Rehearsal {
            application: format!("the file system of {}", names.join(", ")),
            notes,
            frozen: self.paths.clone(),
            ..Rehearsal::default()
        })
    }

    fn lock(&mut self) -> Result<()> {
        self.guarded.take()
    }

    fn drain(&mut self) -> Result<Drain> {
        self.guarded.confirm()?;
        Ok(Drain::Drained)
    }

    fn progress(&mut self, _percent: u8) -> Result<()> {
        self.guarded.confirm()
    }

    fn complete(&mut self) -> Result<()> {
        self.guarded.complete()
    }

    fn unlock(&mut self) -> Result<()> {
        self.guarded.give_back()
    }
}

/// File systems as an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    paths: Vec<PathBuf>,
    /// Those that were frozen; None: not known.
    frozen: Option<Vec<PathBuf>>,
}

impl Held {
    pub(crate) fn title(&self) -> String {
        let names: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        format!("the file system of {}", names.join(", "))
    }

    pub(crate) fn manual(&self) -> String {
        let commands = self.paths.iter().map(|path| format!("fsfreeze -u {}", path.display()));
        commands.collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn take(&mut self) -> std::result::Result<(), TakeError> {
        self.frozen = Some(Vec::new());
        for path in self.paths.clone() {
            let error = match File::open(&path).and_then(|dir| sys::freeze(&dir)) {
                Ok(()) => {
                    self.frozen.get_or_insert_default().push(path);
                    continue;
                }
                Err(error) => error,
            };
            let text = format!("freezing the file system of {}: {error}", path.display());
            let is_first = self.frozen.as_ref().is_none_or(Vec::is_empty);
            return Err(match (is_first, error.kind()) {
                (false, _) => TakeError::Halfway(text),
                (true, io::ErrorKind::ResourceBusy) => {
                    TakeError::Occupied { owner: "somebody who froze it before".into() }
                }
                (true, _) => TakeError::NotLocked(text),
            });
        }
        Ok(())
    }

    pub(crate) fn give_back(&self) -> std::result::Result<String, Hitch> {
        let mut trouble = None;
        for path in self.frozen.as_ref().unwrap_or(&self.paths).iter().rev() {
            if let Err(error) = thaw(path) {
                trouble = Some(format!("thawing the file system of {}: {error}", path.display()));
            }
        }
        match trouble {
            None => Ok(format!("{} thawed", self.title())),
            Some(text) => Err(Hitch::passing(text)),
        }
    }
}

/// Thaws; one that is not frozen is thawed already.
fn thaw(path: &Path) -> io::Result<()> {
    match sys::thaw(&File::open(path)?) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}
