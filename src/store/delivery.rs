//! Lets consumers deliver: finds what they want, hands it out, and records what has happened.

use super::reads::Fetched;
use super::{ConsumerKey, DELTA, Outlet, SLICE, Store, Wake, head};
use crate::consumer::{Event, Found, Step, Target, Want};
use crate::log::{Kind, Pending, PlacedRun, Time, Urgency};
use crate::stream::{Block, Lookup, Retention};
use crate::subject::matches;

/// Counting the messages that a consumer with filters will get.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    /// Counted so far.
    matching: u64,
    /// The next number to be looked at; zero before the first.
    next: u64,
    /// Counted up to here; what is placed later is counted as it comes.
    upto: u64,
}

impl Count {
    /// Something has changed in what was counted.
    pub(super) fn start_again(&mut self) {
        *self = Self::default();
    }
}

/// What a look for the next message has found.
enum Search {
    Found(std::sync::Arc<super::cache::DecodedRun>, u64),
    /// Nothing matches from the number on.
    Dry,
    /// It has to be read. Nothing matches up to the number: what was read for that need not stay in memory.
    Wait(u64),
    /// So far nothing was found; the slice is used up.
    Later(u64),
}

impl Store {
    /// The matching messages of a consumer are to be counted.
    pub(super) fn recount(&mut self, key: ConsumerKey) {
        let slot = self.streams.get_mut(&key.stream).and_then(|slot| slot.consumers.get_mut(&key.number));
        let Some(entry) = slot else { return };
        entry.count = (!entry.consumer.config().filters.is_empty()).then(Count::default);
        self.wake(Wake::Consumer(key));
    }

    /// Delivers to one consumer what it may get now.
    pub(super) fn pump(&mut self, now: Time, key: ConsumerKey, outlet: &mut impl Outlet) {
        let Some(slot) = self.streams.get_mut(&key.stream) else { return };
        let Some(entry) = slot.consumers.get_mut(&key.number) else { return };
        entry.dirty = false;
        if entry.consumer.config().filters.is_empty() {
            let left = slot.stream.readable_from(entry.consumer.next_seq()) + entry.consumer.each_left() as u64;
            entry.consumer.set_num_pending(left);
        }
        if !self.counted(key) {
            return self.tell(now, key, outlet);
        }
        let mut budget = SLICE;
        loop {
            if budget == 0 {
                self.wake(Wake::Consumer(key));
                break;
            }
            let Some(entry) = self.entry(key) else { return };
            let (seq, to, is_new) = match entry.next(now) {
                Want::Nothing => break,
                Want::Again { seq, to } | Want::This { seq, to } => (seq, to, false),
                Want::New { from, to } => (from, to, true),
            };
            let found = if is_new { self.search(key, seq, &mut budget) } else { self.find(key, seq) };
            match found {
                Search::Wait(upto) => {
                    if let Some(entry) = self.entry(key).filter(|_| upto >= seq) {
                        entry.passed(upto);
                    }
                    break;
                }
                Search::Later(upto) => {
                    if let Some(entry) = self.entry(key) {
                        entry.passed(upto);
                    }
                }
                Search::Dry => {
                    let Some(entry) = self.entry(key) else { return };
                    match is_new {
                        true => entry.dry(),
                        false => {
                            entry.removed(seq, seq);
                            entry.passed_each(seq);
                        }
                    }
                }
                Search::Found(run, seq) => {
                    budget -= 1;
                    self.hand_out(now, key, to, &run, seq, outlet);
                    self.hand_out_more(now, key, &run, &mut budget, outlet);
                    self.keep_current(key, run);
                }
            }
        }
        self.tell(now, key, outlet);
    }

    fn hand_out(
        &mut self,
        now: Time,
        key: ConsumerKey,
        to: Target,
        run: &super::cache::DecodedRun,
        seq: u64,
        outlet: &mut impl Outlet,
    ) {
        let Some((message, _)) = run.find(seq) else { return };
        let bytes = message.subject.len() + message.headers.len() + message.payload.len();
        let found = Found { seq, time: message.time, bytes: bytes as u32 };
        let Some(entry) = self.entry(key) else { return };
        if let Step::Send(delivery) = entry.deliver(now, to, &found) {
            outlet.deliver(key, to, &message, &delivery);
        }
    }

