//! Members: those to whom messages are pushed, with credit each.

use super::config::{Choice, Sharing};
use super::ledger::NOBODY;

/// A member of one consumer. Not used again while anybody may still hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId {
    pub(super) index: u16,
    generation: u16,
}

/// What a member can take, apart from its credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Everything.
    Ready,
    /// It seems not to be there: gets no redeliveries, and nothing at all in a group.
    Suspended,
    /// Nothing for the moment: what was sent to it has not left yet.
    Held,
    /// No new messages; [`super::Event::Drained`] when it has acknowledged all it holds.
    Draining,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Unacknowledged messages that it holds.
    pub(super) pending: u32,
    /// How many it may hold.
    pub(super) credit: u32,
    generation: u16,
    pub(super) presence: Presence,
    online: bool,
}

/// All members. Choosing one looks at each: groups are small.
#[derive(Debug, Default)]
pub(super) struct Members {
    slots: Vec<Member>,
    online: u16,
    /// Where the next choice begins.
    turn: u16,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        usize::from(self.online)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.online == 0
    }

    /// `None` when there are 65,535 already.
    pub(super) fn join(&mut self, credit: u32) -> Option<MemberId> {
        let fresh = Member { pending: 0, credit, generation: 0, presence: Presence::Ready, online: true };
        let index = match self.slots.iter().position(|slot| !slot.online) {
            Some(index) => {
                let generation = self.slots[index].generation.wrapping_add(1);
                self.slots[index] = Member { generation, ..fresh };
                index
            }
            None if self.slots.len() < usize::from(NOBODY) => {
                if self.slots.is_empty() {
                    // Most have one.
                    self.slots.reserve_exact(1);
                }
                self.slots.push(fresh);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.online += 1;
        Some(MemberId { index: index as u16, generation: self.slots[index].generation })
    }

    pub(super) fn leave(&mut self, id: MemberId) -> bool {
        let Some(member) = self.get_mut(id) else { return false };
        member.online = false;
        self.online -= 1;
        true
    }

    pub(super) fn get(&self, id: MemberId) -> Option<&Member> {
        self.slots.get(usize::from(id.index)).filter(|slot| slot.online && slot.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.slots.get_mut(usize::from(id.index)).filter(|slot| slot.online && slot.generation == id.generation)
    }

    /// The member that holds a message.
    pub(super) fn owner(&mut self, owner: u16) -> Option<&mut Member> {
        self.slots.get_mut(usize::from(owner)).filter(|slot| slot.online)
    }

    pub(super) fn id(&self, index: u16) -> Option<MemberId> {
        let slot = self.slots.get(usize::from(index)).filter(|slot| slot.online)?;
        Some(MemberId { index, generation: slot.generation })
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = MemberId> {
        (0..self.slots.len() as u16).filter_map(|index| self.id(index))
    }

    /// A message has gone to this one: the next choice begins behind it.
    pub(super) fn took_turn(&mut self, id: MemberId) {
        self.turn = id.index + 1;
    }

    /// Who gets a new message.
    pub(super) fn for_new(&self, sharing: Sharing, choice: Choice) -> Option<MemberId> {
        self.choose(choice, |member| {
            let there = match member.presence {
                Presence::Ready => true,
                Presence::Suspended => sharing == Sharing::Single,
                Presence::Held | Presence::Draining => false,
            };
            there && member.pending < member.credit
        })
    }

    /// Who gets a message again that `owner` holds.
    pub(super) fn for_again(&self, owner: u16, assigned: bool, overrun: bool, choice: Choice) -> Option<MemberId> {
        let there = |member: &Member| matches!(member.presence, Presence::Ready | Presence::Draining);
        let holder = self.id(owner).filter(|id| self.get(*id).is_some_and(there));
        if assigned && holder.is_some() {
            return holder;
        }
        self.choose(choice, |member| member.presence == Presence::Ready && member.pending < member.credit)
            .or_else(|| holder.filter(|_| !overrun))
            .or_else(|| self.choose(choice, there))
    }

    fn choose(&self, choice: Choice, may: impl Fn(&Member) -> bool) -> Option<MemberId> {
        let (before, after) = self.slots.split_at(usize::from(self.turn).min(self.slots.len()));
        let in_turn = after.iter().zip(before.len()..).chain(before.iter().zip(0..));
        let mut candidates = in_turn.filter(|(member, _)| member.online && may(member));
        let best = match choice {
            Choice::RoundRobin => candidates.next(),
            Choice::FewestPending => candidates.min_by_key(|(member, _)| member.pending),
        };
        best.map(|(member, index)| MemberId { index: index as u16, generation: member.generation })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Member>()
    }
}
