//! `/metrics`: what a monitor reads, and that it moves when it should.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::http::Endpoint;
use crate::support::redtail::Redtail;
use crate::support::writer::application;
use crate::support::{poll, skip};

use super::{SHOP, listening};

/// Samples by name and labels, from text that must be in Prometheus' format to the letter.
pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut types, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line ends");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert!(name == current && matches!(kind, "gauge" | "counter"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let name = series.split('{').next().unwrap();
            assert_eq!(name, current, "{line}: its samples stand together");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{line}");
            let value: f64 = value.parse().expect(line);
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line}: twice");
        }
    }
    assert_eq!(types.len(), helped.len());
    samples
}

/// The same by Prometheus' own client, where Python has it.
fn parse_by_the_client(text: &str) -> Option<BTreeMap<String, f64>> {
    let program = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as parse\n\
        for f in parse(sys.stdin.read()):\n  for s in f.samples:\n    labels = ','.join(f'{k}=\"{v}\"' for k, v in s.labels.items())\n    \
        print(s.name + ('{' + labels + '}' if labels else ''), repr(s.value))\n";
    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let _ = child.stdin.take()?.write_all(text.as_bytes());
    let output = child.wait_with_output().ok().filter(|o| o.status.success())?;
    let lines = String::from_utf8(output.stdout).ok()?;
    lines
        .lines()
        .map(|line| line.rsplit_once(' ').and_then(|(s, v)| Some((s.to_owned(), v.parse().ok()?))))
        .collect()
}

#[test]
fn metrics_are_read_by_a_parser_and_say_what_status_says() {
    let name_of_test = "metrics_are_read_by_a_parser_and_say_what_status_says";
    let (folder, mut run, endpoint) = listening();
    application(
        &folder.path().join("source.db"),
        &["UPDATE items SET name = 'x'", "CREATE TABLE \"q\"\"\\u\"(a)"],
    );
    let caught_up = |status: &serde_json::Value| status["tables"].as_array().unwrap().len() == 3;
    run.until("a third table", caught_up);
    let status = run.caught_up();
    let text =
        poll(|| Some(endpoint.ok("/metrics")).filter(|text| text.contains("\nredtail_changelog_entries ")));
    let text = text.expect("the source is looked at");
    let samples = parse(&text);
    let of = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("{name}: {text}"));
    let number = |field: &str| status[field].as_f64().unwrap_or_else(|| panic!("{field}: {status}"));
    assert_eq!(of("redtail_state{state=\"following\"}").to_bits(), 1f64.to_bits());
    assert_eq!(samples.iter().filter(|(name, v)| name.starts_with("redtail_state{") && **v > 0.0).count(), 1);
    for (name, want) in [
        ("redtail_lag_entries", 0.0),
        ("redtail_lag_seconds", 0.0),
        ("redtail_durable_lag_seconds", 0.0),
        ("redtail_consistent", 1.0),
        ("redtail_cursor_seq", number("cursor")),
        ("redtail_durable_seq", number("cursor")),
        ("redtail_head_seq", number("head")),
        ("redtail_table_rows{table=\"items\"}", 3.0),
        ("redtail_table_rows{table=\"odd / name?\"}", 3.0),
        ("redtail_table_rows{table=\"q\\\"\\\\u\"}", 0.0),
        ("redtail_rows_total{kind=\"changed\"}", 3.0),
        ("redtail_rebuilds_total{cause=\"diverged\"}", 0.0),
        ("redtail_retries_total{class=\"unavailable\"}", 0.0),
        ("redtail_changelog_max_entries", 10_000_000.0),
        ("redtail_consumers", 1.0),
        ("redtail_replica_bytes", status["space"]["bytes"].as_f64().unwrap()),
    ] {
        assert_eq!(of(name).to_string(), want.to_string(), "{name}");
    }
    let version = format!("redtail_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    for name in [
        "redtail_windows_total",
        "redtail_commits_total",
        "redtail_row_bytes_total",
        "redtail_changelog_entries",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        version.as_str(),
    ] {
        assert!(of(name) > 0.0, "{name}: {text}");
    }
    assert!(of("redtail_last_poll_age_seconds") < 60.0);
    match parse_by_the_client(&text) {
        Some(read) => {
            let unescaped = |name: &String| name.replace("\\\"", "\"").replace("\\\\", "\\");
            let ours: BTreeMap<String, f64> = samples.iter().map(|(name, v)| (unescaped(name), *v)).collect();
            assert_eq!(read, ours);
        }
        None => skip(
            "REDTAIL_REQUIRE_PROMETHEUS",
            &format!("{name_of_test}: no prometheus_client for python3 here"),
        ),
    }
    run.assert_running();
}

#[test]
fn lag_grows_while_the_source_is_away_and_it_is_not_ready_then() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path())
        .with_env("REDTAIL_LISTEN", "127.0.0.1:0")
        .with_env("REDTAIL_READY_LAG", "2s");
    application(&redtail.path("source.db"), SHOP);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let endpoint = Endpoint::of(&run.caught_up());
    let metric = |name: &str| parse(&endpoint.ok("/metrics"))[name];
    assert_eq!(endpoint.get("/readyz").status, 200);

    let away = redtail.path("away");
    fs::create_dir(&away).unwrap();
    let files = ["source.db", "source.db-wal", "source.db-shm"];
    for file in files {
        let _ = fs::rename(redtail.path(file), away.join(file));
    }
    let mut last = 0.0;
    let grown = poll(|| {
        run.assert_running();
        let lag = metric("redtail_lag_seconds");
        assert!(lag >= last, "it never shrinks: {last} {lag}");
        last = lag;
        (lag > 2.0).then_some(())
    });
    assert!(grown.is_some(), "lag is {last} s");
    run.assert_running();
    assert!(metric("redtail_durable_lag_seconds") > 2.0 && metric("redtail_last_poll_age_seconds") > 2.0);
    let not = endpoint.get("/readyz");
    assert_eq!(not.status, 503, "{not:?}");
    assert!(
        not.body.starts_with("not ready: level with the source ") && not.body.contains("`ready_lag`"),
        "{not:?}"
    );
    assert_eq!(endpoint.ok("/healthz"), "ok\n");
    assert!(endpoint.ok("/tables/items").contains("lamp"), "readers read on");
    let status = endpoint.json("/status");
    assert_eq!(status["state"], "retrying", "{status:#}");
    assert!(status["recent"][0]["message"].as_str().unwrap().contains("source.db"), "{status:#}");
    assert!(status["recent"][0]["todo"].is_string(), "{status:#}");
    assert!(status["work"]["retries"]["unavailable"].as_u64() > Some(0), "{status:#}");

    for file in files {
        let _ = fs::rename(away.join(file), redtail.path(file));
    }
    let back = poll(|| (metric("redtail_lag_seconds") < 0.001).then_some(()));
    assert!(back.is_some(), "{}", run.said());
    assert_eq!(endpoint.get("/readyz").status, 200);
    let status = run.until("following", |status| status["state"] == "following");
    assert_eq!(status["error"], serde_json::Value::Null, "{status:#}");
}
