//! A turn of the idle rows: how much memory a proxy takes for connections that do nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::accounting::resident_bytes;
use crate::lab::Lab;
use crate::load::child::Plan;
use crate::load::idle;
use crate::measure::Generating;
use crate::proxies::Proxy;
use crate::rows::IDLE_CONNECTIONS;

/// A few connections that do some work first, so that what is needed once is there before.
const WARM_UP: (usize, usize) = (8, 50);
const LIMIT: Duration = Duration::from_secs(60);
/// Memory is stable when it changed no more than this, in bytes, over so many looks. Allocators give back what they do
/// not need after some seconds only, and what counts is what connections cost that stay idle.
const STABLE_BYTES: u64 = 64 * 1024;
const STABLE_LOOKS: usize = 6;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MAX_LOOKS: usize = 20;

/// Bytes for each idle connection, of a proxy that was just started.
pub async fn per_connection(lab: &Lab, proxy: &Proxy, tls: bool) -> Result<f64> {
    let (connections, requests) = WARM_UP;
    let address = proxy.address(tls);
    hold(lab, idle::Plan { address, tls, connections, requests }, proxy).await.context("warming up")?;
    let before = stable_resident(proxy.process.pid()).await?;
    let after = hold(lab, idle::Plan { address, tls, connections: IDLE_CONNECTIONS, requests: 1 }, proxy).await?;
    Ok(after.saturating_sub(before) as f64 / IDLE_CONNECTIONS as f64)
}

/// Memory while the connections are held, in bytes.
async fn hold(lab: &Lab, plan: idle::Plan, proxy: &Proxy) -> Result<u64> {
    let expected = plan.connections as u64;
    let mut generating = Generating::start(lab, &Plan::Idle(plan)).await?;
    let resident = stable_resident(proxy.process.pid()).await?;
    let outcome = generating.go(lab, LIMIT).await?;
    generating.end().await?;
    ensure!(outcome.requests == expected, "{} of {expected} connections", outcome.requests);
    Ok(resident)
}

/// Waits until memory does not change; what it is after 20 s in any case.
async fn stable_resident(pid: i32) -> Result<u64> {
    let mut looks = vec![resident_bytes(pid)?];
    for _ in 0..MAX_LOOKS {
        tokio::time::sleep(LOOK_EVERY).await;
        looks.push(resident_bytes(pid)?);
        if let Some(recent) = looks.len().checked_sub(STABLE_LOOKS + 1).map(|from| &looks[from..])
            && let (Some(low), Some(high)) = (recent.iter().min(), recent.iter().max())
            && high - low <= STABLE_BYTES
        {
            break;
        }
    }
    looks.last().copied().context("memory was not looked at")
}
