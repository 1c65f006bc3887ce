//! Names far longer than anybody chooses: whatever is taken survives, whatever is not is refused, and nothing ends.

use crate::support::shard_suite;
use crate::support_streaming::wire::Start;
use crate::support_streaming::{Stan, sequences, streaming_on_files};

shard_suite!(one_shard = 1, three_shards = 3 => {
    names_may_be_larger_than_a_record_of_the_log,
    reply_subjects_are_bounded,
});

/// The reference takes names as long as a message may be. A log's record is at most 256 KiB.
fn names_may_be_larger_than_a_record_of_the_log(shards: usize) {
    let mut server = streaming_on_files(shards).start();
    let mut stan = Stan::connect_on(&server, 0, &"c".repeat(300_000));
    assert_eq!(stan.ping(), "");
    let (durable, queue) = ("d".repeat(400_000), "q".repeat(350_000));
    let request = stan.wants("foo").durable(&durable).ack_wait(1);
    let alone = stan.subscribe(&request);
    let request = stan.wants("foo").queue(&queue).durable("d").ack_wait(1);
    let shared = stan.subscribe(&request);
    stan.publish_numbers("foo", 1..=3);
    for _ in 0..2 {
        for subscription in [&alone, &shared] {
            assert_eq!(sequences(&stan.take_messages(subscription, 3)), [1, 2, 3]);
        }
        // Its answers take along to the disk that all three were sent: else one may come as new, before the others.
        let request = stan.wants("foo").at(Start::NewOnly);
        let probe = stan.subscribe(&request);
        assert_eq!(stan.unsubscribe(&probe), "");
        server.restart_same_port();
        stan.reconnect(&server);
        assert_eq!(stan.ping(), "");
    }
    for subscription in [&alone, &shared] {
        assert_eq!(sequences(&stan.take_messages(subscription, 3)), [1, 2, 3]);
        assert_eq!(stan.unsubscribe(subscription), "");
    }
    assert_eq!(stan.close(), "");
}

/// A reply subject is stored with its message, in one record.
fn reply_subjects_are_bounded(shards: usize) {
    let server = streaming_on_files(shards).start();
    let mut stan = Stan::connect_on(&server, 0, "c1");
    for (bytes, error) in
        [(30_000, ""), (40_000, "stan: invalid publish request"), (900_000, "stan: invalid publish request")]
    {
        let message = stan.message("foo", "m");
        let message = crate::support_streaming::wire::PubMsg { reply: "r".repeat(bytes), ..message };
        assert_eq!(stan.publish_message(&message).error, error, "{bytes} bytes");
    }
    assert_eq!(stan.ping(), "");
}
