//! The schemas of well-known applications, what their migration tools do to them, and random statements over
//! what comes of that. The texts are our own; what they are modelled on is how those programs shape theirs.

mod clients;
mod servers;

use serde_json::Value;

use super::case::Stage;
use super::generate::Generator;
use super::model::{Column, Model, Table};
use super::script::Step;
use crate::support::oracle::Oracle;
use crate::support::{Chance, note, seed};

/// Turns of random statements and changes over each, once synced and once followed.
const TURNS: u64 = 24;

/// A schema, and what is done to it: a statement that begins with `!` is refused by the database.
struct Application {
    name: &'static str,
    /// The tables that are skipped, with the reason.
    skips: &'static [&'static str],
    schema: &'static [&'static str],
    /// After each of these the replica is compared.
    steps: &'static [&'static [&'static str]],
}

/// How the replica is kept level.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Synced,
    Followed,
    /// Followed in windows and ranges of a few rows, of a file that is not in WAL mode.
    Small,
}

impl Application {
    /// Plays what is known from the start; every statement must do what is said of it.
    fn play(&self, stage: &mut Stage, mode: Mode) -> Result<(), String> {
        let mut turns: Vec<(Vec<&str>, Vec<Step>)> = Vec::new();
        let opening = match mode {
            Mode::Synced => vec![Step::sql("PRAGMA journal_mode = WAL")],
            Mode::Followed => vec![Step::sql("PRAGMA journal_mode = WAL"), Step::Follow],
            Mode::Small => vec![Step::Small, Step::Follow],
        };
        turns.push((vec!["PRAGMA journal_mode = WAL"], opening));
        for list in std::iter::once(&self.schema).chain(self.steps) {
            let sql = list.iter().map(|sql| Step::sql(sql.trim_start_matches('!')));
            turns.push((list.to_vec(), sql.chain([Step::Sync]).collect()));
        }
        let mut wrong = Vec::new();
        let mut played = turns.iter();
        let mut last: Option<&Vec<&str>> = None;
        let done = stage.play_turns(|accepted| {
            for (sql, accepted) in last.iter().flat_map(|l| l.iter()).zip(accepted) {
                if *accepted == sql.starts_with('!') {
                    wrong.push((*sql).to_owned());
                }
            }
            let (sql, steps) = played.next()?;
            // What stands before a statement of the first turn is no statement.
            last = (mode != Mode::Small || sql.len() != 1).then_some(sql);
            Some(steps.clone())
        });
        done.map_err(|f| format!("{}\n{}", f.transcript, f.what))?;
        if !wrong.is_empty() {
            return Err(format!("accepted or refused against what is said of them: {wrong:#?}"));
        }
        let skipped: Vec<&str> = stage.skipped.iter().map(String::as_str).collect();
        match self.skips.iter().find(|name| !skipped.contains(name)) {
            Some(name) => Err(format!("{name} is not skipped by name, but {skipped:?}")),
            None => Ok(()),
        }
    }

    /// Plays random turns over the schema that came of it.
    fn play_at_random(&self, stage: &mut Stage, mode: Mode, seed: u64) -> Result<(), String> {
        let mut generator = Generator::new(seed);
        generator.model = model(stage);
        let known = self.steps.iter().copied().flatten();
        let known = self.schema.iter().chain(known).map(|sql| Step::sql(sql.trim_start_matches('!')));
        let mut first: Vec<Step> = match mode {
            Mode::Synced => Vec::new(),
            Mode::Followed => vec![Step::Follow],
            Mode::Small => vec![Step::Small, Step::Follow],
        };
        first.extend(known.chain([Step::Sync]));
        let (mut first, mut last, mut left) = (Some(first), None, TURNS);
        let done = stage.play_turns(|accepted| {
            if let Some(turn) = last.take() {
                generator.learn(&turn, accepted);
            }
            if let Some(first) = first.take() {
                return Some(first);
            }
            left = left.checked_sub(1)?;
            let turn = generator.next();
            let steps = turn.steps.clone();
            last = Some(turn);
            Some(steps)
        });
        done.map_err(|f| format!("seed {seed}, {mode:?}:\n{}\n{}", f.transcript, f.what))
    }
}

