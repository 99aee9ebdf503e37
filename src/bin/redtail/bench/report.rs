//! The report as one page that needs nothing else: the distribution of lag, and bars against floors and peers.

use serde_json::Value as Json;
use std::fmt::Write as _;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5d6b7d;--line:#d5dbe3;--paper:#fff;--a:#b3261e;--b:#1769aa;--c:#7a8794}\
@media(prefers-color-scheme:dark){:root{--ink:#e7ecf2;--soft:#9aa8b8;--line:#323c48;--paper:#12171d;--a:#ff7a6b;--b:#6bb7f5;--c:#8b98a6}}\
body{margin:0 auto;max-width:60rem;padding:1.5rem 1rem 4rem;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.6rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.4rem 0 .2rem}p{margin:.2rem 0 .8rem;color:var(--soft)}\
svg{width:100%;height:auto;overflow:visible}text{fill:var(--soft);font-size:12px}\
.bar{display:grid;grid-template-columns:minmax(8rem,15rem) 1fr minmax(6rem,auto);gap:.3rem .8rem;align-items:center;margin:.3rem 0}\
.bar i{display:block;height:1rem;border-radius:.2rem;background:var(--c);min-width:2px}.bar.own i{background:var(--a)}\
.bar span:last-child{text-align:right;font-variant-numeric:tabular-nums}\
.key{display:inline-block;margin-right:1.2rem}.key i{display:inline-block;width:1.4rem;height:.2rem;margin-right:.4rem;vertical-align:middle}";

/// The page of these parts, as `bench all` gathers them.
pub fn page(parts: &[Json]) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>redtail bench</title><style>{STYLE}</style><h1>redtail {}</h1>\
         <p>One run of <code>redtail bench all</code>: floors and peers were measured in the same run, on {} cores. \
         The source is in WAL mode with synchronous=NORMAL.</p>",
        env!("CARGO_PKG_VERSION"),
        std::thread::available_parallelism().map_or(0, usize::from),
    );
    for part in parts {
        match part.get("what").and_then(Json::as_str) {
            Some("lag") => lag(part, &mut out),
            Some("copy" | "drain") => throughput(part, &mut out),
            Some("overhead") => overhead(part, &mut out),
            Some("cost") => cost(part, &mut out),
            Some("read") => bars(
                "A read of one row by its key",
                "nanoseconds; warm, two of four values",
                &[
                    ("redtail's replica", number(part, "/replica_ns"), true),
                    ("libSQL, prepared SELECT", number(part, "/libsql_ns"), false),
                ],
                "ns",
                &mut out,
            ),
            Some("resume") => bars(
                "Back after SIGKILL",
                "from the start of the program to the first change applied",
                &[
                    ("redtail", number(part, "/resume_ms"), true),
                    ("redb's own opening", number(part, "/redb_open_ms"), false),
                ],
                "ms",
                &mut out,
            ),
            _ => {}
        }
    }
    out.push_str("</html>\n");
    out
}

fn number(part: &Json, pointer: &str) -> f64 {
    part.pointer(pointer).and_then(Json::as_f64).unwrap_or_default()
}

fn text<'a>(part: &'a Json, key: &str) -> &'a str {
    part.get(key).and_then(Json::as_str).unwrap_or_default()
}

