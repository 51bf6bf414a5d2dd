//! A backup, as `write/mod.rs` and `write/commit.rs` of the store do it.

use super::protocol::{Protocol, Rule, Steps};
use super::state::*;

/// Live packs that hold these chunks, one for each: the lowest, as an index would name one of them.
fn holders(state: &State, chunks: Chunks, among: Packs) -> Packs {
    (0..Chunks::BITS)
        .filter(|chunk| chunks >> chunk & 1 == 1)
        .filter_map(|chunk| each(among).find(|pack| state.packs[*pack].chunks >> chunk & 1 == 1))
        .fold(0, |packs, pack| packs | one(pack))
}

impl Protocol {
    /// The steps of writer `number`, whose snapshot is `number + 1`.
    pub(super) fn writer(&self, state: &State, number: usize, steps: &mut Steps<'_>) {
        let who = Who::Writer(u8::try_from(number).expect("two writers"));
        let writer = &state.writers[number];
        let put = |writer: Writer| {
            let mut next = *state;
            next.writers[number] = writer;
            next
        };
        match writer.at {
            WriterAt::Begin => self.begin(state, number, who, steps),
            WriterAt::Put => self.put(state, number, who, steps),
            WriterAt::CheckpointLook => {
                let at = match self.void_among(state, writer.own) {
                    0 => WriterAt::CheckpointSwap,
                    _ => WriterAt::Repair,
                };
                let next = put(Writer { at, fresh: true, ..*writer });
                steps.push(who, "reads the head for a checkpoint", next);
            }
            WriterAt::CheckpointSwap => self.checkpoint(state, number, who, steps),
            WriterAt::CheckpointUnsure => self.look_for_checkpoint(state, number, who, steps),
            WriterAt::Look => {
                let at =
                    if self.is_intact(state, writer) { WriterAt::Swap } else { WriterAt::Repair };
                let next = put(Writer { at, fresh: true, ..*writer });
                steps.push(who, "reads the head and compares", next);
            }
            WriterAt::Repair => self.repair(state, number, who, steps),
            WriterAt::Swap => self.commit(state, number, who, steps),
            WriterAt::Unsure => self.look_for_commit(state, number, who, steps),
            WriterAt::Done | WriterAt::Failed => {}
        }
    }

    fn end(at: WriterAt) -> Writer {
        Writer { at, ..Writer::default() }
    }

    /// Reads the head, finds what is known and decides what to store. A parent that has what is needed may be
    /// taken over without a look, or not.
    fn begin(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let need = self.need(number + 1);
        let from_parent = need & self.need(0);
        for on_parent in [false, true] {
            if on_parent && (from_parent == 0 || state.head.snapshots & 1 == 0) {
                continue;
            }
            let asked = if on_parent { need & !from_parent } else { need };
            let mut among = state.head.live;
            if !self.holds(Rule::CondemnedIsNotRead) {
                among |= state.head.condemned;
            }
            let relied = holders(state, asked, among & state.exists);
            let missing = asked & !state.chunks_in(relied);
            let born = state.now;
            let checkpoints = state.writers[number].checkpoints;
            let mut next = *state;
            let session = Writer { relied, on_parent, born, checkpoints, ..Writer::default() };
            next.writers[number] = match missing {
                0 => Writer { at: WriterAt::Look, ..session },
                _ => {
                    let pack = next.new_pack(missing, born);
                    Writer { at: WriterAt::Put, pack, ..session }
                }
            };
            let what = match on_parent {
                true => "begins on its parent",
                false => "begins and looks everything up",
            };
            steps.push(who, what, next);
        }
    }

    fn put(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let writer = state.writers[number];
        for (mut next, answer) in state.send(Request::Put(writer.pack), true) {
            if answer.is_none() && self.holds(Rule::PutBeforeCommit) {
                next.writers[number] = Self::end(WriterAt::Failed);
                steps.push(who, "gets no answer to its put and gives up", next);
                continue;
            }
            let own = writer.own | one(writer.pack.into());
            next.writers[number] = Writer { at: WriterAt::Look, own, checkpoints: false, ..writer };
            if writer.checkpoints {
                let mut next = next;
                next.writers[number].at = WriterAt::CheckpointLook;
                steps.push(who, "stored a pack and wants a checkpoint", next);
            }
            steps.push(who, "stored a pack", next);
        }
    }

    /// Own packs that can no longer become live.
    fn void_among(&self, state: &State, own: Packs) -> Packs {
        let mut void = 0;
        if self.holds(Rule::CondemnedOwnIsVoid) {
            void |= own & state.head.condemned;
        }
        if self.holds(Rule::FencedOwnIsVoid) {
            void |= state.fenced_off(own);
        }
        void
    }

    fn is_intact(&self, state: &State, writer: &Writer) -> bool {
        let mut among = state.head.live;
        if !self.holds(Rule::CondemnedIsNotRead) {
            among |= state.head.condemned;
        }
        let relies =
            (writer.relied & !among == 0 && !writer.shaken) || !self.holds(Rule::ReliedIsChecked);
        // A forgotten parent serves as well as a live one: it is marked.
        let parent = !writer.on_parent
            || (state.head.snapshots | state.head.forgotten) & 1 == 1
            || !self.holds(Rule::ParentIsChecked);
        relies && parent && self.void_among(state, writer.own) == 0
    }

