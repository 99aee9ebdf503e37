//! Makes random tables: every kind of key, column and constraint that SQLite has.

use super::generate::Generator;
use super::model::{Column, Table};
use super::pool::{self, COLLATIONS, COLUMNS, CONFLICTS, quoted};

impl Generator {
    /// A table under this name, that nothing in the model depends on yet.
    pub(super) fn random_table(&mut self, name: &str) -> Table {
        let key = self.choose(&[
            ("no key", 3),
            ("integer key", 4),
            ("autoincrement key", 2),
            ("integer key, descending", 1),
            ("one column key", 5),
            ("composite key", 5),
        ]);
        // SQLite takes a second over one change of a table of 1,000 columns: `traps::tables` has one in each run.
        let wide = self.choose(&[("few columns", 2_400), ("many columns", 30), ("1000 columns", 1)]);
        let count = match wide {
            "1000 columns" => 1_000,
            "many columns" => 60 + self.chance.below(40),
            _ => 1 + self.chance.below(5) + u64::from(key == "composite key"),
        };
        let strict = self.chance.one_in(6);
        let mut table = Table {
            name: name.to_owned(),
            columns: Vec::new(),
            constraints: Vec::new(),
            key: Vec::new(),
            strict,
            without_rowid: false,
            targets: Vec::new(),
        };
        let names = self.column_names(usize::try_from(count).unwrap());
        let keys = match key {
            "no key" => 0,
            "composite key" => names.len().min(2 + self.chance.index(2)),
            _ => 1,
        };
        for (i, name) in names.iter().enumerate() {
            let column = if i < keys {
                self.key_column(name, key, strict)
            } else {
                self.plain_column(name, &mut table)
            };
            table.columns.push(column);
        }
        self.primary_key(&mut table, key, keys);
        self.table_constraints(&mut table);
        self.chance.shuffle(&mut table.columns);
        table
    }

    fn column_names(&mut self, count: usize) -> Vec<String> {
        if count > 10 {
            return (0..count).map(|i| format!("c{i}")).collect();
        }
        let mut names: Vec<String> = Vec::new();
        while names.len() < count {
            let name = self.chance.pick(COLUMNS);
            if !names.iter().any(|n| n.eq_ignore_ascii_case(name)) {
                names.push(name.to_owned());
            }
        }
        names
    }

    fn key_column(&mut self, name: &str, key: &str, strict: bool) -> Column {
        let declared = if key.starts_with("integer") || key.starts_with("auto") {
            "INTEGER"
        } else {
            pool::declared(&mut self.chance, strict)
        };
        let mut rest = Vec::new();
        if self.chance.one_in(3) && declared != "INTEGER" {
            rest.push(format!("COLLATE {}", self.chance.pick(COLLATIONS)));
        }
        if self.chance.one_in(4) {
            rest.push(self.not_null(declared));
        }
        Column {
            name: name.to_owned(),
            declared: declared.to_owned(),
            rest: rest.join(" "),
            generated: false,
            unique: true,
        }
    }

    fn primary_key(&mut self, table: &mut Table, key: &str, keys: usize) {
        if keys == 0 {
            return;
        }
        table.key = table.columns.iter().take(keys).map(|c| c.name.clone()).collect();
        table.targets.push(table.key.clone());
        table.without_rowid = key != "autoincrement key" && self.chance.one_in(3);
        let conflict = self.on_conflict(8);
        let direct = match key {
            "integer key" => Some(String::new()),
            "autoincrement key" => Some(" AUTOINCREMENT".to_owned()),
            "integer key, descending" => Some(" DESC".to_owned()),
            "one column key" if self.chance.one_in(2) => {
                Some(if self.chance.one_in(4) { " DESC" } else { "" }.to_owned())
            }
            _ => None,
        };
        if let Some(order) = direct {
            let (order, end) =
                if order == " AUTOINCREMENT" { ("", order.as_str()) } else { (order.as_str(), "") };
            let first = &mut table.columns[0];
            let rest = format!("PRIMARY KEY{order}{conflict}{end} {}", first.rest);
            rest.trim().clone_into(&mut first.rest);
            return;
        }
        let mut parts = Vec::new();
        for name in table.key.clone() {
            let collate = if self.chance.one_in(5) {
                format!(" COLLATE {}", self.chance.pick(COLLATIONS))
            } else {
                String::new()
            };
            let desc = if self.chance.one_in(4) { " DESC" } else { "" };
            parts.push(format!("{}{collate}{desc}", quoted(&name)));
        }
        self.chance.shuffle(&mut parts);
        table.constraints.push(format!("PRIMARY KEY({}){conflict}", parts.join(", ")));
    }

