//! Makes random statements that change rows.

use super::generate::Generator;
use super::model::{Column, Table};
use super::pool::{self, CONFLICTS, quoted, spelled};

impl Generator {
    /// One statement that changes rows; `None` while there is no table.
    pub(super) fn statement(&mut self) -> Option<String> {
        let table = self.some_table()?;
        let kind = self.choose(&[
            ("insert", 12),
            ("insert or …", 8),
            ("replace", 6),
            ("multi-row insert", 7),
            ("insert … select", 4),
            ("upsert", 6),
            ("insert with rowid", 4),
            ("insert default values", 1),
            ("update", 9),
            ("update or …", 6),
            ("update … from", 3),
            ("update of the key", 6),
            ("swap", 4),
            ("shift", 3),
            ("update of the rowid", 3),
            ("delete", 7),
            ("delete without where", 2),
        ]);
        let text = match kind {
            "insert" => self.insert("INSERT", &table, 1),
            "insert or …" => {
                let or = format!("INSERT OR {}", self.chance.pick(CONFLICTS));
                let rows = 1 + self.chance.below(3);
                self.insert(&or, &table, rows)
            }
            "replace" => self.insert("REPLACE", &table, 1),
            "multi-row insert" => {
                let rows = 2 + self.chance.below(4);
                self.insert("INSERT", &table, rows)
            }
            "insert … select" => self.insert_select(&table),
            "upsert" => self.upsert(&table),
            "insert with rowid" => self.insert_rowid(&table)?,
            "insert default values" => format!("INSERT INTO {} DEFAULT VALUES", quoted(&table.name)),
            "update" => self.update(&table, ""),
            "update or …" => {
                let or = format!(" OR {}", self.chance.pick(CONFLICTS));
                self.update(&table, &or)
            }
            "update … from" => self.update_from(&table)?,
            "update of the key" => self.update_key(&table)?,
            "swap" => self.swap(&table),
            "shift" => self.shift(&table),
            "update of the rowid" => self.update_rowid(&table)?,
            "delete" => format!("DELETE FROM {} WHERE {}", self.spell(&table.name), self.condition(&table)),
            _ => format!("DELETE FROM {}", self.spell(&table.name)),
        };
        Some(if self.chance.one_in(12) { format!("{text} RETURNING *") } else { text })
    }

    fn spell(&mut self, name: &str) -> String {
        spelled(&mut self.chance, name)
    }

    /// ` OR …` once in so many times.
    pub(super) fn or_clause(&mut self, once_in: u64) -> String {
        if self.chance.one_in(once_in) {
            format!(" OR {}", self.chance.pick(CONFLICTS))
        } else {
            String::new()
        }
    }

    pub(super) fn some_settable(&mut self, table: &Table) -> Column {
        let columns = table.settable();
        columns[self.chance.index(columns.len())].clone()
    }

    fn value_for(&mut self, column: &Column) -> String {
        pool::fitting(&mut self.chance, &column.declared, self.utf16)
    }

    /// The columns that an insert gives: most often all of them.
    fn given(&mut self, table: &Table) -> Vec<Column> {
        let mut columns: Vec<Column> = table.settable().into_iter().cloned().collect();
        if columns.len() > 10 || self.chance.one_in(4) {
            self.chance.shuffle(&mut columns);
            columns.truncate(1 + self.chance.index(8));
        }
        columns
    }

    fn row(&mut self, columns: &[Column]) -> String {
        let mut values = Vec::new();
        for column in columns {
            values.push(self.value_for(column));
        }
        format!("({})", values.join(", "))
    }

    fn insert(&mut self, verb: &str, table: &Table, rows: u64) -> String {
        let columns = self.given(table);
        let mut values = Vec::new();
        for _ in 0..rows {
            values.push(self.row(&columns));
        }
        format!("{verb} INTO {}({}) VALUES {}", self.spell(&table.name), list(&columns), values.join(", "))
    }

    fn insert_select(&mut self, table: &Table) -> String {
        let columns = self.given(table);
        let from = self.some_table().unwrap_or_else(|| table.clone());
        let mut values = Vec::new();
        for column in &columns {
            let other = quoted(&from.columns[self.chance.index(from.columns.len())].name);
            values.push(match self.chance.below(4) {
                0 => self.value_for(column),
                1 => format!("{other} + 1"),
                _ => other,
            });
        }
        let or = self.or_clause(2);
        let condition = self.condition(&from);
        format!(
            "INSERT{or} INTO {}({}) SELECT {} FROM {} WHERE {condition} LIMIT 20",
            quoted(&table.name),
            list(&columns),
            values.join(", "),
            quoted(&from.name)
        )
    }

    fn upsert(&mut self, table: &Table) -> String {
        let rows = 1 + self.chance.below(2);
        let insert = self.insert("INSERT", table, rows);
        let target = if table.targets.is_empty() || self.chance.one_in(3) {
            String::new()
        } else {
            let target = table.targets[self.chance.index(table.targets.len())].clone();
            format!("({})", target.iter().map(|n| quoted(n)).collect::<Vec<_>>().join(", "))
        };
        if self.chance.one_in(4) {
            return format!("{insert} ON CONFLICT{target} DO NOTHING");
        }
        let column = self.some_settable(table);
        let name = quoted(&column.name);
        let value = if self.chance.one_in(2) { format!("excluded.{name}") } else { self.value_for(&column) };
        format!("{insert} ON CONFLICT{target} DO UPDATE SET {name} = {value}")
    }

