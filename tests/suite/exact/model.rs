//! What the generator believes of the schema. It is told which statements were refused, so it stays close.

use super::pool::quoted;

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) declared: String,
    /// What stands behind the type.
    pub(super) rest: String,
    pub(super) generated: bool,
    /// Some uniqueness, or the key, involves it.
    pub(super) unique: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    pub(super) constraints: Vec<String>,
    /// The columns of the primary key.
    pub(super) key: Vec<String>,
    pub(super) strict: bool,
    pub(super) without_rowid: bool,
    /// Column lists that a foreign key or an ON CONFLICT may name.
    pub(super) targets: Vec<Vec<String>>,
}

/// A named object on a table: an index or a trigger of the application.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) table: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) tables: Vec<Table>,
    pub(super) indexes: Vec<Object>,
    pub(super) triggers: Vec<Object>,
    /// Makes names that were never used before.
    pub(super) serial: u32,
}

impl Table {
    /// The statement that makes this table under a name.
    pub(super) fn create(&self, name: &str) -> String {
        let columns = self.columns.iter().map(Column::definition);
        let parts: Vec<String> = columns.chain(self.constraints.iter().cloned()).collect();
        let options = match (self.strict, self.without_rowid) {
            (true, true) => " STRICT, WITHOUT ROWID",
            (true, false) => " STRICT",
            (false, true) => " WITHOUT ROWID",
            (false, false) => "",
        };
        format!("CREATE TABLE {}({}){options}", quoted(name), parts.join(", "))
    }

    /// The columns that a statement may set.
    pub(super) fn settable(&self) -> Vec<&Column> {
        self.columns.iter().filter(|c| !c.generated).collect()
    }

    /// A name by which the rowid can be reached.
    pub(super) fn rowid(&self) -> Option<&'static str> {
        let free = |n: &&str| !self.columns.iter().any(|c| c.name.eq_ignore_ascii_case(n));
        if self.without_rowid { None } else { ["rowid", "_rowid_", "oid"].into_iter().find(free) }
    }

    /// What finds one row again: the rowid, or the key.
    pub(super) fn same_row(&self, other: &str) -> String {
        if let Some(rowid) = self.rowid() {
            return format!("{rowid} = {other}.{rowid}");
        }
        let names: Vec<String> =
            if self.key.is_empty() { vec![self.columns[0].name.clone()] } else { self.key.clone() };
        let same = |n: &String| format!("{} IS {other}.{}", quoted(n), quoted(n));
        names.iter().map(same).collect::<Vec<_>>().join(" AND ")
    }

    /// Takes another name for a column into everything that is written with it.
    pub(super) fn rename_column(&mut self, from: &str, to: &str) {
        let (old, new) = (quoted(from), quoted(to));
        for column in &mut self.columns {
            if column.name == from {
                to.clone_into(&mut column.name);
            }
            column.rest = column.rest.replace(&old, &new);
        }
        for constraint in &mut self.constraints {
            *constraint = constraint.replace(&old, &new);
        }
        for name in self.key.iter_mut().chain(self.targets.iter_mut().flatten()) {
            if name == from {
                to.clone_into(name);
            }
        }
    }
}

impl Column {
    pub(super) fn definition(&self) -> String {
        let parts = [quoted(&self.name), self.declared.clone(), self.rest.clone()];
        parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl Model {
    pub(super) fn next(&mut self, prefix: &str) -> String {
        self.serial += 1;
        format!("{prefix}{}", self.serial)
    }

    /// Forgets a table and what hangs on it.
    pub(super) fn forget(&mut self, name: &str) {
        self.tables.retain(|t| t.name != name);
        self.forget_objects(name);
    }

    pub(super) fn forget_objects(&mut self, table: &str) {
        self.indexes.retain(|o| o.table != table);
        self.triggers.retain(|o| o.table != table);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let objects = self.indexes.iter_mut().chain(&mut self.triggers).map(|o| &mut o.table);
        for name in self.tables.iter_mut().map(|t| &mut t.name).chain(objects) {
            if name == from {
                to.clone_into(name);
            }
        }
    }
}
