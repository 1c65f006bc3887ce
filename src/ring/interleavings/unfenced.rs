//! The sleep flag with fences that do nothing.

#[path = "../bell.rs"]
#[expect(unreachable_pub, clippy::duplicate_mod, reason = "a copy of a public module")]
pub(super) mod bell;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};

    pub(super) fn fence(_: Ordering) {}
}
