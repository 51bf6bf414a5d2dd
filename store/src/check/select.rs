//! Which packs a check of data reads, and in which order: a pure function of the ledger.

use super::DataOptions;
use crate::env::Timestamp;
use crate::id::PackId;
use std::time::Duration;

/// How much of the data is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// All of it.
    #[default]
    All,
    /// One of several slices of about equal size; which slice a pack belongs to never changes.
    Slice {
        /// Which one, from 1.
        number: u32,
        /// How many there are.
        of: u32,
    },
    /// At least this many hundredths of a percent of the stored bytes.
    Hundredths(u32),
    /// At least this many stored bytes.
    Bytes(u64),
}

/// One live pack and what the ledger says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub id: PackId,
    pub size_bytes: u64,
    pub verified: Option<Timestamp>,
}

/// The packs to read: those that were never verified first, then those whose verification is the oldest.
pub(super) fn select(
    mut packs: Vec<Candidate>,
    options: &DataOptions,
    now: Timestamp,
) -> Vec<PackId> {
    let total = packs.iter().map(|pack| u128::from(pack.size_bytes)).sum::<u128>();
    if let Some(max_age) = options.max_age {
        packs.retain(|pack| !pack.verified.is_some_and(|time| is_recent(time, max_age, now)));
    }
    if let Share::Slice { number, of } = options.share {
        packs.retain(|pack| slice_of(&pack.id, of) == number);
    }
    packs.sort_by_key(|pack| (pack.verified, pack.id));
    let wanted = match options.share {
        Share::All | Share::Slice { .. } => u128::MAX,
        Share::Hundredths(share) => (total * u128::from(share)).div_ceil(10_000),
        Share::Bytes(bytes) => bytes.into(),
    };
    let mut taken = 0;
    let in_share = |pack: &Candidate| {
        let is_wanted = taken < wanted;
        taken += u128::from(pack.size_bytes);
        is_wanted
    };
    packs.into_iter().take_while(in_share).map(|pack| pack.id).collect()
}

/// A verification in the future says nothing: some clock is wrong.
fn is_recent(time: Timestamp, max_age: Duration, now: Timestamp) -> bool {
    let age = now.as_nanos() - time.as_nanos();
    let max_age = i128::try_from(max_age.as_nanos()).unwrap_or(i128::MAX);
    (0..=max_age).contains(&age)
}

/// The slice that a pack belongs to, from 1: its name is random, so slices are of about equal size.
fn slice_of(id: &PackId, of: u32) -> u32 {
    let first = id.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    let rest = first % u64::from(of.max(1));
    u32::try_from(rest).expect("smaller than a number of 32 bits") + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use stillpoint_testkit::Random;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn candidate(name: u8, size_bytes: u64, verified: Option<i64>) -> Candidate {
        Candidate { id: PackId::from_bytes([name; 16]), size_bytes, verified: verified.map(at) }
    }

    fn check(options: DataOptions, expected: &[u8]) {
        let packs = vec![
            candidate(1, 100, Some(500)),
            candidate(2, 300, None),
            candidate(3, 100, Some(900)),
            candidate(4, 100, Some(100)),
            candidate(5, 400, None),
            candidate(6, 0, Some(5000)),
        ];
        let chosen = select(packs, &options, at(1000));
        let names: Vec<u8> = chosen.iter().map(|id| id.as_bytes()[0]).collect();
        assert_eq!(names, expected, "{options:?}");
    }

    /// Never verified first, then the oldest; a share ends with the pack that fills it; a wrong clock hides nothing.
    #[test]
    fn the_longest_unverified_come_first() {
        let share = |share| DataOptions { share, ..DataOptions::default() };
        check(share(Share::All), &[2, 5, 4, 1, 3, 6]);
        check(share(Share::Bytes(0)), &[]);
        check(share(Share::Bytes(1)), &[2]);
        check(share(Share::Bytes(300)), &[2]);
        check(share(Share::Bytes(301)), &[2, 5]);
        check(share(Share::Hundredths(0)), &[]);
        check(share(Share::Hundredths(1)), &[2]);
        check(share(Share::Hundredths(7500)), &[2, 5, 4]);
        check(share(Share::Hundredths(10_000)), &[2, 5, 4, 1, 3]);
        let young = |seconds| DataOptions {
            max_age: Some(Duration::from_secs(seconds)),
            ..DataOptions::default()
        };
        check(young(500), &[2, 5, 4, 6]);
        check(young(0), &[2, 5, 4, 1, 3, 6]);
        check(young(u64::MAX), &[2, 5, 6]);
    }

    /// Every pack is in exactly one slice, always the same, and slices are of about equal size.
    #[test]
    fn slices_share_out_the_packs() {
        let mut random = Random::new(7);
        let packs: Vec<Candidate> = (0..3000)
            .map(|_| {
                let id = PackId::from_bytes(random.bytes(16).try_into().unwrap());
                Candidate { id, size_bytes: 1, verified: None }
            })
            .collect();
        for of in [1, 3, 7] {
            let mut all = Vec::new();
            for number in 1..=of {
                let share = Share::Slice { number, of };
                let options = DataOptions { share, ..DataOptions::default() };
                let slice = select(packs.clone(), &options, at(0));
                assert_eq!(slice, select(packs.clone(), &options, at(9)));
                let expected = 3000 / usize::try_from(of).unwrap();
                assert!(slice.len() * 4 > expected * 3, "{} of {expected}", slice.len());
                all.extend(slice);
            }
            all.sort();
            let mut ids: Vec<PackId> = packs.iter().map(|pack| pack.id).collect();
            ids.sort();
            assert_eq!(all, ids, "{of} slices");
        }
    }
}
