//! The fenced commit and prune protocol: its rules, the scopes in which it is explored, and what must never be.
//!
//! Mirrors `write/commit.rs`, `prune/` and `repository/` of the store step by step; each step here is one that others
//! can come between. A later head tells what became of a swap without an answer, or it is so much later that it does not:
//! both are explored. There is no clock: every grace is zero and every expiry may happen at any moment. A crash needs no step:
//! who crashed is somebody who never takes his next step, and nobody waits for anybody.

use super::search::Model;
use super::state::*;

/// Chunk A of the model's files.
pub const A: Chunks = 1;
/// Chunk B.
pub const B: Chunks = 2;
/// Chunk C.
pub const C: Chunks = 4;

/// The rules of the protocol. Each can be broken by itself, and every one must be needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A pack counts only once its put was acknowledged.
    PutBeforeCommit,
    /// A commit replaces exactly the head that was looked at.
    CommitCompares,
    /// Packs that were relied on are looked at again under the head to be replaced.
    ReliedIsChecked,
    /// So is the parent whose content was taken over.
    ParentIsChecked,
    /// Own packs that were condemned do not become live.
    CondemnedOwnIsVoid,
    /// Nor do own packs that were born behind the fence.
    FencedOwnIsVoid,
    /// Chunks are looked up in live packs only.
    CondemnedIsNotRead,
    /// A commit without an answer is not acknowledged before the head shows it.
    UnsureIsNotDone,
    /// Packs that a checkpoint made live are relied on like those of others.
    CheckpointIsReliedOn,
    /// A pack is deleted only after it was condemned.
    CondemnBeforeDelete,
    /// A verdict that lost the race is void: the prune marks again.
    LostVerdictIsVoid,
    /// A verdict without an answer is no licence to delete.
    UnsureIsNotCondemned,
    /// What a prune stored for a verdict that was lost is no orphan to itself.
    OwnIsNoOrphan,
    /// What a prune stored and finds live is its own no more.
    LiveIsNotOwn,
    /// Forgotten snapshots are marked until a swap has let them go.
    ForgottenIsMarked,
    /// Tombstones go together with a raised fence.
    FenceIsRaised,
    /// The fence stands behind the births of the packs whose tombstones go.
    FenceIncludesBirth,
    /// An undelete that lost the race looks whether the snapshot is still there.
    UndeleteLooksAgain,
    /// An undelete that had no answer and finds the snapshot gone does not claim to have brought it back.
    GoneIsNotUndeleted,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::PutBeforeCommit,
        Self::CommitCompares,
        Self::ReliedIsChecked,
        Self::ParentIsChecked,
        Self::CondemnedOwnIsVoid,
        Self::FencedOwnIsVoid,
        Self::CondemnedIsNotRead,
        Self::UnsureIsNotDone,
        Self::CheckpointIsReliedOn,
        Self::CondemnBeforeDelete,
        Self::LostVerdictIsVoid,
        Self::UnsureIsNotCondemned,
        Self::OwnIsNoOrphan,
        Self::LiveIsNotOwn,
        Self::ForgottenIsMarked,
        Self::FenceIsRaised,
        Self::FenceIncludesBirth,
        Self::UndeleteLooksAgain,
        Self::GoneIsNotUndeleted,
    ];
}

/// How much of the world is explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// A name for reports.
    pub name: &'static str,
    /// The chunks of each snapshot; 0 for none.
    pub needs: [Chunks; SNAPSHOTS],
    /// Snapshots that exist from the start, all in one pack. The others are stored by writers.
    pub existing: Snapshots,
    /// How many prunes run, at most two.
    pub prunes: usize,
    /// How often somebody forgets a snapshot.
    pub forgets: u8,
    /// Whether somebody brings a forgotten one back.
    pub undelete: bool,
    /// How many requests go without an answer.
    pub timeouts: u8,
    /// Whether writers make packs live before their snapshot.
    pub checkpoints: bool,
}

