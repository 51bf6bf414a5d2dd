//! The normal form of a state: forgets what no longer matters and numbers what is left in an order of its own, so
//! that states with equal futures are equal.

use super::protocol::{Protocol, Rule};
use super::state::*;

impl Protocol {
    /// Puts a state into its normal form.
    pub(super) fn normalise(&self, state: &mut State) {
        for number in 0..ACTORS_MAX {
            let writer = self.known_to_writer(&state.writers[number], &state.head);
            state.writers[number] = writer;
            let pruner = self.known_to_pruner(&state.pruners[number], state);
            state.pruners[number] = pruner;
        }
        for request in &mut state.in_flight {
            let is_void = |request: &mut Request| matches!(request, Request::Remove(pack) if state.exists >> *pack & 1 == 0);
            request.take_if(is_void);
        }
        let keeper = &mut state.keeper;
        match keeper.at {
            KeeperAt::Swap if !keeper.fresh && self.holds(Rule::UndeleteLooksAgain) => {
                keeper.at = KeeperAt::Look;
            }
            KeeperAt::Look => keeper.fresh = false,
            KeeperAt::Swap | KeeperAt::Unsure => {}
            KeeperAt::Done => {
                let Keeper { at, landed, acknowledged, .. } = *keeper;
                *keeper = Keeper { at, landed, acknowledged, ..Keeper::default() };
            }
        }
        sort_pruners(state);
        renumber_packs(state);
        rank_births(state);
    }

    fn known_to_writer(&self, writer: &Writer, head: &Head) -> Writer {
        let Writer {
            at,
            own,
            mut relied,
            on_parent,
            mut shaken,
            pack,
            born,
            fresh,
            landed,
            checkpoints,
        } = *writer;
        if relied & !head.live != 0 && self.holds(Rule::CondemnedIsNotRead) {
            (relied, shaken) = (0, true);
        }
        let session = Writer { at, own, relied, on_parent, shaken, born, ..Writer::default() };
        let look = |at| Writer { at, ..session };
        match at {
            WriterAt::Begin => Writer { at, checkpoints, ..Writer::default() },
            WriterAt::Put => Writer { pack, checkpoints, ..session },
            WriterAt::CheckpointLook | WriterAt::Look => session,
            // What can only be lost is as good as lost.
            WriterAt::CheckpointSwap if !fresh => look(WriterAt::CheckpointLook),
            WriterAt::Swap if !fresh && self.holds(Rule::CommitCompares) => look(WriterAt::Look),
            WriterAt::Repair => Writer { at, own, born, ..Writer::default() },
            WriterAt::CheckpointSwap | WriterAt::Swap => Writer { fresh, ..session },
            WriterAt::CheckpointUnsure | WriterAt::Unsure => Writer { fresh, landed, ..session },
            WriterAt::Done | WriterAt::Failed => Writer { at, ..Writer::default() },
        }
    }

    fn known_to_pruner(&self, pruner: &Pruner, state: &State) -> Pruner {
        let Pruner { at, listed, own, pack, born, mut condemn, mut expire, left, fresh, landed } =
            *pruner;
        let head = &state.head;
        let remarks = self.holds(Rule::LostVerdictIsVoid);
        if !fresh && remarks && self.holds(Rule::UnsureIsNotCondemned) {
            (condemn, expire) = (0, 0);
        }
        let session = Pruner { at, own, born, ..Pruner::default() };
        match at {
            PrunerAt::ExpireSwap if !fresh => Pruner { at: PrunerAt::Expire, ..session },
            PrunerAt::ExpireSwap => Pruner { expire, fresh, ..session },
            PrunerAt::ExpireUnsure => Pruner { fresh, landed, ..session },
            PrunerAt::Expire | PrunerAt::List => session,
            PrunerAt::Mark => {
                let unknown = state.exists & !head.live & !head.condemned;
                Pruner { listed: listed & unknown, ..session }
            }
            PrunerAt::Put => Pruner { pack, condemn, fresh, ..session },
            PrunerAt::Condemn if !fresh && remarks => Pruner { at: PrunerAt::List, ..session },
            PrunerAt::Unsure if self.holds(Rule::UnsureIsNotCondemned) => {
                Pruner { fresh, landed, ..session }
            }
            PrunerAt::Unsure => Pruner { condemn, fresh, landed, ..session },
            PrunerAt::Condemn => Pruner { condemn, fresh, ..session },
            PrunerAt::Delete if left & state.exists == 0 => {
                Pruner { at: PrunerAt::Names, ..Pruner::default() }
            }
            PrunerAt::Delete => Pruner { at, left: left & state.exists, ..Pruner::default() },
            PrunerAt::ForgetNames if fresh => Pruner { at, left, fresh, ..Pruner::default() },
            PrunerAt::ForgetNames => Pruner { at: PrunerAt::Done, ..Pruner::default() },
            PrunerAt::Sweep | PrunerAt::Names | PrunerAt::Done => {
                Pruner { at, ..Pruner::default() }
            }
        }
    }
}

/// Prunes are alike: only what they do counts, not which of them does it.
fn sort_pruners(state: &mut State) {
    let [first, second] = state.pruners;
    if first <= second {
        return;
    }
    state.pruners = [second, first];
    let other = |who: Who| match who {
        Who::Pruner(number) => Who::Pruner(1 - number),
        other => other,
    };
    for request in state.in_flight.iter_mut().flatten() {
        if let Request::Swap(who, _) = request {
            *who = other(*who);
        }
    }
}

