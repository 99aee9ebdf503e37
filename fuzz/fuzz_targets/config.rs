//! The program's own reader of `redtail.toml`, taken by its path: the library has none.
#![no_main]
#![allow(dead_code)]

#[path = "../../src/bin/redtail/endpoint/options.rs"]
mod endpoint;
#[path = "../../src/bin/redtail/settings/mod.rs"]
mod settings;

use settings::Settings;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut settings = Settings::new();
    match settings.parse(text, "redtail.toml") {
        Ok(()) => {
            // What is shown says the same.
            let shown = settings.shown().to_string();
            let mut again = Settings::new();
            again.parse(&shown, "shown").unwrap_or_else(|e| panic!("{e}: {shown}"));
            assert_eq!(again.shown().to_string(), shown);
        }
        Err(e) => {
            assert_eq!(e.kind(), redtail::Kind::Usage, "{e}");
            assert_eq!(e.to_string().lines().count(), 1, "{e}");
        }
    }
});
