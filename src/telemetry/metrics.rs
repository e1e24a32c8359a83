//! Counters of the process and of each worker, merged when somebody asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::Method;
use serde::Serialize;

use crate::base::reason::Reason;
use crate::base::record::{ConnectionRecord, RequestRecord};
use crate::telemetry::exposition::GaugeSink;
use crate::telemetry::series::{Counter, Histogram, Registry, Table};
use crate::telemetry::{logging, names, process};

type GaugeSource = Box<dyn Fn(&mut GaugeSink) + Send + Sync>;

macro_rules! tables {
    ($($name:ident: $value:ident),+ $(,)?) => {
        #[derive(Debug, Default)]
        struct Registries { $($name: Arc<Registry<$value>>,)+ }

        /// One worker's counters. It is the only one to raise them, so raising costs no more than an addition.
        #[derive(Debug)]
        pub struct WorkerMetrics { $($name: Table<$value>,)+ }

        impl Registries {
            fn worker(&self) -> WorkerMetrics {
                WorkerMetrics { $($name: self.$name.table(),)+ }
            }
        }
    };
}

tables! {
    begun: Counter,
    requests: Counter,
    durations: Histogram,
    failures: Counter,
    opened: Counter,
    closed: Counter,
    rejected: Counter,
    endpoint_requests: Counter,
    connect: Histogram,
    response: Histogram,
    retries: Counter,
    retries_denied: Counter,
    stale: Counter,
    queued: Counter,
    queue_refused: Counter,
    queue_times: Histogram,
    not_held: Counter,
    pauses: Counter,
    cache: Counter,
    handshakes: Counter,
    panics: Counter,
}

/// The process's metrics. One per process.
#[derive(Default)]
pub struct Metrics {
    workers: Registries,
    gauges: RwLock<Option<GaugeSource>>,
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
    last_reload_ok: AtomicU64,
    last_success: AtomicU64,
    generation: AtomicU64,
    access_log_dropped: AtomicU64,
}

/// Requests of one listener that were answered with one status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answered {
    /// The listener.
    pub listener: Box<str>,
    /// The status.
    pub code: Box<str>,
    /// How many.
    pub count: u64,
}

