//! Hard links: an inode with several names is read under the first of them.
//!
//! Bounded memory; what does not fit is read again under each name, which costs time and nothing else.

use crate::meta::Stat;
use std::collections::HashMap;

/// Most memory for entries of inodes whose further names have not come yet, bytes.
pub(super) const LINKS_BYTES_MAX: usize = 32 << 20;
/// What one inode costs beyond its entry, bytes.
const LINK_COST: usize = 96;

/// Device and inode.
type LinkId = (u64, u64);

/// The inodes on their way.
#[derive(Debug, Default)]
pub(super) struct Links {
    known: HashMap<LinkId, Link>,
    bytes: usize,
}

#[derive(Debug)]
struct Link {
    /// The stat under which the first name was given to a worker.
    stat: Stat,
    /// Names that have not come yet.
    names_left: u32,
    /// The entry, once it is there; empty when the first name could not be saved.
    value: Option<Vec<u8>>,
}

impl Links {
    /// Whether this inode, in this state, is on its way under another name already.
    pub(super) fn is_known(&self, stat: &Stat) -> bool {
        self.known.get(&id(stat)).is_some_and(|link| link.stat == *stat)
    }

    /// The first name of an inode goes to a worker. True when its entry will be wanted by [`Self::resolve`].
    pub(super) fn begin(&mut self, stat: &Stat) -> bool {
        if stat.nlink < 2 || self.bytes + LINK_COST > LINKS_BYTES_MAX {
            return false;
        }
        let link = Link { stat: *stat, names_left: stat.nlink - 1, value: None };
        self.bytes += LINK_COST;
        if let Some(before) = self.known.insert(id(stat), link) {
            self.bytes -= LINK_COST + before.value.map_or(0, |value| value.len());
        }
        true
    }

    /// The first name of the inode in this state is done; empty bytes when that state could not be saved.
    pub(super) fn resolve(&mut self, stat: &Stat, value: &[u8]) {
        let id = id(stat);
        let Some(link) = self.known.get_mut(&id).filter(|link| link.stat == *stat) else { return };
        self.bytes -= link.value.take().map_or(0, |before| before.len());
        if value.is_empty() || self.bytes + value.len() > LINKS_BYTES_MAX {
            self.known.remove(&id);
            self.bytes -= LINK_COST;
            return;
        }
        self.bytes += value.len();
        link.value = Some(value.to_vec());
    }

    /// The entry for a further name of the inode in this state; None when it has to be read under this one.
    pub(super) fn take(&mut self, stat: &Stat) -> Option<Vec<u8>> {
        let id = id(stat);
        let link = self.known.get_mut(&id).filter(|link| link.stat == *stat)?;
        link.names_left = link.names_left.saturating_sub(1);
        if link.names_left > 0 {
            return link.value.clone();
        }
        let link = self.known.remove(&id).expect("just seen");
        self.bytes -= LINK_COST + link.value.as_ref().map_or(0, Vec::len);
        link.value
    }
}

/// The id of an inode.
fn id(stat: &Stat) -> LinkId {
    (stat.device, stat.inode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::tests::stat;

    fn linked(inode: u64, nlink: u32) -> Stat {
        Stat { inode, nlink, ..stat() }
    }

    // The entry of the first name serves the others, and is forgotten with the last of them.
    #[test]
    fn first_name_serves_the_others() {
        let mut links = Links::default();
        let stat = linked(5, 3);
        assert!(!links.is_known(&stat) && links.begin(&stat) && links.is_known(&stat));
        assert!(!links.is_known(&Stat { size: 99, ..stat }), "another state is another file");
        links.resolve(&stat, b"entry");
        assert_eq!(links.take(&stat).unwrap(), b"entry");
        assert_eq!(links.take(&stat).unwrap(), b"entry");
        assert_eq!(links.take(&stat), None);
        assert_eq!((links.bytes, links.known.len()), (0, 0));
        assert!(!links.begin(&linked(6, 1)), "a file with one name");
    }

    // A first name that could not be saved does not decide for the others.
    #[test]
    fn failed_first_names_are_forgotten() {
        let mut links = Links::default();
        let stat = linked(5, 3);
        links.begin(&stat);
        links.resolve(&stat, b"");
        assert_eq!(links.take(&stat), None);
        assert_eq!(links.bytes, 0);
    }

    // An entry that is replaced by a shorter one, a longer one or none is charged for what is there.
    #[test]
    fn replaced_entries_are_charged_once() {
        let mut links = Links::default();
        let stat = linked(5, 3);
        links.begin(&stat);
        for value in [b"a long entry".as_slice(), b"short", b"longer again"] {
            links.resolve(&stat, value);
            assert_eq!(links.bytes, LINK_COST + value.len());
        }
        links.resolve(&stat, b"");
        assert_eq!((links.bytes, links.known.len()), (0, 0));
    }

    // An inode that was seen in two states: what becomes of one state says nothing about the other.
    #[test]
    fn states_of_an_inode_are_kept_apart() {
        let mut links = Links::default();
        let (old, new) = (linked(5, 3), Stat { size: 99, ..linked(5, 3) });
        links.begin(&old);
        links.begin(&new);
        links.resolve(&old, b"old entry");
        assert_eq!((links.take(&old), links.take(&new)), (None, None));
        links.resolve(&new, b"new entry");
        links.resolve(&old, b"");
        assert_eq!(links.take(&old), None);
        links.resolve(&new, b"new entry");
        assert_eq!(links.bytes, LINK_COST + 9);
        assert_eq!(links.take(&new).unwrap(), b"new entry");
    }

    // Memory is bounded: what does not fit is not remembered.
    #[test]
    fn memory_is_bounded() {
        let mut links = Links::default();
        let mut inode = 0;
        while links.begin(&linked(inode, 2)) {
            links.resolve(&linked(inode, 2), &vec![1; 1 << 20]);
            inode += 1;
            assert!(links.bytes <= LINKS_BYTES_MAX);
            assert!(inode < 1 << 20, "the bound is reached");
            if inode > 64 && links.known.len() < 64 {
                break;
            }
        }
        assert!(links.known.values().all(|link| link.value.is_some()));
    }
}
