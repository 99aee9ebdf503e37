//! Makes random changes of the schema, the way applications and their migration tools make them.

use super::generate::Generator;
use super::model::{Object, Table};
use super::pool::{COLUMNS, TABLES, quoted};

impl Generator {
    /// The statements of one change of the schema; the model shows it as done.
    pub(super) fn change(&mut self) -> Option<Vec<String>> {
        let kind = self.choose(&[
            ("create table", 5),
            ("add column", 5),
            ("drop column", 4),
            ("rename column", 4),
            ("rename table", 4),
            ("copy and rename", 4),
            ("drop table", 2),
            ("drop and create again", 4),
            ("drop and create another", 3),
            ("rename and create another", 2),
            ("create table as select", 1),
            ("create unique index", 8),
            ("create index", 2),
            ("drop index", 4),
            ("create trigger", 7),
            ("create temporary trigger", 1),
            ("drop trigger", 3),
            ("view with a trigger", 1),
            ("vacuum", 4),
            ("reindex", 1),
            ("analyze", 1),
            ("virtual table", 1),
        ]);
        match kind {
            "create table" => self.create_table(),
            "add column" => self.add_column(),
            "drop column" => self.drop_column(),
            "rename column" => self.rename_column(),
            "rename table" => self.rename_table(),
            "copy and rename" => self.copy_and_rename(),
            "drop table" => self.drop_table(),
            "drop and create again" => self.drop_and_create(true),
            "drop and create another" => self.drop_and_create(false),
            "rename and create another" => self.rename_and_create(),
            "create table as select" => self.create_as_select(),
            "create unique index" => self.unique_index().map(|s| vec![s]),
            "create index" => self.index(),
            "drop index" => self.drop_index(),
            "create trigger" => self.trigger().map(|s| vec![s]),
            "create temporary trigger" => self.temporary_trigger(),
            "drop trigger" => self.drop_trigger(),
            "view with a trigger" => self.view(),
            "vacuum" => Some(vec!["VACUUM".to_owned()]),
            "reindex" => Some(vec!["REINDEX".to_owned()]),
            "analyze" => Some(vec!["ANALYZE".to_owned()]),
            _ => Some(self.virtual_table()),
        }
    }

    pub(super) fn some_table(&mut self) -> Option<Table> {
        let tables = &self.model.tables;
        if tables.is_empty() { None } else { Some(tables[self.chance.index(tables.len())].clone()) }
    }

    /// A name that no table has.
    fn free_name(&mut self) -> String {
        loop {
            let name = self.chance.pick(TABLES);
            if !self.model.tables.iter().any(|t| t.name.eq_ignore_ascii_case(name)) {
                return name.to_owned();
            }
        }
    }

    pub(super) fn create_table(&mut self) -> Option<Vec<String>> {
        if self.model.tables.len() >= 5 {
            return None;
        }
        let name = self.free_name();
        let table = self.random_table(&name);
        let create = table.create(&name);
        self.model.tables.push(table);
        Some(vec![create])
    }

    fn entry(&mut self, name: &str) -> &mut Table {
        self.model.tables.iter_mut().find(|t| t.name == name).expect("a table of the model")
    }

