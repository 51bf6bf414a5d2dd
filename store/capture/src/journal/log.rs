//! What changed since any of several positions: the change sets of a journal that runs for long, one behind the other.
//!
//! Pure. Bounded: when too much is kept, the two oldest sets become one; a position between them is then answered with both, which
//! names more and forgets nothing.

use super::fold::{Fold, LINKED_MAX};
use super::{ChangeSet, Gap};
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

/// A moment in a journal's life. Means something to that journal only, for as long as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which journal.
    pub(super) journal: String,
    /// How many sets it had given by then.
    pub(super) number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.journal, self.number)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once('.').filter(|(journal, _)| !journal.is_empty());
        let number = parts.and_then(|(_, number)| number.parse().ok());
        match (parts, number) {
            (Some((journal, _)), Some(number)) => Ok(Self { journal: journal.to_owned(), number }),
            _ => Err(format!("{text:?} is no position of a journal")),
        }
    }
}

/// The sets that a journal gave, oldest first.
#[derive(Debug)]
pub(super) struct Log {
    journal: String,
    /// Each with the position behind it.
    sets: VecDeque<(u64, ChangeSet)>,
    next: u64,
    roots: Vec<Vec<u8>>,
    named_max: usize,
}

impl Log {
    /// A log without sets for the journal of this name.
    pub(super) fn new(journal: String, roots: Vec<Vec<u8>>, named_max: usize) -> Self {
        Self { journal, sets: VecDeque::new(), next: 0, roots, named_max }
    }

    /// Adds what changed since the last set, and gives the position behind it.
    pub(super) fn push(&mut self, set: ChangeSet) -> Position {
        if !set.is_empty() {
            self.next += 1;
            self.sets.push_back((self.next, set));
            self.keep_bounds();
        }
        self.position()
    }

    /// The position behind all sets.
    pub(super) fn position(&self) -> Position {
        Position { journal: self.journal.clone(), number: self.next }
    }

    /// Everything that was added since this position; a gap if it belongs to another journal.
    pub(super) fn since(&self, position: &Position) -> ChangeSet {
        if position.journal != self.journal || position.number > self.next {
            return ChangeSet { gap: Some(Gap::Interrupted), ..ChangeSet::default() };
        }
        let mut fold = self.fold();
        let newer = self.sets.iter().filter(|(number, _)| *number > position.number);
        newer.for_each(|(_, set)| fold.add(set, self.roots()));
        fold.take()
    }

    /// How many paths and trees are kept.
    pub(super) fn named(&self) -> usize {
        self.sets.iter().map(|(_, set)| set.paths.len() + set.trees.len()).sum()
    }

    fn linked(&self) -> usize {
        self.sets.iter().map(|(_, set)| set.linked.len()).sum()
    }

    fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.roots.iter().map(Vec::as_slice)
    }

    fn fold(&self) -> Fold {
        Fold::new(self.named_max, LINKED_MAX)
    }

    fn keep_bounds(&mut self) {
        while self.sets.len() > 1 && (self.named() > self.named_max || self.linked() > LINKED_MAX) {
            let (Some((_, old)), Some((number, new))) =
                (self.sets.pop_front(), self.sets.pop_front())
            else {
                return;
            };
            let mut fold = self.fold();
            fold.add(&old, self.roots());
            fold.add(&new, self.roots());
            self.sets.push_front((number, fold.take()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mounts::key;
    use super::*;

    fn set(paths: &[&str]) -> ChangeSet {
        let paths = paths.iter().map(|path| key(path.as_bytes())).collect();
        ChangeSet { paths, ..ChangeSet::default() }
    }

    fn log(named_max: usize) -> Log {
        Log::new("a.b".into(), vec![key(b"/r")], named_max)
    }

    // From each position everything that came later, and nothing else; a set without changes moves nothing.
    #[test]
    fn since_each_position() {
        let mut log = log(100);
        let start = log.position();
        let first = log.push(set(&["/r/a"]));
        assert_eq!(log.push(ChangeSet { opaque: 3, ..set(&[]) }), first);
        let second = log.push(set(&["/r/b", "/r/a"]));
        assert_eq!(log.since(&start), set(&["/r/a", "/r/b"]));
        assert_eq!(log.since(&first), set(&["/r/a", "/r/b"]));
        assert_eq!(log.since(&second), set(&[]));
    }

    // Positions of other journals, and of a time to come, are a gap.
    #[test]
    fn strange_positions() {
        let mut log = log(100);
        log.push(set(&["/r/a"]));
        for text in ["other.0", "a.b.2", "a.b.c.0"] {
            assert_eq!(log.since(&text.parse().unwrap()).gap, Some(Gap::Interrupted), "{text}");
        }
        for text in ["", "a", ".1", "a.x", "a.-1"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
        assert_eq!(log.position().to_string().parse::<Position>().unwrap(), log.position());
    }

    // A gap is told to those who were there before it, and to nobody else.
    #[test]
    fn gaps_belong_to_their_time() {
        let mut log = log(100);
        let before = log.push(set(&["/r/a"]));
        let after = log.push(ChangeSet { gap: Some(Gap::Overflow), ..set(&[]) });
        log.push(set(&["/r/b"]));
        assert_eq!(log.since(&before).gap, Some(Gap::Overflow));
        assert_eq!(log.since(&after), set(&["/r/b"]));
    }

    // However much is added, little is kept, and each position still gets everything that came later.
    #[test]
    fn bounds_hold_and_nothing_is_forgotten() {
        let mut log = log(40);
        let mut added = Vec::new();
        for number in 0..500 {
            let path = format!("/r/{}/{number}", number % 5);
            added.push((log.position(), key(path.as_bytes())));
            log.push(set(&[&path]));
            assert!(log.named() <= 40);
        }
        for (position, path) in &added {
            let changes = log.since(position);
            assert!(changes.gap.is_none() && changes.names(path), "{position} {path:?}");
        }
    }
}
