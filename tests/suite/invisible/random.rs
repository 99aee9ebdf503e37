//! Random scripts, and the control: capture as one would write it at first is seen by them.

use super::Pair;
use super::generate::Schema;
use crate::support::{Chance, note};

const SCHEMAS: u32 = 75;
const SCRIPTS_EACH: u32 = 4;

#[test]
fn random_scripts_see_nothing_of_capture() {
    let test = "random_scripts_see_nothing_of_capture";
    let mut chance = Chance::new(test);
    let Some(mut pair) = Pair::start(test) else { return };
    let mut statements = 0;
    for _ in 0..SCHEMAS {
        let schema = Schema::generate(&mut chance);
        pair.set_up(&schema.setup, &[]);
        for _ in 0..SCRIPTS_EACH {
            let script = schema.script(&mut chance);
            statements += script.len();
            if pair.difference(&script).is_some() && !pair.is_as_with_any_trigger(&schema.setup, &script) {
                report(&mut pair, schema.setup, script);
            }
        }
    }
    note(&format!("{test}: {statements} statements in {} scripts", SCHEMAS * SCRIPTS_EACH));
}

/// The control: an entry that holds a value as JSON makes a statement with a blob fail, and a changelog with
/// a constraint shows through errors: random scripts must notice either.
#[test]
fn a_capture_that_can_fail_is_seen_by_the_same_scripts() {
    let test = "a_capture_that_can_fail_is_seen_by_the_same_scripts";
    let mut chance = Chance::new(test);
    let Some(mut pair) = Pair::start(test) else { return };
    let json = "CREATE TRIGGER _redtail_0_json AFTER INSERT ON t0 BEGIN INSERT INTO _redtail_changelog(tbl, k0) SELECT 0, json_array(NEW.a); END";
    let strict = "CREATE UNIQUE INDEX _redtail_strict ON _redtail_changelog(tbl, op, k0) WHERE op = 3";
    for visible in [json, strict] {
        let seen = (0..SCHEMAS).any(|_| {
            let schema = Schema::generate(&mut chance);
            pair.set_up(&schema.setup, &[visible.to_owned()]);
            (0..SCRIPTS_EACH).any(|_| {
                let script = schema.script(&mut chance);
                pair.difference(&script).is_some()
            })
        });
        assert!(seen, "{SCHEMAS} schemas did not see: {visible}");
    }
}

/// Fails with the smallest script that still sees capture.
fn report(pair: &mut Pair, setup: Vec<String>, script: Vec<String>) -> ! {
    let (setup, script) = shrunk(pair, setup, script);
    pair.set_up(&setup, &[]);
    let difference = pair.difference(&script).unwrap_or_default();
    panic!(
        "capture is seen: {difference}\n{};\n-- here it is captured\n{};",
        setup.join(";\n"),
        script.join(";\n")
    );
}

/// Leaves out what is not needed to see the difference.
fn shrunk(pair: &mut Pair, mut setup: Vec<String>, mut script: Vec<String>) -> (Vec<String>, Vec<String>) {
    for list in 0..2 {
        let mut at = 0;
        while at < [&script, &setup][list].len() {
            let (mut less_setup, mut less_script) = (setup.clone(), script.clone());
            [&mut less_script, &mut less_setup][list].remove(at);
            pair.set_up(&less_setup, &[]);
            if pair.difference(&less_script).is_some()
                && !pair.is_as_with_any_trigger(&less_setup, &less_script)
            {
                (setup, script) = (less_setup, less_script);
            } else {
                at += 1;
            }
        }
    }
    (setup, script)
}