    /// A column that is not in the key; constraints that others may refer to are noted in the table.
    pub(super) fn plain_column(&mut self, name: &str, table: &mut Table) -> Column {
        let declared = pool::declared(&mut self.chance, table.strict).to_owned();
        let mut column =
            Column { name: name.to_owned(), declared, rest: String::new(), generated: false, unique: false };
        let mut rest = Vec::new();
        if !table.settable().is_empty() && self.once_in(7, "generated column") {
            column.generated = true;
            let kind = self.choose(&[("virtual column", 1), ("stored column", 1)]);
            let kind = if kind == "virtual column" { "VIRTUAL" } else { "STORED" };
            rest.push(format!("GENERATED ALWAYS AS ({}) {kind}", self.expression_of(table, true)));
        } else if self.chance.one_in(5) {
            rest.push(self.not_null(&column.declared));
        } else if self.chance.one_in(6) {
            rest.push(format!("DEFAULT {}", pool::default(&mut self.chance, &column.declared)));
        }
        if self.chance.one_in(5) {
            rest.push(format!("COLLATE {}", self.chance.pick(COLLATIONS)));
        }
        if self.once_in(8, "unique column") {
            rest.push(format!("UNIQUE{}", self.on_conflict(4)));
            column.unique = true;
            table.targets.push(vec![name.to_owned()]);
        }
        if self.chance.one_in(30) {
            let value = pool::fitting(&mut self.chance, &column.declared, true);
            rest.push(format!("CHECK ({} IS NOT {value})", quoted(name)));
        }
        if self.chance.one_in(6) && !column.generated {
            rest.extend(self.reference(1).map(|r| r.1));
        }
        column.rest = rest.join(" ");
        column
    }

    fn not_null(&mut self, declared: &str) -> String {
        let conflict = self.on_conflict(3);
        if self.once_in(2, "not null with default") {
            let value = loop {
                let value = pool::default(&mut self.chance, declared);
                if value != "NULL" {
                    break value;
                }
            };
            return format!("NOT NULL{conflict} DEFAULT {value}");
        }
        format!("NOT NULL{conflict}")
    }

    /// ` ON CONFLICT …` once in so many times.
    fn on_conflict(&mut self, once_in: u64) -> String {
        if !self.once_in(once_in, "conflict clause in the schema") {
            return String::new();
        }
        format!(" ON CONFLICT {}", self.chance.pick(CONFLICTS))
    }

    /// A reference to so many columns of a table that stands already.
    fn reference(&mut self, width: usize) -> Option<(usize, String)> {
        let targets: Vec<(String, Vec<String>)> = self
            .model
            .tables
            .iter()
            .flat_map(|t| t.targets.iter().map(|c| (t.name.clone(), c.clone())))
            .filter(|(_, columns)| columns.len() == width)
            .collect();
        if targets.is_empty() {
            return None;
        }
        let (parent, columns) = targets[self.chance.index(targets.len())].clone();
        let list = columns.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(", ");
        let mut text = format!("REFERENCES {}({list})", quoted(&parent));
        for event in ["DELETE", "UPDATE"] {
            let action = self.choose(&[
                ("cascade", 4),
                ("set null", 2),
                ("set default", 1),
                ("restrict", 1),
                ("no action", 2),
            ]);
            if action != "no action" {
                text = format!("{text} ON {event} {}", action.to_uppercase());
            }
        }
        if self.once_in(3, "deferred foreign key") {
            text.push_str(" DEFERRABLE INITIALLY DEFERRED");
        }
        Some((columns.len(), text))
    }

    fn table_constraints(&mut self, table: &mut Table) {
        let names: Vec<String> = table.columns.iter().take(12).map(|c| c.name.clone()).collect();
        if names.len() > 1 && self.chance.one_in(5) {
            let mut some = names.clone();
            self.chance.shuffle(&mut some);
            some.truncate(2);
            let list = some.iter().map(|n| quoted(n)).collect::<Vec<_>>().join(", ");
            let conflict = self.on_conflict(3);
            table.constraints.push(format!("UNIQUE({list}){conflict}"));
            for column in table.columns.iter_mut().filter(|c| some.contains(&c.name)) {
                column.unique = true;
            }
            table.targets.push(some);
        }
        if self.once_in(6, "composite foreign key") {
            let children: Vec<String> = table.settable().iter().map(|c| c.name.clone()).take(2).collect();
            if let (2, Some((_, reference))) = (children.len(), self.reference(2)) {
                let list = children.iter().map(|n| quoted(n)).collect::<Vec<_>>().join(", ");
                table.constraints.push(format!("FOREIGN KEY({list}) {reference}"));
            }
        }
        if let ([key], true) = (table.key.as_slice(), self.once_in(10, "foreign key to itself")) {
            // A tree: rows refer to rows of their own table.
            let child = table.settable().iter().map(|c| c.name.clone()).find(|n| n != key);
            if let Some(child) = child {
                table.constraints.push(format!(
                    "FOREIGN KEY({}) REFERENCES {}({}) ON DELETE CASCADE ON UPDATE CASCADE",
                    quoted(&child),
                    quoted(&table.name),
                    quoted(key)
                ));
            }
        }
    }
}
