//! A session against a real client of rustls over a wire in memory that takes and gives as little as a test likes.

use super::*;
use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

/// Both directions of a connection; each takes at most so many bytes before it says that there is no room, and each
/// call moves at most `step`.
#[derive(Default)]
struct Memory {
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    room: usize,
    step: usize,
    ended: bool,
}

impl Wire for Memory {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.to_server.len().min(buf.len()).min(self.step);
        if count == 0 {
            return if self.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        buf[..count].iter_mut().zip(self.to_server.drain(..count)).for_each(|(to, byte)| *to = byte);
        Ok(count)
    }

    fn send(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = (self.room - self.to_client.len().min(self.room)).min(self.step);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = self.to_client.len();
        self.to_client.extend(bufs.iter().flat_map(|buf| buf.iter()).take(count));
        Ok(self.to_client.len() - before)
    }
}

static CONFIGS: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    (Arc::new(server), Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
});

/// A client and a session after their handshake.
fn pair() -> (ClientConnection, Session) {
    let (server, client) = &*CONFIGS;
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let mut client = ClientConnection::new(client.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().unwrap();
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    (client, Session::new(server))
}

/// What the client makes of the records on the wire.
fn client_reads(client: &mut ClientConnection, wire: &mut Memory) -> Vec<u8> {
    let mut plain = Vec::new();
    let bytes: Vec<u8> = wire.to_client.drain(..).collect();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        client.read_tls(&mut rest).unwrap();
        client.process_new_packets().unwrap();
        // Nothing there is no error here.
        let _ = client.reader().read_to_end(&mut plain);
    }
    plain
}

fn client_writes(client: &mut ClientConnection, wire: &mut Memory, plain: &[u8]) {
    let mut rest = plain;
    while !rest.is_empty() {
        let taken = client.writer().write(rest).unwrap();
        rest = &rest[taken..];
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        wire.to_server.extend(bytes);
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever the wire takes at once, and however the shard cuts its output, every byte arrives once and in order; and
    /// no byte counts as taken that the wire has not got.
    #[test]
    fn output_arrives_through_any_bottleneck(
        sizes in prop::collection::vec(1usize..60_000, 1..8),
        room in 1usize..80_000,
        step in 1usize..40_000,
    ) {
        let (mut client, mut session) = pair();
        let mut wire = Memory { room, step, ..Memory::default() };
        let all = pattern(sizes.iter().sum());
        let mut cuts = sizes.iter().scan(0, |end, size| { *end += size; Some(*end) }).collect::<Vec<usize>>();
        cuts.insert(0, 0);
        let (mut sent, mut received) = (0, Vec::new());
        let mut idle = 0;
        while sent < all.len() {
            let rest: Vec<IoSlice<'_>> = cuts.windows(2).filter(|cut| cut[1] > sent)
                .map(|cut| IoSlice::new(&all[cut[0].max(sent)..cut[1]])).collect();
            let Sent::Bytes(taken) = session.send(&mut wire, &rest) else { panic!("the wire is not broken") };
            sent += taken;
            received.extend(client_reads(&mut client, &mut wire));
            prop_assert!(sent <= received.len(), "{} bytes count as taken, {} have arrived", sent, received.len());
            idle = if taken == 0 { idle + 1 } else { 0 };
            prop_assert!(idle < 200_000, "no progress");
        }
        prop_assert!(received == all);
    }

    /// Whatever comes at once, and however small the buffers of the shard are, every byte comes once and in order, and
    /// a session that says that there is no more has none.
    #[test]
    fn input_comes_through_any_buffer(
        sizes in prop::collection::vec(1usize..50_000, 1..6),
        step in 1usize..50_000,
        buffer in 1usize..70_000,
    ) {
        let (mut client, mut session) = pair();
        let mut wire = Memory { room: usize::MAX, step, ..Memory::default() };
        let mut scratch = Vec::new();
        let mut buf = vec![0; buffer];
        for size in sizes {
            let plain = pattern(size);
            client_writes(&mut client, &mut wire, &plain);
            let mut received = Vec::new();
            loop {
                match session.recv(&mut wire, false, &mut buf, &mut scratch) {
                    Recv::Data { bytes, more } => {
                        received.extend_from_slice(&buf[..bytes]);
                        // A short read of the wire counts as its end; a real socket would tell of the rest.
                        if !more && wire.to_server.is_empty() {
                            break;
                        }
                    }
                    Recv::Nothing if wire.to_server.is_empty() => break,
                    Recv::Nothing => {}
                    other => panic!("{other:?}"),
                }
            }
            prop_assert!(received == plain, "{} of {} bytes", received.len(), plain.len());
        }
        prop_assert_eq!(session.ahead.len(), 0);
    }

    /// Damaged records end the session, and nothing worse. Only type and version in the header of an encrypted record are
    /// constants that add nothing (RFC 8446 §5.2), and may be passed over: what comes behind them is whole.
    #[test]
    fn damage_is_found(at in 0usize..400, bit in 0u8..8) {
        let (mut client, mut session) = pair();
        let mut wire = Memory { room: usize::MAX, step: usize::MAX, ..Memory::default() };
        client_writes(&mut client, &mut wire, &pattern(300));
        let at = at % wire.to_server.len();
        wire.to_server[at] ^= 1 << bit;
        wire.ended = true;
        let mut buf = vec![0; 1000];
        let outcome = session.recv(&mut wire, true, &mut buf, &mut Vec::new());
        match outcome {
            Recv::Failed | Recv::End => {}
            Recv::Data { bytes, .. } => prop_assert!(at < 3 && buf[..bytes] == pattern(300)[..]),
            Recv::Nothing => prop_assert!(false, "the damage is not noticed"),
        }
    }
}

/// The end of the wire and the client's goodbye are the end of the stream, after all that came before.
#[test]
fn ends() {
    for says_goodbye in [false, true] {
        let (mut client, mut session) = pair();
        let mut wire = Memory { room: usize::MAX, step: usize::MAX, ..Memory::default() };
        client_writes(&mut client, &mut wire, b"last words");
        if says_goodbye {
            client.send_close_notify();
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            wire.to_server.extend(bytes);
        } else {
            wire.ended = true;
        }
        let (mut buf, mut scratch) = (vec![0; 100], Vec::new());
        let first = session.recv(&mut wire, true, &mut buf, &mut scratch);
        assert_eq!(first, Recv::Data { bytes: 10, more: true });
        assert_eq!(&buf[..10], b"last words");
        assert_eq!(session.recv(&mut wire, true, &mut buf, &mut scratch), Recv::End);
    }
}

/// The server's goodbye reaches the client behind its last output.
#[test]
fn goodbye() {
    let (mut client, mut session) = pair();
    let mut wire = Memory { room: usize::MAX, step: usize::MAX, ..Memory::default() };
    assert_eq!(session.send(&mut wire, &[IoSlice::new(b"last"), IoSlice::new(b" words")]), Sent::Bytes(10));
    session.close(&mut wire);
    assert_eq!(client_reads(&mut client, &mut wire), b"last words");
    assert_eq!(client.reader().read(&mut [0; 1]).unwrap(), 0, "a goodbye, not a cut connection");
}
