//! `bench resume`: from the start of the program to the first change applied, after its predecessor was
//! killed with SIGKILL under load; beside redb's own opening of the same bytes.

use super::lag::{Dir, broken, connect, tempdir};
use super::median;
use crate::control::waited;
use crate::failure;
use redtail::{Config, Error, Kind, Position, Replica, Replicator, Result, Source};
use serde_json::{Value as Json, json};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before the bench is given up.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn resume(rows: u64, runs: u32) -> Result<Json> {
    let dir = tempdir()?;
    let (db, replica) = (dir.0.join("app.db"), dir.0.join("cache.redb"));
    let config = Config::default();
    super::cost::fill(&db, rows).await.map_err(|e| broken(&e))?;
    let source = Source::open(&db.display().to_string(), &config)?;
    Replicator::new(source.clone(), Replica::open(&replica, &config)?, config.clone()).sync_once().await?;
    let (mut resumed, mut opened) = (Vec::new(), Vec::new());
    for run in 0..runs {
        killed_under_load(&dir, &db, &replica, &source).await?;
        // redb's own recovery, of a copy of what the killed process left.
        let copy = dir.0.join("copy.redb");
        std::fs::copy(&replica, &copy).map_err(|e| failure(&e))?;
        let began = Instant::now();
        let open = redb::Builder::new().set_cache_size(config.cache_bytes).open(&copy);
        open.map_err(|e| Error::new(Kind::Replica, format!("bench resume: {e}")))?;
        opened.push(began.elapsed().as_secs_f64());
        write(&db, rows, 1).await.map_err(|e| broken(&e))?;
        let head = head(&source).await?;
        let began = Instant::now();
        let mut child = spawn(&dir, &db, &replica)?;
        reached(&replica, head, &mut child).await?;
        resumed.push(began.elapsed().as_secs_f64());
        let _ = child.kill();
        let _ = child.wait();
        let _ = io::Write::write_fmt(
            &mut io::stderr(),
            format_args!("bench resume: run {} of {runs}\n", run + 1),
        );
    }
    let (resumed, opened) = (median(&resumed), median(&opened));
    Ok(json!({
        "what": "resume", "rows": rows, "runs": runs, "durability": "every-window", "row": "4 columns, integer key",
        "resume_ms": resumed * 1e3, "redb_open_ms": opened * 1e3, "beyond_redb_ms": (resumed - opened) * 1e3,
    }))
}

pub fn for_people(said: &Json, out: &mut impl io::Write) -> io::Result<()> {
    let number = |key: &str| said.get(key).and_then(Json::as_f64).unwrap_or_default();
    writeln!(
        out,
        "killed with SIGKILL under load, replica of {} 4-column rows, median of {} runs",
        number("rows"),
        number("runs")
    )?;
    writeln!(out, "start to first change applied  {:.1} ms", number("resume_ms"))?;
    writeln!(out, "redb's own opening             {:.1} ms", number("redb_open_ms"))?;
    writeln!(out, "beyond it                      {:.1} ms", number("beyond_redb_ms"))
}

/// This program as a process of its own that follows.
fn spawn(dir: &Dir, db: &Path, replica: &Path) -> Result<Child> {
    let program = std::env::current_exe().map_err(|e| failure(&e))?;
    let mut command = Command::new(program);
    command.arg("run").arg("-s").arg(db).arg("-r").arg(replica).current_dir(&dir.0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| failure(&e))
}

/// Follows while rows are written, and is killed in the midst of it.
async fn killed_under_load(dir: &Dir, db: &Path, replica: &Path, source: &Source) -> Result<()> {
    let mut child = spawn(dir, db, replica)?;
    reached(replica, head(source).await?, &mut child).await?;
    let path = db.to_owned();
    let writing = std::thread::spawn(move || futures::executor::block_on(write(&path, 1_000, 2_000)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    child.kill().map_err(|e| failure(&e))?;
    let _ = child.wait();
    let written = writing.join().map_err(|_| Error::new(Kind::Source, "bench: the writer panicked"))?;
    written.map_err(|e| broken(&e))
}

async fn write(db: &Path, rows: u64, changes: u64) -> std::result::Result<(), libsql::Error> {
    let connection = connect(db).await?;
    let update = connection.prepare("UPDATE kv SET score = score + 1 WHERE id = ?1").await?;
    for i in 0..changes {
        update.execute([(i.wrapping_mul(7_919) % rows + 1).cast_signed()]).await?;
        update.reset();
    }
    Ok(())
}

/// Waits until the running process says that it has applied what is up to a position.
async fn reached(replica: &Path, position: Position, child: &mut Child) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Ok(Some(status)) = child.try_wait() {
            let what = format!("bench resume: `redtail run` ended by itself ({status})");
            return Err(Error::new(Kind::Stopped, what));
        }
        let path = replica.to_owned();
        if tokio::task::spawn_blocking(move || waited(&path, position)).await.unwrap_or(false) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(Error::new(Kind::Unavailable, "bench resume: nothing was applied within 60 s"))
}

async fn head(source: &Source) -> Result<Position> {
    let none = || Error::new(Kind::Capture, "bench resume: capture is not installed");
    source.head().await?.ok_or_else(none)
}
