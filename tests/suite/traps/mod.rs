//! Ways in which a change can pass a capture unseen, each as a short script of an application.
//!
//! Above each test stands the defence that its script attacks; a control takes that defence away, where
//! that can be done, and must see the script end unequal.

mod drift;
mod encoding;
mod entries;
mod eviction;
mod journal;
mod keys;
mod libsql;
mod nulls;
mod renumbered;
mod skipped;
mod tables;
mod timing;
mod uncaptured;
