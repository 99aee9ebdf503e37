//! The Nth storage operation fails, for every N of a fixed workload.
