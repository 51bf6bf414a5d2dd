//! A prune, as `prune/` of the store does it: list, mark, rewrite, condemn, delete, forget names.

use super::protocol::{Protocol, Rule, Steps};
use super::state::*;

/// What one look at the repository says of the live packs.
struct Verdict {
    /// Packs from which nothing is needed.
    unused: Packs,
    /// Packs of which something is needed and something is not, with what is.
    partly: [(Packs, Chunks); PACKS_MAX],
    partly_count: usize,
}

fn verdict(state: &State, mut needed: Chunks) -> Verdict {
    let mut verdict = Verdict { unused: 0, partly: [(0, 0); PACKS_MAX], partly_count: 0 };
    for pack in each(state.head.live) {
        let all = state.packs[pack].chunks;
        let claimed = all & needed;
        needed &= !claimed;
        if claimed == 0 {
            verdict.unused |= one(pack);
        } else if claimed != all {
            verdict.partly[verdict.partly_count] = (one(pack), claimed);
            verdict.partly_count += 1;
        }
    }
    verdict
}

/// All subsets of a set of snapshots.
fn subsets(set: Snapshots) -> impl Iterator<Item = Snapshots> {
    (0..=set).filter(move |subset| subset & !set == 0)
}

impl Protocol {
    /// The steps of prune `number`.
    pub(super) fn pruner(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let who = Who::Pruner(u8::try_from(number).expect("two prunes"));
        let pruner = &state.pruners[number];
        let put = |pruner: Pruner| {
            let mut next = *state;
            next.pruners[number] = pruner;
            next
        };
        match pruner.at {
            PrunerAt::Expire => {
                let list = Pruner { at: PrunerAt::Mark, listed: state.exists, ..*pruner };
                steps.push(who, "lets nothing expire and lists the packs", put(list));
                for expire in subsets(state.head.forgotten).filter(|some| *some != 0) {
                    let at = PrunerAt::ExpireSwap;
                    let next = Pruner { at, expire, fresh: true, ..*pruner };
                    steps.push(who, "finds forgotten snapshots that expire", put(next));
                }
            }
            PrunerAt::ExpireSwap => self.expire(state, number, who, steps),
            PrunerAt::ExpireUnsure if pruner.fresh => {
                steps.push(who, "sees that nothing expired and gives up", put(Self::given_up()));
            }
            PrunerAt::ExpireUnsure => {
                if pruner.landed {
                    let list = Pruner { at: PrunerAt::List, ..*pruner };
                    steps.push(who, "learns that snapshots expired", put(list));
                }
                let again = Pruner { at: PrunerAt::Expire, ..*pruner };
                steps.push(who, "finds another head, looks again", put(again));
            }
            PrunerAt::List => {
                let next = Pruner { at: PrunerAt::Mark, listed: state.exists, ..*pruner };
                steps.push(who, "lists the packs", put(next));
            }
            PrunerAt::Mark => self.mark(state, number, who, steps),
            PrunerAt::Put => {
                for (mut next, answer) in state.send(Request::Put(pruner.pack), true) {
                    let own = pruner.own | one(pruner.pack.into());
                    next.pruners[number] = match answer {
                        Some(_) => Pruner { at: PrunerAt::Condemn, own, ..*pruner },
                        None => Self::given_up(),
                    };
                    steps.push(who, "stores what it moves", next);
                }
            }
            PrunerAt::Condemn => self.condemn(state, number, who, steps),
            PrunerAt::Unsure if !self.holds(Rule::UnsureIsNotCondemned) => {
                let next = Pruner { at: PrunerAt::Delete, left: pruner.condemn, ..*pruner };
                steps.push(who, "takes its verdict for done", put(next));
            }
            PrunerAt::Unsure if pruner.fresh => {
                steps.push(who, "sees that nothing was condemned, gives up", put(Self::given_up()));
            }
            PrunerAt::Unsure => {
                if pruner.landed {
                    let sweep = Pruner { at: PrunerAt::Sweep, ..*pruner };
                    steps.push(who, "learns that its verdict stands", put(sweep));
                }
                let again = Pruner { at: PrunerAt::List, ..*pruner };
                steps.push(who, "finds another head, looks again", put(again));
            }
            PrunerAt::Sweep => {
                let left = state.head.condemned & state.exists & !state.head.live;
                let next = Pruner { at: PrunerAt::Delete, left, ..*pruner };
                steps.push(who, "reads what is condemned", put(next));
            }
            PrunerAt::Delete => self.delete(state, number, who, steps),
            PrunerAt::Names => {
                let left = state.head.condemned & !state.exists;
                let at = if left == 0 { PrunerAt::Done } else { PrunerAt::ForgetNames };
                let next = Pruner { at, left, fresh: true, ..*pruner };
                steps.push(who, "looks which condemned packs are gone", put(next));
            }
            PrunerAt::ForgetNames => self.forget_names(state, number, who, steps),
            PrunerAt::Done => {}
        }
    }

