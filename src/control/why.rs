//! Why an endpoint gets the traffic that it gets, and what would change that: in words, from the facts that picks go by.

use std::time::{Duration, Instant};

use crate::base::clock;
use crate::upstream::endpoint::{Evidence, Verdict};
use crate::upstream::failback::BACKUPS;
use crate::upstream::orders::DrainedBy;
use crate::upstream::pool::{Endpoint, Pool};

/// Two answers about one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    /// What decides how it is used now.
    pub why: String,
    /// What would change that.
    pub next: String,
}

/// The first fact that decides, in the order in which [`Pool::standing`] looks at them.
pub(super) fn of(pool: &Pool, endpoint: &Endpoint, history: &[Evidence], now: Instant) -> Why {
    let state = &endpoint.state;
    let place = format!("{}/{}", pool.spec.name, endpoint.name);
    let last = |source: &str, healthy: bool| {
        let found = history.iter().rev().find(|one| one.source == source && one.healthy == healthy);
        found.map_or_else(|| "nothing is kept of it".to_owned(), |one| one.detail.clone())
    };
    let (why, next) = if let Some(drain) = endpoint.drain {
        match drain.by {
            DrainedBy::Operator => ("an operator drains it".to_owned(), format!("`headgate undrain {place}`")),
            DrainedBy::Config => (
                "the config drains it (`drain = true`)".to_owned(),
                format!("taking that out, or `headgate undrain {place}`"),
            ),
        }
    } else if state.verdict() == Verdict::Down {
        (format!("its checks fail: {}", last("probe", false)), rise(pool))
    } else if let Some(until) = state.passive.ejected_until(now) {
        let next = match state.passive.is_on_trial() {
            true => "the request that tries it now, if it is answered well".to_owned(),
            false => format!("a request that tries it in {}, if it is answered well", left(until, now)),
        };
        (last("traffic", false), next)
    } else if state.is_suspect(now) {
        let checked = if pool.spec.health.is_some() { "a good probe" } else { "a second or more without use" };
        (
            format!("a request failed on it: {}", last("traffic", false)),
            format!("{checked}, or a request that it answers"),
        )
    } else if state.verdict() == Verdict::Unknown {
        ("it has not been probed yet".to_owned(), "its first probe".to_owned())
    } else {
        let why = match &pool.spec.health {
            Some(_) => format!("its checks succeed: {}", last("probe", true)),
            None => "the pool has no check, and nothing speaks against it".to_owned(),
        };
        (why, falls(pool))
    };
    Why { why: why + &more(pool, endpoint, now), next }
}

/// What holds beside the first fact.
fn more(pool: &Pool, endpoint: &Endpoint, now: Instant) -> String {
    let mut more = String::new();
    if pool.state.is_panicking() && endpoint.drain.is_none() {
        more.push_str("; in panic it is used whatever that says");
    }
    if endpoint.spec.weight.value() == 0 {
        more.push_str("; with weight 0 it gets only whom a cookie binds to it");
    }
    if let Some(percent) = endpoint.state.share(now).rising() {
        more.push_str(&format!("; slow start gives it {percent:.0} % of its weight by now"));
    }
    if endpoint.spec.backup && pool.state.held() != BACKUPS {
        more.push_str("; as a backup it waits for its turn");
    }
    more
}

fn rise(pool: &Pool) -> String {
    let Some(health) = &pool.spec.health else { return "a request that it answers".to_owned() };
    let every = humantime::format_duration(health.interval_in_doubt);
    format!("{} good probes in a row, one each {every}", health.rise)
}

fn falls(pool: &Pool) -> String {
    let probes = pool.spec.health.as_ref().map(|health| format!("{} failed probes in a row", health.fall));
    let errors = pool.spec.ejection.and_then(|rule| rule.consecutive_errors);
    let errors = errors.map(|most| format!("{most} gateway errors in a row"));
    let all: Vec<String> = probes.into_iter().chain(errors).chain(["a failed connection".to_owned()]).collect();
    all.join(", or ")
}

fn left(until: u64, now: Instant) -> humantime::FormattedDuration {
    let left = Duration::from_millis(until.saturating_sub(clock::millis(now)));
    humantime::format_duration(Duration::from_secs(left.as_secs_f64().ceil() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse_text;
    use crate::upstream::registry::Registry;

    fn pool(more: &str) -> Pool {
        let text = format!(
            "config_version = 1\nlisteners.a.address = \"127.0.0.1:0\"\nroutes.r.pool = \"p\"\n[pools.p]\nendpoints = \
             [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n{more}"
        );
        let (config, _) = parse_text("t.toml", &text, &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}"));
        Pool::new(config.pools[0].clone(), None, &Registry::default())
    }

    fn asked(pool: &Pool, now: Instant) -> (String, String) {
        let endpoint = &pool.endpoints[0];
        let Why { why, next } = of(pool, endpoint, &endpoint.state.evidence(), now);
        (why, next)
    }

    fn probe(pool: &Pool, healthy: bool, detail: &str) {
        let detail = detail.to_owned();
        let evidence = Evidence { at_unix_ms: 0, healthy, source: "probe", detail, took_ms: 1 };
        pool.endpoints[0].state.note(evidence);
        pool.endpoints[0].state.set_verdict(if healthy { Verdict::Up } else { Verdict::Down });
    }

    #[test]
    fn each_state_has_its_reason_and_what_would_change_it() {
        let (pool, now) = (pool("health.tcp = { fall = 3, rise = 4 }"), clock::now());
        assert_eq!(asked(&pool, now), ("it has not been probed yet".into(), "its first probe".into()));
        probe(&pool, true, "connected");
        let next = "3 failed probes in a row, or 5 gateway errors in a row, or a failed connection";
        assert_eq!(asked(&pool, now), ("its checks succeed: connected".into(), next.into()));
        pool.endpoints[0].state.suspect(now, "refused");
        assert_eq!(asked(&pool, now).0, "a request failed on it: refused");
        probe(&pool, false, "no answer within 500ms");
        let next = "4 good probes in a row, one each 500ms";
        assert_eq!(asked(&pool, now), ("its checks fail: no answer within 500ms".into(), next.into()));
    }

    #[test]
    fn a_backup_waits_only_while_traffic_is_elsewhere() {
        let (mut pool, now) = (pool(""), clock::now());
        pool.endpoints[0].spec.backup = true;
        assert!(asked(&pool, now).0.ends_with("; as a backup it waits for its turn"));
        pool.state.raise(BACKUPS);
        assert_eq!(asked(&pool, now).0, "the pool has no check, and nothing speaks against it");
    }

    #[test]
    fn an_ejection_tells_of_the_errors_and_of_the_trial() {
        let (pool, now) = (pool(""), clock::now());
        assert_eq!(asked(&pool, now).0, "the pool has no check, and nothing speaks against it");
        let rule = pool.spec.ejection.unwrap();
        assert!(pool.eject(&rule, &pool.endpoints[0], now, "5 errors in a row, the last: 503"));
        let (why, next) = asked(&pool, now);
        assert_eq!(why, "ejected for 30s: 5 errors in a row, the last: 503");
        assert_eq!(next, "a request that tries it in 30s, if it is answered well");
        let later = now + Duration::from_secs(30);
        assert!(pool.take_trial(&[], later).is_some());
        assert!(asked(&pool, later).1.starts_with("the request that tries it now"));
    }
}
