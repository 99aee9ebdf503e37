//! Files that another replication owns: whatever is written to them behind its back is lost or breaks it.

use crate::error::{Error, Result};
use std::path::Path;

/// Refuses a database file that capture must not be installed in, by the files that stand beside it.
///
/// # Errors
/// `Usage`; it says what to give instead.
pub(super) fn refuse(path: &Path) -> Result<()> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        Path::new(&name).exists()
    };
    let shown = path.display();
    // libSQL's client keeps one of these for an embedded replica.
    if beside("-client_wal_index") || beside("-info") {
        return Err(Error::usage(format!(
            "source {shown}: an embedded replica of another database, whose next sync would undo what is installed; give the primary as the source"
        )));
    }
    // sqld's layout: dbs/NAMESPACE/data beside its log of frames.
    let in_server = path.file_name().is_some_and(|name| name == "data")
        && path.parent().is_some_and(|folder| folder.join("wallog").exists());
    if in_server {
        return Err(Error::usage(format!(
            "source {shown}: the data file of a server, whose own replicas would not see what is installed; give the server's URL as the source"
        )));
    }
    Ok(())
}
