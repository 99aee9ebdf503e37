//! Makes random unique indexes, and the application's own triggers.

use super::generate::Generator;
use super::model::{Object, Table};
use super::pool::{self, COLLATIONS, quoted, spelled};

impl Generator {
    /// A deterministic expression over one or two columns of a table.
    pub(super) fn expression_of(&mut self, table: &Table, settable: bool) -> String {
        let names: Vec<String> =
            table.columns.iter().filter(|c| !(settable && c.generated)).map(|c| c.name.clone()).collect();
        let a = &names[self.chance.index(names.len())];
        let b = &names[self.chance.index(names.len())];
        let (a, b) = if settable {
            // A definition is written in one way, so that a rename can be followed.
            (quoted(a), quoted(b))
        } else {
            (spelled(&mut self.chance, a), spelled(&mut self.chance, b))
        };
        match self.chance.below(10) {
            0 => format!("lower({a})"),
            1 => format!("{a} || 'x'"),
            2 => format!("coalesce({a}, {b})"),
            3 => format!("substr({a}, 1, 1)"),
            4 => format!("typeof({a})"),
            5 => format!("{a} IS NULL"),
            6 => format!("-{a}"),
            7 => format!("({a} + {b})"),
            8 => format!("length({a}) /* of ( */ + 0"),
            _ => format!("CASE WHEN {a} > {b} THEN {a} ELSE 'it''s)' END"),
        }
    }

    pub(super) fn predicate(&mut self, table: &Table) -> String {
        let column = table.columns[self.chance.index(table.columns.len())].clone();
        let value = pool::fitting(&mut self.chance, &column.declared, true);
        let name = spelled(&mut self.chance, &column.name);
        match self.chance.below(6) {
            0 => format!("{name} IS NOT NULL"),
            1 => format!("{name} > {value}"),
            2 => format!("{name} = {value}"),
            3 => format!("typeof({name}) = 'text'"),
            4 => format!("{name} IN (0, 1, 'a')"),
            _ => format!("NOT coalesce({name}, 0)"),
        }
    }

    /// CREATE UNIQUE INDEX: plain, partial, over expressions, with collations.
    pub(super) fn unique_index(&mut self) -> Option<String> {
        let table = self.some_table()?;
        let kind = self.choose(&[
            ("unique index", 5),
            ("partial unique index", 3),
            ("unique index on an expression", 3),
            ("collated unique index", 3),
        ]);
        let mut terms = Vec::new();
        for _ in 0..=self.chance.below(2) {
            let name = table.columns[self.chance.index(table.columns.len())].name.clone();
            let mut term = match kind {
                "unique index on an expression" => self.expression_of(&table, false),
                _ => spelled(&mut self.chance, &name),
            };
            if kind == "collated unique index" || self.chance.one_in(8) {
                term = format!("{term} COLLATE {}", self.chance.pick(COLLATIONS));
            }
            if self.chance.one_in(5) {
                term.push_str(" DESC");
            }
            terms.push(term);
        }
        let predicate = if kind == "partial unique index" || self.chance.one_in(8) {
            format!(" WHERE {}", self.predicate(&table))
        } else {
            String::new()
        };
        let name = self.model.next("i");
        let on = spelled(&mut self.chance, &table.name);
        self.model.indexes.push(Object { name: name.clone(), table: table.name });
        let comment = if self.chance.one_in(6) { " -- (one of a kind\n" } else { " " };
        Some(format!("CREATE UNIQUE INDEX {name} ON{comment}{on}({}){predicate}", terms.join(", ")))
    }

    /// CREATE TRIGGER, of a kind that applications have.
    pub(super) fn trigger(&mut self) -> Option<String> {
        let table = self.some_table()?;
        let kind = self.choose(&[
            ("trigger: updated_at", 4),
            ("trigger: changes the new row", 3),
            ("trigger: raises", 5),
            ("trigger: writes elsewhere", 5),
            ("trigger: deletes elsewhere", 2),
            ("trigger: recursive", 2),
            ("trigger: changes and raises", 2),
            ("trigger: before, same row", 1),
            ("trigger: before, other rows", 1),
        ]);
        let text = match kind {
            "trigger: updated_at" => self.updated_at(&table)?,
            "trigger: changes the new row" => self.changes_new_row(&table),
            "trigger: raises" => self.raises(&table),
            "trigger: writes elsewhere" => self.writes_elsewhere(&table)?,
            "trigger: deletes elsewhere" => self.deletes_elsewhere(&table)?,
            "trigger: recursive" => self.recursive(&table),
            "trigger: changes and raises" => self.changes_and_raises(&table),
            "trigger: before, same row" => self.before_same_row(&table)?,
            _ => self.before_other_rows(&table),
        };
        let name = self.model.next("g");
        self.model.triggers.push(Object { name: name.clone(), table: table.name });
        Some(format!("CREATE TRIGGER {name} {text}"))
    }

    /// A column that no key and no uniqueness involves.
    fn free_column(&mut self, table: &Table) -> Option<String> {
        let free: Vec<&str> =
            table.columns.iter().filter(|c| !c.generated && !c.unique).map(|c| c.name.as_str()).collect();
        if free.is_empty() { None } else { Some(quoted(self.chance.pick(&free))) }
    }

    fn value_of(&mut self, table: &Table, column: &str) -> String {
        let declared = table.columns.iter().find(|c| quoted(&c.name) == column).map(|c| c.declared.clone());
        pool::fitting(&mut self.chance, &declared.unwrap_or_default(), self.utf16)
    }

