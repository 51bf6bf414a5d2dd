//! The ordered walk: every path of the roots in manifest order, with its stat, read on several threads ahead.
//!
//! Owns the order and the look-ahead. Reads no content and no attributes, and knows nothing of earlier snapshots.

mod ahead;
mod estimate;
mod listing;
mod pick;
mod roots;
mod rules;

pub(crate) use estimate::estimate;
pub use roots::root_key;
pub(crate) use roots::{
    Reach, Station, above, outer_roots, root_keys, root_of, stations, stations_within,
};
pub(crate) use rules::ScanRules;

use crate::meta::Stat;
use crate::path;
use crate::source::Dir;
use ahead::{Ahead, Batch, Task};
use pick::Picker;
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use stillpoint_store::limits::TREE_KEY_BYTES_MAX;

/// Most directories on the way down whose descriptors stay open.
const OPEN_ANCESTORS_MAX: usize = 64;

/// Problem text for a path whose stat cannot be had.
const LOOK_FAILED: &str = "cannot look at it";

/// What the walk met.
#[derive(Debug)]
pub(crate) enum Met<'a> {
    /// A path that is there.
    Path(Place<'a>),
    /// A path of which something could not be found out, and what.
    /// `lost` when it is a station of which nothing is known, not even what lies below it.
    Problem { key: &'a [u8], what: &'static str, errno: Errno, lost: bool },
    /// A station inside a root that is not there, or left out by the rules.
    Gone { key: &'a [u8] },
}

/// One path that is there.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) key: &'a [u8],
    /// The directory that holds it, and its name in there (`.` for the root directory).
    pub(crate) dir: &'a Arc<Dir>,
    pub(crate) name: &'a CStr,
    pub(crate) stat: &'a Stat,
    /// Set for a station; None for what was met below one.
    pub(crate) reach: Option<Reach>,
}

/// A scan: start workers with [`Scan::work`], consume with [`Scan::walk`], end with [`Scan::stop`].
#[derive(Debug)]
pub(crate) struct Scan {
    ahead: Ahead,
    stations: Vec<Station>,
}

impl Scan {
    /// A scan of these stations under these rules.
    pub(crate) fn new(stations: Vec<Station>, rules: ScanRules) -> Self {
        Self { ahead: Ahead::new(rules), stations }
    }

    /// Reads ahead until [`Self::stop`]; call it on each thread that shall help.
    pub(crate) fn work(&self) {
        self.ahead.work();
    }

    /// Ends the workers.
    pub(crate) fn stop(&self) {
        self.ahead.stop();
    }

    /// The walk. Without workers it reads by itself.
    pub(crate) fn walk(&self) -> Walk<'_> {
        Walk {
            ahead: &self.ahead,
            stations: self.stations.iter(),
            frames: Vec::new(),
            key: Vec::new(),
            pending: None,
            at: None,
            reach: Reach::Way,
            entered: None,
            picker: Picker::default(),
        }
    }
}

/// The consumer's side of a scan.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    ahead: &'a Ahead,
    stations: std::slice::Iter<'a, Station>,
    frames: Vec<Frame>,
    key: Vec<u8>,
    /// The directory that was given last; what lies in it comes next.
    pending: Option<Arc<Task>>,
    /// Where the last station lies, so that its place can be lent out.
    at: Option<(Arc<Dir>, CString, Stat)>,
    reach: Reach,
    /// The station inside a root that was walked last: later stations below it are part of it.
    entered: Option<Vec<u8>>,
    picker: Picker,
}

#[derive(Debug)]
struct Frame {
    batch: Batch,
    next: usize,
}

