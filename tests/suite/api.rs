//! The library as a crate of others sees it: what its types can do, that each shows how it is used, and that none of
//! another crate's types is wanted where the application does not hand one in.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::hash::Hash;
use std::path::{Path, PathBuf};

use redtail::*;

fn shared<T: Send + Sync + Unpin + Debug>() {}
fn value<T: Clone + Debug + PartialEq + Send + Sync + Unpin>() {}
fn small<T: Copy + Debug + PartialEq + Eq + Send + Sync>() {}
fn told<T: Clone + Debug + Send + Sync>() {}
fn stream<T: Send + Unpin + Debug + futures::Stream>() {}
fn both_ends<T: DoubleEndedIterator>() {}
fn error<T: std::error::Error + Send + Sync + 'static>() {}
fn text<T: std::fmt::Display + std::str::FromStr>() {}
fn cloned<T: Clone>() {}
fn hashed<T: Hash + Eq>() {}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Nothing {
    id: i64,
}

impl Project for Nothing {
    const TABLE: &'static str = "nothing";
    const VERSION: u32 = 1;

    fn project(_: &Row) -> Result<Option<Self>> {
        Ok(None)
    }
}

/// It compiles.
#[test]
fn public_types_go_between_threads_and_can_be_shown_and_copied_where_one_expects_it() {
    shared::<Replica>();
    shared::<Replicator>();
    shared::<Source>();
    shared::<Snapshot>();
    shared::<Index<'static>>();
    shared::<Row>();
    shared::<Scan>();
    shared::<Change>();
    shared::<Window>();
    shared::<KeptChanges>();
    shared::<Wait>();
    shared::<Projection<'static, Nothing>>();
    shared::<Projected<Nothing>>();
    shared::<ProjectedScan<Nothing>>();
    stream::<Changes>();
    both_ends::<Scan>();
    both_ends::<ProjectedScan<Nothing>>();
    error::<Error>();
    text::<Position>();

    value::<Value>();
    value::<ValueRef<'static>>();
    value::<Key>();
    value::<KeyRange>();
    value::<Wants>();
    value::<TableConfig>();
    value::<KeepLatest>();
    value::<Changelog>();
    value::<Table>();
    value::<Column>();
    value::<Skipped>();
    value::<Consumer>();
    value::<Reference>();
    value::<MovedAside>();
    value::<Token>();
    for_small();
    told::<Config>();
    told::<Progress>();
    told::<Installed>();
    told::<Look>();
    told::<Verified>();
    told::<Rebuilt>();
    told::<Difference>();
    told::<Orphan>();
    told::<Orphans>();
    told::<TableInfo>();
    told::<Space>();
    told::<Compacted>();
    cloned::<Replica>();
    cloned::<Source>();
}

fn for_small() {
    hashed::<Position>();
    hashed::<LogId>();
    hashed::<Nonce>();
    hashed::<Op>();
    small::<Kind>();
    small::<State>();
    small::<Op>();
    small::<Durability>();
    small::<OnDivergence>();
    small::<KeepChanges>();
    small::<Occasions>();
    small::<Position>();
    small::<LogId>();
    small::<Nonce>();
    small::<Work>();
    small::<Retries>();
    small::<Traffic>();
}

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("bin") && !path.ends_with("tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// The names that the library exports.
fn exported() -> BTreeSet<String> {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let uses = lib.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    let last = |path: &str| path.rsplit("::").next().unwrap().trim().to_owned();
    let names = uses.flat_map(|item| match item.split_once('{') {
        Some((_, names)) => names.trim_end_matches('}').split(',').map(last).collect(),
        None => vec![last(item)],
    });
    names.filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_public_type_shows_in_its_documentation_how_it_is_used() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let names = exported();
    assert!(names.len() > 50 && names.contains("Replica") && names.contains("Project"), "{names:?}");
    let mut silent = Vec::new();
    for name in &names {
        let is_it = |line: &str| {
            ["struct", "enum", "trait", "fn", "type"].iter().any(|kind| {
                let rest = line.strip_prefix(&format!("pub {kind} {name}"));
                rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            })
        };
        let found = texts.iter().find_map(|(_, text)| {
            let lines: Vec<&str> = text.lines().collect();
            let at = lines.iter().position(|line| is_it(line))?;
            let above = lines[..at].iter().rev().take_while(|l| l.starts_with("///") || l.starts_with("#["));
            Some(above.filter(|l| l.starts_with("/// ```")).count())
        });
        assert!(found.is_some(), "{name} is nowhere");
        if found == Some(0) {
            silent.push(name);
        }
    }
    assert!(silent.is_empty(), "no example: {silent:?}");
}

/// Of redb only the database that an application shares is wanted, of rkyv only what its own types derive.
#[test]
fn no_type_of_another_store_is_in_a_public_signature() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let mut named = Vec::new();
    for (path, text) in &texts {
        // What a file has of these crates, by its own `use`s.
        let imported: BTreeSet<&str> = ["use redb::", "use rkyv::", "use libsql::"]
            .iter()
            .flat_map(|start| text.split(start).skip(1).filter_map(|rest| rest.split(';').next()))
            .flat_map(|list| list.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .filter(|word| word.starts_with(char::is_uppercase))
            .collect();
        let mut signature = String::new();
        for line in text.lines() {
            let code = line.trim_start();
            if signature.is_empty() && !code.starts_with("pub fn") && !code.starts_with("pub async fn") {
                continue;
            }
            signature.push_str(code);
            if !code.ends_with('{') && !code.ends_with(';') {
                continue;
            }
            let words = signature.split(|c: char| !c.is_alphanumeric() && c != '_');
            let foreign = words.filter(|w| imported.contains(w) || ["redb", "rkyv", "libsql"].contains(w));
            if foreign.count() > 0 {
                let name = signature.split('(').next().unwrap().rsplit(' ').next().unwrap().to_owned();
                named.push((path.file_name().unwrap().to_string_lossy().into_owned(), name));
            }
            signature.clear();
        }
    }
    // Those of types that are not exported are the crate's own business.
    let inner = [
        "open.rs",
        "disk.rs",
        "history.rs",
        "slot.rs",
        "apply.rs",
        "guard.rs",
        "sqlite.rs",
        "projecting.rs",
        "machine.rs",
        "changes.rs",
        "damage.rs",
    ];
    named.retain(|(file, _)| !inner.contains(&file.as_str()));
    assert_eq!(named, [("mod.rs".to_owned(), "share".to_owned())]);
}
