//! Tests of the consumer: a small driver over a naive stream, tables of behaviour, and a model for random operations.

mod acks;
mod limits;
mod members;
mod model;
mod random;
mod records;
mod requests;
mod rig;
mod size;
