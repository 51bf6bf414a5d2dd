//! The unlock record: what is needed to give a lock back, on disk before anything is locked, until the lock is given back.
//!
//! A record is a file of four slots, written in turn and in place; the newest that can be read counts. So it is never
//! torn, and writing it under the lock changes no metadata. Its owner holds a lock on the file (`flock`) as long as it
//! lives: a record that nobody holds was left behind.

use super::order::Order;
use crate::error::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use stillpoint_store::{Env as _, SystemEnv};

const SLOTS: u64 = 4;
const SLOT_BYTES: usize = 16 << 10;
const VERSION: u32 = 1;
const ENDING: &str = "json";

/// How far it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordState {
    /// Nothing was asked of the application.
    Prepared,
    /// The application was asked, and the answer is not known.
    Asked,
    /// The lock is held.
    Held,
}

/// What stands in a record. No password does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    sequence: u64,
    /// How far it went.
    pub state: RecordState,
    /// What is to be given back.
    pub order: Order,
    /// The boot of the machine in which it was written.
    pub boot: String,
    /// The watchdog's process.
    pub pid: u32,
    /// When that process was started, in clock ticks since the boot.
    pub started_ticks: u64,
    /// When it was written, seconds since 1970.
    pub written: i64,
    /// How long the lock may be held, milliseconds.
    pub limit_ms: u64,
}

/// A record of this process.
#[derive(Debug)]
pub struct RecordFile {
    file: File,
    path: PathBuf,
    record: Record,
}

/// A record that was found.
#[derive(Debug)]
pub struct Found {
    /// Where.
    pub path: PathBuf,
    /// What stands in it; why it cannot be read.
    pub record: std::result::Result<Record, String>,
    /// True while its owner lives; that one gives the lock back.
    pub is_live: bool,
    /// Held, when nobody else does, until this is dropped.
    _file: File,
}

impl RecordFile {
    /// Writes a record for an order that was not carried out yet.
    ///
    /// # Errors
    /// `Refused` when it cannot be written.
    pub fn create(dir: &Path, order: Order, limit_ms: u64) -> Result<Self> {
        let pid = std::process::id();
        let name = |number: u32| dir.join(format!("{pid}-{number}.{ENDING}"));
        let refuse = |error: std::io::Error| Error::Refused {
            what: format!("the unlock record cannot be kept in {}: {error}", dir.display()),
            hint: Some("choose a directory that survives a restart, with --state-dir".into()),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refuse)?;
        let mut options = OpenOptions::new();
        options.write(true).read(true).create_new(true).mode(0o600);
        let mut number = 0;
        let (file, path) = loop {
            match options.open(name(number)) {
                Ok(file) => break (file, name(number)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(refuse(error)),
            }
        };
        let record = Record {
            version: VERSION,
            sequence: 0,
            state: RecordState::Prepared,
            order,
            boot: SystemEnv.uptime().map(|uptime| uptime.boot).unwrap_or_default(),
            pid,
            started_ticks: started_ticks().unwrap_or_default(),
            written: SystemEnv.now().seconds,
            limit_ms,
        };
        let mut created = Self { file, path, record };
        created.begin().map_err(refuse)?;
        sync_dir(dir).map_err(refuse)?;
        Ok(created)
    }

    fn begin(&mut self) -> std::io::Result<()> {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive)?;
        let blank = vec![b' '; SLOT_BYTES];
        for slot in 1..SLOTS {
            self.file.write_all_at(&blank, slot * u64::try_from(SLOT_BYTES).unwrap_or(0))?;
        }
        self.put()?;
        self.file.sync_all()
    }

    /// Writes how far it went, and waits until that is on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, state: RecordState, order: &Order) -> Result<()> {
        self.record.sequence += 1;
        self.record.state = state;
        self.record.order = order.clone();
        self.record.written = SystemEnv.now().seconds;
        let written = self.put().and_then(|()| self.file.sync_data());
        written.map_err(|error| {
            Error::Failed(format!("writing the unlock record {}: {error}", self.path.display()))
        })
    }

    fn put(&self) -> std::io::Result<()> {
        let mut slot = serde_json::to_vec(&self.record)?;
        if slot.len() >= SLOT_BYTES {
            return Err(std::io::Error::other("the commands of this lock are too long"));
        }
        slot.resize(SLOT_BYTES - 1, b' ');
        slot.push(b'\n');
        let place = self.record.sequence % SLOTS * u64::try_from(SLOT_BYTES).unwrap_or(0);
        self.file.write_all_at(&slot, place)
    }

    /// Removes it: the lock was given back, or never taken.
    pub fn remove(self) {
        remove(&self.path);
    }
}

/// Every record in a directory, oldest name first; none where there is no directory.
///
/// # Errors
/// When the directory cannot be read.
pub fn found(dir: &Path) -> Result<Vec<Found>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::Failed(format!("reading {}: {error}", dir.display())));
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == ENDING))
        .collect();
    paths.sort();
    Ok(paths.into_iter().filter_map(open).collect())
}

/// None: it vanished meanwhile.
fn open(path: PathBuf) -> Option<Found> {
    let file = File::open(&path).ok()?;
    let is_live = flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
    let record = read(&file);
    // It may have been given back between the listing and now.
    path.exists().then_some(Found { path, record, is_live, _file: file })
}

fn read(file: &File) -> std::result::Result<Record, String> {
    let mut newest: Option<Record> = None;
    let mut buffer = vec![0; SLOT_BYTES];
    for slot in 0..SLOTS {
        let place = slot * u64::try_from(SLOT_BYTES).unwrap_or(0);
        if file.read_exact_at(&mut buffer, place).is_err() {
            continue;
        }
        if let Ok(record) = serde_json::from_slice::<Record>(&buffer)
            && newest.as_ref().is_none_or(|newest| record.sequence > newest.sequence)
        {
            newest = Some(record);
        }
    }
    match newest {
        Some(record) if record.version == VERSION => Ok(record),
        Some(record) => Err(format!("it is of version {}", record.version)),
        None => Err("nothing in it can be read".into()),
    }
}

impl Found {
    /// Removes it: the lock was given back.
    pub fn remove(self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    // What is not removed is found again, and giving back twice is harmless.
    let _ = std::fs::remove_file(path);
    if let Some(dir) = path.parent() {
        let _ = sync_dir(dir);
    }
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Field 22 of `/proc/self/stat`, see proc_pid_stat(5).
fn started_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}