    fn updated_at(&mut self, table: &Table) -> Option<String> {
        let column = self.free_column(table)?;
        let (on, row) = (quoted(&table.name), table.same_row("NEW"));
        let value = match self.chance.below(2) {
            0 => format!("coalesce(OLD.{column}, 0) + 1"),
            _ => self.value_of(table, &column),
        };
        Some(format!(
            "AFTER UPDATE ON {on} WHEN NEW.{column} IS OLD.{column} BEGIN UPDATE {on} SET {column} = {value} WHERE {row}; END"
        ))
    }

    fn changes_new_row(&mut self, table: &Table) -> String {
        let column = quoted(&self.some_settable(table).name);
        let (on, row) = (quoted(&table.name), table.same_row("NEW"));
        let (event, or) = (self.chance.pick(&["INSERT", "UPDATE"]), self.or_clause(3));
        let (when, value) = (self.value_of(table, &column), self.value_of(table, &column));
        format!(
            "AFTER {event} ON {on} WHEN NEW.{column} IS {when} BEGIN UPDATE{or} {on} SET {column} = {value} WHERE {row}; END"
        )
    }

    /// When and over what a trigger fires, and the row that it may name.
    fn event(&mut self, table: &Table, time: &str) -> (String, &'static str) {
        let on = quoted(&table.name);
        let of = quoted(&self.some_settable(table).name);
        match self.chance.below(5) {
            0 | 1 => (format!("{time} INSERT ON {on}"), "NEW"),
            2 => (format!("{time} UPDATE ON {on}"), self.chance.pick(&["NEW", "OLD"])),
            3 => (format!("{time} UPDATE OF {of} ON {on}"), self.chance.pick(&["NEW", "OLD"])),
            _ => (format!("{time} DELETE ON {on}"), "OLD"),
        }
    }

    fn raise(&mut self) -> &'static str {
        self.chance.pick(&["IGNORE", "IGNORE", "FAIL, 'no'", "ABORT, 'no'", "ROLLBACK, 'no'"])
    }

    fn raises(&mut self, table: &Table) -> String {
        let time = self.chance.pick(&["BEFORE", "AFTER", "AFTER"]);
        let (event, row) = self.event(table, time);
        let column = quoted(&self.some_settable(table).name);
        let (value, raise) = (self.value_of(table, &column), self.raise());
        format!("{event} WHEN {row}.{column} IS {value} BEGIN SELECT RAISE({raise}); END")
    }

    fn changes_and_raises(&mut self, table: &Table) -> String {
        let (event, row) = self.event(table, "AFTER");
        let column = quoted(&self.some_settable(table).name);
        let other = quoted(&self.some_settable(table).name);
        let (when, value, raise) =
            (self.value_of(table, &column), self.value_of(table, &other), self.raise());
        let on = quoted(&table.name);
        format!(
            "{event} WHEN {row}.{column} IS {when} BEGIN UPDATE {on} SET {other} = {value} WHERE {column} IS {row}.{column}; SELECT RAISE({raise}); END"
        )
    }

    fn writes_elsewhere(&mut self, table: &Table) -> Option<String> {
        let target = self.other_table(table)?;
        // What a BEFORE trigger does to the row that is being changed is undefined in SQLite.
        let (event, row) = self.event(table, "AFTER");
        let names: Vec<String> = target.settable().iter().take(8).map(|c| c.name.clone()).collect();
        let mut values = Vec::new();
        for name in &names {
            let from = quoted(&table.columns[self.chance.index(table.columns.len())].name);
            values.push(match self.chance.below(3) {
                0 => self.value_of(&target, &quoted(name)),
                _ => format!("{row}.{from}"),
            });
        }
        let list = names.iter().map(|n| quoted(n)).collect::<Vec<_>>().join(", ");
        let into = quoted(&target.name);
        let or = self.or_clause(2);
        Some(format!("{event} BEGIN INSERT{or} INTO {into}({list}) VALUES ({}); END", values.join(", ")))
    }

    fn deletes_elsewhere(&mut self, table: &Table) -> Option<String> {
        let target = self.other_table(table)?;
        let (event, row) = self.event(table, "AFTER");
        let ours = quoted(&self.some_settable(table).name);
        let theirs = quoted(&self.some_settable(&target).name);
        Some(format!("{event} BEGIN DELETE FROM {} WHERE {theirs} = {row}.{ours}; END", quoted(&target.name)))
    }

    fn recursive(&mut self, table: &Table) -> String {
        let column = quoted(&self.some_settable(table).name);
        let on = quoted(&table.name);
        format!(
            "AFTER INSERT ON {on} WHEN typeof(NEW.{column}) = 'integer' AND NEW.{column} BETWEEN 0 AND 4 BEGIN \
             INSERT OR IGNORE INTO {on}({column}) VALUES (NEW.{column} + 1); END"
        )
    }

    fn before_same_row(&mut self, table: &Table) -> Option<String> {
        let column = self.free_column(table)?;
        let (on, row, value) = (quoted(&table.name), table.same_row("OLD"), self.value_of(table, &column));
        Some(format!("BEFORE UPDATE ON {on} BEGIN UPDATE {on} SET {column} = {value} WHERE {row}; END"))
    }

    fn before_other_rows(&mut self, table: &Table) -> String {
        let column = quoted(&self.some_settable(table).name);
        let on = quoted(&table.name);
        format!("BEFORE INSERT ON {on} BEGIN DELETE FROM {on} WHERE {column} = NEW.{column}; END")
    }

    fn other_table(&mut self, table: &Table) -> Option<Table> {
        let others: Vec<&Table> = self.model.tables.iter().filter(|t| t.name != table.name).collect();
        if others.is_empty() { None } else { Some(others[self.chance.index(others.len())].clone()) }
    }
}