impl Scope {
    /// Backups, prunes, a forget and an undelete, every request answered.
    const ANSWERED: Self = Self {
        name: "all answered",
        needs: [A | B, A, A | B],
        existing: 1,
        prunes: 2,
        forgets: 1,
        undelete: true,
        timeouts: 0,
        checkpoints: false,
    };

    /// Small scopes, each seen whole in a blink, in which every rule is shown to be needed.
    pub const SMALL: [Self; 4] = [
        Self { name: "one backup", needs: [A | B, A, 0], prunes: 1, timeouts: 1, ..Self::ANSWERED },
        Self {
            name: "one backup, two prunes",
            needs: [A | B, A, 0],
            undelete: false,
            timeouts: 1,
            ..Self::ANSWERED
        },
        Self {
            name: "rewriting",
            needs: [A | B | C, A | B, A],
            existing: 0b111,
            forgets: 2,
            undelete: false,
            timeouts: 1,
            ..Self::ANSWERED
        },
        Self {
            name: "checkpoints",
            needs: [A | B, A | C, 0],
            prunes: 1,
            undelete: false,
            timeouts: 1,
            checkpoints: true,
            ..Self::ANSWERED
        },
    ];

    /// Large scopes that can still be seen whole: together more than 1,900,000 states.
    pub const LARGE: [Self; 2] =
        [Self::ANSWERED, Self { name: "one without an answer", timeouts: 1, ..Self::ANSWERED }];

    /// Scopes for a long run by hand.
    pub const HUGE: [Self; 3] = [
        Self { name: "two without an answer", timeouts: 2, ..Self::ANSWERED },
        Self {
            name: "data of their own, checkpoints",
            needs: [A | B, A | C, A | B],
            timeouts: 1,
            checkpoints: true,
            ..Self::ANSWERED
        },
        Self {
            name: "two forgets",
            needs: [A | B | C, A | C, A | B],
            forgets: 2,
            timeouts: 1,
            ..Self::ANSWERED
        },
    ];
}

/// The protocol in one scope, whole or with one rule broken.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    scope: Scope,
    broken: Option<Rule>,
}

/// One step of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Whose.
    pub who: Who,
    /// What it does.
    pub what: &'static str,
}

impl std::fmt::Display for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.who, self.what)
    }
}

/// The states that steps lead to.
pub(super) struct Steps<'a> {
    pub protocol: &'a Protocol,
    pub out: &'a mut Vec<(Step, State)>,
}

impl Steps<'_> {
    /// `who` does `what`, and this is the state behind it.
    pub fn push(&mut self, who: Who, what: &'static str, mut state: State) {
        self.protocol.normalise(&mut state);
        self.out.push((Step { who, what }, state));
    }
}

impl Protocol {
    /// The protocol with all its rules.
    pub fn new(scope: Scope) -> Self {
        Self { scope, broken: None }
    }

    /// The protocol without this rule.
    pub fn without(scope: Scope, rule: Rule) -> Self {
        Self { scope, broken: Some(rule) }
    }

