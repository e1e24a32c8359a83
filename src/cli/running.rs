//! What is asked of a running headgate: status, reload, explain.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::base::address::Address;
use crate::base::clock;
use crate::cli::{Place, client, print};
use crate::config::load;
use crate::control::explain::{Question, explain};
use crate::control::order::{Order, What};
use crate::snapshot::{Carried, Snapshot};
use crate::upstream::endpoint::Verdict;

const TIME_LIMIT: Duration = Duration::from_secs(15);
/// Whoever checks readiness asks each second.
const READY_LIMIT: Duration = Duration::from_secs(2);

/// Which running headgate is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The config file that names the admin API's address. It may be broken otherwise.
    #[arg(long, env = "HEADGATE_CONFIG", default_value = "headgate.toml")]
    config: PathBuf,
    /// The admin API's address itself: `unix:/run/headgate/admin.sock` or `127.0.0.1:9902`.
    #[arg(long)]
    admin: Option<Address>,
}

impl Target {
    fn address(self) -> anyhow::Result<Address> {
        match self.admin {
            Some(address) => Ok(address),
            None => address_in(&self.config),
        }
    }
}

fn address_in(config: &Path) -> anyhow::Result<Address> {
    let name = config.display();
    let found = load::admin_address(config)
        .with_context(|| format!("cannot read {name}: name the config with --config, or the address with --admin"))?;
    found.with_context(|| format!("{name} has no [admin] with an address: add one, or give it with --admin"))
}

pub(super) fn reload(target: Target) -> anyhow::Result<u8> {
    let answer = client::call(&target.address()?, "POST", "/v1/reload", Some(&json!({})), TIME_LIMIT)?;
    let is_applied = answer.status == 200;
    // 422: refused, with a receipt that tells why.
    print::receipt(&if answer.status == 422 { answer.body } else { answer.expect("generation")? });
    Ok(u8::from(!is_applied))
}

pub(super) fn status(target: Target, json: bool) -> anyhow::Result<u8> {
    let status = client::call(&target.address()?, "GET", "/v1/status", None, TIME_LIMIT)?.expect("generation")?;
    match json {
        true => print::json(&status),
        false => print::status(&status),
    }
    Ok(0)
}

/// Why a pool's traffic is where it is.
pub(super) fn why(target: Target, place: &str, json: bool) -> anyhow::Result<u8> {
    let (pool, endpoint) = place.split_once('/').map_or((place, None), |(pool, endpoint)| (pool, Some(endpoint)));
    let path = format!("/v1/pools/{}", percent_encoding::utf8_percent_encode(pool, percent_encoding::NON_ALPHANUMERIC));
    let answer = client::call(&target.address()?, "GET", &path, None, TIME_LIMIT)?.expect("endpoints")?;
    let all = answer["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(endpoint) = endpoint else {
        match json {
            true => print::json(&answer),
            false => print::pool_why(&answer),
        }
        return Ok(0);
    };
    let there = || all.iter().filter_map(|one| one["address"].as_str()).collect::<Vec<_>>().join(", ");
    let found = all.iter().find(|one| one["address"] == endpoint);
    let found = found.with_context(|| format!("pool `{pool}` has no endpoint `{endpoint}`; it has: {}", there()))?;
    match json {
        true => print::json(found),
        false => print::endpoint_why(found),
    }
    Ok(0)
}

/// Lets a pool's traffic go back.
pub(super) fn failback(target: Target, pool: &str) -> anyhow::Result<u8> {
    let asked = json!({ "pool": pool });
    client::call(&target.address()?, "POST", "/v1/failback", Some(&asked), TIME_LIMIT)?.expect("pool")?;
    print::line(&format!("{pool}: traffic goes back within a second to the best stage that is usable"));
    Ok(0)
}

/// Orders something of an endpoint.
pub(super) fn order(target: Target, place: Place, what: What) -> anyhow::Result<u8> {
    let order = serde_json::to_value(Order { pool: place.pool, endpoint: place.endpoint, what })?;
    let followed = client::call(&target.address()?, "POST", "/v1/orders", Some(&order), TIME_LIMIT)?
        .expect("configured_weight")?;
    print::followed(&followed);
    Ok(0)
}

/// One word, and 0 where headgate runs and does not drain.
pub(super) fn ready(target: Target) -> anyhow::Result<u8> {
    let status = client::call(&target.address()?, "GET", "/v1/status", None, READY_LIMIT)?.expect("generation")?;
    let is_draining = status["draining"] != false;
    print::line(if is_draining { "draining" } else { "ready" });
    Ok(u8::from(is_draining))
}

/// As the running headgate sees it.
pub(super) fn explain_live(admin: Option<Address>, question: &Question) -> anyhow::Result<Value> {
    let address = match admin {
        Some(address) => address,
        None => address_in(&std::env::var_os("HEADGATE_CONFIG").map_or("headgate.toml".into(), PathBuf::from))
            .context("give a config with --config to explain it without a running headgate")?,
    };
    let body = serde_json::to_value(question)?;
    let mut answer = client::call(&address, "POST", "/v1/explain", Some(&body), TIME_LIMIT)?.expect("generation")?;
    answer["source"] = "live".into();
    Ok(answer)
}

/// As the config says, with every endpoint up.
pub(super) fn explain_config(config: &Path, question: &Question) -> anyhow::Result<Value> {
    let loaded = load::load(config).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let snapshot = Snapshot::build(0, loaded.config, &Carried::new())?;
    for endpoint in snapshot.pools.iter().flat_map(|pool| &pool.endpoints) {
        endpoint.state.set_verdict(Verdict::Up);
    }
    let explanation = explain(&snapshot, question, clock::now()).map_err(|why| anyhow::anyhow!("{why}"))?;
    let mut answer = serde_json::to_value(explanation)?;
    answer["source"] = "as configured, every endpoint taken as up".into();
    Ok(answer)
}
