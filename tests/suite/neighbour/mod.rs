//! redtail beside an application: what it copies, what it leaves behind, and what it costs.

mod bounded;
mod config;
mod consumers;
mod read_only;
mod secrets;
mod selective;
