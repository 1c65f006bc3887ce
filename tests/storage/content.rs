//! A store of two streams whose messages are a function of their numbers, so that whoever reads them can tell whether
//! they are what was published.

use std::path::Path;
use std::time::{Duration, Instant};

use leat::consumer::Event;
use leat::io::engine::{Engine, now};
use leat::log::segments::Sizes;
use leat::log::{Durable, Incarnation, Message};
use leat::store::{ConsumerKey, Got, Notice, Options, Outlet, Report};
use leat::stream::{self, Inbound, Refusal, State};

/// Nothing may take longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Listens to a store.
#[derive(Default)]
pub(crate) struct Face {
    pub(crate) proof: Option<Durable>,
    pub(crate) notices: Vec<Notice>,
}

impl Outlet for Face {
    fn deliver(&mut self, _: ConsumerKey, _: leat::consumer::Target, _: &Message<'_>, _: &leat::consumer::Delivery) {}

    fn event(&mut self, _: ConsumerKey, _: Event) {}

    fn flushed(&mut self, proof: &Durable) {
        self.proof = Some(*proof);
    }

    fn notice(&mut self, notice: &Notice) {
        self.notices.push(notice.clone());
    }
}

/// Small segments, so that there are many, and a small cache, so that messages come from the disk.
pub(crate) fn options() -> Options {
    let log = leat::log::Options { sizes: Sizes { min: 1 << 20, max: 2 << 20 }, ..Default::default() };
    Options { log, cache_bytes: 4 << 20, ..Default::default() }
}

pub(crate) fn open(path: &Path) -> (Engine, Report) {
    open_with(path, options())
}

pub(crate) fn open_with(path: &Path, options: Options) -> (Engine, Report) {
    Engine::open(path, options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The streams by their names; those that are not there are created.
pub(crate) fn streams(engine: &mut Engine) -> [Incarnation; 2] {
    let limits = [None, Some(LIMIT)];
    [0_u8, 1].map(|name| {
        let found = engine.store().streams().find(|of| engine.store().stream_meta(*of) == Some(&[name]));
        found.unwrap_or_else(|| {
            let config = stream::Config { max_messages: limits[usize::from(name)], ..Default::default() };
            engine.store_mut().create_stream(now(), config, &[name]).0
        })
    })
}

/// Most messages of the second stream.
pub(crate) const LIMIT: u64 = 300;

/// Subject and payload of a message of the stream with that name.
pub(crate) fn message(name: usize, seq: u64) -> (String, Vec<u8>) {
    let mut rng = fastrand::Rng::with_seed(seq << 8 | name as u64);
    let bytes = match rng.u32(..400) {
        // In parts.
        0 => rng.usize(300_000..700_000),
        1..30 => rng.usize(..20_000),
        _ => rng.usize(..200),
    };
    let mut payload = vec![0; bytes];
    rng.fill(&mut payload);
    (format!("s{name}.{}", rng.u8(..10)), payload)
}

pub(crate) fn publish(engine: &mut Engine, of: Incarnation, name: usize) -> Result<(u64, leat::log::Pending), Refusal> {
    let seq = engine.store().stream(of).ok_or(Refusal::NotFound)?.last_seq() + 1;
    let (subject, payload) = message(name, seq);
    let message = Inbound { subject: subject.as_bytes(), payload: &payload, ..Default::default() };
    let admitted = engine.store_mut().publish(now(), of, &message).map_err(|refused| refused.why)?;
    assert_eq!(admitted.seq, seq);
    Ok((seq, admitted.after))
}

/// Takes turns until there is an answer.
pub(crate) fn ask<T>(engine: &mut Engine, face: &mut Face, mut question: impl FnMut(&mut Engine) -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = question(engine) {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "no answer, {:?}", face.notices.last());
        let next = engine.turn(face).unwrap();
        engine.wait(next, Some(Duration::from_millis(100))).unwrap();
    }
}

pub(crate) fn state(engine: &mut Engine, face: &mut Face, of: Incarnation) -> State {
    ask(engine, face, |engine| engine.store_mut().state(of).expect("the stream is there"))
}

/// A message as it is stored, or `None`: also if it is told that its place cannot be read.
pub(crate) fn get(engine: &mut Engine, face: &mut Face, of: Incarnation, seq: u64) -> Option<(String, Vec<u8>)> {
    let since = Instant::now();
    loop {
        let mut found = None;
        let got = engine.store_mut().get(of, seq, |message| {
            found = Some((String::from_utf8_lossy(message.subject).into_owned(), message.payload.to_vec()));
        });
        if got.expect("the stream is there") != Got::Later {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "no answer, {:?}", face.notices.last());
        let next = engine.turn(face).unwrap();
        engine.wait(next, Some(Duration::from_millis(100))).unwrap();
    }
}
