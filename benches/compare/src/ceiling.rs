//! What a generator can do by itself, with no proxy between it and an origin.

use anyhow::Result;

use crate::lab::Lab;
use crate::measure;
use crate::rows::{Generator, Row, Unit};

/// Rates that the open-loop generator is tried with, in requests per second.
const RATES: [u32; 7] = [5000, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000];
/// A rate that is not kept is tried again: something else may have run.
const TRIES: usize = 3;
/// Later than this, in microseconds, 1 of 100 requests may not be sent.
const MAX_LAG_MICROS: f64 = 1000.0;

/// Requests per second of a row's generator. Plain loads go to the origin, which shares the load's core as it does in
/// a turn; loads over TLS go to the stand-in on the proxy's core.
pub async fn of(lab: &Lab, row: &Row, seconds: u32) -> Result<Option<f64>> {
    let ports = &lab.setting.ports;
    let port = if row.tls() { ports.stand_in } else { ports.origin };
    match row.unit() {
        Unit::Bytes => Ok(None),
        Unit::P99Micros => open(lab, row).await.map(Some),
        Unit::CpuMicros => {
            let turn = measure::run(lab, row, port, None, seconds).await?;
            Ok((turn.outcome.errors == 0).then(|| turn.outcome.rate()))
        }
    }
}

/// The highest of [`RATES`] whose schedule is kept.
async fn open(lab: &Lab, row: &Row) -> Result<f64> {
    let mut kept = 0;
    for rate in RATES {
        if !keeps(lab, row, rate).await? {
            break;
        }
        kept = rate;
    }
    Ok(f64::from(kept))
}

async fn keeps(lab: &Lab, row: &Row, rate: u32) -> Result<bool> {
    let row = Row { generator: Generator::Open { rate }, ..*row };
    for _ in 0..TRIES {
        let outcome = measure::run(lab, &row, lab.setting.ports.origin, None, 1).await?.outcome;
        let lag = outcome.send_lag.unwrap_or(f64::MAX);
        if outcome.errors == 0 && lag <= MAX_LAG_MICROS {
            return Ok(true);
        }
        println!("  load alone at {rate}/s: {} errors, 1 of 100 sent later than {lag:.0} µs", outcome.errors);
    }
    Ok(false)
}
