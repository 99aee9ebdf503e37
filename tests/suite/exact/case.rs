//! Plays a script: the application is the oracle's process, redtail runs here, and the oracle compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redtail::{Config, Kind, Replica, Replicator, Skipped, Snapshot, Source, ValueRef};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::script::Step;
use super::selections::{Selections, configure};
use crate::support::note;
use crate::support::oracle::Oracle;
use crate::support::server::Server;

/// What a worker plays all its cases with.
pub(super) struct Stage {
    pub(super) oracle: Oracle,
    runtime: Runtime,
    folder: PathBuf,
    /// Where the source is, if it is not a file of this folder.
    server: Option<Server>,
    /// How long redtail may take to be level with the source.
    pub(super) patience: Duration,
    /// Every line of the scripts is printed before it is known how it ends: for a case that ends the process.
    trace: bool,
    pub(super) comparisons: u64,
    pub(super) rows: u64,
    /// The oracle reads by a connection of its own: the application may do anything to its own.
    pub(super) apart: bool,
    /// The tables that were skipped when last compared.
    pub(super) skipped: Vec<String>,
}

/// Why a case failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) what: String,
    /// The script as it was played, to be pasted.
    pub(super) transcript: String,
}

/// One script being played.
struct Case<'s> {
    stage: &'s mut Stage,
    source: PathBuf,
    config: Config,
    selections: Selections,
    /// What is wanted of a table was refused.
    misfit: bool,
    replicator: Option<Arc<Replicator>>,
    running: Option<Running>,
    follow: bool,
    /// The application's transaction is open.
    open: bool,
    pulse: i64,
    transcript: String,
}

/// A replicator that runs beside the application.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<redtail::Result<()>>,
}

type Played<T> = Result<T, String>;

