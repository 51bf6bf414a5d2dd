//! Snapshots as commands select and show them.

use crate::args::FilterArgs;
use crate::json;
use crate::listing;
use crate::text;
use serde::Serialize;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use stillpoint_store::prune::PruneOptions;
use stillpoint_store::record::{CaptureInfo, Summary};
use stillpoint_store::repository::Snapshot;
use stillpoint_store::{Forgotten, Timestamp};

/// True when the snapshot passes host, tag and path.
pub fn matches(filter: &FilterArgs, snapshot: &Snapshot) -> bool {
    let record = &snapshot.record;
    let host = filter.host.is_empty() || filter.host.contains(&record.host);
    let tags = filter.tag.is_empty()
        || filter.tag.iter().any(|set| match tag_set(set).as_slice() {
            [none] if none.is_empty() => record.tags.is_empty(),
            tags => tags.iter().all(|tag| record.tags.contains(tag)),
        });
    let paths = filter.path.iter().all(|path| {
        let wanted = spellings(path);
        record.paths.iter().any(|has| wanted.iter().any(|path| path == has.as_slice()))
    });
    host && tags && paths
}

/// The tags of a list with commas; nothing at all stands for having no tag, as one empty tag.
pub fn tag_set(list: &str) -> Vec<String> {
    let tags: Vec<_> = list.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
    if tags.is_empty() { vec![String::new()] } else { tags }
}

/// What a snapshot may have recorded for this path: names of streams as they stand, paths as `snapshot` makes them
/// absolute.
fn spellings(path: &Path) -> Vec<Vec<u8>> {
    let absolute = stillpoint_archive::root_key(path).ok().map(|key| listing::path_bytes(&key));
    absolute.into_iter().chain([path.as_os_str().as_bytes().to_vec()]).collect()
}

/// The snapshots that pass the filter, oldest first.
pub fn select(filter: &FilterArgs, snapshots: Vec<Snapshot>) -> Vec<Snapshot> {
    snapshots.into_iter().filter(|snapshot| matches(filter, snapshot)).collect()
}

/// Paths of a snapshot in one safe line.
pub fn paths(snapshot: &Snapshot) -> String {
    list(snapshot.record.paths.iter().map(|path| path.as_slice()))
}

/// Names in one safe line.
pub fn list<'a>(names: impl Iterator<Item = &'a [u8]>) -> String {
    names.map(text::name).collect::<Vec<_>>().join(", ")
}

/// A snapshot in JSON; the names are those that restic's users know.
#[derive(Debug, Serialize)]
pub struct SnapshotJson<'a> {
    id: String,
    short_id: String,
    time: String,
    started: String,
    parent: Option<String>,
    tree: String,
    hostname: &'a str,
    username: &'a str,
    paths: Vec<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths_bytes: Option<Vec<String>>,
    tags: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    excludes: &'a [String],
    program_version: &'a str,
    committed: String,
    protected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<OriginalJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<CaptureJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forgotten: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recoverable_until: Option<String>,
    summary: SummaryJson,
}

/// What a snapshot is a copy of.
#[derive(Debug, Serialize)]
struct OriginalJson {
    repository: String,
    snapshot: String,
}

/// How a snapshot was captured; times are milliseconds.
#[derive(Debug, Serialize)]
pub struct CaptureJson<'a> {
    level: &'static str,
    draft: bool,
    lock: &'a str,
    changes: &'a str,
    locked_ms: Option<f64>,
    own_ms: Option<f64>,
    request_ms: f64,
    drain_ms: f64,
    freeze_ms: f64,
    release_ms: f64,
    residual_files: u64,
    residual_bytes: u64,
    warm_passes: u32,
    databases: &'a [String],
}

