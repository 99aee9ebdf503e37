//! `bench`: figures, each beside a floor measured in the same run.

mod cost;
mod floor;
mod lag;
pub mod percentiles;
#[cfg(feature = "remote")]
mod remote;
mod throughput;

use crate::Exit;
use crate::args::Bench;
use crate::settings::Settings;
use throughput::{Shape, What, throughput};

pub async fn bench(settings: &Settings, bench: Bench) -> Exit {
    match bench {
        Bench::Cost { rows, rate, seconds, json } => cost::cost(rows, rate, seconds, json).await,
        Bench::Copy { rows, runs, json } => {
            throughput(What::Copy, Shape { rows, changes: rows, runs }, json).await
        }
        Bench::Drain { rows, changes, runs, json } => {
            throughput(What::Drain, Shape { rows, changes, runs }, json).await
        }
        #[cfg(feature = "remote")]
        Bench::Remote { rate, seconds, rows, table, json } => {
            remote::remote(settings, rate, seconds, rows, table, json).await
        }
        #[cfg(not(feature = "remote"))]
        Bench::Remote { .. } => Err(redtail::Error::usage(format!(
            "bench remote: {:?}: built without servers",
            settings.source()?
        ))),
        Bench::Lag { rate, seconds, runs, json } => lag::lag(rate, seconds, runs, json).await,
    }
}
