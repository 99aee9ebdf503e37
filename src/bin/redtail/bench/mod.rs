//! `bench`: figures, each beside a floor measured in the same run.

mod cost;
mod floor;
mod lag;
pub mod percentiles;
mod throughput;

use crate::Exit;
use crate::args::Bench;
use crate::settings::Settings;
use throughput::{Shape, What, throughput};

pub async fn bench(_: &Settings, bench: Bench) -> Exit {
    match bench {
        Bench::Cost { rows, rate, seconds, json } => cost::cost(rows, rate, seconds, json).await,
        Bench::Copy { rows, runs, json } => {
            throughput(What::Copy, Shape { rows, changes: rows, runs }, json).await
        }
        Bench::Drain { rows, changes, runs, json } => {
            throughput(What::Drain, Shape { rows, changes, runs }, json).await
        }
        Bench::Lag { rate, seconds, runs, json } => lag::lag(rate, seconds, runs, json).await,
    }
}