/// The pack that an actor or a request is about to store or remove.
fn named_packs(state: &State) -> Packs {
    let mut named = 0;
    for writer in state.writers.iter().filter(|writer| writer.at == WriterAt::Put) {
        named |= one(writer.pack.into());
    }
    for pruner in state.pruners.iter().filter(|pruner| pruner.at == PrunerAt::Put) {
        named |= one(pruner.pack.into());
    }
    for request in state.in_flight.iter().flatten() {
        if let Request::Put(pack) = request {
            named |= one((*pack).into());
        }
    }
    named
}

/// Every set of packs in a state, so that all of them are treated alike.
fn each_set(state: &mut State, mut visit: impl FnMut(&mut Packs)) {
    visit(&mut state.exists);
    visit(&mut state.head.live);
    visit(&mut state.head.condemned);
    for writer in &mut state.writers {
        visit(&mut writer.own);
        visit(&mut writer.relied);
    }
    for pruner in &mut state.pruners {
        visit(&mut pruner.listed);
        visit(&mut pruner.own);
        visit(&mut pruner.condemn);
        visit(&mut pruner.left);
    }
    for request in state.in_flight.iter_mut().flatten() {
        if let Request::Swap(_, head) = request {
            visit(&mut head.live);
            visit(&mut head.condemned);
        }
    }
}

/// Every single pack that somebody is about to store or remove.
fn each_name(state: &mut State, mut visit: impl FnMut(&mut u8)) {
    for writer in state.writers.iter_mut().filter(|writer| writer.at == WriterAt::Put) {
        visit(&mut writer.pack);
    }
    for pruner in state.pruners.iter_mut().filter(|pruner| pruner.at == PrunerAt::Put) {
        visit(&mut pruner.pack);
    }
    for request in state.in_flight.iter_mut().flatten() {
        match request {
            Request::Put(pack) | Request::Remove(pack) => visit(pack),
            Request::Swap(..) => {}
        }
    }
}

/// Drops packs that nobody can name any more, and orders the others by what they hold, by their birth and by who
/// knows them.
fn renumber_packs(state: &mut State) {
    let mut keys = [0u64; PACKS_MAX];
    let mut bit = 0;
    let mut note = |packs: Packs| {
        each(packs).for_each(|pack| keys[pack] |= 1 << bit);
        bit += 1;
    };
    each_set(state, |set| note(*set));
    each_name(state, |pack| note(one((*pack).into())));
    let readable = state.exists | named_packs(state);
    for pack in 0..PACKS_MAX {
        if readable >> pack & 1 == 0 {
            state.packs[pack].chunks = 0;
        }
    }
    let mut order = [(0u64, 0u8); PACKS_MAX];
    let mut count = 0;
    for (pack, key) in keys.iter().enumerate().filter(|(_, key)| **key != 0) {
        let Pack { chunks, born } = state.packs[pack];
        let born = born.max(state.head.fenced);
        let rank = key << 16 | u64::from(chunks) << 8 | u64::from(born);
        order[count] = (rank, u8::try_from(pack).expect("a small number"));
        count += 1;
    }
    order[..count].sort_unstable();
    let mut numbers = [0u8; PACKS_MAX];
    let mut packs = [Pack::default(); PACKS_MAX];
    for (number, (_, old)) in (0u8..).zip(&order[..count]) {
        numbers[usize::from(*old)] = number;
        packs[usize::from(number)] = state.packs[usize::from(*old)];
    }
    state.packs = packs;
    state.pack_count = u8::try_from(count).expect("a small number");
    let renumbered = |set: Packs| each(set).fold(0, |new, pack| new | one(numbers[pack].into()));
    each_set(state, |set| *set = renumbered(*set));
    each_name(state, |pack| *pack = numbers[usize::from(*pack)]);
    state.in_flight.sort_unstable();
}

/// Only the order of births counts, and behind the fence not even that.
fn rank_births(state: &mut State) {
    let fenced = state.head.fenced;
    let mut present = 0u64;
    each_birth(state, |birth| present |= 1 << (*birth).max(fenced));
    let rank = |birth: Birth| {
        let below = present & ((1u64 << birth.max(fenced)) - 1);
        u8::try_from(below.count_ones() + 1).expect("a small number")
    };
    each_birth(state, |birth| *birth = rank(*birth));
}

fn each_birth(state: &mut State, mut visit: impl FnMut(&mut Birth)) {
    visit(&mut state.head.fenced);
    visit(&mut state.now);
    let count = usize::from(state.pack_count);
    state.packs[..count].iter_mut().for_each(|pack| visit(&mut pack.born));
    state.writers.iter_mut().map(|writer| &mut writer.born).for_each(|born| {
        if *born > 0 {
            visit(born);
        }
    });
    state.pruners.iter_mut().map(|pruner| &mut pruner.born).for_each(|born| {
        if *born > 0 {
            visit(born);
        }
    });
    for request in state.in_flight.iter_mut().flatten() {
        if let Request::Swap(_, head) = request {
            visit(&mut head.fenced);
        }
    }
}