    /// Goes on with new messages that lie one behind the other in the run at hand, which need no search.
    fn hand_out_more(
        &mut self,
        now: Time,
        key: ConsumerKey,
        run: &super::cache::DecodedRun,
        budget: &mut u32,
        outlet: &mut impl Outlet,
    ) {
        let Some(slot) = self.streams.get_mut(&key.stream) else { return };
        let Some(entry) = slot.consumers.get_mut(&key.number) else { return };
        let mut index = run.index_of(entry.consumer.next_seq());
        while *budget > 0
            && let Some((message, _)) = run.get(index)
            && let Want::New { from, to } = entry.consumer.next(now)
            && from == message.seq
            && slot.stream.is_visible(from)
        {
            index += 1;
            if !entry.wants(message.subject) {
                entry.consumer.passed(from);
                continue;
            }
            let bytes = message.subject.len() + message.headers.len() + message.payload.len();
            let found = Found { seq: from, time: message.time, bytes: bytes as u32 };
            let Step::Send(delivery) = entry.consumer.deliver(now, to, &found) else { return };
            *budget -= 1;
            outlet.deliver(key, to, &message, &delivery);
        }
    }

    /// Events, records and the timer, after whatever has happened to a consumer.
    fn tell(&mut self, now: Time, key: ConsumerKey, outlet: &mut impl Outlet) {
        let Some(slot) = self.streams.get_mut(&key.stream) else { return };
        let Some(entry) = slot.consumers.get_mut(&key.number) else { return };
        let keeps = slot.stream.config().retention == Retention::Limits;
        let mut acknowledged = Vec::new();
        for event in entry.consumer.drain_events() {
            match event {
                Event::Acknowledged { first, last } if !keeps => acknowledged.push(first..=last),
                Event::Acknowledged { .. } => {}
                event => outlet.event(key, event),
            }
        }
        for range in acknowledged {
            self.acknowledged(now, key.stream, range);
        }
        let Some(entry) = self.entry(key) else { return };
        if let Some(urgency) = entry.changed() {
            self.record(now, key, urgency);
        }
        let due = self.entry(key).and_then(|consumer| consumer.next_deadline());
        self.arm(Wake::Consumer(key), due);
    }

    /// Appends what has happened to a consumer since the last time.
    pub(super) fn record(&mut self, now: Time, key: ConsumerKey, urgency: Urgency) -> Pending {
        let Some(slot) = self.streams.get_mut(&key.stream) else { return Pending::NONE };
        let in_memory = slot.stream.config().is_memory();
        let Some(entry) = slot.consumers.get_mut(&key.number) else { return Pending::NONE };
        let in_memory = in_memory || entry.consumer.config().memory;
        let mut content = std::mem::take(&mut self.delta);
        content.clear();
        content.extend_from_slice(&head(key.number, DELTA));
        let mark = entry.consumer.take_delta(&mut content);
        let pending = if in_memory {
            if entry.consumer.flushed(mark) {
                self.wake(Wake::Consumer(key));
            }
            Pending::NONE
        } else {
            let pending = self.log.control(now, Some(key.stream), Kind::Consumer, &content, urgency);
            entry.marks.push_back((pending, mark));
            self.unproven.push_back((pending, Wake::Consumer(key)));
            pending
        };
        self.delta = content;
        pending
    }

    fn entry(&mut self, key: ConsumerKey) -> Option<&mut crate::consumer::Consumer> {
        self.streams.get_mut(&key.stream)?.consumers.get_mut(&key.number).map(|entry| &mut entry.consumer)
    }

    fn keep_current(&mut self, key: ConsumerKey, run: std::sync::Arc<super::cache::DecodedRun>) {
        let slot = self.streams.get_mut(&key.stream).and_then(|slot| slot.consumers.get_mut(&key.number));
        if let Some(entry) = slot {
            entry.current = Some(run);
        }
    }