    fn insert_rowid(&mut self, table: &Table) -> Option<String> {
        let rowid = table.rowid()?;
        let columns = self.given(table);
        let (or, number) = (self.or_clause(1), 1 + self.chance.below(6));
        let row = self.row(&columns);
        let values = row.strip_prefix('(').unwrap_or(&row);
        Some(format!(
            "INSERT{or} INTO {}({rowid}, {}) VALUES ({number}, {values}",
            quoted(&table.name),
            list(&columns)
        ))
    }

    fn update(&mut self, table: &Table, or: &str) -> String {
        let mut sets = Vec::new();
        for _ in 0..=self.chance.below(2) {
            let column = self.some_settable(table);
            let other = quoted(&table.columns[self.chance.index(table.columns.len())].name);
            let value = match self.chance.below(5) {
                0 => other,
                1 => format!("{other} || 'a'"),
                _ => self.value_for(&column),
            };
            sets.push(format!("{} = {value}", quoted(&column.name)));
        }
        let condition = self.condition(table);
        format!("UPDATE{or} {} SET {} WHERE {condition}", self.spell(&table.name), sets.join(", "))
    }

    fn update_from(&mut self, table: &Table) -> Option<String> {
        let from = self.some_table()?;
        let (column, own) = (self.some_settable(table), self.some_settable(table));
        let theirs = quoted(&from.columns[self.chance.index(from.columns.len())].name);
        let or = self.or_clause(2);
        Some(format!(
            "UPDATE{or} {} SET {} = _f.{theirs} FROM {} AS _f WHERE {}.{} = _f.{theirs}",
            quoted(&table.name),
            quoted(&column.name),
            quoted(&from.name),
            quoted(&table.name),
            quoted(&own.name)
        ))
    }

    fn update_key(&mut self, table: &Table) -> Option<String> {
        if table.key.is_empty() {
            return None;
        }
        let name = table.key[self.chance.index(table.key.len())].clone();
        let column = table.columns.iter().find(|c| c.name == name)?.clone();
        let (or, value) = (self.or_clause(2), self.value_for(&column));
        let condition = self.condition(table);
        Some(format!("UPDATE{or} {} SET {} = {value} WHERE {condition}", quoted(&table.name), quoted(&name)))
    }

    /// Two values change places, in the key where there is one.
    fn swap(&mut self, table: &Table) -> String {
        let column = match table.key.first() {
            Some(key) => table.columns.iter().find(|c| c.name == *key).cloned(),
            None => None,
        };
        let column = column.unwrap_or_else(|| self.some_settable(table));
        let (a, b, or) = (self.value_for(&column), self.value_for(&column), self.or_clause(2));
        let name = quoted(&column.name);
        format!(
            "UPDATE{or} {} SET {name} = CASE {name} WHEN {a} THEN {b} WHEN {b} THEN {a} ELSE {name} END",
            quoted(&table.name)
        )
    }

    /// Every value of a column moves by one.
    fn shift(&mut self, table: &Table) -> String {
        let column = self.some_settable(table);
        let (name, or) = (quoted(&column.name), self.or_clause(2));
        let value = self.chance.pick(&["+ 1", "- 1", "* -1", "|| ''"]);
        format!("UPDATE{or} {} SET {name} = {name} {value}", quoted(&table.name))
    }

    fn update_rowid(&mut self, table: &Table) -> Option<String> {
        let rowid = table.rowid()?;
        let or = self.or_clause(2);
        let value = match self.chance.below(3) {
            0 => format!("{rowid} + 1"),
            1 => format!("-{rowid}"),
            _ => (1 + self.chance.below(6)).to_string(),
        };
        let condition = self.condition(table);
        Some(format!("UPDATE{or} {} SET {rowid} = {value} WHERE {condition}", quoted(&table.name)))
    }

    /// A condition that some rows fulfil.
    pub(super) fn condition(&mut self, table: &Table) -> String {
        let column = table.columns[self.chance.index(table.columns.len())].clone();
        let (name, value) = (quoted(&column.name), self.value_for(&column));
        match self.chance.below(9) {
            0 => "1".to_owned(),
            1 => format!("{name} IS NULL"),
            2 => format!("{name} > {value}"),
            3 => format!("{name} < {value}"),
            4 => format!("typeof({name}) = 'text'"),
            5 => match table.rowid() {
                Some(rowid) => format!("{rowid} % 2 = {}", self.chance.below(2)),
                None => format!("{name} IS NOT NULL"),
            },
            6 => format!("{name} IN ({value}, 1, 'a')"),
            _ => format!("{name} = {value}"),
        }
    }
}

fn list(columns: &[Column]) -> String {
    columns.iter().map(|c| quoted(&c.name)).collect::<Vec<_>>().join(", ")
}
