//! A server that does next to nothing: exact subjects and `prefix.*`, no limits, no accounts, one thread. It shows what
//! the load generator and the kernel reach when the server costs almost nothing; it is no broker.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::client::Link;
use crate::failure::{Failure, Outcome};
use crate::frames::{FrameReader, Frames, Want, words};
use crate::sys::{self, Poller};

/// Unsent bytes of a connection above which nothing more is read.
const BACKLOG_BYTES: usize = 1 << 20;

const LISTENER: usize = usize::MAX >> 1;

const INFO: &str = r#"INFO {"server_id":"SINK","server_name":"sink","version":"0.0.0","proto":1,"host":"127.0.0.1","port":0,"headers":true,"max_payload":67108864}"#;

/// Serves until SIGINT or SIGTERM.
pub(crate) fn serve(address: SocketAddr) -> Outcome<()> {
    let listener = TcpListener::bind(address).map_err(Failure::during(format_args!("cannot listen on {address}")))?;
    listener.set_nonblocking(true)?;
    println!("sink listens on {}, pid {}", listener.local_addr()?, std::process::id());
    let mut sink =
        Sink { poller: Poller::new()?, peers: Vec::new(), router: Router::default(), scratch: vec![0; 256 << 10] };
    sink.poller.add(&listener, LISTENER)?;
    let mut readable: Vec<usize> = Vec::new();
    while !sys::stop_asked() {
        let crowded = sink.is_crowded();
        let nap = if readable.is_empty() || crowded { Duration::from_millis(100) } else { Duration::ZERO };
        let events = sink.poller.wait(nap)?.to_vec();
        for ready in events {
            if ready.token == LISTENER {
                sink.accept_all(&listener)?;
                continue;
            }
            if ready.writable
                && let Some(peer) = &mut sink.peers[ready.token]
            {
                peer.link.writable = true;
            }
            if ready.readable && !readable.contains(&ready.token) {
                readable.push(ready.token);
            }
        }
        sink.flush_all();
        if !sink.is_crowded() {
            readable.retain(|&token| sink.read(token));
            sink.flush_all();
        }
    }
    Ok(())
}

struct Peer {
    link: Link,
}

#[derive(Clone)]
struct Subscriber {
    peer: usize,
    sid: Vec<u8>,
    queue: Option<Vec<u8>>,
}

#[derive(Default)]
struct Router {
    patterns: HashMap<Vec<u8>, Vec<Subscriber>>,
    turn: usize,
}

struct Sink {
    poller: Poller,
    peers: Vec<Option<Peer>>,
    router: Router,
    scratch: Vec<u8>,
}

impl Sink {
    fn accept_all(&mut self, listener: &TcpListener) -> Outcome<()> {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let token = self.peers.len();
            self.poller.add(&stream, token)?;
            self.peers.push(Some(Peer {
                link: Link {
                    stream,
                    reader: FrameReader::new(Want::Whole),
                    out: format!("{INFO} \r\n").into_bytes(),
                    out_at: 0,
                    writable: true,
                },
            }));
        }
        Ok(())
    }

    fn is_crowded(&self) -> bool {
        self.peers.iter().flatten().any(|peer| peer.link.output_bytes() > BACKLOG_BYTES)
    }

    fn flush_all(&mut self) {
        for token in 0..self.peers.len() {
            let failed = match &mut self.peers[token] {
                Some(peer) if peer.link.has_output() => peer.link.flush().is_err(),
                _ => false,
            };
            if failed {
                self.drop_peer(token);
            }
        }
    }

    fn drop_peer(&mut self, token: usize) {
        self.peers[token] = None;
        for subscribers in self.router.patterns.values_mut() {
            subscribers.retain(|subscriber| subscriber.peer != token);
        }
    }

    /// One read; returns whether there may be more.
    fn read(&mut self, token: usize) -> bool {
        // The peer steps out of the list while it is served, so that its messages can go to others and to itself.
        let Some(mut peer) = self.peers[token].take() else {
            return false;
        };
        let count = match Link::read(&mut peer.link.stream, &mut self.scratch) {
            Ok(Some(count)) => count,
            Ok(None) => {
                self.peers[token] = Some(peer);
                return false;
            }
            Err(_) => {
                self.drop_peer(token);
                return false;
            }
        };
        let mut reader = std::mem::replace(&mut peer.link.reader, FrameReader::new(Want::Whole));
        self.peers[token] = Some(peer);
        let (peers, router) = (&mut self.peers, &mut self.router);
        let mut route = Route::default();
        let fed = reader.feed(&self.scratch[..count], &mut |found| {
            match found {
                Frames::Line(line) => {
                    route = Route::default();
                    router.obey(line, token, peers);
                }
                Frames::Message { head, body } => {
                    if route.head != head {
                        route = router.find(head);
                    }
                    if !route.targets.is_empty() {
                        router.deliver(&route, body, peers);
                    }
                }
                Frames::Run { .. } => {}
            }
            Ok(())
        });
        match (&mut self.peers[token], fed) {
            (Some(peer), Ok(())) => peer.link.reader = reader,
            _ => {
                self.drop_peer(token);
                return false;
            }
        }
        count == self.scratch.len()
    }
}