    /// One message by its number.
    fn find(&mut self, key: ConsumerKey, seq: u64) -> Search {
        let Some(slot) = self.slot(key.stream) else { return Search::Dry };
        let current = slot.consumers.get(&key.number).and_then(|entry| entry.current.clone());
        let Lookup::Found { block, .. } = slot.stream.locate(seq) else { return Search::Dry };
        if let Some(run) = current.as_ref().filter(|run| run.find(seq).is_some()) {
            return Search::Found(run.clone(), seq);
        }
        match self.fetch(key.stream, seq, block.position, current.as_ref(), Wake::Consumer(key)) {
            Fetched::Run(run) if run.find(seq).is_some() => Search::Found(run, seq),
            Fetched::Run(_) | Fetched::Lost(_) => Search::Dry,
            Fetched::Wait(_) => Search::Wait(0),
        }
    }

    /// The first message from `from` on that a consumer wants.
    fn search(&mut self, key: ConsumerKey, from: u64, budget: &mut u32) -> Search {
        let mut seq = from;
        loop {
            let Some(slot) = self.slot(key.stream) else { return Search::Dry };
            let Some(entry) = slot.consumers.get(&key.number) else { return Search::Dry };
            let filters = &entry.consumer.config().filters;
            let lookup = if filters.is_empty() {
                slot.stream.next(seq)
            } else {
                let lookups = filters.iter().map(|filter| slot.stream.next_match(filter.as_bytes(), seq));
                lookups.min_by_key(first_of).unwrap_or(Lookup::None)
            };
            let (block, any) = match lookup {
                Lookup::None => return Search::Dry,
                Lookup::Found { block, .. } => (block, true),
                // From its first message that is there.
                Lookup::Read(Block { from, upto, .. }) => match slot.stream.next(from) {
                    Lookup::Found { seq: first, block } if first <= upto => (Block { upto, ..block }, false),
                    _ => {
                        seq = upto + 1;
                        continue;
                    }
                },
            };
            let current = entry.current.clone().filter(|run| run.first_seq <= block.from && run.last_seq >= block.from);
            let run = match current {
                Some(run) => run,
                None => {
                    let near = entry.current.clone();
                    match self.fetch(key.stream, block.from, block.position, near.as_ref(), Wake::Consumer(key)) {
                        Fetched::Run(run) => run,
                        Fetched::Wait(_) => return Search::Wait(seq - 1),
                        Fetched::Lost(upto) => {
                            seq = upto.unwrap_or(block.upto.max(block.from)).max(seq) + 1;
                            continue;
                        }
                    }
                }
            };
            let Some(slot) = self.slot(key.stream) else { return Search::Dry };
            let Some(entry) = slot.consumers.get(&key.number) else { return Search::Dry };
            let wanted = |subject: &[u8]| any && entry.consumer.config().filters.is_empty() || entry.wants(subject);
            let upto = block.upto.min(run.last_seq);
            for index in run.index_of(block.from).. {
                let Some((message, _)) = run.get(index) else { break };
                if message.seq > upto {
                    break;
                }
                if slot.stream.is_visible(message.seq) && wanted(message.subject) {
                    let seq = message.seq;
                    return Search::Found(run, seq);
                }
            }
            seq = upto.max(block.from) + 1;
            *budget = budget.saturating_sub(1);
            if *budget == 0 {
                return Search::Later(seq - 1);
            }
        }
    }

