//! Plans: what is covered, what is formed, what is given up.

use super::entry::{Groups, ParityEntry, ParityObjects};
use super::plan::{Except, ParityPlan, plan, spent};
use super::*;
use crate::catalogue::PackEntry;
use crate::env::Timestamp;
use crate::id::{GroupId, PackId, ParityId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Packs = BTreeMap<PackId, PackEntry>;

fn pack(name: u8) -> PackId {
    PackId::from_bytes([name; 16])
}

fn packs(sizes: &[(u8, u64)]) -> Packs {
    let entry = |size_bytes| PackEntry {
        size_bytes,
        hash: [0; 32],
        born: 1,
        data_chunks: 1,
        node_chunks: 0,
        generation: crate::crypto::Generation::default(),
    };
    sizes.iter().map(|(name, size)| (pack(*name), entry(*size))).collect()
}

fn group(members: &[u8], parity: usize, is_complete: bool) -> ParityEntry {
    let parities: Vec<_> = (0..parity).map(|_| ParityId::from_bytes([9; 16])).collect();
    let objects = is_complete.then(|| ParityObjects {
        size_bytes: 1000,
        hashes: vec![serde_bytes::ByteArray::new([0; 32]); parity],
    });
    let members = members.iter().map(|name| pack(*name)).collect();
    ParityEntry { members, parities, announced: Timestamp::default(), objects }
}

fn groups(list: &[(u8, &[u8], usize, bool)]) -> Groups {
    list.iter()
        .map(|(id, members, parity, complete)| {
            (GroupId::from_bytes([*id; 16]), group(members, *parity, *complete))
        })
        .collect()
}

const THREE: ParityOptions = ParityOptions { data: 3, parity: 2, regroup: false, dry_run: false };
const REGROUP: ParityOptions = ParityOptions { regroup: true, ..THREE };

/// The names of the planned groups' packs, and those of the dissolved groups.
fn names(plan: &ParityPlan) -> (Vec<Vec<u8>>, Vec<u8>) {
    let form = plan.form.iter().map(|g| g.packs.iter().map(|p| p.as_bytes()[0]).collect());
    (form.collect(), plan.dissolve.iter().map(|id| id.as_bytes()[0]).collect())
}

#[track_caller]
fn check(packs: &Packs, groups: &Groups, options: &ParityOptions, form: &[&[u8]], dissolve: &[u8]) {
    let found = names(&plan(packs, groups, options, &Except::default()));
    let form: Vec<Vec<u8>> = form.iter().map(|group| group.to_vec()).collect();
    assert_eq!(found, (form, dissolve.to_vec()));
}

/// Packs of like length share a group; the last group may be smaller.
#[test]
fn like_lengths_share_a_group() {
    let packs = packs(&[(1, 10), (2, 500), (3, 500), (4, 20), (5, 500), (6, 30), (7, 5)]);
    check(&packs, &groups(&[]), &THREE, &[&[2, 3, 5], &[6, 4, 1], &[7]], &[]);
    let plan = plan(&packs, &groups(&[]), &THREE, &Except::default());
    assert_eq!(plan.form[0].data_bytes, 1500);
    assert!(plan.form[0].parity_bytes > 2 * 512 && plan.form[0].parity_bytes < 2 * 1000);
}

/// What a group covers, or what another run is at, is left alone: adding again adds nothing.
#[test]
fn covered_and_announced_packs_are_left_alone() {
    let packs = packs(&[(1, 10), (2, 10), (3, 10), (4, 10), (5, 10)]);
    let half = groups(&[(1, &[1, 2, 3], 2, true)]);
    check(&packs, &half, &THREE, &[&[4, 5]], &[]);
    let announced = groups(&[(1, &[1, 2, 3], 2, true), (2, &[4, 5], 2, false)]);
    check(&packs, &announced, &THREE, &[], &[]);
    let abandoned = BTreeSet::from([GroupId::from_bytes([2; 16])]);
    let except = Except { abandoned, packs: BTreeSet::from([pack(5)]) };
    let plan = plan(&packs, &announced, &THREE, &except);
    assert_eq!(names(&plan), (vec![vec![4]], vec![2]), "a damaged pack is left out");
}

/// A group that lost as many packs as it has parity covers nothing; a weakened one still does.
#[test]
fn spent_groups_are_formed_anew() {
    let packs = packs(&[(1, 10), (2, 10), (7, 10)]);
    let weak = groups(&[(1, &[1, 2, 7, 8], 2, true)]);
    check(&packs, &weak, &THREE, &[], &[]);
    check(&packs, &weak, &REGROUP, &[&[1, 2, 7]], &[]);
    let gone = groups(&[(1, &[1, 2, 7, 8, 9], 2, true)]);
    check(&packs, &gone, &THREE, &[&[1, 2, 7]], &[1]);
    assert_eq!(spent(&gone, |id| packs.contains_key(id)).len(), 1);
    assert_eq!(spent(&weak, |id| packs.contains_key(id)).len(), 0);
    let dead = groups(&[(1, &[8], 2, true), (2, &[9], 2, false)]);
    assert_eq!(
        spent(&dead, |id| packs.contains_key(id)).len(),
        1,
        "an announcement is no group yet"
    );
}

/// Small groups are put together only where that gives fewer of them, and only when asked for.
#[test]
fn regrouping_gives_fewer_groups() {
    let packs = packs(&[(1, 10), (2, 10), (3, 10), (4, 10)]);
    let small = groups(&[(1, &[1], 2, true), (2, &[2], 2, true), (3, &[3], 2, true)]);
    check(&packs, &small, &THREE, &[&[4]], &[]);
    check(&packs, &small, &REGROUP, &[&[1, 2, 3], &[4]], &[]);
    let best = groups(&[(1, &[1, 2, 3], 2, true), (2, &[4], 2, true)]);
    check(&packs, &best, &REGROUP, &[], &[]);
    let little = groups(&[(1, &[1, 2, 3], 1, true), (2, &[4], 2, true)]);
    check(&packs, &little, &REGROUP, &[&[1, 2, 3], &[4]], &[]);
}

/// Old groups go once new ones cover their packs, and of two equal ones one stays.
#[test]
fn redundant_groups_go() {
    let packs = packs(&[(1, 10), (2, 10), (3, 10)]);
    let doubled = groups(&[(1, &[1, 9], 2, true), (2, &[2], 2, true), (3, &[1, 2, 3], 2, true)]);
    check(&packs, &doubled, &REGROUP, &[], &[1, 2]);
    let twins = groups(&[(1, &[1, 2, 3], 2, true), (2, &[1, 2, 3], 2, true)]);
    check(&packs, &twins, &THREE, &[], &[1]);
    let chain = groups(&[(1, &[1, 2], 2, true), (2, &[2, 3], 2, true), (3, &[3, 1], 2, true)]);
    check(&packs, &chain, &THREE, &[], &[1]);
}

proptest! {
    /// Carrying out plan after plan ends, leaves every pack covered and nothing redundant, whatever groups there were.
    #[test]
    fn plans_end(
        sizes in prop::collection::vec(1u64..100, 0..20),
        old in prop::collection::vec((prop::collection::btree_set(0u8..30, 1..6), 1usize..4), 0..8),
        data in 1usize..6,
        regroup: bool,
    ) {
        let named: Vec<(u8, u64)> = (0..).zip(sizes).collect();
        let packs = packs(&named);
        let mut groups: Groups = (0u8..)
            .zip(&old)
            .map(|(id, (members, parity))| {
                let members: Vec<u8> = members.iter().copied().collect();
                (GroupId::from_bytes([id; 16]), group(&members, *parity, true))
            })
            .collect();
        let options = ParityOptions { data, parity: 2, regroup, dry_run: false };
        let (mut next, mut now) = (100u8, Timestamp::default());
        for _ in 0..4 {
            let plan = plan(&packs, &groups, &options, &Except::default());
            now.seconds += 1;
            for planned in &plan.form {
                prop_assert!(!planned.packs.is_empty() && planned.packs.len() <= data);
                let members: Vec<u8> = planned.packs.iter().map(|id| id.as_bytes()[0]).collect();
                let formed = ParityEntry { announced: now, ..group(&members, 2, true) };
                groups.insert(GroupId::from_bytes([next; 16]), formed);
                next += 1;
            }
            if plan.form.is_empty() {
                for id in &plan.dissolve {
                    groups.remove(id);
                }
            }
        }
        let plan = plan(&packs, &groups, &options, &Except::default());
        prop_assert_eq!(names(&plan), (vec![], vec![]));
        for id in packs.keys() {
            let is_live = |id: &PackId| packs.contains_key(id);
            let covers = |entry: &&ParityEntry| {
                entry.members.contains(id) && entry.survives(is_live).is_some_and(|n| n > 0)
            };
            prop_assert!(groups.values().any(|entry| covers(&entry)));
        }
    }
}