    fn expire(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let pruner = &state.pruners[number];
        let mut head = state.head;
        head.forgotten &= !pruner.expire;
        for (mut next, answer) in state.send(Request::Swap(who, head), pruner.fresh) {
            let (what, at) = match answer {
                Some(true) => ("let forgotten snapshots go", PrunerAt::List),
                Some(false) => ("lost the race", PrunerAt::Expire),
                None => ("gets no answer to its expiry", PrunerAt::ExpireUnsure),
            };
            next.pruners[number].at = at;
            steps.push(who, what, next);
        }
    }

    fn given_up() -> Pruner {
        Pruner { at: PrunerAt::Done, ..Pruner::default() }
    }

    /// Looks at its own packs, marks, and decides what to condemn and what to move.
    fn mark(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let pruner = &state.pruners[number];
        let head = &state.head;
        let mut own = pruner.own;
        if self.holds(Rule::LiveIsNotOwn) {
            own &= !head.live;
        }
        let void = own & (head.condemned | state.fenced_off(own));
        if void & !state.exists != 0 {
            let mut next = *state;
            next.pruners[number] = Self::given_up();
            steps.push(who, "cannot read back what it stored, and says so", next);
            return;
        }
        let mut roots = head.snapshots;
        if self.holds(Rule::ForgottenIsMarked) {
            roots |= head.forgotten;
        }
        let verdict = verdict(state, self.needed_by(roots));
        let kept = if self.holds(Rule::OwnIsNoOrphan) { pruner.own } else { 0 };
        let orphans = pruner.listed & !head.live & !head.condemned & !kept;
        let born = match (pruner.born, void) {
            (0, _) => state.now,
            (_, 0) => pruner.born,
            _ => state.now,
        };
        own &= !void;
        for chosen in 0..1usize << verdict.partly_count {
            let rewritten = (0..verdict.partly_count)
                .filter(|at| chosen >> at & 1 == 1)
                .fold((0, 0), |(packs, chunks), at| {
                    (packs | verdict.partly[at].0, chunks | verdict.partly[at].1)
                });
            let condemn = verdict.unused | rewritten.0 | orphans;
            let moved = state.chunks_in(void) | (rewritten.1 & !state.chunks_in(own));
            let mut next = *state;
            let session = Pruner { own, born, condemn, fresh: true, ..Pruner::default() };
            let (what, after) = if condemn == 0 {
                ("marks and has nothing to condemn", Pruner { at: PrunerAt::Sweep, ..session })
            } else if !self.holds(Rule::CondemnBeforeDelete) {
                let at = PrunerAt::Delete;
                ("marks and deletes at once", Pruner { at, left: condemn, ..session })
            } else if moved != 0 {
                let pack = next.new_pack(moved, born);
                ("marks and moves", Pruner { at: PrunerAt::Put, pack, ..session })
            } else {
                ("marks", Pruner { at: PrunerAt::Condemn, ..session })
            };
            next.pruners[number] = after;
            steps.push(who, what, next);
        }
    }

    fn condemn(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let pruner = &state.pruners[number];
        let mut head = state.head;
        head.live = (head.live | pruner.own) & !pruner.condemn;
        head.condemned |= pruner.condemn;
        let is_current = pruner.fresh || !self.holds(Rule::LostVerdictIsVoid);
        for (mut next, answer) in state.send(Request::Swap(who, head), is_current) {
            let (what, at) = match answer {
                Some(true) => ("condemned", PrunerAt::Sweep),
                Some(false) => ("lost the race", PrunerAt::List),
                None => ("gets no answer to its verdict", PrunerAt::Unsure),
            };
            next.pruners[number].at = at;
            steps.push(who, what, next);
        }
    }

    fn delete(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let pruner = &state.pruners[number];
        let Some(pack) = each(pruner.left).next() else { return };
        let request = Request::Remove(u8::try_from(pack).expect("a small number"));
        for (mut next, answer) in state.send(request, true) {
            next.pruners[number] = match answer {
                Some(_) => Pruner { left: pruner.left & !one(pack), ..*pruner },
                None => Self::given_up(),
            };
            steps.push(who, "deletes a pack", next);
        }
    }

    fn forget_names(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let pruner = &state.pruners[number];
        let mut head = state.head;
        head.condemned &= !pruner.left;
        let births = each(pruner.left).map(|pack| state.packs[pack].born);
        let mut fence = births.max().expect("some tombstone goes");
        if !self.holds(Rule::FenceIncludesBirth) {
            fence -= 1;
        }
        if self.holds(Rule::FenceIsRaised) {
            head.fenced = head.fenced.max(fence);
        }
        for (mut next, _) in state.send(Request::Swap(who, head), pruner.fresh) {
            next.pruners[number] = Self::given_up();
            steps.push(who, "drops tombstones of packs that are gone", next);
        }
    }
}