    fn free_column_name(&mut self, table: &Table) -> String {
        loop {
            let name = self.chance.pick(COLUMNS);
            if !table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(name)) {
                return name.to_owned();
            }
        }
    }

    fn add_column(&mut self) -> Option<Vec<String>> {
        let mut table = self.some_table()?;
        let name = self.free_column_name(&table);
        let column = self.plain_column(&name, &mut table);
        let add = format!("ALTER TABLE {} ADD COLUMN {}", quoted(&table.name), column.definition());
        self.entry(&table.name).columns.push(column);
        Some(vec![add])
    }

    fn drop_column(&mut self) -> Option<Vec<String>> {
        let table = self.some_table()?;
        let name = table.columns[self.chance.index(table.columns.len())].name.clone();
        if table.settable().iter().all(|c| c.name == name) {
            return None;
        }
        let table = self.entry(&table.name);
        table.columns.retain(|c| c.name != name);
        Some(vec![format!("ALTER TABLE {} DROP COLUMN {}", quoted(&table.name), quoted(&name))])
    }

    fn rename_column(&mut self) -> Option<Vec<String>> {
        let table = self.some_table()?;
        let from = table.columns[self.chance.index(table.columns.len())].name.clone();
        let to = self.free_column_name(&table);
        self.entry(&table.name).rename_column(&from, &to);
        let (table, from, to) = (quoted(&table.name), quoted(&from), quoted(&to));
        Some(vec![format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}")])
    }

    fn rename_table(&mut self) -> Option<Vec<String>> {
        let from = self.some_table()?.name;
        let to = self.free_name();
        self.model.rename(&from, &to);
        Some(vec![format!("ALTER TABLE {} RENAME TO {}", quoted(&from), quoted(&to))])
    }

    /// The migration that SQLite's own documentation recommends.
    fn copy_and_rename(&mut self) -> Option<Vec<String>> {
        let table = self.some_table()?;
        let list: Vec<String> = table.settable().iter().map(|c| quoted(&c.name)).collect();
        let (list, old, copy) = (list.join(", "), quoted(&table.name), "\"copy of a table\"");
        let condition = self.condition(&table);
        let or = self.or_clause(2);
        self.model.forget_objects(&table.name);
        let statements = vec![
            "BEGIN".to_owned(),
            table.create("copy of a table"),
            format!("INSERT{or} INTO {copy}({list}) SELECT {list} FROM {old} WHERE {condition} OR 1"),
            format!("DROP TABLE {old}"),
            format!("ALTER TABLE {copy} RENAME TO {old}"),
            "COMMIT".to_owned(),
        ];
        Some(statements)
    }

    fn drop_table(&mut self) -> Option<Vec<String>> {
        let table = self.some_table()?;
        self.model.forget(&table.name);
        Some(vec![format!("DROP TABLE {}", quoted(&table.name))])
    }

    /// The same name again: with the same text, or as another table.
    fn drop_and_create(&mut self, same: bool) -> Option<Vec<String>> {
        let table = self.some_table()?;
        self.model.forget(&table.name);
        let table = if same { table } else { self.random_table(&table.name) };
        let statements = vec![format!("DROP TABLE {}", quoted(&table.name)), table.create(&table.name)];
        self.model.tables.push(table);
        Some(statements)
    }

    /// The old table moves away, a new one takes its name.
    fn rename_and_create(&mut self) -> Option<Vec<String>> {
        let from = self.some_table()?;
        let to = self.free_name();
        self.model.rename(&from.name, &to);
        let table = if self.chance.one_in(2) { from.clone() } else { self.random_table(&from.name) };
        let away = format!("ALTER TABLE {} RENAME TO {}", quoted(&from.name), quoted(&to));
        let create = table.create(&from.name);
        self.model.tables.push(table);
        Some(vec![away, create])
    }

    fn create_as_select(&mut self) -> Option<Vec<String>> {
        let from = self.some_table()?;
        let name = self.free_name();
        let mut table = from.clone();
        table.name.clone_from(&name);
        table.constraints.clear();
        table.key.clear();
        table.targets.clear();
        (table.strict, table.without_rowid) = (false, false);
        for column in &mut table.columns {
            (column.generated, column.unique) = (false, false);
            column.rest.clear();
        }
        self.model.tables.push(table);
        Some(vec![format!("CREATE TABLE {} AS SELECT * FROM {}", quoted(&name), quoted(&from.name))])
    }

    fn index(&mut self) -> Option<Vec<String>> {
        let table = self.some_table()?;
        let name = self.model.next("i");
        let column = quoted(&table.columns[self.chance.index(table.columns.len())].name);
        self.model.indexes.push(Object { name: name.clone(), table: table.name.clone() });
        Some(vec![format!("CREATE INDEX {name} ON {}({column})", quoted(&table.name))])
    }

    fn drop_index(&mut self) -> Option<Vec<String>> {
        if self.model.indexes.is_empty() {
            return None;
        }
        let at = self.chance.index(self.model.indexes.len());
        Some(vec![format!("DROP INDEX {}", self.model.indexes.remove(at).name)])
    }

    fn drop_trigger(&mut self) -> Option<Vec<String>> {
        if self.model.triggers.is_empty() {
            return None;
        }
        let at = self.chance.index(self.model.triggers.len());
        Some(vec![format!("DROP TRIGGER {}", self.model.triggers.remove(at).name)])
    }

    /// On the application's connection only; after updates and deletes, because no capture can see what
    /// one after inserts keeps from it.
    fn temporary_trigger(&mut self) -> Option<Vec<String>> {
        let (table, target) = (self.some_table()?, self.some_table()?);
        let (name, event) = (self.model.next("g"), self.chance.pick(&["UPDATE", "DELETE"]));
        let column = quoted(&self.some_settable(&target).name);
        let (on, other) = (quoted(&table.name), quoted(&target.name));
        let delete = format!("DELETE FROM {other} WHERE {column} IS NULL");
        Some(vec![format!("CREATE TEMP TRIGGER {name} AFTER {event} ON main.{on} BEGIN {delete}; END")])
    }

    fn view(&mut self) -> Option<Vec<String>> {
        let table = self.some_table()?;
        let (view, name) = (self.model.next("view"), self.model.next("g"));
        let column = quoted(&self.some_settable(&table).name);
        let on = quoted(&table.name);
        let body = format!("INSERT OR REPLACE INTO {on}({column}) VALUES (NEW.x)");
        Some(vec![
            format!("CREATE VIEW {view} AS SELECT {column} AS x FROM {on}"),
            format!("CREATE TRIGGER {name} INSTEAD OF INSERT ON {view} BEGIN {body}; END"),
            format!("INSERT INTO {view} SELECT 1 UNION ALL SELECT 'a'"),
        ])
    }

    fn virtual_table(&mut self) -> Vec<String> {
        let name = self.model.next("search");
        vec![
            format!("CREATE VIRTUAL TABLE {name} USING fts5(x)"),
            format!("INSERT INTO {name} VALUES ('one'), ('two')"),
        ]
    }
}
