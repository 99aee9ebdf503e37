//! What the documents say, held against the code: links, tests, commands, messages, metrics.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::redtail::Redtail;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Files below a folder with one of these endings.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|e| endings.iter().any(|ending| *ending == e)) {
            found.push(path);
        }
    }
    found
}

fn documents() -> Vec<PathBuf> {
    let mut all = files(&root().join("docs"), &["md"]);
    let top = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    all.extend(top.filter(|path| path.extension().is_some_and(|e| e == "md")));
    all
}

/// All source text, with literals that go on in the next line put together.
fn code() -> String {
    let texts = files(&root().join("src"), &["rs"]).into_iter().map(|path| fs::read_to_string(path).unwrap());
    let text: String = texts.collect();
    let mut joined = String::new();
    for (n, part) in text.split("\\\n").enumerate() {
        joined.push_str(if n == 0 { part } else { part.trim_start() });
    }
    joined.replace("\\\"", "\"")
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let mut checked = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(document.parent().unwrap().join(target).exists(), "{}: {link}", document.display());
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked} links");
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let texts: String = ["tests", "src"]
        .iter()
        .flat_map(|folder| files(&root().join(folder), &["rs"]))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let mut checked = 0;
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = read(document);
        for (n, part) in text.split('`').enumerate().filter(|(n, _)| n % 2 == 1) {
            let Some((module, name)) = part.rsplit_once("::") else { continue };
            let is_name = |s: &str| {
                !s.is_empty() && s.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
            };
            if !is_name(name) || name.matches('_').count() < 3 || !module.split("::").all(is_name) {
                continue;
            }
            assert!(texts.contains(&format!("fn {name}(")), "{document}, part {n}: {part}");
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked} tests");
}

#[test]
fn every_command_and_flag_that_the_documents_show_is_there() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let help = redtail.ok(&["--help"]);
    let commands: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut checked = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for part in text.split("redtail ").skip(1) {
            let line = part.split(['\n', '`', '#', ';', '|']).next().unwrap();
            let mut words = line.split_whitespace();
            let Some(command) = words.next().filter(|w| commands.contains(w)) else { continue };
            // The parts of `bench` have flags of their own.
            let part = line.split_whitespace().nth(1).filter(|_| command == "bench").unwrap_or_default();
            let asked: Vec<&str> = [command, part, "--help"].into_iter().filter(|w| !w.is_empty()).collect();
            for flag in words.filter(|word| word.starts_with("--")) {
                let flag = flag.trim_end_matches([',', '.', ')', ']', ':']).split('=').next().unwrap();
                let usage = redtail.ok(&asked);
                assert!(usage.contains(flag), "{}: redtail {line}", document.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 5, "{checked} flags");
}

#[test]
fn every_message_in_the_operations_page_is_one_that_the_code_says() {
    let (page, code) = (read("docs/operations.md"), code());
    let section = page.split("## Messages").nth(1).expect("a section of messages");
    let section = section.split("\n## ").next().unwrap();
    let mut checked = 0;
    for row in section.lines().filter(|line| line.starts_with("| `") || line.starts_with("| state")) {
        let seen = row.split(" | ").next().unwrap();
        for message in seen.split('`').skip(1).step_by(2) {
            for piece in message.split('…').flat_map(fixed).filter(|piece| piece.len() > 7) {
                assert!(code.contains(&piece), "{row}\n{piece:?} is nowhere in src");
                checked += 1;
            }
        }
    }
    assert!(checked > 15, "{checked} messages");
}

/// The parts of a message between single capitals, which stand for something else.
fn fixed(message: &str) -> Vec<String> {
    let mut parts = vec![Vec::new()];
    for word in message.split(' ') {
        let name = word.trim_matches([',', ':']);
        if name.len() == 1 && name.chars().all(|c| c.is_ascii_uppercase()) {
            parts.push(Vec::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(word);
        }
    }
    parts.iter().map(|words| words.join(" ").trim_matches([' ', ':', ',']).to_owned()).collect()
}

/// Names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let named = |w: &&str| w.starts_with("redtail_") || w.starts_with("process_");
    words.filter(named).map(str::to_owned).collect()
}

#[test]
fn metrics_alerts_and_dashboard_name_what_there_is() {
    let there = metrics(&read("src/bin/redtail/endpoint/metrics.rs"));
    assert!(there.len() > 30, "{there:?}");
    assert_eq!(metrics(&read("docs/endpoint.md")), there);

    let alerts = read("docs/monitoring/alerts.yml");
    let unknown: Vec<_> = metrics(&alerts).difference(&there).cloned().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // Each rule has what a rule needs, and nothing that is no key of one.
    let rules: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 5);
    for rule in rules {
        for key in ["expr: ", "labels:", "severity: ", "annotations:", "summary: \""] {
            assert_eq!(rule.matches(&format!(" {key}")).count(), 1, "{key}: {rule}");
        }
        assert!(rule.contains("severity: page") || rule.contains("severity: ticket"), "{rule}");
    }

    let dashboard: Value = serde_json::from_str(&read("docs/monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let used = metrics(query);
            assert!(!used.is_empty() && used.is_subset(&there), "{query}");
            assert_eq!(query.matches('(').count(), query.matches(')').count(), "{query}");
        }
    }
    assert!(panels.len() > 8);
}

#[test]
fn the_unit_and_the_image_name_settings_and_commands_that_there_are() {
    let configuration = read("docs/configuration.md");
    let (unit, image) = (read("docs/deploy/redtail.service"), read("docs/deploy/Containerfile"));
    let mut checked = 0;
    for word in
        [&unit, &image].iter().flat_map(|text| text.split(|c: char| !(c.is_ascii_uppercase() || c == '_')))
    {
        let Some(name) = word.strip_prefix("REDTAIL_").filter(|name| *name != "LOG_FORMAT") else { continue };
        assert!(configuration.contains(&format!("| `{}` |", name.to_ascii_lowercase())), "{word}");
        checked += 1;
    }
    assert!(checked > 4);
    // Every line of the unit is a section, a comment, or a setting.
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '['])) {
        assert!(
            line.split_once('=').is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric())),
            "{line}"
        );
    }
    for needed in
        ["NoNewPrivileges=yes", "ProtectSystem=strict", "LoadCredential", "RestartPreventExitStatus=2"]
    {
        assert!(unit.contains(needed), "{needed}");
    }
}
