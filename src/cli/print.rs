//! Output for people. A closed pipe is no fault.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::base::clock;

pub(super) fn line(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

pub(super) fn error(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

pub(super) fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, str::to_owned)
}

pub(super) fn receipt(receipt: &Value) {
    if let Some(error) = receipt["error"].as_str() {
        return line(error);
    }
    let is_ok = receipt["ok"] == true;
    let said = if is_ok { "applied" } else { "refused; the old config goes on serving" };
    line(&format!("{said}: generation {}", receipt["generation"]));
    for key in ["changes", "warnings", "faults"] {
        for item in list(&receipt[key]) {
            line(&format!("  {}: {}", key.trim_end_matches('s'), word(item)));
        }
    }
}

pub(super) fn status(status: &Value) {
    line(&format!(
        "headgate {}  generation {}  workers {}  connections {}  requests {}{}",
        word(&status["version"]),
        status["generation"],
        status["workers"],
        status["connections"],
        status["requests"],
        if status["draining"] == true { "  DRAINING" } else { "" }
    ));
    if !status["last_reload"].is_null() {
        receipt(&status["last_reload"]);
    }
    line("\nlisteners");
    for listener in list(&status["listeners"]) {
        let tls = if listener["tls"] == true { "tls" } else { "" };
        let (name, address) = (word(&listener["name"]), word(&listener["address"]));
        line(&format!("  {name:<16} {address:<24} {tls:<4} connections {}", listener["connections"]));
    }
    line("\nroutes");
    for route in list(&status["routes"]) {
        let paths: Vec<String> = list(&route["paths"]).iter().map(word).collect();
        let (name, action) = (word(&route["name"]), word(&route["action"]));
        line(&format!("  {name:<16} {:<24} {action}  ({})", paths.join(" "), word(&route["origin"])));
    }
    line("\npools");
    for pool in list(&status["pools"]) {
        line(&format!("  {}", word(&pool["name"])));
        for endpoint in list(&pool["endpoints"]) {
            line(&format!("    {}", endpoint_line(endpoint, &status["at_unix_ms"])));
        }
        // Those without an endpoint are told above as one that is down.
        let failing = |name: &&Value| !name["fault"].is_null() && name["endpoints"] != 0;
        for name in list(&pool["names"]).iter().filter(failing) {
            line(&format!(
                "    {} cannot be looked up: {} ({} times); the {} endpoints of its last answer go on",
                word(&name["name"]),
                word(&name["fault"]),
                name["failures"],
                name["endpoints"]
            ));
        }
    }
    if !list(&status["failures"]).is_empty() {
        line("\nfailures since the start");
    }
    for failure in list(&status["failures"]) {
        line(&format!("  {:>8}  {} ({})", failure["count"], word(&failure["reason"]), word(&failure["blame"])));
    }
}

