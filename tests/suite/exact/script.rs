//! What a script consists of, and how a person reads it.

use super::selections::Selections;

/// One step of a script. Everything but SQL is a comment to the sqlite3 shell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A statement of the application, on its one connection; it may be refused.
    Sql(String),
    /// Whatever transaction is open is rolled back.
    Close,
    /// The replica is brought to the source's head and compared; left out while a transaction is open.
    Sync,
    /// From here on a replicator runs beside the application instead of syncing when told.
    Follow,
    /// Windows and ranges of a few rows from here on.
    Small,
    /// The replicator is dropped and opened again on the same file.
    Restart,
    /// The same with another configuration: what is replicated of which table.
    Configure(Selections),
    /// Another connection installs or repairs capture.
    InitElsewhere,
    /// Another connection takes capture out.
    Remove,
    /// Capture's triggers on a table are dropped by hand: one kind of them, or all.
    Take(String, String),
    /// What was taken last is made again, word for word.
    PutBack,
    /// The schema version is set back to what it was before that.
    SetBack,
    /// The source file is copied.
    Backup,
    /// The last copy is put in its place.
    Restore,
}

impl Step {
    pub(super) fn sql(text: impl Into<String>) -> Self {
        Self::Sql(text.into())
    }

    pub(super) fn as_sql(&self) -> Option<&str> {
        if let Self::Sql(text) = self { Some(text) } else { None }
    }

    /// Reads a step of a directed script: SQL, or one of the comments below.
    pub(super) fn read(text: &str) -> Self {
        let Some(comment) = text.strip_prefix("-- ") else { return Self::sql(text) };
        if let Some(of) = comment.strip_prefix("capture dropped: ") {
            let (which, table) = of.split_once(" of ").expect("ALL or a kind, and the table");
            return Self::Take(table.to_owned(), which.trim_start_matches("ALL").to_owned());
        }
        if let Some(json) = comment.strip_prefix("configured: ") {
            return Self::Configure(serde_json::from_str(json).expect("selections"));
        }
        let all = [
            Self::Close,
            Self::Sync,
            Self::Follow,
            Self::Small,
            Self::Restart,
            Self::InitElsewhere,
            Self::Remove,
            Self::PutBack,
            Self::SetBack,
            Self::Backup,
            Self::Restore,
        ];
        all.into_iter()
            .find(|step| step.to_string() == text)
            .unwrap_or_else(|| panic!("no such step: {text}"))
    }
}

/// Reads a directed script.
pub(super) fn read(steps: &[&str]) -> Vec<Step> {
    steps.iter().map(|text| Step::read(text)).collect()
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sql(text) => return write!(f, "{text};"),
            Self::Take(table, which) => {
                let which = if which.is_empty() { "ALL" } else { which };
                return write!(f, "-- capture dropped: {which} of {}", table.escape_debug());
            }
            Self::Configure(selections) => {
                let json = serde_json::to_string(selections).map_err(|_| std::fmt::Error)?;
                return write!(f, "-- configured: {json}");
            }
            Self::Close => "-- rollback if a transaction is open",
            Self::Sync => "-- sync",
            Self::Follow => "-- follow",
            Self::Small => "-- small windows",
            Self::Restart => "-- restart",
            Self::InitElsewhere => "-- init elsewhere",
            Self::Remove => "-- remove",
            Self::PutBack => "-- capture made again, word for word",
            Self::SetBack => "-- schema version set back to what it was before that",
            Self::Backup => "-- backup",
            Self::Restore => "-- restore",
        })
    }
}