    /// Counts on. Returns whether the number is known.
    fn counted(&mut self, key: ConsumerKey) -> bool {
        let mut budget = COUNT_SLICE;
        loop {
            let Some(slot) = self.streams.get_mut(&key.stream) else { return false };
            let visible = slot.stream.visible();
            let Some(entry) = slot.consumers.get_mut(&key.number) else { return false };
            let Some(count) = &mut entry.count else { return true };
            if count.next == 0 {
                *count = Count { matching: 0, next: entry.consumer.next_seq(), upto: visible };
                // What begins with the first message is known by the subjects.
                if count.next <= slot.stream.first_seq()
                    && slot.stream.visible() == slot.stream.last_seq()
                    && let [filter] = &entry.consumer.config().filters[..]
                    && let Some(matching) = slot.stream.count_matching(filter.as_bytes())
                {
                    (count.matching, count.next) = (matching, visible + 1);
                }
            }
            let (next, upto) = (count.next, count.upto);
            let lookup = if next > upto { Lookup::None } else { slot.stream.next(next) };
            let block = match lookup {
                Lookup::Found { block, .. } | Lookup::Read(block) if block.from <= upto => block,
                _ => {
                    let total = count.matching + entry.consumer.each_left() as u64;
                    entry.consumer.set_num_pending(total);
                    entry.count = None;
                    return true;
                }
            };
            let near = entry.current.clone();
            let run = match self.fetch(key.stream, block.from, block.position, near.as_ref(), Wake::Consumer(key)) {
                Fetched::Wait(_) => return false,
                Fetched::Lost(lost) => {
                    self.count_on(key, 0, lost.unwrap_or(block.from) + 1);
                    continue;
                }
                Fetched::Run(run) => run,
            };
            let Some(slot) = self.slot(key.stream) else { return false };
            let Some(entry) = slot.consumers.get(&key.number) else { return false };
            let mut matching = 0;
            for index in run.index_of(block.from).. {
                let Some((message, _)) = run.get(index).filter(|(message, _)| message.seq <= upto) else { break };
                matching += u64::from(slot.stream.is_visible(message.seq) && entry.wants(message.subject));
            }
            self.count_on(key, matching, run.last_seq.max(block.from) + 1);
            self.keep_current(key, run);
            budget -= 1;
            if budget == 0 {
                self.wake(Wake::Consumer(key));
                return false;
            }
        }
    }

    fn count_on(&mut self, key: ConsumerKey, matching: u64, next: u64) {
        let slot = self.streams.get_mut(&key.stream).and_then(|slot| slot.consumers.get_mut(&key.number));
        if let Some(count) = slot.and_then(|entry| entry.count.as_mut()) {
            count.matching += matching;
            count.next = next;
        }
    }

    /// Messages can be read now: consumers with filters count those that they want.
    pub(super) fn count_placed(&mut self, run: &PlacedRun) {
        let Some(slot) = self.streams.get(&run.stream) else { return };
        if slot.consumers.values().all(|entry| entry.consumer.config().filters.is_empty()) {
            return;
        }
        let numbers = slot.consumers.iter().filter(|(_, entry)| !entry.consumer.config().filters.is_empty());
        let numbers = numbers.map(|(number, _)| *number).collect::<Vec<_>>();
        let waiter = Wake::Stream(run.stream);
        let fetched = self.fetch(run.stream, run.first_seq, Some(run.position), None, waiter);
        let Some(slot) = self.streams.get_mut(&run.stream) else { return };
        for number in numbers {
            let Some(entry) = slot.consumers.get_mut(&number) else { continue };
            match &fetched {
                Fetched::Run(decoded) => {
                    let mut count = 0;
                    for index in decoded.index_of(run.first_seq).. {
                        let Some((message, _)) = decoded.get(index) else { break };
                        count += u64::from(slot.stream.is_visible(message.seq) && entry.wants(message.subject));
                    }
                    match &mut entry.count {
                        // Behind what is being counted.
                        Some(counting) if counting.next > 0 => counting.matching += count,
                        Some(_) => {}
                        None => entry.consumer.stored(count),
                    }
                }
                // It was in memory a moment ago; count everything again.
                _ => entry.count = Some(Count::default()),
            }
        }
    }
}

impl super::ConsumerSlot {
    pub(super) fn wants(&self, subject: &[u8]) -> bool {
        let filters = &self.consumer.config().filters;
        filters.is_empty() || filters.iter().any(|filter| matches(filter.as_bytes(), subject))
    }
}

fn first_of(lookup: &Lookup) -> u64 {
    match lookup {
        Lookup::None => u64::MAX,
        Lookup::Found { seq, .. } => *seq,
        Lookup::Read(block) => block.from,
    }
}

/// Runs that one look counts.
const COUNT_SLICE: u32 = 64;
