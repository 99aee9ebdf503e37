//! `run` and `sync`.

use crate::settings::Settings;
use crate::{Exit, control, endpoint, failure, progress};
use redtail::{Error, Kind, Replica, Replicator, Result, Source};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Opens what the settings name. The source is looked at first: a wrong one makes no replica.
///
/// `patient`: what follows without end does not end because its source is away.
async fn open(settings: &Settings, patient: bool) -> Result<Arc<Replicator>> {
    let (source, path) = (settings.source()?, settings.replica()?);
    let source = Source::open(source, &settings.config)?;
    source.check().await?;
    let captured = match source.head().await {
        // A replica that is there serves its readers meanwhile.
        Err(e) if patient && e.is_transient() && e.kind() != Kind::Refused && path.exists() => {
            tracing::warn!("{e}; the replica is served as it is");
            return Ok(Arc::new(Replicator::new(
                source,
                control::patiently(path, || Replica::open(path, &settings.config)).await?,
                settings.config.clone(),
            )));
        }
        head => head?.is_some(),
    };
    if path.exists() {
        // A replica of another source is refused before it is opened to be written.
        match control::patiently(path, || Replica::glance(path, &settings.config)).await {
            Ok(Some(replica)) => source.recognise(&replica).await?,
            // Its writer was killed: it is recovered once, below, and recognised then.
            Ok(None) => {}
            // It cannot say what it follows; it is moved aside and made again.
            Err(e) if e.kind() == Kind::Damaged => {}
            Err(e) => return Err(e),
        }
    }
    if !captured {
        folder_of(path)?;
        // A source that cannot be captured is refused before there is a replica of it.
        match source.init().await {
            // The application is writing just now: it is installed when following begins.
            Err(e) if patient && e.is_transient() => tracing::warn!("{e}; trying again"),
            done => drop(done?),
        }
    }
    let replica = control::patiently(path, || Replica::open(path, &settings.config)).await?;
    Ok(Arc::new(Replicator::new(source, replica, settings.config.clone())))
}

/// Opens what the settings name, to work on these tables; both must be there.
pub async fn on_tables(settings: &Settings, tables: &[String]) -> Result<Replicator> {
    let path = settings.replica()?;
    let source = Source::open(settings.source()?, &settings.config)?;
    // Wrong names are refused before the replica is opened to be written, if that can be told without recovering it.
    let glanced = Replica::glance(path, &settings.config)?;
    if let Some(replica) = &glanced {
        are_there(&source, replica, tables).await?;
    }
    let known = glanced.is_some();
    drop(glanced);
    let replica = Replica::open_existing(path, &settings.config)?;
    if !known {
        are_there(&source, &replica, tables).await?;
    }
    Ok(Replicator::new(source, replica, settings.config.clone()))
}

/// Refuses a replica of another source, and names that are none of its tables.
async fn are_there(source: &Source, replica: &Replica, tables: &[String]) -> Result<()> {
    source.recognise(replica).await?;
    let snapshot = replica.snapshot()?;
    tables.iter().try_for_each(|t| snapshot.table(t).map(|_| ()))
}

/// A new replica needs a folder to be made in.
fn folder_of(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(Error::usage(format!("replica {}: its folder is not there", path.display())))
        }
        _ => Ok(()),
    }
}

/// Serves the control socket; without it (its path may be too long) the replica is followed all the same.
fn serve(replicator: &Arc<Replicator>) -> Option<control::Served> {
    control::serve(replicator)
        .map_err(|e| tracing::warn!("{e}; reading commands must wait until this one ends"))
        .ok()
}

pub async fn run(settings: &Settings) -> Exit {
    let stop = stopped()?;
    // What is wrong with its address shows before anything is made.
    let bound = endpoint::bind(&settings.endpoint).await?;
    let replicator = open(settings, true).await?;
    let _served = serve(&replicator);
    let endpoint = bound.map(|bound| bound.serve(&replicator));
    let shown = progress::show(&replicator, "run");
    let mut hangups = signal(SignalKind::hangup()).map_err(|e| failure(&e))?;
    let reloads = async {
        while hangups.recv().await.is_some() {
            match reload(settings, &replicator, endpoint.as_ref()).await {
                Ok(()) => tracing::info!("settings and tokens were read again"),
                Err(e) => tracing::warn!("{e}; what was in force before stays"),
            }
        }
    };
    let ended = tokio::select! { ended = replicator.run(stop) => ended, () = reloads => Ok(()) };
    shown.end().await;
    ended.map(|()| 0)
}

/// Reads the tokens and the settings again; source, replica and address stay what they are.
async fn reload(
    before: &Settings,
    replicator: &Replicator,
    endpoint: Option<&endpoint::Served>,
) -> Result<()> {
    if let Some(endpoint) = endpoint {
        endpoint.reload()?;
    }
    #[cfg(feature = "remote")]
    replicator.source().read_token()?;
    let settings = Settings::again()?;
    Source::open(before.source()?, &settings.config)?.check().await?;
    replicator.reload(settings.config).await
}

pub async fn sync(settings: &Settings) -> Exit {
    let stop = stopped()?;
    let replicator = open(settings, false).await?;
    let _served = serve(&replicator);
    let shown = progress::show(&replicator, "sync");
    let reached = tokio::select! {
        reached = replicator.sync_once() => reached,
        () = stop => Err(Error::new(Kind::Stopped, "interrupted; what was copied stays, and the next run goes on from there")),
    };
    shown.end().await;
    writeln!(io::stdout(), "{}", reached?).map(|()| 0).map_err(|e| failure(&e))
}

/// Ready at the first SIGINT or SIGTERM; a second one ends the process at once.
pub fn stopped() -> Result<impl Future<Output = ()> + Send> {
    let of = |kind| signal(kind).map_err(|e| failure(&e));
    let (mut interrupt, mut terminate) = (of(SignalKind::interrupt())?, of(SignalKind::terminate())?);
    let (ready, wait) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} };
        next().await;
        let _ = ready.send(());
        next().await;
        std::process::exit(130);
    });
    Ok(async {
        let _ = wait.await;
    })
}
