//! Progress and messages on stderr: a line that moves on a terminal, plain lines elsewhere.

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use redtail::{Progress, Replicator, State};
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How often a line that moves is drawn.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a plain line is written while rows are being copied.
const SPEAK: Duration = Duration::from_secs(5);

/// Progress that is being shown.
pub struct Shown {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Shown {
    /// Stops showing it, and leaves the line clean.
    pub async fn end(self) {
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

/// Shows what a replicator does until [`Shown::end`].
pub fn show(replicator: &Replicator, what: &'static str) -> Shown {
    let (end, ended) = oneshot::channel();
    let progress = replicator.progress();
    let task = if io::stderr().is_terminal() {
        tokio::spawn(draw(progress, ended))
    } else {
        tokio::spawn(speak(progress, ended, what))
    };
    Shown { end, task }
}

type Watch = tokio::sync::watch::Receiver<Progress>;

async fn draw(progress: Watch, mut ended: oneshot::Receiver<()>) {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let mut tick = tokio::time::interval(REDRAW);
    let begun = Instant::now();
    loop {
        tokio::select! { _ = tick.tick() => {}, _ = &mut ended => break }
        let line = line(&progress.borrow(), begun);
        bar.set_message(line);
        bar.tick();
    }
    bar.finish_and_clear();
}

async fn speak(mut progress: Watch, mut ended: oneshot::Receiver<()>, what: &str) {
    let begun = Instant::now();
    let mut said = (State::Idle, begun);
    loop {
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            _ = &mut ended => return,
        }
        let now = progress.borrow_and_update().clone();
        let busy = now.state != State::Following && said.1.elapsed() > SPEAK;
        if now.state != said.0 || busy {
            said = (now.state, Instant::now());
            let _ = writeln!(io::stderr(), "{what}: {}", line(&now, begun));
        }
    }
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn line(p: &Progress, begun: Instant) -> String {
    let seq = p.position.map_or(0, |p| p.seq);
    match p.state {
        State::Reconciling => {
            let rate = p.work.copied as f64 / begun.elapsed().as_secs_f64().max(0.001);
            let table = p.reconciling.first().map_or("", String::as_str);
            let left = p.reconciling.len();
            let (rows, rate) = (HumanCount(p.work.copied), HumanCount(rate as u64));
            format!("copying {table}: {rows} rows, {rate} rows/s; {left} tables to go")
        }
        State::CatchingUp => {
            format!(
                "catching up: at {}, {} entries behind",
                HumanCount(seq),
                HumanCount(p.lag_entries().unwrap_or(0))
            )
        }
        State::Following => format!("following: at {}", HumanCount(seq)),
        State::DiskFull => format!("waiting for room: {}", p.error.as_deref().unwrap_or_default()),
        State::Retrying => format!("trying again: {}", p.error.as_deref().unwrap_or_default()),
        _ => "starting".to_owned(),
    }
}
