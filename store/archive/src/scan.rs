//! The ordered walk: every path of the roots in manifest order, with its stat, read on several threads ahead.
//!
//! Owns the order and the look-ahead. Reads no content and no attributes, and knows nothing of earlier snapshots.

mod ahead;
mod estimate;
mod listing;
mod roots;
mod rules;

pub(crate) use estimate::estimate;
pub use roots::root_key;
pub(crate) use roots::{Station, root_keys, stations};
pub(crate) use rules::ScanRules;

use crate::meta::Stat;
use crate::path;
use crate::source::Dir;
use ahead::{Ahead, Batch, Task};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use stillpoint_store::limits::TREE_KEY_BYTES_MAX;

/// Most directories on the way down whose descriptors stay open.
const OPEN_ANCESTORS_MAX: usize = 64;

/// What the walk met.
#[derive(Debug)]
pub(crate) enum Met<'a> {
    /// A path that is there.
    Path(Place<'a>),
    /// A path of which something could not be found out, and what.
    Problem { key: &'a [u8], what: &'static str, errno: Errno },
}

/// One path that is there.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) key: &'a [u8],
    /// The directory that holds it, and its name in there (`.` for the root directory).
    pub(crate) dir: &'a Arc<Dir>,
    pub(crate) name: &'a CStr,
    pub(crate) stat: &'a Stat,
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
}

impl Walk<'_> {
    /// The next path in ascending order of keys; None at the end.
    pub(crate) fn next(&mut self) -> Option<Met<'_>> {
        let next = self.advance()?;
        let key = self.key.as_slice();
        Some(match next {
            Next::Problem(what, errno) => Met::Problem { key, what, errno },
            Next::Station => {
                let (dir, name, stat) = self.at.as_ref().expect("set with the station");
                Met::Path(Place { key, dir, name, stat })
            }
            Next::Item => {
                let frame = self.frames.last().expect("an item has a frame");
                let (looked, _) = frame.batch.items.get(frame.next - 1).expect("just passed");
                let listing = &frame.batch.listing;
                let stat = looked.stat.as_ref().expect("a failed look is a problem");
                Met::Path(Place { key, dir: &listing.dir, name: listing.name(looked.name), stat })
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
                    return Some(Next::Problem("cannot look at it", errno));
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

    fn next_station(&mut self) -> Option<Next> {
        let station = self.stations.next()?;
        self.key.clone_from(&station.key);
        let found = match path::parent_key(&station.key) {
            None => Dir::open_path(std::iter::empty()).map(|dir| (dir, c".".to_owned())),
            Some(parent) => Dir::open_path(path::components(parent)).and_then(|dir| {
                let name = CString::new(path::file_name(&station.key)).map_err(|_| Errno::INVAL)?;
                Ok((dir, name))
            }),
        };
        let look = |(dir, name): (Arc<Dir>, CString)| {
            let fd = dir.fd()?;
            let stat = if station.is_root {
                Stat::at(fd.as_fd(), &name)?
            } else {
                Stat::following(fd.as_fd(), &name)?
            };
            Ok::<_, Errno>((dir, name, stat))
        };
        match found.and_then(look) {
            Ok((dir, name, stat)) => {
                if station.is_root && self.ahead.rules().descends(&stat) {
                    let key = station.key.as_slice().into();
                    self.pending = Some(Ahead::task(Arc::clone(&dir), name.clone(), key));
                }
                self.at = Some((dir, name, stat));
                Some(Next::Station)
            }
            Err(errno) => Some(Next::Problem("cannot look at it", errno)),
        }
    }
}

#[cfg(test)]
#[path = "scan/scan_tests.rs"]
mod tests;
