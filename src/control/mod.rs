//! What drives the control thread.

pub mod signals;
