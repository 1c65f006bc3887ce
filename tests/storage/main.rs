//! Stores on real files: processes that are killed, and files that are damaged.

mod content;
mod damage;
mod kill;
