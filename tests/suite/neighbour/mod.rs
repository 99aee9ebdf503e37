//! redtail beside an application: what it copies, what it leaves behind, and what it costs.

mod config;
mod selective;
