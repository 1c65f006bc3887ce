//! What the store is given to do.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use leat::consumer::{self, AckPolicy, Delivery, Origin, Target};
use leat::io::engine::{Engine, now};
use leat::log::{Durable, Incarnation, Message, Waiting};
use leat::store::{ConsumerKey, Notice, Outlet};
use leat::stream::{Config, Inbound};

/// The payload of most messages.
pub(crate) const SMALL: [u8; 128] = [b'x'; 128];
const SUBJECT: &str = "orders.created";

/// Publishes, and counts what comes back.
#[derive(Default)]
pub(crate) struct Face {
    /// Messages whose acknowledgement waits.
    waiting: Waiting<u64>,
    acknowledged: u64,
    delivered: u64,
    payload_bytes: u64,
    /// Different subjects; zero is one.
    subjects: u64,
}

impl Outlet for Face {
    fn deliver(&mut self, _: ConsumerKey, _: Target, message: &Message<'_>, _: &Delivery) {
        self.delivered += 1;
        self.payload_bytes += message.payload.len() as u64;
    }

    fn event(&mut self, _: ConsumerKey, _: consumer::Event) {}

    fn flushed(&mut self, proof: &Durable) {
        self.acknowledged += self.waiting.release(proof).sum::<u64>();
    }

    fn notice(&mut self, notice: &Notice) {
        panic!("{notice}");
    }
}

/// A stream, perhaps with a limit of bytes.
pub(crate) fn create(engine: &mut Engine, max_bytes: Option<u64>) -> Incarnation {
    engine.store_mut().create_stream(now(), Config { max_bytes, ..Default::default() }, b"").0
}

impl Face {
    /// One that publishes on so many subjects, in turn.
    pub(crate) fn with_subjects(subjects: u64) -> Self {
        Self { subjects, ..Self::default() }
    }

    fn publish(&mut self, engine: &mut Engine, of: Incarnation, payload: &[u8], count: u64) {
        let now = now();
        let mut subject = String::from(SUBJECT);
        for _ in 0..count {
            if self.subjects > 1 {
                use std::fmt::Write;
                subject.clear();
                let last = engine.store().stream(of).expect("was created").last_seq();
                write!(subject, "orders.{:07}.created", last % self.subjects).expect("a string takes everything");
            }
            let message = Inbound { subject: subject.as_bytes(), payload, ..Default::default() };
            let admitted = engine.store_mut().publish(now, of, &message).expect("nothing refuses it");
            self.waiting.push(admitted.after, 1);
        }
    }

    /// Publishes `count` messages, so many of them waiting at a time, and waits until all are acknowledged.
    pub(crate) fn publish_count(
        &mut self,
        engine: &mut Engine,
        of: Incarnation,
        payload: &[u8],
        waiting: u64,
        count: u64,
    ) {
        let mut left = count;
        while left > 0 || !self.waiting.is_empty() {
            let more = waiting.saturating_sub(self.waiting.len() as u64).min(left);
            self.publish(engine, of, payload, more);
            left -= more;
            self.step(engine);
        }
    }

    /// A turn, and a wait if it has brought no acknowledgement: with one, there is more to publish at once.
    fn step(&mut self, engine: &mut Engine) {
        let before = self.waiting.len();
        let next = engine.turn(self).unwrap();
        if self.waiting.len() == before {
            engine.wait(next, None).unwrap();
        }
    }
}

/// Messages acknowledged per second while so many wait.
pub(crate) fn publish_all(
    engine: &mut Engine,
    face: &mut Face,
    of: Incarnation,
    payload: &[u8],
    waiting: u64,
    time: Duration,
) -> f64 {
    let (begin, before) = (Instant::now(), face.acknowledged);
    while begin.elapsed() < time {
        let more = waiting.saturating_sub(face.waiting.len() as u64);
        face.publish(engine, of, payload, more);
        face.step(engine);
    }
    let rate = (face.acknowledged - before) as f64 / begin.elapsed().as_secs_f64();
    while !face.waiting.is_empty() {
        face.step(engine);
    }
    rate
}

/// How long it takes to read everything, and checks that it is everything.
pub(crate) fn replay(engine: &mut Engine, count: u64, payload: usize) -> Duration {
    let mut face = Face::default();
    let of = engine.store().streams().next().expect("it has a stream");
    let config = consumer::Config { ack: AckPolicy::None, memory: true, ..Default::default() };
    let begin = Instant::now();
    let (key, _) = engine.store_mut().create_consumer(now(), of, config, Origin::at(1), b"").unwrap().unwrap();
    engine.store_mut().join(now(), key, u32::MAX).unwrap();
    engine.run(&mut face, |_, face| face.delivered >= count).unwrap();
    let time = begin.elapsed();
    assert_eq!((face.delivered, face.payload_bytes), (count, count * payload as u64));
    time
}

/// Writes to a stream at a steady rate.
pub(crate) struct Flood {
    of: Incarnation,
    bytes_per_second: u64,
    payload: Vec<u8>,
    sent: u64,
}

impl Flood {
    pub(crate) fn new(of: Incarnation, bytes_per_second: u64) -> Self {
        Self { of, bytes_per_second, payload: vec![b'y'; 64 << 10], sent: 0 }
    }

    /// Bytes of payload written.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Nanoseconds from a publish to its acknowledgement, of a publisher that publishes again when it has it.
    pub(crate) fn beside(
        &mut self,
        engine: &mut Engine,
        face: &mut Face,
        of: Incarnation,
        time: Duration,
    ) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        let begin = Instant::now();
        let mut single: Option<(Instant, leat::log::Pending)> = None;
        let mut proof = Proof::default();
        while begin.elapsed() < time {
            if single.is_none() {
                let message = Inbound { subject: SUBJECT.as_bytes(), payload: &SMALL, ..Default::default() };
                let at = Instant::now();
                let admitted = engine.store_mut().publish(now(), of, &message).expect("nothing refuses it");
                single = Some((at, admitted.after));
            }
            let due = (begin.elapsed().as_secs_f64() * self.bytes_per_second as f64) as u64;
            while self.sent + self.payload.len() as u64 <= due && engine.store().has_room() {
                let message = Inbound { subject: b"flood", payload: &self.payload, ..Default::default() };
                engine.store_mut().publish(now(), self.of, &message).expect("nothing refuses it");
                self.sent += self.payload.len() as u64;
            }
            let next = engine.turn(&mut proof).unwrap();
            if let Some((at, _)) = single.take_if(|(_, after)| proof.0.is_some_and(|proof| proof.covers(*after))) {
                histogram.record(at.elapsed().as_nanos() as u64).unwrap();
                continue;
            }
            let pause = (self.bytes_per_second > 0).then_some(Duration::from_micros(300));
            engine.wait(next, pause).unwrap();
        }
        // What is on its way is not counted.
        engine.run(face, |engine, _| engine.store().log().is_at_rest()).unwrap();
        histogram
    }
}

/// The latest proof.
#[derive(Default)]
struct Proof(Option<Durable>);

impl Outlet for Proof {
    fn deliver(&mut self, _: ConsumerKey, _: Target, _: &Message<'_>, _: &Delivery) {}

    fn event(&mut self, _: ConsumerKey, _: consumer::Event) {}

    fn flushed(&mut self, proof: &Durable) {
        self.0 = Some(*proof);
    }

    fn notice(&mut self, notice: &Notice) {
        panic!("{notice}");
    }
}