/// Bars of one unit; those of redtail stand out.
fn bars(title: &str, under: &str, bars: &[(&str, f64, bool)], unit: &str, out: &mut String) {
    let most = bars.iter().map(|(_, value, _)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let _ = write!(out, "<h2>{title}</h2><p>{under}</p>");
    for (name, value, own) in bars {
        let own = if *own { " own" } else { "" };
        let width = value / most * 100.0;
        let shown = if *value < 10.0 { format!("{value:.3}") } else { format!("{value:.0}") };
        let _ = write!(
            out,
            "<div class=\"bar{own}\"><span>{name}</span><i style=\"width:{width:.1}%\"></i><span>{shown} {unit}</span></div>"
        );
    }
}

fn throughput(part: &Json, out: &mut String) {
    let (items, distinct) = (number(part, "/items"), number(part, "/distinct_rows"));
    let copy = text(part, "what") == "copy";
    let title = if copy { "First copy" } else { "Drain of a backlog" };
    let what = if copy { "rows" } else { "changes" };
    let under = format!(
        "{items:.0} {what}, {distinct:.0} distinct rows, {}; {:.0} {what}/s, {:.2} of the slower floor",
        text(part, "row"),
        number(part, "/per_second"),
        number(part, "/share_of_slower_floor")
    );
    let rows = [
        ("redtail", number(part, "/seconds"), true),
        ("reading alone", number(part, "/reading_alone_seconds"), false),
        ("writing alone", number(part, "/writing_alone_seconds"), false),
        ("both at once", number(part, "/both_at_once_seconds"), false),
    ];
    bars(title, &under, &rows, "s", out);
}

fn overhead(part: &Json, out: &mut String) {
    for (kind, found) in part.get("kinds").and_then(Json::as_object).into_iter().flatten() {
        let each = |name: &str| number(found, &format!("/{name}/us_per_row"));
        let title = format!("What capture adds: {}", kind.replace('_', " "));
        let under =
            format!("microseconds a row; captured is {:.2} times alone", number(found, "/captured/times"));
        let rows = [
            ("alone", each("alone"), false),
            ("captured", each("captured"), true),
            ("floor: key and time", each("floor"), false),
            ("JSON image trigger", each("json_image"), false),
            ("AUTOINCREMENT trigger", each("autoincrement"), false),
        ];
        bars(&title, &under, &rows, "µs", out);
    }
}

fn cost(part: &Json, out: &mut String) {
    let phases = part.get("phases").and_then(Json::as_array).cloned().unwrap_or_default();
    let rows: Vec<(&str, f64, bool)> = phases
        .iter()
        .map(|p| (text(p, "what"), number(p, "/write_ms/p99"), text(p, "what") == "beside redtail"))
        .collect();
    let refused: Vec<String> =
        phases.iter().map(|p| format!("{} {}", number(p, "/busy"), text(p, "what"))).collect();
    let under = format!("99th percentile of a write; refused writes: {}", refused.join(", "));
    bars("An application's writes", &under, &rows, "ms", out);
}

/// Where the plot's axes lie.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 320.0;
/// Decades of milliseconds that are shown: 0.01 to 100.
const DECADES: (f64, f64) = (-2.0, 2.0);
/// Nines that are shown: up to 99.99 %.
const NINES: f64 = 4.0;

fn lag(part: &Json, out: &mut String) {
    let _ = write!(
        out,
        "<h2>Lag</h2><p>From the application's commit to the replica's, {} single-row transactions a second; \
         milliseconds by percentile. Durable p50 {:.3} ms, {:.2} times the bare loop's.</p><p>",
        number(part, "/rate"),
        number(part, "/durable_ms/p50"),
        number(part, "/durable_to_floor")
    );
    let ticks = [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
    let ticks: Vec<(f64, String)> = ticks.iter().map(|(p, label)| (x_of(*p), format!("{label} %"))).collect();
    plot(part, "curves", &ticks, x_of, out);
    let seconds = number(part, "/seconds").max(1.0);
    let _ = write!(
        out,
        "<h2>Lag over time</h2><p>The last of {} runs, {seconds:.0} s: the longest lag of each moment.</p><p>",
        number(part, "/runs")
    );
    let over_time = |at: f64| at / seconds * WIDTH;
    let ticks: Vec<(f64, String)> = [0.0, 0.25, 0.5, 0.75, 1.0]
        .iter()
        .map(|share| (share * WIDTH, format!("{:.1} s", share * seconds)))
        .collect();
    plot(part, "timelines", &ticks, over_time, out);
}

/// Lines of milliseconds, on a logarithmic scale, over whatever `x` makes of their first coordinates.
fn plot(part: &Json, of: &str, ticks: &[(f64, String)], x: impl Fn(f64) -> f64, out: &mut String) {
    let lines = [("durable", "a"), ("visible", "b"), ("floor", "c")];
    for (name, colour) in lines {
        let _ = write!(out, "<span class=\"key\"><i style=\"background:var(--{colour})\"></i>{name}</span>");
    }
    let _ = write!(out, "</p><svg viewBox=\"-50 -10 {} {}\" role=\"img\">", WIDTH + 60.0, HEIGHT + 40.0);
    for step in 0..=4 {
        let decade = DECADES.0 + f64::from(step);
        let y = y_of(10_f64.powf(decade));
        let label = 10_f64.powf(decade);
        let _ = write!(
            out,
            "<line x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"var(--line)\"/>\
             <text x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{label} ms</text>",
            y + 4.0
        );
    }
    for (x, label) in ticks {
        let _ = write!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{HEIGHT}\" stroke=\"var(--line)\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT + 18.0
        );
    }
    for (name, colour) in lines {
        let points =
            part.pointer(&format!("/{of}/{name}")).and_then(Json::as_array).cloned().unwrap_or_default();
        let points: Vec<String> = points
            .iter()
            .map(|p| format!("{:.1},{:.1}", x(number(p, "/0")), y_of(number(p, "/1"))))
            .collect();
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"var(--{colour})\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    out.push_str("</svg>");
}

fn x_of(share: f64) -> f64 {
    (-(1.0 - share).max(1e-9).log10() / NINES).min(1.0) * WIDTH
}

fn y_of(ms: f64) -> f64 {
    let decade = ms.max(1e-9).log10().clamp(DECADES.0, DECADES.1);
    (DECADES.1 - decade) / (DECADES.1 - DECADES.0) * HEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_holds_every_part_and_asks_for_nothing_else() {
        let point = json!([[0.5, 0.2], [0.99, 1.0]]);
        let lag = json!({ "what": "lag", "rate": 1000, "durable_ms": { "p50": 0.5 }, "durable_to_floor": 1.4,
            "seconds": 2, "runs": 1, "curves": { "durable": point, "visible": point, "floor": point },
            "timelines": { "durable": [[0.5, 1.0], [1.0, 10.0]] } });
        let drain = json!({ "what": "drain", "items": 10, "seconds": 2.0, "reading_alone_seconds": 1.0,
            "writing_alone_seconds": 4.0, "row": "narrow" });
        let page = page(&[lag, drain, json!({ "what": "read", "replica_ns": 500.0, "libsql_ns": 5000.0 })]);
        assert_eq!(page.matches("<polyline").count(), 6, "{page}");
        // Half of two seconds in the middle, one decade above 1 ms.
        assert!(page.contains("points=\"200.0,160.0 400.0,80.0\""), "{page}");
        assert!(
            page.contains("width:50.0%") && page.contains("4.000 s") && page.contains("5000 ns"),
            "{page}"
        );
        assert!(!page.contains("://") && !page.contains("<script"), "{page}");
    }
}
