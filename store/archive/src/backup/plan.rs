//! What a backup will do, decided before anything is read: keys of roots and streams, rules, the record's text.
//!
//! Looks at the roots themselves (are they there, on which device); reads nothing below them.

use super::{BackupOptions, ParentChoice};
use crate::filter::{Filter, FilterOptions};
use crate::meta::Stat;
use crate::path;
use crate::pipeline::Extra;
use crate::scan::{ScanRules, root_keys};
use crate::source::Dir;
use rustix::fd::AsFd;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use stillpoint_store::record::SnapshotRecord;
use stillpoint_store::repository::Snapshot;
use stillpoint_store::tree::Root;
use stillpoint_store::{ChunkId, Error, Result, Timestamp};

/// A backup that is ready to run.
pub(super) struct Plan {
    pub(super) source: Source,
    /// Everything that the options say; root, times and figures are still to come.
    pub(super) record: SnapshotRecord,
    pub(super) parent: ParentChoice,
}

/// What is read.
pub(super) struct Source {
    pub(super) roots: Vec<Vec<u8>>,
    pub(super) rules: ScanRules,
    pub(super) extras: VecDeque<(Vec<u8>, Extra)>,
    filter: FilterOptions,
}

impl Source {
    /// The part of it that counting needs.
    pub(super) fn clone_for_count(&self) -> Result<(Vec<Vec<u8>>, ScanRules)> {
        let filter = Filter::new(&self.filter)?;
        Ok((self.roots.clone(), ScanRules { filter, devices: self.rules.devices.clone() }))
    }
}

impl Plan {
    /// Checks the options and decides.
    ///
    /// # Errors
    /// `Invalid` for what cannot work.
    pub(super) fn new(options: BackupOptions) -> Result<Self> {
        if options.roots.is_empty() && options.streams.is_empty() {
            return Err(Error::Invalid("there is nothing to save".into()));
        }
        let roots = root_keys(&options.roots)?;
        let devices = devices(&roots);
        if devices.is_empty() && !roots.is_empty() && options.streams.is_empty() {
            return Err(Error::Invalid("none of the paths can be looked at".into()));
        }
        let mut paths: BTreeSet<Vec<u8>> = paths_of(&roots).into_iter().collect();
        let mut extras = BTreeMap::new();
        for stream in options.streams {
            let name = stream.name().trim_start_matches('/').to_owned();
            let key = path::key_from_path(&Path::new("/").join(&name))?;
            if key.is_empty() {
                return Err(Error::Invalid("a stream needs a name".into()));
            }
            let mut above = path::parent_key(&key);
            while let Some(directory) = above {
                if let Some(Extra::Stream(_)) = extras.insert(directory.to_vec(), Extra::Directory)
                {
                    return Err(taken(&name));
                }
                above = path::parent_key(directory);
            }
            if extras.insert(key, Extra::Stream(stream)).is_some() {
                return Err(taken(&name));
            }
            paths.insert(name.into_bytes());
        }
        let filter = Filter::new(&options.filter)?;
        let mut record = SnapshotRecord::new(Timestamp::default(), NO_ROOT);
        record.host = options.host;
        record.user = options.user;
        record.tags = options.tags;
        record.description = options.description;
        record.program = options.program;
        record.capture = options.capture;
        record.paths = paths.into_iter().map(Into::into).collect();
        record.excludes = excludes(&options.filter);
        let rules = ScanRules { filter, devices: options.one_file_system.then_some(devices) };
        let source =
            Source { roots, rules, extras: extras.into_iter().collect(), filter: options.filter };
        Ok(Self { source, record, parent: options.parent })
    }

    /// The snapshot to compare with, out of those that there are, oldest first.
    ///
    /// # Errors
    /// `NoSuchSnapshot` when the one that was asked for is not among them.
    pub(super) fn parent(&self, snapshots: &[Snapshot]) -> Result<Option<Snapshot>> {
        match self.parent {
            ParentChoice::Nothing => Ok(None),
            ParentChoice::Latest => {
                let is_same = |snapshot: &&Snapshot| {
                    snapshot.record.host == self.record.host
                        && snapshot.record.paths == self.record.paths
                };
                Ok(snapshots.iter().rfind(is_same).cloned())
            }
            ParentChoice::Snapshot(id) => {
                let found = snapshots.iter().find(|snapshot| snapshot.id == id).cloned();
                let detail = format!("there is no snapshot {id} to serve as parent");
                found.map(Some).ok_or(Error::NoSuchSnapshot { detail })
            }
        }
    }
}

pub(super) fn taken(name: &str) -> Error {
    Error::Invalid(format!("the stream {name} collides with the name of another one"))
}

/// Keys of roots as the record names them.
pub(super) fn paths_of(roots: &[Vec<u8>]) -> Vec<Vec<u8>> {
    roots.iter().map(|key| path::path_from_key(key).as_os_str().as_bytes().to_vec()).collect()
}

/// Stands in a record until there is a manifest.
const NO_ROOT: Root = Root { id: ChunkId::from_bytes([0; 32]), level: 0, entries: 0, bytes: 0 };

/// The devices of those roots that are there.
pub(crate) fn devices(roots: &[Vec<u8>]) -> BTreeSet<u64> {
    let device = |key: &Vec<u8>| {
        let parent = path::parent_key(key).unwrap_or_default();
        let dir = Dir::open_path(path::components(parent)).ok()?;
        let name = match path::file_name(key) {
            b"" => c".".to_owned(),
            name => CString::new(name).ok()?,
        };
        Some(Stat::at(dir.fd().ok()?.as_fd(), &name).ok()?.device)
    };
    roots.iter().filter_map(device).collect()
}

/// The rules as the record shows them.
fn excludes(filter: &FilterOptions) -> Vec<String> {
    let mut texts = filter.excludes.clone();
    texts.extend(filter.excludes_ignoring_case.iter().map(|p| format!("(any case) {p}")));
    texts.extend(filter.if_present.iter().map(|name| format!("(if present) {name}")));
    texts.extend(filter.caches.then(|| "(caches)".to_string()));
    texts.extend(filter.larger_than.map(|size| format!("(larger than {size} bytes)")));
    texts
}
