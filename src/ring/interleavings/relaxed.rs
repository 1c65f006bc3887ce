//! The ring with its releasing stores replaced by relaxed ones.

#[path = "../spsc.rs"]
#[expect(unreachable_pub, dead_code, clippy::duplicate_mod, reason = "a copy of a public module")]
pub(super) mod spsc;

mod sync {
    use loom::sync::atomic::Ordering as Real;

    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::AtomicU64;

    pub(super) struct Ordering;

    #[expect(non_upper_case_globals, reason = "stands for an enum's variants")]
    impl Ordering {
        pub(super) const Relaxed: Real = Real::Relaxed;
        pub(super) const Acquire: Real = Real::Acquire;
        pub(super) const Release: Real = Real::Relaxed;
    }
}