/// Requests and connections that failed of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// The reason's word.
    pub reason: Box<str>,
    /// Who is at fault: client, endpoint or headgate.
    pub blame: Box<str>,
    /// How many.
    pub count: u64,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// With everything at zero.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The counters of one more worker. They stay when the worker is gone.
    pub fn worker(&self) -> WorkerMetrics {
        self.workers.worker()
    }

    /// A config was applied, or refused. `generation` is the one that is served now.
    pub fn reload(&self, ok: bool, unix_seconds: u64, generation: u64) {
        if ok {
            self.reloads_ok.fetch_add(1, Relaxed);
            self.last_success.store(unix_seconds, Relaxed);
        } else {
            self.reloads_failed.fetch_add(1, Relaxed);
        }
        self.last_reload_ok.store(u64::from(ok), Relaxed);
        self.generation.store(generation, Relaxed);
    }

    /// Sets who is asked at each scrape for what is known only then: endpoints, in-flight, certificates, caches.
    pub fn set_gauges(&self, source: GaugeSource) {
        *self.gauges.write().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    /// Where the access log's drops are kept for the scrape; the gauge source stores `AccessLog::dropped` here.
    pub fn access_log_dropped(&self) -> &AtomicU64 {
        &self.access_log_dropped
    }

    /// Prometheus' text, merged over all workers.
    pub fn encode(&self) -> String {
        let mut sink = GaugeSink::default();
        if let Some(source) = &*self.gauges.read().unwrap_or_else(PoisonError::into_inner) {
            source(&mut sink);
        }
        self.collect_workers(&mut sink);
        let of = |value: &AtomicU64| value.load(Relaxed) as f64;
        sink.set(&names::CONFIG_RELOADS, &["success"], of(&self.reloads_ok));
        sink.set(&names::CONFIG_RELOADS, &["failure"], of(&self.reloads_failed));
        sink.set(&names::CONFIG_LAST_RELOAD_SUCCESSFUL, &[], of(&self.last_reload_ok));
        sink.set(&names::CONFIG_LAST_SUCCESS, &[], of(&self.last_success));
        sink.set(&names::CONFIG_GENERATION, &[], of(&self.generation));
        sink.set(&names::ACCESS_LOG_DROPPED, &[], of(&self.access_log_dropped));
        sink.set(&names::LOG_DROPPED, &[], logging::dropped() as f64);
        sink.set(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        process::collect(&mut sink);
        sink.encode()
    }

    /// Requests being served, by listener.
    pub fn in_flight(&self) -> BTreeMap<Box<str>, u64> {
        // Ended is read before begun, so that the difference is never below zero.
        let mut ended: BTreeMap<Box<str>, u64> = BTreeMap::new();
        for (labels, times) in self.workers.durations.sums() {
            *ended.entry(labels[0].clone()).or_default() += times.count();
        }
        let running = |(labels, begun): (Box<[Box<str>]>, u64)| {
            let ended = ended.get(&labels[0]).copied().unwrap_or_default();
            (labels[0].clone(), begun.saturating_sub(ended))
        };
        self.workers.begun.sums().into_iter().map(running).collect()
    }

    /// Requests answered since the start, by listener and status.
    pub fn answered(&self) -> Vec<Answered> {
        let mut sums: BTreeMap<(Box<str>, Box<str>), u64> = BTreeMap::new();
        for (labels, count) in self.workers.requests.sums() {
            *sums.entry((labels[0].clone(), labels[3].clone())).or_default() += count;
        }
        sums.into_iter().map(|((listener, code), count)| Answered { listener, code, count }).collect()
    }

    /// What was refused, failed or ended before its time since the start, the most frequent first.
    pub fn failures(&self) -> Vec<Failures> {
        let sums = self.workers.failures.sums().into_iter();
        let failures =
            sums.map(|(labels, count)| Failures { reason: labels[0].clone(), blame: labels[1].clone(), count });
        let mut failures: Vec<_> = failures.collect();
        failures.sort_by_key(|failures| std::cmp::Reverse(failures.count));
        failures
    }

    fn collect_workers(&self, sink: &mut GaugeSink) {
        let workers = &self.workers;
        for (metric, registry) in [
            (&names::HTTP_REQUESTS, &workers.requests),
            (&names::HTTP_FAILURES, &workers.failures),
            (&names::CONNECTIONS_REJECTED, &workers.rejected),
            (&names::ENDPOINT_REQUESTS, &workers.endpoint_requests),
            (&names::POOL_RETRIES, &workers.retries),
            (&names::POOL_RETRIES_DENIED, &workers.retries_denied),
            (&names::ENDPOINT_STALE, &workers.stale),
            (&names::POOL_QUEUED, &workers.queued),
            (&names::POOL_QUEUE_REFUSED, &workers.queue_refused),
            (&names::LISTENER_PAUSES, &workers.pauses),
            (&names::CACHE_REQUESTS, &workers.cache),
            (&names::TLS_HANDSHAKES, &workers.handshakes),
        ] {
            sink.sums(metric, registry.sums());
        }
        for (metric, registry) in [
            (&names::HTTP_DURATION, &workers.durations),
            (&names::POOL_CONNECT, &workers.connect),
            (&names::POOL_RESPONSE, &workers.response),
            (&names::POOL_QUEUE_SECONDS, &workers.queue_times),
        ] {
            sink.times(metric, registry.sums());
        }
        // Closed is read before opened, so that the difference is never below zero.
        let closed = workers.closed.sums();
        let opened = workers.opened.sums();
        let open = opened.iter().map(|(listener, opened)| {
            (listener.clone(), opened.saturating_sub(closed.get(listener).copied().unwrap_or(0)))
        });
        sink.sums(&names::CONNECTIONS, open.collect());
        sink.sums(&names::CONNECTIONS_TOTAL, opened);
        for (listener, running) in self.in_flight() {
            sink.set(&names::HTTP_IN_FLIGHT, &[&listener], running as f64);
        }
        let not_held = workers.not_held.sums().into_values().sum::<u64>();
        sink.set(&names::BODIES_NOT_HELD, &[], not_held as f64);
        let panics = workers.panics.sums().into_values().sum::<u64>();
        sink.set(&names::PANICS, &[], panics as f64);
    }
}

impl WorkerMetrics {
    /// A request has begun; [`Self::record`] ends it.
    pub fn begin(&self, listener: &str) {
        self.begun.count(&[listener]);
    }

    /// A request has ended.
    pub fn record(&self, record: &RequestRecord<'_>) {
        let route = record.route_name.unwrap_or_default();
        let mut code = [0; 3];
        let code = code_text(record.status, &mut code);
        self.requests.count(&[record.listener_name, route, method_text(record.method), code]);
        self.durations.observe(&[record.listener_name, route], record.duration);
        if let Some(reason) = record.reason {
            self.fail(reason);
        }
        if let Some(result) = record.cache {
            self.cache.count(&[route, result.as_str()]);
        }
        if let (Some(pool), Some(time)) = (record.pool_name, record.first_byte) {
            self.response.observe(&[pool], time);
        }
    }

    /// A connection failed without a request that [`Self::record`] was told of.
    pub fn connection(&self, record: &ConnectionRecord<'_>) {
        self.fail(record.reason);
        if let Some(status) = record.status {
            // The protocol engine answered by itself: it is a request, of which nothing else is known.
            let mut code = [0; 3];
            self.requests.count(&[record.listener_name, "", "OTHER", code_text(status, &mut code)]);
        }
        if matches!(record.reason, Reason::ConnectionLimit | Reason::OutOfResources) {
            self.rejected.count(&[record.reason.as_str()]);
        }
    }

    /// A client's connection was accepted.
    pub fn connection_opened(&self, listener: &str) {
        self.opened.count(&[listener]);
    }

    /// It is closed.
    pub fn connection_closed(&self, listener: &str) {
        self.closed.count(&[listener]);
    }

    /// A TLS handshake succeeded.
    pub fn handshake(&self, listener: &str, version: &'static str, resumed: bool) {
        self.handshakes.count(&[listener, version, if resumed { "true" } else { "false" }]);
    }

    /// An attempt has ended, with a status or a reason. `connect` where a connection was opened for it.
    pub fn attempt(
        &self,
        pool: &str,
        endpoint: &str,
        status: Option<u16>,
        reason: Option<Reason>,
        connect: Option<Duration>,
    ) {
        let mut code = [0; 3];
        let code = match (status, reason) {
            (Some(status), _) => code_text(status, &mut code),
            (None, Some(reason)) => reason.as_str(),
            (None, None) => "",
        };
        self.endpoint_requests.count(&[pool, endpoint, code]);
        if let Some(time) = connect {
            self.connect.observe(&[pool], time);
        }
    }

    /// One more attempt is made, after one that failed of `reason`: a failure's word, or `status`.
    pub fn retry(&self, pool: &str, reason: &str) {
        self.retries.count(&[pool, reason]);
    }

    /// None is made after one that failed, and why.
    pub fn retry_denied(&self, pool: &str, reason: &str) {
        self.retries_denied.count(&[pool, reason]);
    }

    /// Idle connections were found closed by their endpoint before a request was lost on one.
    pub fn stale(&self, pool: &str, endpoint: &str, count: u32) {
        self.stale.with(&[pool, endpoint], |counter| counter.add(u64::from(count)));
    }

    /// A request has waited for so long: in a pool's queue, or in an outage.
    pub fn queued(&self, pool: &str, time: Duration) {
        self.queued.count(&[pool]);
        self.queue_times.observe(&[pool], time);
    }

    /// A request's body is streamed for want of room to hold it.
    pub fn body_not_held(&self) {
        self.not_held.count(&[]);
    }

    /// Accepting pauses on a listener.
    pub fn pause(&self, listener: &str) {
        self.pauses.count(&[listener]);
    }

    /// A request was refused by a pool's queue, or left it in vain.
    pub fn queue_refused(&self, pool: &str, reason: Reason) {
        self.queue_refused.count(&[pool, reason.as_str()]);
    }

    /// A fault in headgate ended a request or connection.
    pub fn panic(&self) {
        self.panics.count(&[]);
    }

    fn fail(&self, reason: Reason) {
        let blame = match reason.blame() {
            crate::base::reason::Blame::Client => "client",
            crate::base::reason::Blame::Endpoint => "endpoint",
            crate::base::reason::Blame::Headgate => "headgate",
        };
        self.failures.count(&[reason.as_str(), blame]);
    }
}

/// A client may invent methods; a label may not grow with them.
fn method_text(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "CONNECT" => "CONNECT",
        _ => "OTHER",
    }
}

