//! `bench`: figures, each beside a floor measured in the same run.

mod cost;
mod floor;
mod lag;
pub mod percentiles;

use crate::Exit;
use crate::args::Bench;
use crate::settings::Settings;

pub async fn bench(_: &Settings, bench: Bench) -> Exit {
    match bench {
        Bench::Cost { rows, rate, seconds, json } => cost::cost(rows, rate, seconds, json).await,
        Bench::Lag { rate, seconds, runs, json } => lag::lag(rate, seconds, runs, json).await,
    }
}
