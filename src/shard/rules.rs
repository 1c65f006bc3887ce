//! The rules that make many shards look like one server, and keep users within their rights, as names that a test can
//! use to break one of them.
//!
//! A simulator that finds nothing proves little unless it finds a broken rule. Outside of unit tests [`broken`] is a
//! constant `false` and costs nothing.

/// A rule. Each name says what is wrong when the rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A turn writes to its sockets before it publishes interest and messages.
    SocketsBeforeRings,
    /// Received bytes are parsed without a look at the rings.
    ParseBeforeLook,
    /// A look applies interest before it notes the heads of the message rings.
    InterestBeforeNote,
    /// A look before parsing handles messages only.
    NoInterestInLook,
    /// Rings are handled one after the other, not merged by time.
    RingByRing,
    /// Whatever a ring holds is handled, even if it was committed after the look began.
    BeyondNote,
    /// A batch is handled as soon as it is in its ring, before its commit has reached the other rings.
    ShownOneByOne,
    /// Messages go on while interest from before them waits for room.
    MessagesBeforeInterest,
    /// Ring input waits while output waits.
    NoInputWhileSpilled,
    /// Sockets are written while messages wait for room.
    OutputNotHeld,
    /// While messages wait for room, only the connections that sent them are not written to.
    OutputOfOthers,
    /// No second look between announcing sleep and sleeping.
    NoRecheck,
    /// What found room during that look is not rung for.
    SilentRecheck,
    /// A queue message whose last member has left is dropped.
    NotPassedOn,
    /// It is dropped when it meets the same a second time.
    PassedOnOnce,
    /// It is dropped when a second shard has members that do not take it.
    RefusedOnce,
    /// A shard without takers does not tell the shard of the requester.
    NoRemoteStatus,
    /// Who has asked several shards in vain is not told.
    RefusalsNotCounted,
    /// A shard without takers tells the requester so although another one has a taker.
    StatusInSpite,
    /// A verdict that is kept with a route counts for whoever publishes, and after a reload.
    VerdictsOfOthers,
    /// Clients keep the permissions that they have had before a reload.
    RightsNotRenewed,
    /// Clients keep the subscriptions that they may not have any more.
    SubsNotReviewed,
    /// Those whose rights a reload changes lose all of their subscriptions.
    SubsLost,
    /// Clients stay whose user is gone.
    GoneStay,
    /// A login is decided by the directory that was in force when it began.
    OldVerdicts,
    /// What has come behind an undecided CONNECT is forgotten.
    InputForgotten,
    /// A stream import brings messages of all subjects.
    WideImport,
}

/// Rules are never broken.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn broken(_: Rule) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether `rule` is broken on this thread.
#[cfg(test)]
pub(crate) fn broken(rule: Rule) -> bool {
    BROKEN.get() == Some(rule)
}

/// Breaks `rule` for all shards that run on this thread, or none.
#[cfg(test)]
pub(crate) fn break_rule(rule: Option<Rule>) {
    BROKEN.set(rule);
}
