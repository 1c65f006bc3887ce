//! The messages of the streaming protocol, written down once more so that the tests do not believe the code they test.

/// Asks to be registered.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConnectRequest {
    #[prost(string, tag = "1")]
    pub(crate) client_id: String,
    #[prost(string, tag = "2")]
    pub(crate) heartbeat_inbox: String,
    #[prost(int32, tag = "3")]
    pub(crate) protocol: i32,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) conn_id: Vec<u8>,
    /// Seconds.
    #[prost(int32, tag = "5")]
    pub(crate) ping_interval: i32,
    #[prost(int32, tag = "6")]
    pub(crate) ping_max_out: i32,
}

/// Where a registered client sends its requests.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConnectResponse {
    #[prost(string, tag = "1")]
    pub(crate) pub_prefix: String,
    #[prost(string, tag = "2")]
    pub(crate) sub_requests: String,
    #[prost(string, tag = "3")]
    pub(crate) unsub_requests: String,
    #[prost(string, tag = "4")]
    pub(crate) close_requests: String,
    #[prost(string, tag = "5")]
    pub(crate) error: String,
    #[prost(string, tag = "6")]
    pub(crate) sub_close_requests: String,
    #[prost(string, tag = "7")]
    pub(crate) ping_requests: String,
    #[prost(int32, tag = "8")]
    pub(crate) ping_interval: i32,
    #[prost(int32, tag = "9")]
    pub(crate) ping_max_out: i32,
    #[prost(int32, tag = "10")]
    pub(crate) protocol: i32,
    #[prost(string, tag = "100")]
    pub(crate) public_key: String,
}

/// Asks whether the connection is still registered.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ping {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) conn_id: Vec<u8>,
}

/// The answer to a ping, a close request, …: a single text.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ErrorResponse {
    #[prost(string, tag = "1")]
    pub(crate) error: String,
}

/// Publishes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PubMsg {
    #[prost(string, tag = "1")]
    pub(crate) client_id: String,
    #[prost(string, tag = "2")]
    pub(crate) guid: String,
    #[prost(string, tag = "3")]
    pub(crate) subject: String,
    #[prost(string, tag = "4")]
    pub(crate) reply: String,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) data: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) conn_id: Vec<u8>,
}

/// The answer to a publish.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PubAck {
    #[prost(string, tag = "1")]
    pub(crate) guid: String,
    #[prost(string, tag = "2")]
    pub(crate) error: String,
}

/// A delivered message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MsgProto {
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    #[prost(string, tag = "2")]
    pub(crate) subject: String,
    #[prost(string, tag = "3")]
    pub(crate) reply: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) data: Vec<u8>,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "5")]
    pub(crate) timestamp: i64,
    #[prost(bool, tag = "6")]
    pub(crate) redelivered: bool,
    #[prost(uint32, tag = "7")]
    pub(crate) redelivery_count: u32,
    #[prost(uint32, tag = "10")]
    pub(crate) crc32: u32,
}

/// Acknowledges a delivered message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ack {
    #[prost(string, tag = "1")]
    pub(crate) subject: String,
    #[prost(uint64, tag = "2")]
    pub(crate) sequence: u64,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    NewOnly = 0,
    LastReceived = 1,
    TimeDelta = 2,
    Sequence = 3,
    First = 4,
}

/// Subscribes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SubscriptionRequest {
    #[prost(string, tag = "1")]
    pub(crate) client_id: String,
    #[prost(string, tag = "2")]
    pub(crate) subject: String,
    #[prost(string, tag = "3")]
    pub(crate) q_group: String,
    #[prost(string, tag = "4")]
    pub(crate) inbox: String,
    #[prost(int32, tag = "5")]
    pub(crate) max_in_flight: i32,
    #[prost(int32, tag = "6")]
    pub(crate) ack_wait_in_secs: i32,
    #[prost(string, tag = "7")]
    pub(crate) durable_name: String,
    #[prost(int32, tag = "10")]
    pub(crate) start_position: i32,
    #[prost(uint64, tag = "11")]
    pub(crate) start_sequence: u64,
    /// Nanoseconds before now.
    #[prost(int64, tag = "12")]
    pub(crate) start_time_delta: i64,
}

/// The answer to it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SubscriptionResponse {
    #[prost(string, tag = "2")]
    pub(crate) ack_inbox: String,
    #[prost(string, tag = "3")]
    pub(crate) error: String,
}

/// Ends a subscription, for good or for now.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UnsubscribeRequest {
    #[prost(string, tag = "1")]
    pub(crate) client_id: String,
    #[prost(string, tag = "2")]
    pub(crate) subject: String,
    #[prost(string, tag = "3")]
    pub(crate) inbox: String,
    #[prost(string, tag = "4")]
    pub(crate) durable_name: String,
}

/// Ends the registration.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CloseRequest {
    #[prost(string, tag = "1")]
    pub(crate) client_id: String,
}

impl SubscriptionRequest {
    /// From another position.
    pub(crate) fn at(mut self, start: Start) -> Self {
        self.start_position = start as i32;
        self
    }

    /// From this sequence on.
    pub(crate) fn at_sequence(mut self, sequence: u64) -> Self {
        self.start_sequence = sequence;
        self.at(Start::Sequence)
    }

    /// From so many nanoseconds ago on.
    pub(crate) fn since(mut self, delta_ns: i64) -> Self {
        self.start_time_delta = delta_ns;
        self.at(Start::TimeDelta)
    }

    /// With this many messages unacknowledged at most.
    pub(crate) fn in_flight(mut self, max: i32) -> Self {
        self.max_in_flight = max;
        self
    }

    /// With so many seconds until a message comes again.
    pub(crate) fn ack_wait(mut self, seconds: i32) -> Self {
        self.ack_wait_in_secs = seconds;
        self
    }

    /// Under a durable name.
    pub(crate) fn durable(mut self, name: &str) -> Self {
        name.clone_into(&mut self.durable_name);
        self
    }

    /// As a member of a queue group.
    pub(crate) fn queue(mut self, group: &str) -> Self {
        group.clone_into(&mut self.q_group);
        self
    }
}
