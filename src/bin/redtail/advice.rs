//! What to do about what redtail says: the table of docs/operations.md, for the page and `status`.

/// What a message means and what to do about it.
pub struct Advice {
    /// Parts of the message, all of which are in it.
    says: &'static [&'static str],
    pub means: &'static str,
    pub todo: &'static str,
}

/// What there is to say about a message.
pub fn on(message: &str) -> Option<&'static Advice> {
    ADVICE.iter().find(|a| a.says.iter().all(|part| message.contains(part)))
}

macro_rules! advice {
    ($($says:literal),+ => $means:literal, $todo:literal) => {
        Advice { says: &[$($says),+], means: $means, todo: $todo }
    };
}

/// The more particular ones first; docs/operations.md says the same at more length.
const ADVICE: &[Advice] = &[
    advice!("refuses the token" => "it expired, or was exchanged", "put the new one into the token file"),
    advice!("diverged from the replica", "every table is reconciled" =>
        "the source went back in time, or was replaced",
        "nothing: old rows stay readable until reconcile is through"),
    advice!("went back", "is read again" =>
        "the source lost its newest commits, or an older copy was put back and written on",
        "nothing: the keys since the common entry are read again"),
    advice!("diverged:" => "the source was replaced, or went back, while it was being read", "nothing: it is compared anew"),
    advice!("is below the replica's; waited for" =>
        "the server is a replica that lags, or was restored",
        "nothing: after `lagging` it counts as restored"),
    advice!("another file stands in its place" => "the database file was replaced", "nothing: it is opened again"),
    advice!("made again from the source" =>
        "the replica's file was not what had been written", "look at the disk; delete the old file when done with it"),
    advice!("waiting for room" => "no room for the replica", "make room: it goes on by itself; readers read on"),
    advice!("as this consumer" => "the replica's file was copied, and both run", "nothing: this one goes on as another consumer"),
    advice!("acknowledges as consumer" =>
        "the replica's file was copied, and both run", "nothing: this one goes on as another consumer"),
    advice!("does not know consumer" =>
        "it was not seen for `consumer_timeout`, or could never write",
        "nothing: if its entries are gone it is rebuilt"),
    advice!("had dropped this consumer" => "it was not seen for `consumer_timeout`", "nothing: it is registered again"),
    advice!("it is dropped, and rebuilds if it returns" =>
        "a replica was not seen for `consumer_timeout`", "nothing, if it is gone for good; else start it"),
    advice!("may not be written to" =>
        "this user may only read the source", "nothing, if it is meant so; `retain_min` says how long it may be away"),
    advice!("not in WAL mode" =>
        "reading it blocks its writers for up to 20 ms at a time", "PRAGMA journal_mode = WAL in the application"),
    advice!("max_row" => "one row is too large", "raise `max_row`"),
    advice!("there is no such table in the source" => "the configuration names a table that is not there", "mend the name, or make the table"),
    advice!("trying again" => "the source is busy or out of reach", "nothing, unless it lasts: look whether the source is there"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// All of src but this file.
    fn code(folder: &Path) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                text += &code(&path);
            } else if !path.ends_with("advice.rs") {
                text += &std::fs::read_to_string(path).unwrap_or_default();
            }
        }
        text
    }

    #[test]
    fn whatever_advice_is_given_on_is_said_somewhere() {
        let code = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        for part in ADVICE.iter().flat_map(|a| a.says) {
            assert!(code.contains(part), "{part:?} is nowhere in src");
        }
        assert!(on("source x: busy; trying again in 5 ms").is_some() && on("all is well").is_none());
    }
}
