//! One bit for each chunk of a pack, or for each node of a table.

/// A fixed number of bits, all clear at first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// As many clear bits.
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// Sets a bit; true if it was clear. Beyond the end nothing is set.
    pub fn set(&mut self, at: usize) -> bool {
        let Some(word) = self.words.get_mut(at / 64).filter(|_| at < self.len) else {
            return false;
        };
        let mask = 1 << (at % 64);
        let was_clear = *word & mask == 0;
        *word |= mask;
        was_clear
    }

    /// Whether a bit is set; beyond the end none is.
    pub fn get(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// True where there is no bit at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many are set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Clears all of them.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    /// What was set is set, once; nothing else is, and nothing lies beyond the end.
    #[test]
    fn bits_are_set_once() {
        let mut bits = Bits::new(70);
        for at in [0, 63, 64, 69] {
            assert!(bits.set(at));
            assert!(!bits.set(at));
        }
        assert!(!bits.set(70));
        assert!(!bits.set(1000));
        let set: Vec<usize> = (0..200).filter(|at| bits.get(*at)).collect();
        assert_eq!(set, [0, 63, 64, 69]);
        assert_eq!(bits.count(), 4);
        bits.clear();
        assert_eq!(bits, Bits::new(70));
    }
}