/// How long ago that was, in its two largest units.
fn since(then: &Value, now: u64) -> String {
    let since = now.saturating_sub(then.as_u64().unwrap_or_default());
    let since = humantime::format_duration(Duration::from_secs(since / 1000)).to_string();
    since.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

pub(super) fn pool_why(pool: &Value) {
    let (now, traffic) = (clock::unix_millis(), &pool["traffic"]);
    let panic = if traffic["panic"] == true { ", in panic" } else { "" };
    let (name, active) = (word(&pool["name"]), word(&traffic["active"]));
    line(&format!("{name}: traffic is at {active} for {}{panic}", since(&traffic["since_unix_ms"], now)));
    line(&format!("  why   {}", word(&traffic["why"])));
    line(&format!("  next  {}", word(&traffic["next"])));
    if let Some(percent) = traffic["ramp_percent"].as_f64() {
        line(&format!("  ramp  {percent:.0} % go to the better stage by now"));
    }
    for endpoint in list(&pool["endpoints"]) {
        line("");
        summary(endpoint, now);
    }
}

pub(super) fn endpoint_why(endpoint: &Value) {
    let now = clock::unix_millis();
    summary(endpoint, now);
    line("  evidence, newest first");
    for one in list(&endpoint["history"]).iter().rev() {
        let ago = now.saturating_sub(one["at_unix_ms"].as_u64().unwrap_or_default()) as f64 / 1000.0;
        let (said, source) = (if one["healthy"] == true { "good" } else { "bad" }, word(&one["source"]));
        line(&format!("  {ago:>8.1}s ago  {source:<8} {said:<5} {:>5}ms  {}", one["took_ms"], word(&one["detail"])));
    }
}

/// Since when it stands as it does: a drain has a time of its own, for the verdict goes on as it was.
fn stands_since(endpoint: &Value) -> &Value {
    match &endpoint["drain"]["since_unix_ms"] {
        Value::Null => &endpoint["since_unix_ms"],
        drained => drained,
    }
}

fn summary(endpoint: &Value, now: u64) {
    line(&format!(
        "{}  {} for {}, weight {}{}, in flight {}, {:.1} % of the pool's requests",
        word(&endpoint["address"]),
        word(&endpoint["standing"]),
        since(stands_since(endpoint), now),
        endpoint["weight"],
        endpoint["rising"].as_f64().map_or(String::new(), |percent| format!(" (rising: {percent:.0} %)")),
        endpoint["in_flight"],
        endpoint["share"].as_f64().unwrap_or_default(),
    ));
    line(&format!("  why   {}", word(&endpoint["why"])));
    line(&format!("  next  {}", word(&endpoint["next"])));
}

fn endpoint_line(endpoint: &Value, now: &Value) -> String {
    format!(
        "{:<24} {:<8} {:<8} for {:<12} in flight {:<4} {:>5.1} %  weight {:<4} {}{}",
        word(&endpoint["address"]),
        word(&endpoint["verdict"]),
        word(&endpoint["standing"]),
        since(stands_since(endpoint), now.as_u64().unwrap_or_default()),
        endpoint["in_flight"],
        endpoint["share"].as_f64().unwrap_or_default(),
        endpoint["weight"],
        if endpoint["backup"] == true { "backup  " } else { "" },
        match endpoint["drain"]["by"].as_str() {
            Some(by) => format!("drained by {by}"),
            None => word(&endpoint["evidence"]["detail"]),
        }
    ) + &from(endpoint)
}

/// The name behind an address.
fn from(endpoint: &Value) -> String {
    let from = endpoint["from"].as_str().filter(|from| endpoint["address"] != **from);
    from.map_or_else(String::new, |from| format!("  from {from}"))
}

pub(super) fn followed(followed: &Value) {
    let draining = match followed["draining"].as_str() {
        Some(by) => format!("drained by {by}, {} still in flight", followed["in_flight"]),
        None => "taking requests".to_owned(),
    };
    let weight = match followed["weight"] == followed["configured_weight"] {
        true => followed["weight"].to_string(),
        false => format!("{} (the config says {})", followed["weight"], followed["configured_weight"]),
    };
    line(&format!("{}/{}: {draining}, weight {weight}", word(&followed["pool"]), word(&followed["endpoint"])));
    for warning in list(&followed["warnings"]) {
        line(&format!("  warning: {}", word(warning)));
    }
}

pub(super) fn explanation(answer: &Value) {
    line(&format!("{} (generation {})", word(&answer["source"]), answer["generation"]));
    line(&format!("listener  {}", word(&answer["listener"])));
    line(&format!("path      {}", word(&answer["path"])));
    line(&format!("route     {}  ({})", word(&answer["route"]), word(&answer["origin"])));
    for rejection in list(&answer["rejected"]) {
        line(&format!("  not {}: {}", word(&rejection["route"]), word(&rejection["why"])));
    }
    if !answer["side"].is_null() {
        line(&format!("side      {}", word(&answer["side"])));
    }
    line(&format!("outcome   {}", word(&answer["outcome"])));
    if !answer["forwarded_path"].is_null() {
        line(&format!("sent as   {}", word(&answer["forwarded_path"])));
    }
    for pool in list(&answer["pools"]) {
        let overflow = if pool["overflow"] == true { "  (while the one above is down)" } else { "" };
        line(&format!("pool      {}{overflow}", word(&pool["name"])));
        for endpoint in list(&pool["endpoints"]) {
            line(&format!(
                "  {:<24} {:<8} {:<8} {:>5.1} %{}{}",
                word(&endpoint["address"]),
                word(&endpoint["verdict"]),
                word(&endpoint["standing"]),
                endpoint["share"].as_f64().unwrap_or_default(),
                if endpoint["backup"] == true { "  backup" } else { "" },
                from(endpoint)
            ));
        }
    }
    if !answer["cache"].is_null() {
        let cache = &answer["cache"];
        let looked = if cache["looked_up"] == true { "looked up" } else { "not looked up" };
        line(&format!("cache     {}: {looked}, key {}", word(&cache["zone"]), word(&cache["key"])));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drain_is_counted_from_its_own_beginning() {
        let drained = json!({ "since_unix_ms": 1000, "drain": { "by": "operator", "since_unix_ms": 36_000 } });
        assert_eq!(since(stands_since(&drained), 38_000), "2s");
        let free = json!({ "since_unix_ms": 1000, "drain": null });
        assert_eq!(since(stands_since(&free), 38_000), "37s");
    }
}