const TABLES: &str = "SELECT m.name, x.name, x.type, x.hidden, x.pk, m.wr, m.strict FROM pragma_table_list AS m, pragma_table_xinfo(m.name) AS x \
     WHERE m.schema = 'main' AND m.type = 'table' AND m.name NOT GLOB 'sqlite_*' AND m.name NOT GLOB '_redtail_*' AND m.name <> 'pulse'";
const UNIQUE: &str = "SELECT m.name, i.name, x.name FROM pragma_table_list AS m, pragma_index_list(m.name) AS i, pragma_index_xinfo(i.name) AS x \
     WHERE m.schema = 'main' AND m.type = 'table' AND i.\"unique\" AND x.key AND x.cid >= 0";

/// The schema that stands at the end of the last script, as the generator knows one.
fn model(stage: &mut Stage) -> Model {
    let source = stage.source();
    let text = |cell: &Value| cell["value"].as_str().unwrap_or_default().to_owned();
    let rows = stage.oracle.query(&source, TABLES);
    let mut model = Model::default();
    for row in rows.as_array().expect("rows") {
        let name = text(&row[0]);
        if model.tables.last().is_none_or(|t| t.name != name) {
            let (without_rowid, strict) = (text(&row[5]) == "1", text(&row[6]) == "1");
            let (constraints, key, targets) = (Vec::new(), Vec::new(), Vec::new());
            let columns = Vec::new();
            model.tables.push(Table { name, columns, constraints, key, strict, without_rowid, targets });
        }
        let Some(table) = model.tables.last_mut() else { continue };
        let column = Column {
            name: text(&row[1]),
            declared: affinity(&text(&row[2])).to_owned(),
            rest: String::new(),
            generated: text(&row[3]) != "0",
            unique: text(&row[4]) != "0",
        };
        if column.unique {
            table.key.push(column.name.clone());
        }
        table.columns.push(column);
    }
    let rows = stage.oracle.query(&source, UNIQUE);
    for row in rows.as_array().expect("rows") {
        let Some(table) = model.tables.iter_mut().find(|t| t.name == text(&row[0])) else { continue };
        let name = text(&row[2]);
        table.columns.iter_mut().filter(|c| c.name == name).for_each(|c| c.unique = true);
        table.targets.push(vec![name]);
    }
    model
}

/// A type that the generator has values for.
fn affinity(declared: &str) -> &'static str {
    let declared = declared.to_ascii_uppercase();
    let of: [(&[&str], &str); 4] = [
        (&["INT", "BOOL", "DATE", "TIME"], "INTEGER"),
        (&["CHAR", "TEXT", "CLOB", "STRING"], "TEXT"),
        (&["REAL", "FLOA", "DOUB", "NUM", "DEC"], "REAL"),
        (&["BLOB"], "BLOB"),
    ];
    of.iter().find(|(names, _)| names.iter().any(|n| declared.contains(n))).map_or("", |(_, to)| to)
}

#[test]
fn the_schemas_of_well_known_applications_are_followed() {
    let test = "the_schemas_of_well_known_applications_are_followed";
    let Some(oracle) = Oracle::start(test) else { return };
    let mut chance = Chance::seeded(seed(test));
    let mut stage = Stage::new(oracle, test);
    let mut failed = Vec::new();
    for application in clients::ALL.iter().chain(servers::ALL) {
        for mode in [Mode::Synced, Mode::Followed, Mode::Small] {
            let known = application.play(&mut stage, mode);
            let done = known.and_then(|()| application.play_at_random(&mut stage, mode, chance.draw()));
            failed.extend(done.err().map(|why| format!("failed: {}, {mode:?}\n{why}", application.name)));
        }
    }
    note(&format!("{test}: {} comparisons, {} rows", stage.comparisons, stage.rows));
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
