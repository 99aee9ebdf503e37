//! The storage under attack.
