//! Somebody who brings a forgotten snapshot back, as `repository/forget.rs` of the store does it.

use super::protocol::{Protocol, Rule, Steps};
use super::state::*;

const WHO: Who = Who::Keeper;

impl Protocol {
    /// The steps of the one who undeletes.
    pub(super) fn undelete(&self, state: &State, steps: &mut Steps<'_>) {
        let keeper = state.keeper;
        let put = |keeper: Keeper| {
            let mut next = *state;
            next.keeper = keeper;
            next
        };
        let done = Keeper { at: KeeperAt::Done, ..keeper };
        match keeper.at {
            KeeperAt::Look => self.look(state, steps),
            KeeperAt::Swap => self.bring_back(state, steps),
            KeeperAt::Unsure if keeper.fresh => {
                steps.push(WHO, "sees that nothing happened and says so", put(done));
            }
            KeeperAt::Unsure => {
                if keeper.landed {
                    let mut next = put(Keeper { acknowledged: true, ..done });
                    next.acknowledged |= keeper.snapshot;
                    steps.push(WHO, "learns that it brought the snapshot back", next);
                } else {
                    let look = Keeper { at: KeeperAt::Look, ..keeper };
                    steps.push(WHO, "learns that it lost the race", put(look));
                }
                let look = Keeper { at: KeeperAt::Look, unsure: true, ..keeper };
                steps.push(WHO, "finds a head too new to tell", put(look));
            }
            KeeperAt::Done => {}
        }
    }

    /// Finds a forgotten snapshot, or the one that it wanted before.
    fn look(&self, state: &State, steps: &mut Steps<'_>) {
        let keeper = state.keeper;
        for snapshot in (0..SNAPSHOTS).map(|number| 1 << number) {
            if keeper.snapshot != 0 && keeper.snapshot != snapshot {
                continue;
            }
            let mut next = *state;
            let what = if state.head.forgotten & snapshot != 0 {
                next.keeper = Keeper { at: KeeperAt::Swap, snapshot, fresh: true, ..keeper };
                "finds the snapshot among the forgotten"
            } else if keeper.snapshot == 0 {
                continue;
            } else if state.head.snapshots & snapshot != 0 {
                next.keeper.at = KeeperAt::Done;
                "finds the snapshot live"
            } else {
                next.keeper.at = KeeperAt::Done;
                next.keeper.acknowledged = keeper.unsure && !self.holds(Rule::GoneIsNotUndeleted);
                "finds the snapshot gone and says so"
            };
            steps.push(WHO, what, next);
        }
    }

    fn bring_back(&self, state: &State, steps: &mut Steps<'_>) {
        let keeper = state.keeper;
        let mut head = state.head;
        head.snapshots |= keeper.snapshot;
        head.forgotten &= !keeper.snapshot;
        let is_current = keeper.fresh || !self.holds(Rule::UndeleteLooksAgain);
        for (mut next, answer) in state.send(Request::Swap(WHO, head), is_current) {
            let what = match answer {
                Some(true) => {
                    next.acknowledged |= keeper.snapshot;
                    next.keeper.at = KeeperAt::Done;
                    next.keeper.acknowledged = true;
                    "brought the snapshot back"
                }
                Some(false) => {
                    next.keeper.at = KeeperAt::Look;
                    "lost the race"
                }
                None => {
                    next.keeper.at = KeeperAt::Unsure;
                    "gets no answer"
                }
            };
            steps.push(WHO, what, next);
        }
    }
}
