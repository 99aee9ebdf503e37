//! Progress and messages on stderr: a bar that moves on a terminal, plain lines elsewhere.

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use redtail::{Progress, Replicator, Source, State};
use std::io::{self, IsTerminal as _};
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
    let mut meter = Meter::new(replicator.source().clone());
    if what == "verify" {
        // What is compared is what is there.
        let tables = replicator.replica().snapshot().and_then(|s| s.tables()).unwrap_or_default();
        meter.verifying = Some(tables.iter().map(|t| t.rows).sum());
    }
    let task = if io::stderr().is_terminal() {
        tokio::spawn(draw(progress, ended, meter))
    } else {
        tokio::spawn(speak(progress, ended, meter, what))
    };
    Shown { end, task }
}

type Watch = tokio::sync::watch::Receiver<Progress>;

/// What is under way and has an end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Copy,
    Compare,
    CatchUp,
}

/// How far a task has come.
struct Meter {
    source: Source,
    /// Rows that a comparison goes through.
    verifying: Option<u64>,
    task: Option<Task>,
    begun: Instant,
    /// What the counter said when it began, and where it ends, if that is known.
    from: u64,
    total: Option<u64>,
    asked: Option<oneshot::Receiver<Option<u64>>>,
}

impl Meter {
    fn new(source: Source) -> Self {
        let begun = Instant::now();
        Self { source, verifying: None, task: None, begun, from: 0, total: None, asked: None }
    }

    /// Notices what is under way now.
    fn look(&mut self, p: &Progress) {
        let seq = p.position.map_or(0, |p| p.seq);
        let task = match p.state {
            State::Reconciling => Some(Task::Copy),
            State::CatchingUp => Some(Task::CatchUp),
            State::Following if self.verifying.is_some() => Some(Task::Compare),
            _ => None,
        };
        if task != self.task {
            (self.task, self.begun, self.total, self.asked) = (task, Instant::now(), None, None);
            self.from = if task == Some(Task::CatchUp) { seq } else { p.work.copied };
            if task == Some(Task::Copy) {
                let (answer, asked) = oneshot::channel();
                let (source, names) = (self.source.clone(), p.reconciling.clone());
                tokio::spawn(async move { answer.send(source.about_rows(&names).await.ok().flatten()) });
                self.asked = Some(asked);
            }
        }
        match task {
            Some(Task::CatchUp) => self.total = p.head.map(|head| head.saturating_sub(self.from)),
            Some(Task::Compare) => self.total = self.verifying,
            Some(Task::Copy) | None => {
                if let Some(Ok(total)) = self.asked.as_mut().map(oneshot::Receiver::try_recv) {
                    (self.total, self.asked) = (total, None);
                }
            }
        }
    }

    fn done(&self, p: &Progress) -> u64 {
        let now =
            if self.task == Some(Task::CatchUp) { p.position.map_or(0, |p| p.seq) } else { p.work.copied };
        now.saturating_sub(self.from)
    }

    /// What is left, as a fraction of what there is to do; only as good as the estimate.
    fn left(&self, done: u64) -> Option<Duration> {
        let total = self.total.filter(|total| *total > done && done > 0)?;
        let share = u32::try_from((total - done).saturating_mul(1000) / done).ok()?;
        Some(self.begun.elapsed() * share / 1000)
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn rate(&self, done: u64) -> u64 {
        (done as f64 / self.begun.elapsed().as_secs_f64().max(0.001)) as u64
    }

    /// In one line.
    fn line(&self, p: &Progress) -> String {
        let Some(task) = self.task else { return idle(p) };
        let (unit, about) = match task {
            Task::Copy => ("rows", "about "),
            Task::Compare => ("rows", ""),
            Task::CatchUp => ("entries", ""),
        };
        let done = self.done(p);
        let of = self
            .total
            .filter(|total| *total >= done)
            .map(|total| format!(" of {about}{}", HumanCount(total)));
        let left = self.left(done).map(|left| format!(", {about}{} left", seconds(left)));
        let rate = format!(", {} {unit}/s", HumanCount(self.rate(done)));
        let (of, left) = (of.unwrap_or_default(), left.unwrap_or_default());
        format!("{}: {}{of} {unit}{rate}{left}", self.what(p), HumanCount(done))
    }

    fn what(&self, p: &Progress) -> String {
        match self.task {
            Some(Task::Copy) => {
                let table = p.reconciling.first().map_or("", String::as_str);
                match p.reconciling.len() {
                    0 | 1 => format!("copying {table}"),
                    n => format!("copying {table} and {} more", n - 1),
                }
            }
            Some(Task::Compare) => "comparing".to_owned(),
            Some(Task::CatchUp) => "catching up".to_owned(),
            None => String::new(),
        }
    }
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

fn idle(p: &Progress) -> String {
    match p.state {
        State::Following => format!("following: at {}", HumanCount(p.position.map_or(0, |p| p.seq))),
        State::DiskFull => format!("waiting for room: {}", p.error.as_deref().unwrap_or_default()),
        State::Retrying | State::Refused => {
            format!("trying again: {}", p.error.as_deref().unwrap_or_default())
        }
        _ => "starting".to_owned(),
    }
}

async fn draw(progress: Watch, mut ended: oneshot::Receiver<()>, mut meter: Meter) {
    let bar = ProgressBar::new_spinner();
    let style =
        |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let (spinner, sized) = (style("{spinner} {msg}"), style("{msg} [{bar:24}] {percent}%"));
    let mut tick = tokio::time::interval(REDRAW);
    loop {
        tokio::select! { _ = tick.tick() => {}, _ = &mut ended => break }
        let now = progress.borrow().clone();
        meter.look(&now);
        let done = meter.done(&now);
        match meter.total.filter(|total| *total >= done && meter.task.is_some()) {
            Some(total) => {
                bar.set_style(sized.clone());
                bar.set_length(total);
                bar.set_position(done);
            }
            None => bar.set_style(spinner.clone()),
        }
        bar.set_message(meter.line(&now));
        bar.tick();
    }
    bar.finish_and_clear();
}

async fn speak(mut progress: Watch, mut ended: oneshot::Receiver<()>, mut meter: Meter, what: &str) {
    let mut said = (State::Idle, Instant::now());
    loop {
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            _ = &mut ended => return,
        }
        let now = progress.borrow_and_update().clone();
        meter.look(&now);
        let busy = now.state != State::Following && said.1.elapsed() > SPEAK;
        if now.state != said.0 || busy {
            said = (now.state, Instant::now());
            crate::messages::say(what, &meter.line(&now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_follows_from_what_is_done() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("source.db");
        std::fs::write(&path, "").unwrap();
        let source = Source::open(&path.display().to_string(), &redtail::Config::default()).unwrap();
        let mut meter = Meter::new(source);
        meter.begun = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        assert_eq!(meter.left(250), None, "nobody knows where it ends");
        meter.total = Some(1000);
        assert_eq!(meter.left(250).unwrap().as_secs(), 30);
        assert!((20..=25).contains(&meter.rate(250)));
        for past in [0, 1000, 2000] {
            assert_eq!(meter.left(past), None, "{past}");
        }
        (meter.task, meter.total) = (Some(Task::Copy), Some(1000));
        let progress = Progress::default();
        assert_eq!(meter.line(&progress), "copying : 0 of about 1,000 rows, 0 rows/s");
        for (time, shown) in [(5, "5 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h")] {
            assert_eq!(seconds(Duration::from_secs(time)), shown);
        }
    }
}
