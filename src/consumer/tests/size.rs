//! Bytes of memory: of a message that waits for its acknowledgement, and of a consumer that does nothing.

use super::rig::Rig;
use crate::consumer::{Config, Consumer, Origin};

#[test]
fn a_pending_message_takes_64_bytes_at_most() {
    let mut worst: f64 = 0.0;
    let mut rig = Rig::new(Config { max_ack_pending: None, ..Config::default() });
    rig.join(u32::MAX);
    let empty = rig.consumer.heap_bytes();
    for round in 0..300 {
        rig.store(500);
        rig.pump();
        rig.flush();
        rig.events();
        if round % 3 == 2 {
            // Every eighth stays for ever, and holes are all over.
            for seq in (round / 3 * 1000..(round / 3 + 1) * 1000).filter(|seq| seq % 8 != 0) {
                rig.consumer.ack(rig.now, seq);
            }
            rig.flush();
            rig.events();
        }
        let pending = rig.consumer.info().num_ack_pending as f64;
        let bytes = (rig.consumer.ledger.heap_bytes() as f64) / pending;
        if pending > 4000.0 {
            worst = worst.max(bytes);
        }
    }
    println!("{worst:.1} bytes for each");
    assert!(worst <= 64.0 && worst > 32.0, "{worst:.1} bytes for each");
    assert!(rig.consumer.heap_bytes() > empty);
}

#[test]
fn an_idle_durable_consumer_takes_less_than_2_kib() {
    let config = || Config {
        filters: vec!["orders.europe.>".to_owned(), "orders.asia.*.returned".to_owned()],
        backoff_ns: vec![1, 2, 3],
        ..Config::default()
    };
    let mut total = 0;
    let mut all = Vec::new();
    for _ in 0..10_000 {
        let mut rig = Rig::with(config(), Origin::at(1), 40);
        let id = rig.join(100);
        for sent in rig.pump() {
            rig.consumer.ack(rig.now, sent.seq);
        }
        rig.consumer.leave(rig.now, id);
        rig.flush();
        rig.events();
        rig.consumer.snapshot(&mut Vec::new());
        total += size_of::<Consumer>() + rig.consumer.heap_bytes();
        assert_eq!(rig.consumer.next_deadline(), None);
        all.push(rig.consumer);
    }
    let each = total / all.len();
    assert!(each <= 2048, "{each} bytes for each, {} of them fixed", size_of::<Consumer>());
    println!("{each} bytes for each, {} of them fixed", size_of::<Consumer>());
}
