//! Which groups to form and which to give up: a pure function from the catalogue to a printable plan.

use super::entry::{Groups, ParityEntry};
use super::layout::Layout;
use super::object::object_len;
use super::{ParityOptions, STRIPE_BYTES};
use crate::catalogue::PackEntry;
use crate::id::{GroupId, PackId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A group that is to be formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedGroup {
    /// Its packs, the longest first.
    pub packs: Vec<PackId>,
    /// Their bytes.
    pub data_bytes: u64,
    /// Bytes of its parity objects together.
    pub parity_bytes: u64,
}

/// What `parity add` would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ParityPlan {
    /// Groups to be formed.
    pub form: Vec<PlannedGroup>,
    /// Groups that protect nothing, or nothing that another group does not protect as well. They go once nothing is
    /// left to be formed.
    pub dissolve: Vec<GroupId>,
}

/// What is left out of a plan.
#[derive(Debug, Clone, Default)]
pub(super) struct Except {
    /// Packs that are damaged: parity would preserve the damage.
    pub packs: BTreeSet<PackId>,
    /// Announced groups that are taken over from a run that is no more.
    pub abandoned: BTreeSet<GroupId>,
}

/// Decides which groups to form from packs that none covers, and which to dissolve.
///
/// Packs of like length share a group, because parity is as long as the longest pack.
pub(super) fn plan(
    packs: &BTreeMap<PackId, PackEntry>,
    groups: &Groups,
    options: &ParityOptions,
    except: &Except,
) -> ParityPlan {
    let is_live = |pack: &PackId| packs.contains_key(pack);
    let redundant = redundant(groups, is_live);
    let useful = |id: &GroupId, entry: &ParityEntry| {
        !redundant.contains(id) && entry.survives(is_live).is_some_and(|losses| losses > 0)
    };
    let mut covered: BTreeSet<PackId> = BTreeSet::new();
    let mut incomplete = Vec::new();
    let mut dissolve = Vec::new();
    for (id, entry) in groups {
        let is_announced = !entry.is_complete() && !except.abandoned.contains(id);
        if is_announced || useful(id, entry) {
            covered.extend(&entry.members);
        } else {
            dissolve.push(*id);
        }
        if useful(id, entry) && is_incomplete(entry, options, is_live) {
            incomplete.push(entry);
        }
    }
    let uncovered: BTreeSet<PackId> = packs
        .iter()
        .filter(|(id, entry)| !covered.contains(id) && entry.size_bytes > 0)
        .map(|(id, _)| *id)
        .collect();
    let mut pool = uncovered;
    if options.regroup && regrouping_helps(&pool, &incomplete, options, is_live) {
        let members = incomplete.iter().flat_map(|entry| &entry.members);
        pool.extend(members.filter(|pack| is_live(pack)));
    }
    let mut pool: Vec<(u64, PackId)> = pool
        .iter()
        .filter(|pack| !except.packs.contains(pack))
        .filter_map(|pack| Some((packs.get(pack)?.size_bytes, *pack)))
        .collect();
    pool.sort_by_key(|(size, pack)| (std::cmp::Reverse(*size), *pack));
    let form: Vec<_> =
        pool.chunks(options.data.max(1)).map(|packs| planned(packs, options)).collect();
    ParityPlan { form, dissolve }
}

fn planned(packs: &[(u64, PackId)], options: &ParityOptions) -> PlannedGroup {
    let sizes: Vec<u64> = packs.iter().map(|(size, _)| *size).collect();
    let data_bytes = sizes.iter().sum();
    let layout = Layout::new(STRIPE_BYTES, sizes);
    let each = object_len(&layout, packs.len(), options.parity);
    PlannedGroup {
        packs: packs.iter().map(|(_, pack)| *pack).collect(),
        data_bytes,
        parity_bytes: each * u64::try_from(options.parity).unwrap_or(u64::MAX),
    }
}

/// A group that has lost packs, has room for more, or has less parity than is asked for.
fn is_incomplete(
    entry: &ParityEntry,
    options: &ParityOptions,
    is_live: impl Fn(&PackId) -> bool,
) -> bool {
    let has_room = entry.members.len() < options.data && entry.parities.len() == options.parity;
    has_room || is_weak(entry, options, is_live)
}

fn is_weak(
    entry: &ParityEntry,
    options: &ParityOptions,
    is_live: impl Fn(&PackId) -> bool,
) -> bool {
    entry.parities.len() < options.parity || !entry.members.iter().all(is_live)
}

/// True where forming the incomplete groups anew gives stronger groups, or fewer.
fn regrouping_helps(
    uncovered: &BTreeSet<PackId>,
    incomplete: &[&ParityEntry],
    options: &ParityOptions,
    is_live: impl Fn(&PackId) -> bool + Copy,
) -> bool {
    let groups = |packs: usize| packs.div_ceil(options.data.max(1));
    let live = incomplete.iter().flat_map(|entry| &entry.members).filter(|pack| is_live(pack));
    let merged = groups(uncovered.len() + live.count());
    incomplete.iter().any(|entry| is_weak(entry, options, is_live))
        || merged < incomplete.len() + groups(uncovered.len())
}

/// Groups that heal nothing any more, the abandoned ones left out: no pack that needs them is `there`, or as many are
/// gone as there are parity objects.
pub(super) fn spent(groups: &Groups, there: impl Fn(&PackId) -> bool) -> Vec<GroupId> {
    let is_spent = |entry: &ParityEntry| {
        entry.is_complete() && entry.survives(&there).is_none_or(|losses| losses == 0)
    };
    groups.iter().filter(|(_, entry)| is_spent(entry)).map(|(id, _)| *id).collect()
}

/// Groups each of whose live packs is covered by another group that is kept. Those that lost packs are given up first,
/// then those with less parity, then the older ones: so what was formed anew is what stays.
fn redundant(groups: &Groups, is_live: impl Fn(&PackId) -> bool) -> BTreeSet<GroupId> {
    let mut order = Vec::new();
    let mut covers: BTreeMap<PackId, usize> = BTreeMap::new();
    for (id, entry) in groups {
        if entry.survives(&is_live).is_none_or(|losses| losses == 0) {
            continue;
        }
        let is_whole = entry.members.iter().all(&is_live);
        order.push((is_whole, entry.parities.len(), entry.announced, *id));
        let live = entry.members.iter().filter(|pack| is_live(pack));
        live.for_each(|pack| *covers.entry(*pack).or_default() += 1);
    }
    order.sort_unstable();
    let mut redundant = BTreeSet::new();
    for (.., id) in order {
        let Some(entry) = groups.get(&id) else { continue };
        let live = || entry.members.iter().filter(|pack| is_live(pack));
        if live().all(|pack| covers.get(pack).is_some_and(|count| *count > 1)) {
            live().for_each(|pack| {
                covers.entry(*pack).and_modify(|count| *count -= 1);
            });
            redundant.insert(id);
        }
    }
    redundant
}
