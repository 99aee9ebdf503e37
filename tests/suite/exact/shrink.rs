//! Makes a failing script as short as it can be: nothing can be left out of the result.

use std::time::{Duration, Instant};

use super::script::Step;

/// Shrinking ends by then, at whatever it has come to.
const LONGEST: Duration = Duration::from_secs(60);

/// The shortest script found for which `fails` still holds. It is called with candidates only.
pub(super) fn shrink(script: Vec<Step>, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let begun = Instant::now();
    let mut script = script;
    let mut chunk = script.len().div_ceil(2);
    loop {
        let before = script.len();
        let mut at = 0;
        while at < script.len() && begun.elapsed() < LONGEST {
            let end = (at + chunk).min(script.len());
            let candidate = [&script[..at], &script[end..]].concat();
            if fails(&candidate) {
                script = candidate;
            } else {
                at = end;
            }
        }
        if begun.elapsed() >= LONGEST || (chunk == 1 && script.len() == before) {
            return script;
        }
        // Once single steps are tried, they are tried again until none can go.
        chunk = if chunk == 1 { 1 } else { chunk.div_ceil(2) };
    }
}