/// Where messages with one header line go.
#[derive(Default)]
struct Route {
    head: Vec<u8>,
    /// Receiving peers with the header line they get; members of one queue group share an entry.
    targets: Vec<Vec<(usize, Vec<u8>)>>,
}

impl Router {
    fn obey(&mut self, line: &[u8], token: usize, peers: &mut [Option<Peer>]) {
        let words: Vec<&[u8]> = words(line).collect();
        match words.as_slice() {
            [b"PING"] => {
                if let Some(peer) = &mut peers[token] {
                    peer.link.out.extend_from_slice(b"PONG\r\n");
                }
            }
            [b"SUB", pattern, queue @ .., sid] => {
                self.patterns.entry(pattern.to_vec()).or_default().push(Subscriber {
                    peer: token,
                    sid: sid.to_vec(),
                    queue: queue.first().map(|queue| queue.to_vec()),
                });
            }
            // Every UNSUB counts as immediate once its one message has come; inboxes are short-lived anyway.
            [b"UNSUB", sid] => self.remove(token, sid),
            _ => {}
        }
    }

    fn remove(&mut self, token: usize, sid: &[u8]) {
        self.patterns.retain(|_, subscribers| {
            subscribers.retain(|subscriber| subscriber.peer != token || subscriber.sid != sid);
            !subscribers.is_empty()
        });
    }

    fn find(&self, head: &[u8]) -> Route {
        let words: Vec<&[u8]> = words(head).collect();
        let (Some(subject), Some(tail)) = (words.get(1), words.get(2..)) else {
            return Route::default();
        };
        let mut wildcard = subject.rsplitn(2, |&byte| byte == b'.').nth(1).unwrap_or_default().to_vec();
        wildcard.extend_from_slice(b".*");
        let verb: &[u8] = if head[0] == b'H' { b"HMSG" } else { b"MSG" };
        let mut route = Route { head: head.to_vec(), targets: Vec::new() };
        let mut queues: HashMap<&[u8], usize> = HashMap::new();
        for pattern in [*subject, wildcard.as_slice()] {
            for subscriber in self.patterns.get(pattern).into_iter().flatten() {
                let mut line = [verb, b" ", subject, b" ", &subscriber.sid].concat();
                for word in tail {
                    line.push(b' ');
                    line.extend_from_slice(word);
                }
                line.extend_from_slice(b"\r\n");
                let target = (subscriber.peer, line);
                match &subscriber.queue {
                    None => route.targets.push(vec![target]),
                    Some(queue) => {
                        let at = *queues.entry(queue).or_insert_with(|| {
                            route.targets.push(Vec::new());
                            route.targets.len() - 1
                        });
                        route.targets[at].push(target);
                    }
                }
            }
        }
        route
    }

    fn deliver(&mut self, route: &Route, body: &[u8], peers: &mut [Option<Peer>]) {
        self.turn = self.turn.wrapping_add(1);
        for members in &route.targets {
            let (peer, line) = &members[self.turn % members.len()];
            if let Some(peer) = &mut peers[*peer] {
                let out = &mut peer.link.out;
                out.extend_from_slice(line);
                out.extend_from_slice(body);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}
