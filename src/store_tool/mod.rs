//! `leat store`: looking at a stopped store without changing it.
//!
//! What is found is decided in [`inspect`], [`verify`] and [`dump`], each of which returns values or writes to whatever
//! it is given; [`run`] prints, and turns the outcome into an exit code. Files are only ever opened for reading
//! ([`directory`]). The engines themselves say what is in them ([`reading`]), so that this is what a server would say.

pub mod describe;
pub mod directory;
pub mod dump;
pub mod inspect;
mod print;
pub mod reading;
mod run;
pub mod verify;

pub use run::{Exit, run};
