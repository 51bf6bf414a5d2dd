//! Which ranges of keys are known since when: pure.

/// A range of keys of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    /// Where it begins; None: with the first key that can be.
    pub from: Option<Bound>,
    /// Its last key; None: the last that can be.
    pub until: Option<Vec<u8>>,
}

/// Where a range begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bound {
    /// With this key.
    At(Vec<u8>),
    /// Behind this key.
    Behind(Vec<u8>),
}

impl Range {
    fn contains(&self, key: &[u8]) -> bool {
        let begins = match &self.from {
            None => true,
            Some(Bound::At(first)) => key >= first.as_slice(),
            Some(Bound::Behind(before)) => key > before.as_slice(),
        };
        begins && self.until.as_deref().is_none_or(|last| key <= last)
    }
}

/// Ranges of keys, each with its age; the newest age of a key counts.
#[derive(Debug)]
pub(super) struct Coverage<A> {
    ranges: Vec<(A, Range)>,
}

impl<A> Default for Coverage<A> {
    fn default() -> Self {
        Self { ranges: Vec::new() }
    }
}

impl<A: Ord + Copy> Coverage<A> {
    /// Says that everything in this range is known as of this age. Ranges that follow each other become one.
    pub fn add(&mut self, age: A, range: Range) {
        if let Some((last_age, last)) = self.ranges.last_mut()
            && *last_age == age
            && let (Some(Bound::Behind(before)), Some(end)) = (&range.from, &last.until)
            && before == end
        {
            last.until = range.until;
            return;
        }
        self.ranges.push((age, range));
    }

    /// The newest age of which this key is known: whether it is there, and its value.
    pub fn of(&self, key: &[u8]) -> Option<A> {
        let covering = self.ranges.iter().filter(|(_, range)| range.contains(key));
        covering.map(|(age, _)| *age).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: Option<Bound>, until: Option<&str>) -> Range {
        Range { from, until: until.map(|key| key.as_bytes().to_vec()) }
    }

    fn behind(key: &str) -> Option<Bound> {
        Some(Bound::Behind(key.as_bytes().to_vec()))
    }

    /// The newest age counts, gaps are gaps, and ranges that follow each other are one.
    #[test]
    fn the_newest_age_of_a_key_counts() {
        let mut coverage = Coverage::default();
        coverage.add(5, range(Some(Bound::At(b"d".to_vec())), Some("f")));
        coverage.add(5, range(behind("f"), Some("k")));
        coverage.add(5, range(behind("m"), Some("p")));
        coverage.add(3, range(None, Some("n")));
        assert_eq!(coverage.ranges.len(), 3);
        let cases = [
            ("", Some(3)),
            ("c", Some(3)),
            ("d", Some(5)),
            ("f", Some(5)),
            ("g", Some(5)),
            ("k", Some(5)),
            ("ka", Some(3)),
            ("m", Some(3)),
            ("ma", Some(5)),
            ("p", Some(5)),
            ("pa", None),
        ];
        for (key, expected) in cases {
            assert_eq!(coverage.of(key.as_bytes()), expected, "{key:?}");
        }
        coverage.add(9, range(behind("o"), None));
        assert_eq!(coverage.of(b"zz"), Some(9));
        assert_eq!(coverage.of(b"o"), Some(5));
    }
}