/// What to give out next, without borrows.
enum Next {
    Item,
    Station,
    Problem(&'static str, Errno),
    Lost(Errno),
    Gone,
}

impl Walk<'_> {
    /// The next path in ascending order of keys; None at the end.
    pub(crate) fn next(&mut self) -> Option<Met<'_>> {
        let next = self.advance()?;
        let key = self.key.as_slice();
        Some(match next {
            Next::Problem(what, errno) => Met::Problem { key, what, errno, lost: false },
            Next::Lost(errno) => {
                let lost = self.reach != Reach::Way;
                Met::Problem { key, what: LOOK_FAILED, errno, lost }
            }
            Next::Gone => Met::Gone { key },
            Next::Station => {
                let (dir, name, stat) = self.at.as_ref().expect("set with the station");
                Met::Path(Place { key, dir, name, stat, reach: Some(self.reach) })
            }
            Next::Item => {
                let frame = self.frames.last().expect("an item has a frame");
                let (looked, _) = frame.batch.items.get(frame.next - 1).expect("just passed");
                let listing = &frame.batch.listing;
                let stat = looked.stat.as_ref().expect("a failed look is a problem");
                let name = listing.name(looked.name);
                Met::Path(Place { key, dir: &listing.dir, name, stat, reach: None })
            }
        })
    }

    fn advance(&mut self) -> Option<Next> {
        if let Some(task) = self.pending.take() {
            match self.ahead.take(&task) {
                Ok(batch) => self.push(batch),
                Err(errno) => return Some(Next::Problem("cannot read the directory", errno)),
            }
        }
        while let Some(frame) = self.frames.last_mut() {
            if let Some((looked, below)) = frame.batch.items.get(frame.next) {
                frame.next += 1;
                let name = frame.batch.listing.name(looked.name);
                self.key.clear();
                self.key.extend_from_slice(&frame.batch.listing.key);
                path::push_name(&mut self.key, name.to_bytes());
                if self.key.len() > TREE_KEY_BYTES_MAX {
                    return Some(Next::Problem("the path is too long", Errno::NAMETOOLONG));
                }
                if let Err(errno) = looked.stat {
                    return Some(Next::Problem(LOOK_FAILED, errno));
                }
                self.pending = below.clone();
                return Some(Next::Item);
            }
            match frame.batch.rest.take() {
                Some(rest) => match self.ahead.take(&rest) {
                    Ok(batch) => *frame = Frame { batch, next: 0 },
                    Err(_) => unreachable!("the directory is listed already"),
                },
                None => {
                    frame.batch.listing.dir.release_if_many();
                    self.frames.pop();
                }
            }
        }
        self.next_station()
    }

    fn push(&mut self, batch: Batch) {
        self.frames.push(Frame { batch, next: 0 });
        if let Some(far) = self.frames.len().checked_sub(OPEN_ANCESTORS_MAX)
            && let Some(frame) = self.frames.get(far)
        {
            frame.batch.listing.dir.release();
        }
    }

    /// Goes below the station that was given last, if it is a directory that the rules let in. Later stations there are
    /// part of it.
    pub(crate) fn enter(&mut self) {
        if let Some((dir, name, stat)) = &self.at
            && self.ahead.rules().descends(stat)
        {
            let key = self.key.as_slice().into();
            self.pending = Some(Ahead::task(Arc::clone(dir), name.clone(), key));
        }
        self.entered = Some(self.key.clone());
    }

    fn next_station(&mut self) -> Option<Next> {
        let is_part = |station: &&Station| {
            self.entered.as_ref().is_some_and(|entered| path::is_within(&station.key, entered))
        };
        let station = self.stations.by_ref().find(|station| !is_part(station))?;
        self.key.clone_from(&station.key);
        self.reach = station.reach;
        let found = match station.reach {
            Reach::Way => look_at(&station.key, true).map(Some),
            Reach::Root => look_at(&station.key, false).map(Some),
            Reach::Alone { root_len } | Reach::Whole { root_len } => {
                self.picker.look(self.ahead.rules(), &station.key, root_len)
            }
        };
        match found {
            Ok(Some(at)) => {
                self.at = Some(at);
                if matches!(station.reach, Reach::Root | Reach::Whole { .. }) {
                    self.enter();
                }
                Some(Next::Station)
            }
            Ok(None) => Some(Next::Gone),
            Err(errno) => Some(Next::Lost(errno)),
        }
    }
}

/// Finds a root or what leads to one: the directory that holds it, its name in there, and its stat.
fn look_at(key: &[u8], follow: bool) -> Result<(Arc<Dir>, CString, Stat), Errno> {
    let (dir, name) = match path::parent_key(key) {
        None => (Dir::open_path(std::iter::empty())?, c".".to_owned()),
        Some(parent) => {
            let name = CString::new(path::file_name(key)).map_err(|_| Errno::INVAL)?;
            (Dir::open_path(path::components(parent))?, name)
        }
    };
    let fd = dir.fd()?;
    let stat =
        if follow { Stat::following(fd.as_fd(), &name)? } else { Stat::at(fd.as_fd(), &name)? };
    Ok((dir, name, stat))
}

#[cfg(test)]
#[path = "scan/scan_tests.rs"]
mod tests;
