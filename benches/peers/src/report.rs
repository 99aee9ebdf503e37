//! Medians of the runs, as JSON and as a table.

use crate::drain::{self, Drained, Rate};
use crate::lag::{self, Lag};
use serde_json::{Map, Value as Json, json};

/// The one in the middle; of an even number the upper one.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn rounded(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

pub fn lags(all: &[(lag::Subject, Lag)]) -> Json {
    let mut out = Map::new();
    for subject in lag::SUBJECTS {
        let of: Vec<&Lag> = all.iter().filter(|(s, _)| *s == subject).map(|(_, lag)| lag).collect();
        let each = |of_one: fn(&Lag) -> f64| rounded(median(of.iter().map(|l| of_one(l)).collect()));
        let read: Option<Vec<f64>> = of.iter().map(|l| l.rows_read_per_change).collect();
        out.insert(
            subject.name().to_owned(),
            json!({
                "p50_ms": each(|l| l.percentiles.p50), "p99_ms": each(|l| l.percentiles.p99),
                "requests_per_change": each(|l| l.requests_per_change),
                "rows_read_per_change": read.map(|r| rounded(median(r))),
            }),
        );
    }
    Json::Object(out)
}

pub fn drains(all: &[(drain::Subject, Drained)]) -> Json {
    let kind = |of_one: fn(&Drained) -> Rate| {
        let mut out = Map::new();
        for subject in drain::SUBJECTS {
            let of: Vec<Rate> = all.iter().filter(|(s, _)| *s == subject).map(|(_, d)| of_one(d)).collect();
            let requests: Option<Vec<f64>> = of.iter().map(|r| r.requests.map(|n| n as f64)).collect();
            out.insert(
                subject.name().to_owned(),
                json!({
                    "seconds": rounded(median(of.iter().map(|r| r.seconds).collect())),
                    "per_second": median(of.iter().map(|r| r.per_second).collect()).round(),
                    "requests": requests.map(median),
                }),
            );
        }
        Json::Object(out)
    };
    json!({ "new_rows": kind(|d| d.new_rows), "scattered_updates": kind(|d| d.scattered) })
}

pub fn print(said: &Json) {
    let number = |key: &str| said.get(key).and_then(Json::as_u64).unwrap_or_default();
    println!(
        "lag from commit to visible, {} single-row transactions/s; medians of {} runs of {} s\n",
        number("rate"),
        number("runs"),
        number("seconds")
    );
    println!(
        "{:38} {:>9} {:>9} {:>16} {:>16}",
        "", "p50 ms", "p99 ms", "requests/change", "rows read/change"
    );
    for (name, found) in said.pointer("/lag").and_then(Json::as_object).into_iter().flatten() {
        let shown = |key: &str, digits: usize| match found.get(key).and_then(Json::as_f64) {
            Some(x) => format!("{x:.digits$}"),
            None => "not told".to_owned(),
        };
        println!(
            "{name:38} {:>9} {:>9} {:>16} {:>16}",
            shown("p50_ms", 3),
            shown("p99_ms", 3),
            shown("requests_per_change", 2),
            shown("rows_read_per_change", 1)
        );
    }
    let changes = number("rows");
    for (key, what) in [
        ("new_rows", format!("{changes} new rows")),
        ("scattered_updates", format!("{changes} updates scattered over {} rows", number("table"))),
    ] {
        let found = said.pointer(&format!("/drain/{key}")).and_then(Json::as_object);
        let rate = |f: &Json| f.get("per_second").and_then(Json::as_f64).unwrap_or_default();
        let own = found.and_then(|f| f.get(drain::Subject::Redtail.name())).map(rate).unwrap_or_default();
        println!("\ndrain of {what}\n");
        println!(
            "{:38} {:>9} {:>12} {:>9} {:>16}",
            "", "seconds", "changes/s", "requests", "redtail is times"
        );
        for (name, found) in found.into_iter().flatten() {
            let requests = found.get("requests").and_then(Json::as_f64);
            println!(
                "{name:38} {:>9.3} {:>12.0} {:>9} {:>16.2}",
                found.get("seconds").and_then(Json::as_f64).unwrap_or_default(),
                rate(found),
                requests.map_or("-".to_owned(), |n| format!("{n:.0}")),
                own / rate(found)
            );
        }
    }
}