fn code_text(status: u16, buffer: &mut [u8; 3]) -> &str {
    if status > 999 {
        return "other";
    }
    *buffer = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
    std::str::from_utf8(buffer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::base::id::{ListenerIndex, RouteIndex};
    use crate::base::record::CacheResult;
    use crate::telemetry::access_log::tests::record;

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|has| has == line), "no `{line}` in\n{text}");
    }

    #[test]
    fn two_workers_are_one_in_the_text() {
        let metrics = Metrics::new();
        let (one, two) = (metrics.worker(), metrics.worker());
        for worker in [&one, &two] {
            worker.record(&record());
            worker.connection_opened("web");
            worker.attempt("app", "127.0.0.1:7001", Some(200), None, Some(Duration::from_micros(300)));
        }
        two.connection_closed("web");
        two.attempt("app", "127.0.0.1:7001", None, Some(Reason::ConnectRefused), None);
        two.retry("app", Reason::ConnectRefused.as_str());
        two.retry_denied("app", "budget");
        two.stale("app", "127.0.0.1:7001", 3);
        two.handshake("web", "TLSv1.3", true);
        two.panic();
        let text = metrics.encode();
        has(&text, r#"headgate_http_requests_total{listener="web",route="notes",method="GET",code="200"} 2"#);
        has(&text, r#"headgate_http_request_duration_seconds_bucket{listener="web",route="notes",le="0.01"} 0"#);
        has(&text, r#"headgate_http_request_duration_seconds_bucket{listener="web",route="notes",le="0.025"} 2"#);
        has(&text, r#"headgate_http_request_duration_seconds_count{listener="web",route="notes"} 2"#);
        has(&text, r#"headgate_connections{listener="web"} 1"#);
        has(&text, r#"headgate_connections_total{listener="web"} 2"#);
        has(&text, r#"headgate_endpoint_requests_total{pool="app",endpoint="127.0.0.1:7001",code="200"} 2"#);
        has(
            &text,
            r#"headgate_endpoint_requests_total{pool="app",endpoint="127.0.0.1:7001",code="connect_refused"} 1"#,
        );
        has(&text, r#"headgate_pool_connect_seconds_count{pool="app"} 2"#);
        has(&text, r#"headgate_pool_response_seconds_count{pool="app"} 2"#);
        has(&text, r#"headgate_pool_retries_total{pool="app",reason="connect_refused"} 1"#);
        has(&text, r#"headgate_pool_retries_denied_total{pool="app",reason="budget"} 1"#);
        has(&text, r#"headgate_endpoint_stale_connections_total{pool="app",endpoint="127.0.0.1:7001"} 3"#);
        has(&text, r#"headgate_tls_handshakes_total{listener="web",version="TLSv1.3",resumed="true"} 1"#);
        has(&text, "headgate_panics_total 1");
        has(&text, "# TYPE headgate_http_request_duration_seconds histogram");
        for name in ["process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"] {
            assert!(text.contains(&format!("\n{name} ")), "{name}");
        }
    }

    #[test]
    fn counts_survive_a_reload_that_moves_indices_and_a_worker_that_ends() {
        let metrics = Metrics::new();
        let worker = metrics.worker();
        worker.record(&record());
        let moved = RequestRecord { listener: ListenerIndex(7), route: Some(RouteIndex(9)), ..record() };
        worker.record(&moved);
        // Another route has the place that was the first one's.
        worker.record(&RequestRecord { route_name: Some("other"), ..record() });
        drop(worker);
        let text = metrics.encode();
        has(&text, r#"headgate_http_requests_total{listener="web",route="notes",method="GET",code="200"} 2"#);
        has(&text, r#"headgate_http_requests_total{listener="web",route="other",method="GET",code="200"} 1"#);
    }

    #[test]
    fn failures_name_reason_and_blame() {
        let metrics = Metrics::new();
        let worker = metrics.worker();
        let method = Method::from_bytes(b"BREW").unwrap();
        worker.record(&RequestRecord {
            method: &method,
            status: 502,
            route_name: None,
            cache: Some(CacheResult::Miss),
            reason: Some(Reason::EndpointClosed),
            ..record()
        });
        let refused = |reason, status| ConnectionRecord {
            client_ip: IpAddr::from([127, 0, 0, 1]),
            listener: ListenerIndex(0),
            listener_name: "web",
            status,
            reason,
            detail: "",
        };
        worker.connection(&refused(Reason::MalformedRequest, Some(400)));
        worker.connection(&refused(Reason::ConnectionLimit, None));
        let text = metrics.encode();
        has(&text, r#"headgate_http_requests_total{listener="web",route="",method="OTHER",code="502"} 1"#);
        has(&text, r#"headgate_http_requests_total{listener="web",route="",method="OTHER",code="400"} 1"#);
        has(&text, r#"headgate_http_failures_total{reason="endpoint_closed",blame="endpoint"} 1"#);
        has(&text, r#"headgate_http_failures_total{reason="malformed_request",blame="client"} 1"#);
        has(&text, r#"headgate_connections_rejected_total{reason="connection_limit"} 1"#);
        has(&text, r#"headgate_cache_requests_total{route="",result="miss"} 1"#);
    }

    #[test]
    fn what_the_control_plane_sets_is_asked_for_at_each_scrape() {
        let metrics = Metrics::new();
        metrics.reload(true, 1_700_000_000, 3);
        metrics.reload(false, 1_700_000_100, 3);
        metrics.access_log_dropped().store(5, Relaxed);
        metrics.set_gauges(Box::new(|sink| {
            sink.set(&names::ENDPOINT_UP, &["app", "unix:/run/\"a\""], 0.0);
            sink.set(&names::ENDPOINT_UP, &["app", "unix:/run/\"a\""], 1.0);
        }));
        let text = metrics.encode();
        has(&text, r#"headgate_endpoint_up{pool="app",endpoint="unix:/run/\"a\""} 1"#);
        has(&text, r#"headgate_config_reloads_total{result="success"} 1"#);
        has(&text, r#"headgate_config_reloads_total{result="failure"} 1"#);
        has(&text, "headgate_config_last_reload_successful 0");
        has(&text, "headgate_config_last_reload_success_timestamp_seconds 1700000000");
        has(&text, "headgate_config_generation 3");
        has(&text, "headgate_access_log_dropped_total 5");
        assert_eq!(text.matches("headgate_endpoint_up{").count(), 1);
    }
}
