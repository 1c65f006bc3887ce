//! m
pub mod snapshot;