    fn checkpointed(&self, writer: &Writer) -> Writer {
        let kept = if self.holds(Rule::CheckpointIsReliedOn) { writer.own } else { 0 };
        Writer { at: WriterAt::Look, own: 0, relied: writer.relied | kept, ..*writer }
    }

    fn checkpoint(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let writer = &state.writers[number];
        let mut head = state.head;
        head.live |= writer.own;
        for (mut next, answer) in state.send(Request::Swap(who, head), writer.fresh) {
            let (what, after) = match answer {
                Some(true) => ("made its packs live", self.checkpointed(writer)),
                Some(false) => {
                    ("lost the race", Writer { at: WriterAt::CheckpointLook, ..*writer })
                }
                None => {
                    let after = next.writers[number];
                    let at = WriterAt::CheckpointUnsure;
                    ("gets no answer to its checkpoint", Writer { at, ..after })
                }
            };
            next.writers[number] = after;
            steps.push(who, what, next);
        }
    }

    /// Stores again what lies in void packs, and what no live pack holds any more, as long as it can be read.
    fn repair(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let writer = &state.writers[number];
        let need = self.need(number + 1);
        let void = self.void_among(state, writer.own);
        let own = writer.own & !void;
        let born = if void == 0 { writer.born } else { state.now };
        let rest = need & !state.chunks_in(own);
        let relied = holders(state, rest, state.head.live);
        let lost = rest & !state.chunks_in(relied);
        let readable = state.chunks_in((state.head.condemned | void) & state.exists);
        let mut next = *state;
        if lost & !readable != 0 || void & !state.exists != 0 {
            next.writers[number] = Self::end(WriterAt::Failed);
            steps.push(who, "cannot store again what was deleted, and says so", next);
            return;
        }
        let session = Writer { own, relied, born, ..Writer::default() };
        let again = lost | state.chunks_in(void);
        next.writers[number] = match again {
            0 => Writer { at: WriterAt::Look, ..session },
            _ => {
                let pack = next.new_pack(again, born);
                Writer { at: WriterAt::Put, pack, ..session }
            }
        };
        steps.push(who, "looks everything up again", next);
    }

    fn commit(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let writer = &state.writers[number];
        let snapshot = 1 << (number + 1);
        let mut head = state.head;
        head.snapshots |= snapshot;
        head.forgotten &= !snapshot;
        head.live |= writer.own;
        let is_current = writer.fresh || !self.holds(Rule::CommitCompares);
        for (mut next, answer) in state.send(Request::Swap(who, head), is_current) {
            let acknowledges = match answer {
                Some(answer) => answer,
                None => !self.holds(Rule::UnsureIsNotDone),
            };
            let (what, after) = match answer {
                _ if acknowledges => {
                    next.acknowledged |= snapshot;
                    ("committed and says so", Self::end(WriterAt::Done))
                }
                Some(_) => ("lost the race", Writer { at: WriterAt::Look, ..*writer }),
                None => {
                    let after = next.writers[number];
                    ("gets no answer to its commit", Writer { at: WriterAt::Unsure, ..after })
                }
            };
            next.writers[number] = after;
            steps.push(who, what, next);
        }
    }

    /// What became of a checkpoint without an answer?
    fn look_for_checkpoint(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let writer = &state.writers[number];
        let mut go = |what, writer: Writer| {
            let mut next = *state;
            next.writers[number] = writer;
            steps.push(who, what, next);
        };
        if writer.fresh {
            go("sees that no checkpoint took place and gives up", Self::end(WriterAt::Failed));
            return;
        }
        let again = Writer { at: WriterAt::CheckpointLook, ..*writer };
        match writer.landed {
            true => go("learns that its checkpoint took place", self.checkpointed(writer)),
            false => go("learns that its checkpoint was lost", again),
        }
        // The first pack is the witness: named by the catalogue, it shows that the attempt took place.
        let first = one(each(writer.own).next().expect("a checkpoint has packs"));
        match (state.head.live | state.head.condemned) & first {
            0 => go("finds a head too new to tell of its checkpoint", again),
            _ => go("finds a pack of its checkpoint", self.checkpointed(writer)),
        }
    }

    /// What became of a commit without an answer?
    fn look_for_commit(&self, state: &State, number: usize, who: Who, steps: &mut Steps<'_>) {
        let writer = &state.writers[number];
        let snapshot = 1 << (number + 1);
        let mut go = |what, at| {
            let mut next = *state;
            match at {
                WriterAt::Done | WriterAt::Failed => next.writers[number] = Self::end(at),
                at => next.writers[number].at = at,
            }
            if at == WriterAt::Done {
                next.acknowledged |= snapshot;
            }
            steps.push(who, what, next);
        };
        if writer.fresh {
            go("sees that nothing was committed and gives up", WriterAt::Failed);
            return;
        }
        match writer.landed {
            true => go("learns that it committed and says so", WriterAt::Done),
            false => go("learns that it lost the race", WriterAt::Look),
        }
        // Only this attempt can have put the snapshot there.
        match state.head.snapshots & snapshot {
            0 => go("finds a head too new to tell", WriterAt::Look),
            _ => go("finds its snapshot and says so", WriterAt::Done),
        }
    }
}
