//! The `redtail` command: doors over the library. Parse, call, print.
//!
//! stdout is for results, stderr for messages and progress. Exit codes: 0 done, 1 failed at work (or
//! differences, or no such key), 2 wrong input.

#![forbid(unsafe_code)]

mod advice;
mod args;
mod bench;
mod changes;
mod compact;
mod control;
mod demo;
mod endpoint;
mod follow;
mod json;
mod messages;
mod pages;
mod progress;
mod read;
mod rebuild;
mod references;
mod settings;
mod status;
mod verify;
mod wait;
mod watch;

use args::{Args, Command};
use redtail::{Error, Kind, Replica, Source};
use settings::Settings;
use std::io::{self, Write};
use std::process::ExitCode;

/// How a command ended, besides by an error.
type Exit = redtail::Result<u8>;

fn main() -> ExitCode {
    quiet_redb();
    let args = match args::parse() {
        Ok(args) => args,
        Err(code) => return ExitCode::from(code),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(dispatch(args));
            // A thread that still waits for a slow disk or source must not keep the process.
            runtime.shutdown_background();
            ended
        }
        Err(e) => Err(failure(&e)),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(e) if e.to_string().is_empty() => ExitCode::SUCCESS,
        Err(e) => {
            messages::failed(&e);
            ExitCode::from(code_of(&e))
        }
    }
}

/// A panic that redb meets on a damaged page is caught, and told in one line as the damage it is.
fn quiet_redb() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let of_redb = panic.location().is_some_and(|at| at.file().contains("/redb-"));
        if !of_redb {
            say(panic);
        }
    }));
}

/// 2 for wrong input, 1 for a failure at work.
fn code_of(e: &Error) -> u8 {
    if e.kind() == Kind::Usage { 2 } else { 1 }
}

/// A failure of standard output: a reader that has gone (`| head`) is no failure.
fn failure(e: &io::Error) -> Error {
    let gone = e.kind() == io::ErrorKind::BrokenPipe;
    if gone { Error::new(Kind::Stopped, "") } else { Error::new(Kind::Io, e.to_string()) }
}

async fn dispatch(args: Args) -> Exit {
    messages::start(args.verbose, args.log_format);
    match &args.command {
        Command::Completions { shell } => return pages::completions(*shell),
        Command::Man { dir } => return pages::man(dir.as_deref()),
        _ => {}
    }
    let settings = Settings::load(&args)?;
    match args.command {
        Command::Init { dry_run } => init(&settings, dry_run).await,
        Command::Prune => prune(&settings).await,
        Command::Config => settings.show(),
        Command::Remove { force } => remove(&settings, force).await,
        Command::Run(_) => follow::run(&settings).await,
        Command::Sync => follow::sync(&settings).await,
        Command::Status { json, watch: true } => watch::watch(&settings, json).await,
        Command::Status { json, watch: false } => status::status(&settings, json).await,
        Command::Verify { references: true, json, .. } => references::references(&settings, json).await,
        Command::Verify { tables, repair, json, .. } => verify::verify(&settings, tables, repair, json).await,
        Command::Get { table, key, typed } => read::get(&settings, table, key, typed).await,
        Command::Scan { table, typed } => read::scan(&settings, table, typed).await,
        Command::Dump { typed } => read::dump(&settings, typed).await,
        Command::Changes { from, snapshot, typed } => {
            changes::changes(&settings, from, snapshot, typed).await
        }
        Command::Wait { position, timeout } => wait::wait(&settings, position, timeout).await,
        Command::Rebuild { tables, json } => rebuild::rebuild(&settings, tables, json).await,
        Command::Compact { json } => compact::compact(&settings, json).await,
        Command::Demo { dir, seconds } => demo::demo(&dir, seconds).await,
        Command::Completions { .. } | Command::Man { .. } => Ok(0),
        Command::Bench(bench) => bench::bench(&settings, bench).await,
    }
}

async fn init(settings: &Settings, dry_run: bool) -> Exit {
    let source = Source::open(settings.source()?, &settings.config)?;
    let mut out = io::stdout().lock();
    let written = if dry_run {
        let (_, statements) = source.plan().await?;
        statements.iter().try_for_each(|s| writeln!(out, "{s}"))
    } else {
        let done = source.init().await?;
        let captured = done.captured.iter().try_for_each(|t| writeln!(out, "captured  {t}"));
        captured.and_then(|()| {
            done.skipped.iter().try_for_each(|s| writeln!(out, "skipped   {}: {}", s.name, s.reason))
        })
    };
    written.map(|()| 0).map_err(|e| failure(&e))
}

async fn prune(settings: &Settings) -> Exit {
    let source = Source::open(settings.source()?, &settings.config)?;
    let gone = source.prune().await?;
    writeln!(io::stdout(), "{gone} entries pruned").map(|()| 0).map_err(|e| failure(&e))
}

async fn remove(settings: &Settings, force: bool) -> Exit {
    let source = Source::open(settings.source()?, &settings.config)?;
    let path = source.to_string();
    let this = if settings.has_replica() {
        Replica::open_to_read(settings.replica()?, &settings.config)?.consumer_id()?
    } else {
        None
    };
    let others = source.consumers().await?.into_iter().filter(|c| Some(c.id) != this);
    let others: Vec<String> = others.map(|c| c.id.to_string()).collect();
    if !others.is_empty() && !force {
        let which = others.join(", ");
        return Err(Error::usage(format!(
            "source {path}: {} of its consumers may still follow it ({which}); stop them and give --force, or give -r REPLICA if that is the only one",
            others.len()
        )));
    }
    let said = if source.remove().await? { "capture removed from" } else { "no capture in" };
    writeln!(io::stdout(), "{said} {path}").map(|()| 0).map_err(|e| failure(&e))
}