impl Stage {
    /// The files of the cases lie in memory where that is possible.
    pub(super) fn new(oracle: Oracle, name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("redtail-exact-{}-{name}", std::process::id()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let trace = std::env::var("REDTAIL_TRACE").is_ok();
        let patience = Duration::from_secs(30);
        Self {
            oracle,
            runtime,
            folder,
            server: None,
            patience,
            trace,
            comparisons: 0,
            rows: 0,
            apart: false,
            skipped: Vec::new(),
        }
    }

    /// Its cases have this server for their source.
    pub(super) fn on(mut self, server: Server) -> Self {
        self.server = Some(server);
        self
    }

    /// The source of the last case, as it was left.
    pub(super) fn source(&self) -> PathBuf {
        self.folder.join("source.db")
    }

    /// Plays a script that is known already; the end of it is a sync.
    pub(super) fn play(&mut self, script: &[Step]) -> Result<(), Failure> {
        let mut given = Some(script.to_vec());
        self.play_turns(|_| given.take())
    }

    /// Plays what `next` gives, turn by turn; it hears which steps of its last turn were accepted.
    pub(super) fn play_turns(
        &mut self,
        mut next: impl FnMut(&[bool]) -> Option<Vec<Step>>,
    ) -> Result<(), Failure> {
        let mut case = Case::begin(self);
        let mut played = Ok(());
        let mut accepted = Vec::new();
        while let Some(turn) = next(&accepted) {
            match case.turn(&turn) {
                Ok(now) => accepted = now,
                Err(what) => {
                    played = Err(what);
                    break;
                }
            }
        }
        let played = played.and_then(|()| case.turn(&[Step::Close, Step::Sync]).map(|_| ()));
        case.end();
        let transcript = std::mem::take(&mut case.transcript);
        played.map_err(|what| Failure { what, transcript })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl<'s> Case<'s> {
    fn begin(stage: &'s mut Stage) -> Self {
        let _ = fs::remove_dir_all(&stage.folder);
        fs::create_dir_all(&stage.folder).unwrap();
        let source = match &stage.server {
            Some(server) => server.database(),
            None => stage.folder.join("source.db"),
        };
        let begun = stage.oracle.ask(&json!({"op": "begin", "db": source, "apart": stage.apart}));
        if let (Some(server), Some(false)) = (&mut stage.server, begun["clean"].as_bool()) {
            server.renew();
            stage.oracle.ask(&json!({"op": "begin", "db": source}));
        }
        let config = Config {
            cache_bytes: 1 << 20,
            poll: Duration::from_millis(20),
            // Whatever is done to the source falls between two of them now and then.
            ack_interval: Duration::from_millis(if stage.server.is_some() { 200 } else { 2 }),
            lagging: Duration::from_millis(100),
            request_timeout: Duration::from_secs(10),
            ..Config::default()
        };
        Self {
            stage,
            source,
            config,
            selections: Selections::new(),
            misfit: false,
            replicator: None,
            running: None,
            follow: false,
            open: false,
            pulse: 0,
            transcript: String::new(),
        }
    }

    fn end(&mut self) {
        let _ = self.stop();
    }

    /// Plays steps; says which were accepted. Statements between other steps go to the oracle at once.
    fn turn(&mut self, steps: &[Step]) -> Played<Vec<bool>> {
        let mut accepted = Vec::new();
        let mut at = 0;
        while at < steps.len() {
            let sql: Vec<&str> = steps[at..].iter().map_while(Step::as_sql).collect();
            at += sql.len().max(1);
            if sql.is_empty() {
                self.step(&steps[at - 1])?;
                accepted.push(true);
            } else {
                accepted.extend(self.statements("play", &json!({"op": "play", "sql": sql}), &sql));
            }
        }
        Ok(accepted)
    }

    /// Has the oracle run statements, and writes them down with what refused them.
    fn statements(&mut self, what: &str, request: &Value, sql: &[&str]) -> Vec<bool> {
        let answer = self.stage.oracle.ask(request);
        if what == "play" {
            self.open = answer["open"].as_bool().unwrap();
        }
        let given: Vec<String> = sql.iter().map(|&s| s.to_owned()).collect();
        let ran = answer["sql"].as_array();
        let ran = ran.map_or(given, |list| list.iter().map(|s| s.as_str().unwrap().to_owned()).collect());
        let refused = answer["refused"].as_array().unwrap();
        for (sql, refused) in ran.iter().zip(refused) {
            self.write(&format!("{sql};"));
            if let Some(why) = refused.as_str() {
                self.write(&format!("-- ^ refused: {}", why.escape_debug()));
            }
        }
        refused.iter().map(Value::is_null).collect()
    }

    fn write(&mut self, line: &str) {
        if self.stage.trace {
            note(line);
        }
        self.transcript.push_str(line);
        self.transcript.push('\n');
    }

    fn step(&mut self, step: &Step) -> Played<()> {
        match step {
            Step::Sql(_) => unreachable!("played with its neighbours"),
            Step::Close if !self.open => return Ok(()),
            Step::Close => {
                self.statements("play", &json!({"op": "play", "sql": ["ROLLBACK"]}), &["ROLLBACK"]);
                return Ok(());
            }
            _ => {}
        }
        if self.open {
            return Ok(());
        }
        self.write(&step.to_string());
        match step {
            Step::Sql(_) | Step::Close => {}
            Step::Sync => self.sync()?,
            Step::Follow => self.follow = true,
            Step::Small => {
                let c = &mut self.config;
                (c.window_entries, c.chunk_rows, c.chunk_bytes) = (5, 9, 3_000);
            }
            Step::Restart => {
                self.stop()?;
                self.replicator = None;
            }
            Step::Configure(wanted) => self.configure(wanted.clone())?,
            Step::InitElsewhere => {
                let source = self.open_source()?;
                let installed = self.stage.runtime.block_on(source.init());
                installed.map_err(|e| format!("init: {e}"))?;
            }
            Step::Remove => {
                let source = self.open_source()?;
                let removed = self.stage.runtime.block_on(source.remove());
                removed.map_err(|e| format!("remove: {e}"))?;
            }
            Step::Take(table, which) => {
                self.statements("take", &json!({"op": "take", "table": table, "which": which}), &[]);
            }
            Step::PutBack => {
                self.statements("put_back", &json!({"op": "put_back"}), &[]);
            }
            Step::SetBack => {
                self.statements("set_back", &json!({"op": "set_back"}), &[]);
            }
            Step::Backup if self.stage.server.is_some() => {
                self.stop()?;
                self.at_server(Server::backup);
            }
            Step::Restore if self.stage.server.is_some() => {
                self.stop()?;
                self.at_server(Server::restore);
            }
            Step::Backup => {
                let to = self.stage.folder.join("backup.db");
                self.stage.oracle.ask(&json!({"op": "backup", "to": to}));
            }
            Step::Restore => {
                self.stop()?;
                let from = self.stage.folder.join("backup.db");
                self.stage.oracle.ask(&json!({"op": "restore", "from": from}));
            }
        }
        Ok(())
    }

    /// Does something to the server while nobody has its file open.
    fn at_server(&mut self, work: impl FnOnce(&mut Server)) {
        self.stage.oracle.ask(&json!({"op": "leave"}));
        work(self.stage.server.as_mut().expect("a server"));
        self.stage.oracle.ask(&json!({"op": "open", "db": self.source}));
    }

    fn open_source(&self) -> Played<Source> {
        let url = self.stage.server.as_ref().map(Server::url);
        let path = url.as_deref().unwrap_or_else(|| self.source.to_str().expect("a folder of the test"));
        Source::open(path, &self.config).map_err(|e| format!("opening the source: {e}"))
    }

    /// The replicator, opened on the replica of the case if it is not open.
    fn replicator(&mut self) -> Played<Arc<Replicator>> {
        if let Some(replicator) = &self.replicator {
            return Ok(Arc::clone(replicator));
        }
        let path = self.stage.folder.join("replica.redb");
        let replica = Replica::open(path, &self.config).map_err(|e| format!("opening the replica: {e}"))?;
        let made = Arc::new(Replicator::new(self.open_source()?, replica, self.config.clone()));
        self.replicator = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Goes on with another configuration.
    fn configure(&mut self, wanted: Selections) -> Played<()> {
        self.stop()?;
        self.replicator = None;
        configure(&mut self.config, &wanted);
        self.selections = wanted;
        Ok(())
    }

    /// What is wanted of a table may not fit it (any more): that is refused, and no longer wanted then.
    fn sync(&mut self) -> Played<()> {
        let mut times = 0;
        loop {
            self.misfit = false;
            match self.sync_as_configured() {
                Err(why) if self.misfit => {
                    times += 1;
                    self.want_what_fits(&why, times)?;
                }
                done => return done,
            }
        }
    }

    fn want_what_fits(&mut self, why: &str, times: usize) -> Played<()> {
        let answer = self.stage.oracle.ask(&json!({"op": "misfits", "selections": self.selections}));
        let misfits = answer["misfits"].as_object().expect("by table");
        // Beside a running replicator it may have fitted before, and fit again.
        if misfits.is_empty() && (!self.follow || times > 3) {
            return Err(format!("refused, and it fits: {why}"));
        }
        self.write(&format!("-- not wanted any more: {misfits:?}"));
        let fits = |(name, _): &(String, Value)| !misfits.contains_key(name);
        let wanted = self.selections.clone().into_iter().filter(fits).collect();
        self.configure(wanted)
    }

    /// Whether redtail refuses what is wanted of a table.
    fn is_misfit(&mut self, e: &redtail::Error) -> bool {
        self.misfit |= e.kind() == Kind::Usage && e.to_string().contains("tables.");
        self.misfit
    }

    fn sync_as_configured(&mut self) -> Played<()> {
        let replicator = self.replicator()?;
        let snapshot =
            if self.follow { self.wait_for_pulse(&replicator)? } else { self.sync_once(&replicator)? };
        let skipped = replicator.progress().borrow().skipped.clone();
        let request = request(&snapshot, &skipped, &self.selections)
            .map_err(|e| format!("reading the replica: {e}"))?;
        self.stage.skipped = skipped.into_iter().map(|s| s.name).collect();
        let answer = self.stage.oracle.ask_text(&request);
        self.stage.comparisons += 1;
        self.stage.rows += answer["rows"].as_u64().unwrap();
        if answer["count"] == 0 {
            return Ok(());
        }
        let found = answer["differences"].as_array().unwrap().iter().map(|d| d.as_str().unwrap_or_default());
        Err(format!("{} differences:\n{}", answer["count"], found.collect::<Vec<_>>().join("\n")))
    }

    fn sync_once(&mut self, replicator: &Replicator) -> Played<Snapshot> {
        let patience = self.stage.patience;
        let synced = self
            .stage
            .runtime
            .block_on(async { tokio::time::timeout(patience, replicator.sync_once()).await });
        match synced {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => {
                self.is_misfit(&e);
                return Err(format!("sync failed: {e}"));
            }
            Err(_) => {
                return Err(format!(
                    "sync took longer than {patience:?}: {:?}",
                    replicator.progress().borrow().error
                ));
            }
        }
        let snapshot = replicator.replica().snapshot().map_err(|e| format!("snapshot: {e}"))?;
        if snapshot.is_consistent() { Ok(snapshot) } else { Err("synced, and not consistent".into()) }
    }

    /// Writes a number, and waits until a consistent state of the replica shows it.
    fn wait_for_pulse(&mut self, replicator: &Arc<Replicator>) -> Played<Snapshot> {
        if self.running.is_none() {
            let (stop, stopped) = oneshot::channel();
            let its = Arc::clone(replicator);
            let task = self.stage.runtime.spawn(async move { its.run(async { drop(stopped.await) }).await });
            self.running = Some(Running { stop, task });
        }
        self.pulse += 1;
        let n = self.pulse;
        let make = "CREATE TABLE IF NOT EXISTS pulse(id INTEGER PRIMARY KEY, n)";
        let write = format!("INSERT INTO pulse VALUES (1, {n}) ON CONFLICT DO UPDATE SET n = {n}");
        let begun = Instant::now();
        let mut written = false;
        while begun.elapsed() < self.stage.patience {
            if !written {
                let answer = self.stage.oracle.ask(&json!({"op": "play", "sql": [make, write]}));
                // Refused while the changelog is gone, until capture is repaired.
                written = answer["refused"][1].is_null();
            }
            let snapshot = replicator.replica().snapshot().map_err(|e| format!("snapshot: {e}"))?;
            if written && snapshot.is_consistent() && shows(&snapshot, n) {
                return Ok(snapshot);
            }
            if self.running.as_ref().is_none_or(|r| r.task.is_finished()) {
                return Err(format!("run ended: {:?}", self.stop()));
            }
            let mut progress = replicator.progress();
            let longest = Duration::from_millis(20);
            let _ = self
                .stage
                .runtime
                .block_on(async { tokio::time::timeout(longest, progress.changed()).await });
        }
        let progress = replicator.progress().borrow().clone();
        Err(format!("not level after {:?}: {progress:?}", self.stage.patience))
    }

    /// Ends the replicator that runs beside the application.
    fn stop(&mut self) -> Played<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let _ = running.stop.send(());
        let patience = self.stage.patience;
        let ended = self.stage.runtime.block_on(async { tokio::time::timeout(patience, running.task).await });
        match ended {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(e))) if self.is_misfit(&e) => Ok(()),
            other => Err(format!("run did not end well: {other:?}")),
        }
    }
}

fn shows(snapshot: &Snapshot, n: i64) -> bool {
    let row = snapshot.get("pulse", &[redtail::Value::Integer(1)]);
    let Ok(Some(row)) = row else { return false };
    matches!(row.get("n"), Ok(ValueRef::Integer(found)) if found == n)
}

/// All rows of the replica, as `oracle.py` reads them; every row is found by its key too.
fn request(snapshot: &Snapshot, skipped: &[Skipped], selections: &Selections) -> Result<String, String> {
    let text = |s: &str| serde_json::to_string(s).unwrap();
    let failed = |e: redtail::Error| e.to_string();
    let mut tables = Vec::new();
    for info in snapshot.tables().map_err(failed)? {
        let name = &info.table.name;
        let columns: Vec<String> = info.table.columns.iter().map(|c| text(&c.name)).collect();
        let mut rows = Vec::new();
        for row in snapshot.scan(name).map_err(failed)? {
            let row = row.map_err(failed)?;
            let mut line = String::from("[");
            for value in row.values().map_err(failed)? {
                cell(&mut line, value);
                line.push(',');
            }
            line.pop();
            rows.push(line + "]");
            let key = row.key().map_err(failed)?;
            if key.len() == info.table.key_names().len() {
                let found = snapshot.get(name, &key).map_err(failed)?;
                found.ok_or_else(|| format!("table {name:?}: no row under its own key {key:?}"))?;
            }
        }
        if rows.len() as u64 != info.rows {
            return Err(format!("table {name:?}: {} rows counted, {} there", info.rows, rows.len()));
        }
        let (columns, rows) = (columns.join(","), rows.join(","));
        tables.push(format!("{{\"name\":{},\"columns\":[{columns}],\"rows\":[{rows}]}}", text(name)));
    }
    let skipped: Vec<_> = skipped.iter().map(|s| (&s.name, &s.reason)).collect();
    let skipped = serde_json::to_string(&skipped).unwrap();
    let selections = serde_json::to_string(selections).unwrap();
    let tables = tables.join(",");
    Ok(format!("{{\"op\":\"same\",\"tables\":[{tables}],\"skipped\":{skipped},\"selections\":{selections}}}"))
}

fn cell(out: &mut String, value: ValueRef<'_>) {
    let mut bytes = |kind: char, bytes: &[u8]| {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        out.push('"');
        out.push(kind);
        for byte in bytes {
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        out.push('"');
    };
    match value {
        ValueRef::Null => out.push_str("null"),
        ValueRef::Integer(i) => out.push_str(&i.to_string()),
        ValueRef::Real(r) => bytes('r', &r.to_be_bytes()),
        ValueRef::Text(t) => bytes('t', t),
        ValueRef::Blob(b) => bytes('b', b),
        // Text that is none in the source's encoding.
        ValueRef::Utf16le(t) => bytes('l', t),
        ValueRef::Utf16be(t) => bytes('g', t),
    }
}
