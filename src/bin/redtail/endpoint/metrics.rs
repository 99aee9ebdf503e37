//! `/metrics` in Prometheus' text format. A number that is not known is left out, not zero.

use crate::messages;
use crate::status::Seen;
use redtail::{Progress, Replicator, Result, State};
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Tables with a number of their own; more would be more than a monitor keeps.
const TABLES: usize = 1000;

/// When this process began to serve, in seconds since 1970.
static STARTED: LazyLock<f64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());

/// This process begins to serve.
pub fn started() {
    LazyLock::force(&STARTED);
}

/// What is written so far.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if n == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.head(name, "gauge", help);
            self.sample(name, &[], value);
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.sample(name, &[], float(value));
    }

    /// A counter with one label.
    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.head(name, "counter", help);
        for (text, value) in values {
            self.sample(name, &[(label, text)], float(*value));
        }
    }
}

/// Everything, as it is now. `seen` is the last look at the source, and its age.
pub fn text(replicator: &Replicator, seen: Option<&(Duration, Seen)>) -> Result<String> {
    let progress = replicator.progress().borrow().clone();
    let mut out = Text(String::with_capacity(8 << 10));
    out.head("redtail_build_info", "gauge", "Always 1; the version is in the label.");
    out.sample("redtail_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    following(&mut out, &progress);
    work(&mut out, &progress);
    replica(&mut out, replicator)?;
    if let Some((age, seen)) = seen {
        source(&mut out, *age, seen);
    }
    #[cfg(feature = "remote")]
    if let Some(traffic) = replicator.traffic() {
        out.counter("redtail_server_requests_total", "Requests to the server.", traffic.requests);
        out.counter(
            "redtail_server_rows_read_total",
            "Rows that the server says it has read.",
            traffic.rows_read,
        );
    }
    process(&mut out);
    Ok(out.0)
}

fn following(out: &mut Text, p: &Progress) {
    out.head("redtail_state", "gauge", "1 for the state it is in, 0 for the others.");
    for state in State::ALL {
        out.sample("redtail_state", &[("state", state.name())], if p.state == state { 1.0 } else { 0.0 });
    }
    let seconds = |d: Option<Duration>| d.map(|d| d.as_secs_f64());
    out.gauge(
        "redtail_lag_entries",
        "Entries that the source has and the replica has not.",
        p.lag_entries().map(float),
    );
    out.gauge(
        "redtail_lag_seconds",
        "Since the replica was last known to equal the source's head; 0 while it does.",
        seconds(p.lag()),
    );
    out.gauge("redtail_durable_lag_seconds", "The same of what is on disk.", seconds(p.durable_lag()));
    out.gauge(
        "redtail_last_poll_age_seconds",
        "Since the source was last read, or asked and had nothing new.",
        seconds(p.since_look()),
    );
    out.gauge(
        "redtail_consistent",
        "1 if the replica shows one state of the source.",
        Some(f64::from(u8::from(p.consistent))),
    );
    out.gauge(
        "redtail_head_seq",
        "The source's newest entry, when it was last looked at.",
        p.head.map(float),
    );
    out.gauge(
        "redtail_cursor_seq",
        "Up to which entry everything is visible.",
        p.position.map(|at| float(at.seq)),
    );
    out.gauge("redtail_durable_seq", "Up to which entry everything is on disk.", Some(float(p.durable_seq)));
    out.gauge(
        "redtail_acknowledged_seq",
        "What the source was last told to be on disk.",
        p.acknowledged.map(float),
    );
    out.gauge(
        "redtail_source_read_only",
        "1 if the source may not be told how far the replica is.",
        Some(f64::from(u8::from(p.read_only))),
    );
    out.gauge(
        "redtail_tables_reconciling",
        "Tables that are being brought to equality.",
        Some(float(p.reconciling.len() as u64)),
    );
    out.gauge(
        "redtail_tables_skipped",
        "Tables that are not replicated, though they are wanted.",
        Some(float(p.skipped.len() as u64)),
    );
}

fn work(out: &mut Text, p: &Progress) {
    let w = &p.work;
    out.counter("redtail_windows_total", "Windows applied.", w.windows);
    out.counter("redtail_commits_total", "Transactions of the replica that brought them.", w.commits);
    out.counters(
        "redtail_rows_total",
        "Rows: changed by entries, or copied or compared by reconcile.",
        "kind",
        &[("changed", w.changed), ("copied", w.copied)],
    );
    out.counter("redtail_row_bytes_total", "Keys and records of these rows, in bytes.", w.bytes);
    let r = &w.retries;
    out.counters(
        "redtail_retries_total",
        "Tries after a failure that may pass.",
        "class",
        &[
            ("unavailable", r.unavailable),
            ("refused", r.refused),
            ("io", r.io),
            ("taken", r.taken),
            ("room", r.room),
        ],
    );
    out.counters(
        "redtail_rebuilds_total",
        "Times that every table was read again.",
        "cause",
        &[("diverged", w.rebuilds_diverged), ("damaged", w.rebuilds_damaged)],
    );
    out.counter("redtail_rewinds_total", "Times that the source had gone back by a few entries.", w.rewinds);
    out.counter("redtail_audits_total", "Comparisons of every table by the clock.", w.audits);
    out.counter("redtail_audit_differences_total", "Rows that these found to differ.", w.audit_differences);
    out.counter("redtail_acknowledgements_total", "Writes to the source.", w.acknowledgements);
    out.counter(
        "redtail_pruned_entries_total",
        "Entries pruned from the changelog by this process.",
        w.pruned,
    );
    out.counter("redtail_warnings_total", "Warnings that were logged.", messages::recent().0);
}

fn replica(out: &mut Text, replicator: &Replicator) -> Result<()> {
    let space = replicator.replica().space();
    let tables = replicator.replica().snapshot()?.tables()?;
    out.head("redtail_table_rows", "gauge", "Rows of a table in the replica.");
    for info in tables.iter().take(TABLES) {
        out.sample("redtail_table_rows", &[("table", &info.table.name)], float(info.rows));
    }
    out.gauge("redtail_replica_bytes", "The length of the replica's file.", Some(float(space.bytes)));
    out.gauge(
        "redtail_snapshots",
        "Views of the replica that are held.",
        Some(float(space.snapshots as u64)),
    );
    let oldest = space.oldest_snapshot.unwrap_or_default().as_secs_f64();
    out.gauge(
        "redtail_oldest_snapshot_seconds",
        "How long the oldest of them has been held; 0 if there is none.",
        Some(oldest),
    );
    Ok(())
}

fn source(out: &mut Text, age: Duration, seen: &Seen) {
    out.gauge(
        "redtail_source_look_age_seconds",
        "How old the numbers of changelog and consumers are.",
        Some(age.as_secs_f64()),
    );
    out.gauge("redtail_changelog_entries", "Entries in the source's changelog.", seen.entries.map(float));
    out.gauge(
        "redtail_changelog_max_entries",
        "The most that it keeps, up to 4,096 more.",
        seen.max_rows.map(float),
    );
    let behind = |acknowledged: u64| seen.head.unwrap_or_default().saturating_sub(acknowledged);
    let count = seen.consumers.iter().filter(|c| behind(c.acknowledged) > 0).count();
    out.gauge(
        "redtail_consumers",
        "Replicas that the source knows.",
        Some(float(seen.consumers.len() as u64)),
    );
    out.gauge(
        "redtail_consumers_behind",
        "Those that have not acknowledged everything.",
        Some(float(count as u64)),
    );
    out.head("redtail_consumer_behind_entries", "gauge", "Entries that a replica has not acknowledged.");
    for c in &seen.consumers {
        out.sample("redtail_consumer_behind_entries", &[("consumer", &c.id)], float(behind(c.acknowledged)));
    }
    out.head("redtail_consumer_unseen_seconds", "gauge", "Since a replica acknowledged last.");
    for c in &seen.consumers {
        out.sample("redtail_consumer_unseen_seconds", &[("consumer", &c.id)], float(c.unseen_seconds));
    }
}

/// As other programs name them.
fn process(out: &mut Text) {
    out.gauge("process_start_time_seconds", "When this process began to serve, since 1970.", Some(*STARTED));
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let bytes = pages.map(|pages| float(pages * rustix::param::page_size() as u64));
    out.gauge("process_resident_memory_bytes", "Memory in use.", bytes);
}

/// A monitor's numbers are floats: exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
fn float(n: u64) -> f64 {
    n as f64
}
