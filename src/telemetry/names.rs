//! Every metric once: its name, kind, labels and help.

/// What kind of thing a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $id: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )+

        /// All of them, in the order of this file.
        pub static ALL: &[&Metric] = &[$(&$id),+];
    };
}

metrics! {
    HTTP_REQUESTS = Counter "headgate_http_requests_total" ["listener", "route", "method", "code"]
        "Requests answered; route is empty where none matched, method is OTHER beyond the registered ones.";
    HTTP_DURATION = Histogram "headgate_http_request_duration_seconds" ["listener", "route"]
        "From a request's head to the end of its response.";
    HTTP_IN_FLIGHT = Gauge "headgate_http_requests_in_flight" ["listener"]
        "Requests being served.";
    HTTP_FAILURES = Counter "headgate_http_failures_total" ["reason", "blame"]
        "Requests and connections that were refused, failed, or ended before their time.";
    CONNECTIONS = Gauge "headgate_connections" ["listener"]
        "Open client connections.";
    CONNECTIONS_TOTAL = Counter "headgate_connections_total" ["listener"]
        "Client connections accepted.";
    CONNECTIONS_REJECTED = Counter "headgate_connections_rejected_total" ["reason"]
        "Client connections closed at once for want of room.";
    LISTENER_PAUSED = Gauge "headgate_listener_paused" ["listener"]
        "Workers that would accept on it and may not, because a limit of connections is reached.";
    LISTENER_PAUSES = Counter "headgate_listener_pauses_total" ["listener"]
        "Times that a worker has paused to accept on it.";
    BODIES_HELD = Gauge "headgate_held_bodies_bytes" []
        "Memory that request bodies take which are held for a retry.";
    BODIES_NOT_HELD = Counter "headgate_held_bodies_refused_total" []
        "Request bodies that were streamed, and so could not be retried, because process.held_bodies was reached.";
    ENDPOINT_REQUESTS = Counter "headgate_endpoint_requests_total" ["pool", "endpoint", "code"]
        "Attempts on endpoints; code is the failure's reason where no status came.";
    ENDPOINT_UP = Gauge "headgate_endpoint_up" ["pool", "endpoint"]
        "1 where the endpoint is in use, 0 where its verdict is down.";
    ENDPOINT_IN_FLIGHT = Gauge "headgate_endpoint_requests_in_flight" ["pool", "endpoint"]
        "Requests that the endpoint is working on.";
    ENDPOINT_EJECTED = Gauge "headgate_endpoint_ejected" ["pool", "endpoint"]
        "1 where traffic took the endpoint out (ejection), 0 where not.";
    ENDPOINT_EJECTIONS = Counter "headgate_endpoint_ejections_total" ["pool", "endpoint"]
        "Times that traffic took the endpoint out.";
    POOL_PANIC = Gauge "headgate_pool_panic" ["pool"]
        "1 while too few primaries are usable and all are used, 0 else.";
    POOL_STAGE = Gauge "headgate_pool_stage" ["pool"]
        "Where the pool's traffic is: 0 its primaries, 1 its backups, 2 and up the pools that take over, in order.";
    POOL_CONNECT = Histogram "headgate_pool_connect_seconds" ["pool"]
        "Time to open a connection to an endpoint, TLS included.";
    POOL_RESPONSE = Histogram "headgate_pool_response_seconds" ["pool"]
        "From the last attempt's start to its response head.";
    POOL_RETRIES = Counter "headgate_pool_retries_total" ["pool", "reason"]
        "Attempts after the first, by what the one before failed of; status: of a response in retry.status.";
    POOL_RETRIES_DENIED = Counter "headgate_pool_retries_denied_total" ["pool", "reason"]
        "Attempts that failed and were not repeated: budget, attempts, method, body, condition, endpoints, deadline.";
    ENDPOINT_STALE = Counter "headgate_endpoint_stale_connections_total" ["pool", "endpoint"]
        "Idle connections found closed by the endpoint before a request was lost on one.";
    POOL_QUEUE_LENGTH = Gauge "headgate_pool_queue_length" ["pool"]
        "Requests that wait for an endpoint with room.";
    POOL_QUEUED = Counter "headgate_pool_queued_total" ["pool"]
        "Requests that had to wait for an endpoint: for one with room, or in an outage for one at all.";
    POOL_QUEUE_REFUSED = Counter "headgate_pool_queue_refused_total" ["pool", "reason"]
        "Requests that were refused instead of waiting, or after it.";
    POOL_QUEUE_SECONDS = Histogram "headgate_pool_queue_seconds" ["pool"]
        "Time that requests have waited for an endpoint, served or not.";
    ENDPOINT_CONNECTIONS = Gauge "headgate_endpoint_connections" ["pool", "endpoint"]
        "Open connections to the endpoint, idle ones too and probes left out.";
    CACHE_REQUESTS = Counter "headgate_cache_requests_total" ["route", "result"]
        "Requests on routes that have a cache, by what it did.";
    CACHE_BYTES = Gauge "headgate_cache_bytes" ["zone"]
        "Memory that a cache's responses take.";
    DNS_FAILURES = Counter "headgate_dns_failures_total" ["name", "reason"]
        "Look-ups of endpoints' names that failed or brought no record: the last good answer goes on.";
    DNS_ENDPOINTS = Gauge "headgate_dns_endpoints" ["name"]
        "Endpoints that a name stands for.";
    DNS_LAST_ANSWER = Gauge "headgate_dns_last_answer_timestamp_seconds" ["name"]
        "When a name was last answered well, in seconds since the Unix epoch; 0 is never.";
    TLS_HANDSHAKES = Counter "headgate_tls_handshakes_total" ["listener", "version", "resumed"]
        "TLS handshakes with clients that succeeded.";
    TLS_NOT_AFTER = Gauge "headgate_tls_certificate_not_after_timestamp_seconds" ["name"]
        "When the certificate for this name ends.";
    CONFIG_LAST_RELOAD_SUCCESSFUL = Gauge "headgate_config_last_reload_successful" []
        "1 where the last reload was applied, 0 where it was refused.";
    CONFIG_LAST_SUCCESS = Gauge "headgate_config_last_reload_success_timestamp_seconds" []
        "When a config was last applied.";
    CONFIG_RELOADS = Counter "headgate_config_reloads_total" ["result"]
        "Configs applied and refused.";
    CONFIG_GENERATION = Gauge "headgate_config_generation" []
        "The generation that is being served.";
    ACCESS_LOG_DROPPED = Counter "headgate_access_log_dropped_total" []
        "Access log lines that could not be written.";
    LOG_DROPPED = Counter "headgate_log_dropped_total" []
        "Lines of the operational log (stderr) that could not be written.";
    PANICS = Counter "headgate_panics_total" []
        "Faults in headgate that ended a request or connection.";
    BUILD_INFO = Gauge "headgate_build_info" ["version"]
        "Always 1.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "CPU time of the process, user and system.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "When the process started, in seconds since the Unix epoch.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" []
        "Memory in RAM.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Address space in use.";
    PROCESS_FDS = Gauge "process_open_fds" []
        "Open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "The most file descriptors that may be open.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Threads of the process.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_rules() {
        for (at, metric) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|other| other.name != metric.name), "{}", metric.name);
            assert!(metric.name.starts_with("headgate_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
