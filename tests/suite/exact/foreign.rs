//! Scripts of other projects: statements that were written to try SQLite, not redtail.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::case::Stage;
use super::script::Step;
use super::workers;
use crate::support::note;
use crate::support::oracle::Oracle;

/// A statement ends with a line of its own; so does one block of them, after which the replica is compared.
const STATEMENT: &str = "--;";
const SYNC: &str = "-- sync";

/// What puts a database in a state in which nobody but its writer can read it, or which is no state of a database:
/// such scripts say nothing about a replica.
const HOPELESS: [&str; 3] = ["locking_mode", "writable_schema", "query_only"];

/// Scripts of SQLite's own suite that two versions of SQLite read differently, so that an oracle of another version
/// than libSQL's has another opinion.
const DISPUTED: [&str; 1] =
    // What a column added with DEFAULT -123.0 holds in rows that were there: a real, an integer in 3.40.
    ["tkt-8454a207b9.test.sql"];

fn steps(text: &str, followed: bool) -> Vec<Step> {
    let mut steps =
        if followed { vec![Step::sql("PRAGMA journal_mode = WAL"), Step::Follow] } else { vec![] };
    let mut statement = String::new();
    for line in text.lines() {
        match line {
            STATEMENT => steps.push(Step::Sql(std::mem::take(&mut statement))),
            SYNC => steps.push(Step::Sync),
            line => {
                if !statement.is_empty() {
                    statement.push('\n');
                }
                statement.push_str(line);
            }
        }
    }
    steps
}

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).expect("the folder of REDTAIL_SCRIPTS");
    let mut found: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "sql"));
    found.sort();
    found
}

/// `tests/scripts_of.py` makes the scripts.
#[test]
fn scripts_of_other_projects_are_followed() {
    let test = "scripts_of_other_projects_are_followed";
    let Some(folder) = std::env::var_os("REDTAIL_SCRIPTS") else {
        return note(&format!("skipped: {test}: REDTAIL_SCRIPTS names no folder"));
    };
    if Oracle::start(test).is_none() {
        return;
    }
    let scripts = scripts(Path::new(&folder));
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (comparisons, skipped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..workers(scripts.len() as u64) {
            let (next, failed, scripts, comparisons, skipped) =
                (&next, &failed, &scripts, &comparisons, &skipped);
            scope.spawn(move || {
                let Some(oracle) = Oracle::start(test) else { return };
                let mut stage = Stage::new(oracle, &format!("foreign-{number}"));
                stage.apart = true;
                while let Some(path) = scripts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let script = std::fs::read_to_string(path).unwrap();
                    let disputed = DISPUTED.iter().any(|name| path.ends_with(name));
                    if disputed || HOPELESS.iter().any(|word| script.to_lowercase().contains(word)) {
                        skipped.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    for followed in [false, true] {
                        if let Err(failure) = stage.play(&steps(&script, followed)) {
                            let name = path.file_name().unwrap_or_default().display();
                            note(&format!("{test}: {name} (followed: {followed}): {}", failure.what));
                            failed.lock().unwrap().push((path.clone(), failure.transcript));
                        }
                    }
                }
                comparisons.fetch_add(usize::try_from(stage.comparisons).unwrap(), Ordering::Relaxed);
            });
        }
    });
    let (skipped, comparisons) = (skipped.into_inner(), comparisons.into_inner());
    note(&format!(
        "{test}: {} scripts, {skipped} of them not played, {comparisons} comparisons",
        scripts.len()
    ));
    let failed = failed.into_inner().unwrap();
    if let Some((path, transcript)) = failed.first() {
        let tail: Vec<&str> = transcript.lines().rev().take(60).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        panic!("{} failed, the first: {}\n{}", failed.len(), path.display(), tail.join("\n"));
    }
    assert!(comparisons > 0, "nothing was compared");
}