    pub(super) fn holds(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    pub(super) fn need(&self, snapshot: usize) -> Chunks {
        self.scope.needs[snapshot]
    }

    /// The chunks that these snapshots need.
    pub(super) fn needed_by(&self, snapshots: Snapshots) -> Chunks {
        (0..SNAPSHOTS)
            .filter(|snapshot| snapshots >> snapshot & 1 == 1)
            .fold(0, |chunks, snapshot| chunks | self.need(snapshot))
    }

    fn forgets(&self, state: &State, steps: &mut Steps<'_>) {
        if state.forgets == 0 {
            return;
        }
        for snapshot in (0..SNAPSHOTS).map(|number| 1 << number) {
            if state.head.snapshots & snapshot == 0 {
                continue;
            }
            // Reading and swapping again until nobody was faster is the same as doing it at once.
            let mut head = state.head;
            head.snapshots &= !snapshot;
            head.forgotten |= snapshot;
            let mut next = *state;
            next.forgets -= 1;
            next.move_head(Who::Nobody, head);
            next.dismissed |= snapshot;
            steps.push(Who::Nobody, "sees a snapshot forgotten", next);
        }
    }

    fn late_requests(state: &State, steps: &mut Steps<'_>) {
        for (place, request) in state.in_flight.iter().enumerate() {
            let Some(request) = request else { continue };
            let mut next = *state;
            next.in_flight[place] = None;
            next.take_effect(*request, true);
            let what = match request {
                Request::Put(_) => "gets a late put",
                Request::Remove(_) => "gets a late removal",
                Request::Swap(..) => "gets a late swap of the head",
            };
            steps.push(Who::Nobody, what, next);
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let snapshots = self.scope.existing;
        let head = Head { snapshots, live: 1, fenced: 1, ..Head::default() };
        let mut packs = [Pack::default(); PACKS_MAX];
        packs[0] = Pack { chunks: self.needed_by(snapshots), born: 2 };
        let checkpoints = self.scope.checkpoints;
        let writer = |number: usize| {
            let is_idle = self.need(number + 1) == 0 || snapshots >> (number + 1) & 1 == 1;
            let at = if is_idle { WriterAt::Done } else { WriterAt::Begin };
            Writer { at, checkpoints, ..Writer::default() }
        };
        let pruner = |number: usize| {
            let at = if number < self.scope.prunes { PrunerAt::Expire } else { PrunerAt::Done };
            Pruner { at, ..Pruner::default() }
        };
        let keeper_at = if self.scope.undelete { KeeperAt::Look } else { KeeperAt::Done };
        let mut state = State {
            head,
            now: 3,
            exists: 1,
            packs,
            pack_count: 1,
            in_flight: [None; IN_FLIGHT_MAX],
            writers: std::array::from_fn(writer),
            pruners: std::array::from_fn(pruner),
            keeper: Keeper { at: keeper_at, ..Keeper::default() },
            acknowledged: snapshots,
            dismissed: 0,
            forgets: self.scope.forgets,
            timeouts: self.scope.timeouts,
        };
        self.normalise(&mut state);
        state
    }

    fn successors(&self, state: &State, out: &mut Vec<(Step, State)>) {
        let mut steps = Steps { protocol: self, out };
        for number in 0..ACTORS_MAX {
            self.writer(state, number, &mut steps);
            self.pruner(state, number, &mut steps);
        }
        self.undelete(state, &mut steps);
        self.forgets(state, &mut steps);
        Self::late_requests(state, &mut steps);
    }

    fn violation(&self, state: &State) -> Option<String> {
        let head = &state.head;
        if head.live & !state.exists != 0 {
            return Some("I3: a pack that is not condemned was deleted or never stored".into());
        }
        if head.live & head.condemned != 0 {
            return Some("a pack is live and condemned".into());
        }
        if state.keeper.acknowledged && !state.keeper.landed {
            return Some("I4: an undelete was acknowledged that never took place".into());
        }
        let present = state.chunks_in(head.live);
        for snapshot in 0..SNAPSHOTS {
            let is = |set: Snapshots| set >> snapshot & 1 == 1;
            let lost = self.need(snapshot) & !present;
            if is(head.snapshots | head.forgotten) && lost != 0 {
                return Some(format!("I1: snapshot {snapshot} has lost chunks {lost:03b}"));
            }
            if is(state.acknowledged & !state.dismissed & !head.snapshots) {
                return Some(format!("I4: snapshot {snapshot} was acknowledged and is gone"));
            }
        }
        None
    }

    fn is_finished(&self, state: &State) -> bool {
        let keeper = &state.keeper;
        state.writers.iter().all(|w| matches!(w.at, WriterAt::Done | WriterAt::Failed))
            && state.pruners.iter().all(|pruner| pruner.at == PrunerAt::Done)
            && (keeper.at == KeeperAt::Done || keeper.snapshot == 0)
    }
}
