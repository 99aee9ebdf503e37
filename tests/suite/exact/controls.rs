//! Negative controls: each deliberate fault must be caught, or the tests here prove nothing.
//!
//! Each runs a test of this folder in a process of its own, with one fault (`REDTAIL_FAULT`; only debug
//! builds have them), and expects it to fail.

use std::process::Command;

use crate::support::note;
use crate::support::oracle::Oracle;

/// A fault, and the test that must fail because of it.
struct Control {
    fault: &'static str,
    test: &'static str,
    /// What it must say that it failed by: its own script of the directed ones.
    says: &'static str,
}

const RANDOM: &str = "exact::after_every_step_of_any_script_the_replica_equals_the_source";
const DIRECTED: &str = "exact::scripts::directed_scripts_hold";
const DROPPED: &str = "exact::scripts::capture_dropped_beside_a_running_replicator_loses_nothing";
const LONG: &str = "exact::long::long_windows_hold";
const BANK: &str = "exact::bank::every_consistent_state_of_the_replica_has_the_total";
const STOPPED: &str = "exact::repair::a_repair_elsewhere_is_seen_though_the_schema_version_was_set_back";

/// Random scripts within which a fault must have been caught.
const CASES: &str = "200";

fn random(fault: &'static str) -> Control {
    Control { fault, test: RANDOM, says: "case " }
}

fn directed(fault: &'static str, test: &'static str, says: &'static str) -> Control {
    Control { fault, test, says }
}

impl Control {
    /// Runs the test with the fault: whether it passes, and what it says. `None` where that is not possible.
    fn run(&self) -> Option<(bool, String)> {
        Oracle::start(self.fault)?;
        if !cfg!(debug_assertions) {
            note(&format!("skipped: {}: a release build has no faults", self.fault));
            return None;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", self.test, "--nocapture"])
            .env("REDTAIL_FAULT", self.fault)
            .env("REDTAIL_CASES", CASES)
            .env("REDTAIL_SHRINK", "0")
            .env("REDTAIL_SEED", "1")
            .env("RUST_BACKTRACE", "0")
            .output()
            .expect("this program runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("running 1 test"), "{}: no such test: {said}", self.test);
        Some((output.status.success(), said))
    }

    /// It must fail, and by what it compares.
    fn is_caught(&self) {
        let Some((passed, said)) = self.run() else { return };
        let found = |line: &&str| {
            line.strip_prefix("failed: ").unwrap_or(line).starts_with(self.says) && !line.starts_with("test ")
        };
        let found = said.lines().find(found);
        let (false, Some(found)) = (passed, found) else {
            panic!("{} is not caught by {}:\n{said}", self.fault, self.test);
        };
        note(&format!("{} is caught: {found}", self.fault));
    }
}

// No fault, but another way to read: random scripts hold by it, too.
#[test]
fn short_windows_read_as_long_ones_hold() {
    if let Some((passed, said)) = random("short-lists").run() {
        assert!(passed, "{said}");
    }
}

#[test]
fn a_key_lost_from_a_list_is_caught() {
    directed("drop-listed", LONG, "keys from end to end").is_caught();
}

#[test]
fn after_triggers_alone_are_caught() {
    directed("after-only", DIRECTED, "a trigger on a child row").is_caught();
}

#[test]
fn missing_eviction_entries_are_caught() {
    random("no-eviction").is_caught();
    directed("no-eviction", DIRECTED, "a row replaced through another uniqueness").is_caught();
}

#[test]
fn a_repair_under_the_old_id_is_caught() {
    directed("same-id", DIRECTED, "rows changed while capture was gone").is_caught();
}

#[test]
fn a_repair_without_a_reset_entry_is_caught() {
    directed("no-reset", STOPPED, "t: in the source only").is_caught();
}

#[test]
fn what_an_entry_says_instead_of_a_read_is_caught() {
    random("trust-op").is_caught();
    directed("trust-op", DIRECTED, "a row deleted and made again").is_caught();
}

#[test]
fn keys_that_are_not_normalised_are_caught() {
    directed("raw-nocase", DIRECTED, "the same key in another case").is_caught();
}

#[test]
fn a_schema_version_that_is_ignored_is_caught() {
    random("ignore-schema-version").is_caught();
    directed("ignore-schema-version", DIRECTED, "a column added and filled").is_caught();
}

#[test]
fn a_part_of_a_window_called_consistent_is_caught() {
    directed("split-window", BANK, "the total is").is_caught();
}

#[test]
fn tables_copied_before_capture_is_whole_are_caught() {
    directed("reconcile-early", DROPPED, "capture dropped and rows changed").is_caught();
}

#[test]
fn a_boundary_of_the_newest_rows_that_stands_still_is_caught() {
    random("stale-boundary").is_caught();
}

#[test]
fn a_lost_delta_is_caught() {
    random("drop-delta").is_caught();
}
