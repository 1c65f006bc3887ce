//! Members: those to whom messages are pushed, with credit each.

use super::config::{Choice, Config, Sharing};
use super::ledger::NOBODY;
use crate::first::First as _;

/// A member of one consumer. Not used again while anybody may still hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId {
    pub(super) index: u16,
    generation: u16,
}

/// How a member takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Names the member in records, so that a group knows who holds what after a restart too. Zero: it has no name.
    pub key: u64,
    /// Unacknowledged messages that it may hold.
    pub credit: u32,
    /// How long an acknowledgement of what it holds may take, if not as long as the configuration says.
    pub ack_wait_ns: Option<i64>,
}

impl From<u32> for Terms {
    /// A member without a name that may hold so many messages.
    fn from(credit: u32) -> Self {
        Self { key: 0, credit, ack_wait_ns: None }
    }
}

/// What a member can take, apart from its credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Everything.
    Ready,
    /// It seems not to be there: gets no redeliveries; in a group it gets only what no other one can take.
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
    ack_wait_ns: Option<i64>,
    /// Also of one that was there before a restart and has not come back yet.
    key: u64,
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
    pub(super) fn join(&mut self, terms: Terms) -> Option<MemberId> {
        let Terms { key, credit, ack_wait_ns } = terms;
        let presence = Presence::Ready;
        let fresh = Member { pending: 0, credit, generation: 0, presence, online: true, ack_wait_ns, key };
        let place = |key: u64| self.slots.iter().position(|slot| !slot.online && slot.key == key);
        let index = match place(key).or_else(|| place(0)) {
            Some(index) => {
                let generation = self.slots[index].generation.wrapping_add(1);
                self.slots[index] = Member { generation, ..fresh };
                index
            }
            None if self.slots.len() < usize::from(NOBODY) => {
                self.slots.reserve_first();
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
        (member.online, member.key) = (false, 0);
        self.online -= 1;
        true
    }

    /// Those with a name: where they are, and the name.
    pub(super) fn named(&self) -> impl Iterator<Item = (u16, u64)> {
        self.slots.iter().zip(0..).filter(|(slot, _)| slot.key != 0).map(|(slot, index)| (index, slot.key))
    }

    pub(super) fn is_named(&self, index: u16) -> bool {
        self.slots.get(usize::from(index)).is_some_and(|slot| slot.key != 0)
    }

    /// Those with a name are these, as far as a record knows, and none of them has come back yet. Returns the places
    /// where another one was before.
    pub(super) fn remember(&mut self, named: &[(u16, u64)]) -> Vec<u16> {
        let absent = |key| {
            let presence = Presence::Ready;
            Member { pending: 0, credit: 0, generation: 0, presence, online: false, ack_wait_ns: None, key }
        };
        let before = std::mem::take(&mut self.slots);
        for (index, key) in named {
            self.slots.resize_with(usize::from(*index), || absent(0));
            self.slots.push(absent(*key));
        }
        let key_now = |place: usize| self.slots.get(place).map_or(0, |slot| slot.key);
        let changed = before.iter().enumerate().filter(|(place, slot)| slot.key != 0 && slot.key != key_now(*place));
        changed.map(|(place, _)| place as u16).collect()
    }

    /// Nobody who has not come back is waited for any longer. Returns whether there was one.
    pub(super) fn forget_absent(&mut self) -> bool {
        let absent = self.slots.iter_mut().filter(|slot| !slot.online && slot.key != 0);
        absent.map(|slot| slot.key = 0).count() > 0
    }

    /// The wait of the member there, if it has one of its own.
    pub(super) fn ack_wait_ns(&self, index: u16) -> Option<i64> {
        self.slots.get(usize::from(index)).filter(|slot| slot.online)?.ack_wait_ns
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
    pub(super) fn for_new(&self, choice: Choice) -> Option<MemberId> {
        let with =
            |presence| self.choose(choice, |member| member.presence == presence && member.pending < member.credit);
        with(Presence::Ready).or_else(|| with(Presence::Suspended))
    }

    /// Who gets a message again that `owner` holds.
    pub(super) fn for_again(&self, owner: u16, assigned: bool, config: &Config) -> Option<MemberId> {
        let Config { choice, overrun_credit: overrun, sharing, .. } = *config;
        let there = |member: &Member| matches!(member.presence, Presence::Ready | Presence::Draining);
        let suspended = |member: &Member| sharing == Sharing::Group && member.presence == Presence::Suspended;
        let holder_if = |may: &dyn Fn(&Member) -> bool| self.id(owner).filter(|id| self.get(*id).is_some_and(may));
        let holder = holder_if(&there);
        if assigned && holder.is_some() {
            return holder;
        }
        self.choose(choice, |member| member.presence == Presence::Ready && member.pending < member.credit)
            .or_else(|| holder.filter(|_| !overrun))
            .or_else(|| self.choose(choice, there))
            .or_else(|| holder_if(&suspended))
            .or_else(|| self.choose(choice, suspended))
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