impl<'a> CaptureJson<'a> {
    /// The figures of a capture.
    pub fn new(info: &'a CaptureInfo) -> Self {
        Self {
            level: info.level.name(),
            draft: info.draft,
            lock: &info.lock,
            changes: &info.changes,
            locked_ms: info.locked_ns.map(text::milliseconds),
            own_ms: info.own_ns().map(text::milliseconds),
            request_ms: text::milliseconds(info.request_ns),
            drain_ms: text::milliseconds(info.drain_ns),
            freeze_ms: text::milliseconds(info.freeze_ns),
            release_ms: text::milliseconds(info.release_ns),
            residual_files: info.residual_files,
            residual_bytes: info.residual_bytes,
            warm_passes: info.warm_passes,
            databases: &info.databases,
        }
    }
}

impl<'a> SnapshotJson<'a> {
    /// The snapshot's fields.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let record = &snapshot.record;
        let exact = record.paths.iter().all(|path| std::str::from_utf8(path).is_ok());
        Self {
            id: snapshot.id.to_string(),
            short_id: snapshot.id.short(),
            time: json::moment(record.time),
            started: json::moment(record.started),
            parent: record.parent.map(|parent| parent.to_string()),
            tree: record.root.id.to_string(),
            hostname: &record.host,
            username: &record.user,
            paths: record.paths.iter().map(|path| String::from_utf8_lossy(path)).collect(),
            paths_bytes: (!exact)
                .then(|| record.paths.iter().map(|path| json::hex(path)).collect()),
            tags: &record.tags,
            description: &record.description,
            excludes: &record.excludes,
            program_version: &record.program,
            committed: json::moment(snapshot.committed),
            protected: snapshot.protected,
            original: record.original.map(|original| OriginalJson {
                repository: original.repository.to_string(),
                snapshot: original.snapshot.to_string(),
            }),
            capture: record.capture.as_ref().map(CaptureJson::new),
            forgotten: None,
            recoverable_until: None,
            summary: SummaryJson::new(&record.summary),
        }
    }
}

impl<'a> SnapshotJson<'a> {
    /// The fields of a forgotten snapshot.
    pub fn forgotten(one: &'a Forgotten) -> Self {
        Self {
            forgotten: Some(json::moment(one.forgotten)),
            recoverable_until: Some(json::moment(recoverable_until(one))),
            ..Self::new(&one.snapshot)
        }
    }
}

/// When a prune may remove a forgotten snapshot for good, by the usual `--keep-forgotten`.
pub fn recoverable_until(one: &Forgotten) -> Timestamp {
    let window = PruneOptions::default().keep_forgotten.as_nanos();
    Timestamp::from_nanos(one.forgotten.as_nanos() + i128::try_from(window).unwrap_or(0))
}

/// The figures of a run in JSON.
#[derive(Debug, Serialize)]
pub struct SummaryJson {
    files_new: u64,
    files_changed: u64,
    files_unmodified: u64,
    dirs_new: u64,
    dirs_changed: u64,
    dirs_unmodified: u64,
    others: u64,
    total_files_processed: u64,
    total_bytes_processed: u64,
    bytes_read: u64,
    data_blobs: u64,
    data_added: u64,
    data_added_packed: u64,
    total_duration: f64,
    error_count: u64,
}

impl SummaryJson {
    /// The figures under the names that restic's users know.
    pub fn new(summary: &Summary) -> Self {
        Self {
            files_new: summary.files_new,
            files_changed: summary.files_changed,
            files_unmodified: summary.files_unmodified,
            dirs_new: summary.dirs_new,
            dirs_changed: summary.dirs_changed,
            dirs_unmodified: summary.dirs_unmodified,
            others: summary.others,
            total_files_processed: files(summary),
            total_bytes_processed: summary.bytes_total,
            bytes_read: summary.bytes_read,
            data_blobs: summary.chunks_new,
            data_added: summary.bytes_added,
            data_added_packed: summary.bytes_stored,
            total_duration: summary.duration_ns as f64 / 1e9,
            error_count: summary.problems,
        }
    }
}

/// All files that the run saw.
pub fn files(summary: &Summary) -> u64 {
    summary.files_new.saturating_add(summary.files_changed).saturating_add(summary.files_unmodified)
}
