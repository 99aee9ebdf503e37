//! Makes random scripts: what an application does to its tables and its schema, and what befalls redtail.
//!
//! A script is made while it runs, because what the database refused must not be built upon; once made it
//! is plain text, and runs again without the generator.

use std::collections::BTreeMap;

use super::KNOWN;
use super::model::Model;
use super::script::Step;
use super::selections::Selections;
use crate::support::Chance;

/// The steps of one turn, and those of them that must be accepted for the model to be right.
pub(super) struct Turn {
    pub(super) steps: Vec<Step>,
    needs: Vec<usize>,
}

pub(super) struct Generator {
    pub(super) chance: Chance,
    pub(super) model: Model,
    before: Model,
    /// The database's encoding is UTF-16: casts from blobs to text mean other things.
    pub(super) utf16: bool,
    following: bool,
    /// What is replicated of single tables.
    pub(super) selections: Selections,
    /// The schema that the last backup holds.
    saved: Option<Model>,
    kinds: Vec<&'static str>,
    /// How often each construct was made, and how often all of its turn was accepted.
    pub(super) made: BTreeMap<&'static str, (u64, u64)>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Chance::seeded(seed),
            model: Model::default(),
            before: Model::default(),
            utf16: false,
            following: false,
            selections: Selections::new(),
            saved: None,
            kinds: Vec::new(),
            made: BTreeMap::new(),
        }
    }

    /// One of the named options, by weight; what is in [`KNOWN`] is left out.
    pub(super) fn choose(&mut self, options: &[(&'static str, u64)]) -> &'static str {
        let options: Vec<_> = options.iter().filter(|(name, _)| !KNOWN.contains(name)).collect();
        let mut drawn = self.chance.below(options.iter().map(|(_, weight)| weight).sum());
        for (name, weight) in options {
            if drawn < *weight {
                self.note(name);
                return name;
            }
            drawn -= weight;
        }
        unreachable!("the weights sum up to more than was drawn")
    }

    /// Counts a construct.
    fn note(&mut self, kind: &'static str) {
        self.kinds.push(kind);
    }

    /// True once in so many times, and then counts the construct; never for what is in [`KNOWN`].
    pub(super) fn once_in(&mut self, times: u64, kind: &'static str) -> bool {
        let now = !KNOWN.contains(&kind) && self.chance.one_in(times);
        if now {
            self.note(kind);
        }
        now
    }

    /// Hears what became of a turn: which of its steps were accepted.
    pub(super) fn learn(&mut self, turn: &Turn, accepted: &[bool]) {
        let all = accepted.iter().all(|ok| *ok);
        for kind in self.kinds.drain(..) {
            let (made, good) = self.made.entry(kind).or_default();
            *made += 1;
            *good += u64::from(all);
        }
        if !turn.needs.iter().all(|at| accepted[*at]) {
            self.model = std::mem::take(&mut self.before);
        }
    }

    /// How a case begins: settings, some tables, and the first sync.
    pub(super) fn opening(&mut self) -> Turn {
        let mut steps = Vec::new();
        if self.choose(&[("usual windows", 3), ("small windows", 1)]) == "small windows" {
            steps.push(Step::Small);
        }
        match self.choose(&[("utf-8", 30), ("utf-16le", 1), ("utf-16be", 1)]) {
            "utf-8" => {}
            other => {
                self.utf16 = true;
                steps.push(Step::sql(format!("PRAGMA encoding = '{other}'")));
            }
        }
        if self.once_in(12, "auto_vacuum") {
            steps.push(Step::sql(format!("PRAGMA auto_vacuum = {}", 1 + self.chance.below(2))));
        }
        let mode = self.choose(&[("wal", 5), ("delete", 2), ("truncate", 1), ("persist", 1)]);
        steps.push(Step::sql(format!("PRAGMA journal_mode = {mode}")));
        if self.once_in(2, "foreign_keys on") {
            steps.push(Step::sql("PRAGMA foreign_keys = ON"));
        }
        if self.once_in(4, "recursive_triggers on") {
            steps.push(Step::sql("PRAGMA recursive_triggers = ON"));
        }
        if self.choose(&[("synced", 1), ("followed", 2)]) == "followed" {
            self.following = true;
            steps.push(Step::Follow);
        }
        self.turn(steps)
    }

    /// A table, with what belongs to it.
    pub(super) fn first_tables(&mut self) -> Turn {
        self.begin();
        let mut steps: Vec<Step> = self.create_table().into_iter().flatten().map(Step::sql).collect();
        let needs = vec![0];
        if self.chance.one_in(2) {
            steps.extend(self.statement().map(Step::sql));
        }
        Turn { steps, needs }
    }

    /// An index or a trigger that stands before capture does.
    pub(super) fn first_object(&mut self) -> Turn {
        self.begin();
        let made = if self.chance.one_in(2) { self.unique_index() } else { self.trigger() };
        let steps: Vec<Step> = made.into_iter().map(Step::sql).collect();
        let needs = (0..steps.len()).collect();
        Turn { steps, needs }
    }

    fn begin(&mut self) {
        self.before = self.model.clone();
    }

    pub(super) fn turn(&mut self, steps: Vec<Step>) -> Turn {
        self.begin();
        Turn { steps, needs: Vec::new() }
    }

    /// The next turn of a case.
    pub(super) fn next(&mut self) -> Turn {
        self.begin();
        let restore = u64::from(!self.following);
        match self.choose(&[
            ("statements", 60),
            ("transaction", 14),
            ("schema", 26),
            ("pragma", 5),
            ("restart", 3),
            ("configuration", 5),
            ("init elsewhere", 2),
            ("remove and init", 1),
            ("triggers dropped", 4),
            ("triggers made again", 3),
            ("bookkeeping dropped", 1),
            ("backup", 1),
            ("restore", restore),
        ]) {
            "statements" => self.statements(),
            "transaction" => self.transaction(),
            "schema" => self.schema(),
            "pragma" => self.pragma(),
            "restart" => self.turn(vec![Step::Restart, Step::Sync]),
            "configuration" => self.configuration(),
            "init elsewhere" => self.turn(vec![Step::InitElsewhere, Step::Sync]),
            "remove and init" => self.remove_and_init(),
            "triggers dropped" => self.triggers_dropped(),
            "triggers made again" => self.triggers_made_again(),
            "bookkeeping dropped" => self.bookkeeping_dropped(),
            "backup" => {
                self.saved = Some(self.model.clone());
                self.turn(vec![Step::Backup])
            }
            _ => self.restore(),
        }
    }

    fn some_statements(&mut self, most: u64) -> Vec<Step> {
        let count = 1 + self.chance.below(most);
        let made: Vec<String> = (0..count).filter_map(|_| self.statement()).collect();
        made.into_iter().map(Step::sql).collect()
    }

    fn statements(&mut self) -> Turn {
        let most = self.chance.pick(&[1, 1, 2, 4]);
        let mut steps = self.some_statements(most);
        steps.push(Step::Sync);
        self.turn(steps)
    }

    /// A transaction with savepoints, sometimes with a change of the schema, sometimes rolled back.
    fn transaction(&mut self) -> Turn {
        let begin = self.chance.pick(&["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]);
        let mut steps = vec![Step::sql(begin)];
        let mut needs = Vec::new();
        let mut open = 0;
        for _ in 0..=self.chance.below(5) {
            match self.chance.below(9) {
                0 | 1 => {
                    self.note("savepoint");
                    open += 1;
                    steps.push(Step::sql(format!("SAVEPOINT s{open}")));
                }
                2 if open > 0 => {
                    self.note("rollback to");
                    steps.push(Step::sql(format!("ROLLBACK TO s{open}")));
                }
                3 if open > 0 => {
                    self.note("release");
                    steps.push(Step::sql(format!("RELEASE s{open}")));
                    open -= 1;
                }
                4 if open == 0 => {
                    let first = steps.len();
                    let change = self.change().filter(|c| !c.iter().any(|s| s == "BEGIN" || s == "VACUUM"));
                    steps.extend(change.unwrap_or_default().into_iter().map(Step::sql));
                    needs.extend(first..steps.len());
                }
                _ => steps.extend(self.statement().map(Step::sql)),
            }
        }
        if self.once_in(5, "transaction rolled back") {
            self.model = self.before.clone();
            needs.clear();
            steps.push(Step::sql("ROLLBACK"));
        } else {
            needs.push(steps.len());
            steps.push(Step::sql("COMMIT"));
        }
        steps.push(Step::Close);
        steps.push(Step::Sync);
        Turn { steps, needs }
    }

    /// A change of the schema, and sometimes of rows, in the same window.
    fn schema(&mut self) -> Turn {
        let mut steps = if self.chance.one_in(4) { self.some_statements(2) } else { Vec::new() };
        let first = steps.len();
        steps.extend(self.change().unwrap_or_default().into_iter().map(Step::sql));
        let needs = (first..steps.len()).collect();
        if self.chance.one_in(3) {
            steps.extend(self.some_statements(2));
        }
        steps.push(Step::Close);
        steps.push(Step::Sync);
        Turn { steps, needs }
    }

    fn pragma(&mut self) -> Turn {
        let pragma = self.choose(&[
            ("foreign_keys = ON", 2),
            ("foreign_keys = OFF", 2),
            ("recursive_triggers = ON", 1),
            ("recursive_triggers = OFF", 1),
            ("user_version = 7", 2),
            ("journal_mode = WAL", 2),
            ("journal_mode = DELETE", 2),
            ("legacy_alter_table = ON", 1),
            ("legacy_alter_table = OFF", 1),
            ("defer_foreign_keys = ON", 1),
            ("ignore_check_constraints = ON", 1),
            ("reverse_unordered_selects = ON", 1),
            ("incremental_vacuum", 1),
            ("wal_checkpoint(TRUNCATE)", 1),
            ("shrink_memory", 1),
        ]);
        self.turn(vec![Step::sql(format!("PRAGMA {pragma}")), Step::Sync])
    }

    fn remove_and_init(&mut self) -> Turn {
        let mut steps = vec![Step::Remove];
        steps.extend(self.some_statements(2));
        steps.extend([Step::InitElsewhere, Step::Sync]);
        self.turn(steps)
    }

    /// Somebody drops triggers of ours by hand, and rows change meanwhile.
    fn triggers_dropped(&mut self) -> Turn {
        let Some(table) = self.some_table() else { return self.turn(Vec::new()) };
        let which = self.chance.pick(&["", "", "", "ei", "bu", "mu", "eu", "bd", "ai", "au"]);
        let mut steps = vec![Step::Take(table.name, which.to_owned())];
        if self.once_in(3, "end view dropped") {
            steps.push(Step::sql("DROP VIEW _redtail_end"));
        }
        steps.extend(self.some_statements(3));
        if self.chance.one_in(2) {
            steps.push(Step::InitElsewhere);
            if self.once_in(2, "schema version set back") {
                steps.push(Step::SetBack);
            }
        }
        if self.chance.one_in(2) {
            steps.extend(self.some_statements(2));
        }
        steps.push(Step::Sync);
        self.turn(steps)
    }

    /// A bulk load drops the triggers and makes them again, word for word.
    fn triggers_made_again(&mut self) -> Turn {
        let Some(table) = self.some_table() else { return self.turn(Vec::new()) };
        let mut steps = vec![Step::Take(table.name, String::new())];
        steps.extend(self.some_statements(3));
        steps.push(Step::PutBack);
        if self.chance.one_in(2) {
            steps.extend(self.some_statements(2));
        }
        if self.chance.one_in(3) {
            steps.push(Step::InitElsewhere);
        }
        steps.push(Step::Sync);
        self.turn(steps)
    }

    fn bookkeeping_dropped(&mut self) -> Turn {
        let statement = self.choose(&[
            ("DROP TABLE _redtail_changelog", 1),
            ("DROP TABLE _redtail_tables", 1),
            ("DROP TABLE _redtail_meta", 1),
            ("DROP VIEW _redtail_end", 1),
            ("DELETE FROM _redtail_changelog", 1),
            ("DELETE FROM _redtail_changelog WHERE seq < (SELECT max(seq) FROM _redtail_changelog)", 2),
            ("DELETE FROM _redtail_changelog WHERE seq % 3 = 1 AND seq < (SELECT max(seq) FROM _redtail_changelog)", 2),
        ]);
        let mut steps = vec![Step::sql(statement)];
        steps.extend(self.some_statements(3));
        steps.push(Step::Sync);
        self.turn(steps)
    }

    /// The file as it was at the last backup, and written on since.
    fn restore(&mut self) -> Turn {
        let Some(saved) = self.saved.clone() else { return self.statements() };
        self.model = saved;
        let mut steps = vec![Step::Restore];
        if !self.chance.one_in(3) {
            steps.extend(self.some_statements(4));
        }
        steps.push(Step::Sync);
        self.turn(steps)
    }
}
