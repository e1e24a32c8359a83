//! The words for every "no" and every end: logs, metrics, headers and answers share them.

use std::fmt;

use serde::{Serialize, Serializer};

/// Who is at fault when a request or connection fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// What the client sent or did.
    Client,
    /// What the endpoint sent or did.
    Endpoint,
    /// headgate itself: its limits, its operating system, its configuration.
    Headgate,
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident => $word:literal, $blame:ident;)+) => {
        /// Why a request was refused, failed, or ended before its time. One fixed word each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])+ $name,)+ }

        impl Reason {
            /// Every reason, for tables and docs.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word that logs, metrics and headers use.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// Who is at fault.
            pub const fn blame(self) -> Blame {
                match self { $(Self::$name => Blame::$blame,)+ }
            }
        }
    };
}

reasons! {
    // What the client sent.
    /// The bytes are no HTTP that the protocol engine accepts.
    MalformedRequest => "malformed_request", Client;
    /// Host is missing, doubled, malformed, or at odds with the target.
    BadHost => "bad_host", Client;
    /// The request target is of a form that is not served (RFC 9112 §3.2).
    BadTarget => "bad_target", Client;
    /// The path cannot be brought into one canonical form: dot segments, backslash, control bytes.
    BadPath => "bad_path", Client;
    /// Transfer-Encoding is not exactly `chunked` (RFC 9112 §6.1).
    BadTransferEncoding => "bad_transfer_encoding", Client;
    /// Content-Length is malformed or contradicts itself.
    BadContentLength => "bad_content_length", Client;
    /// A header field that may not be sent, or may not be sent this way.
    BadHeader => "bad_header", Client;
    /// `Expect` asks for something other than `100-continue`.
    BadExpect => "bad_expect", Client;
    /// The method is not served (CONNECT, TRACE).
    MethodRefused => "method_refused", Client;
    /// The header fields are larger or more than the listener's limit.
    HeadersTooLarge => "headers_too_large", Client;
    /// The request target is longer than the listener's limit.
    TargetTooLong => "target_too_long", Client;
    /// The body is larger than the route's limit.
    BodyTooLarge => "body_too_large", Client;
    /// The body is malformed: broken chunking, or shorter than announced.
    BadBody => "bad_body", Client;
    /// The head did not arrive within `timeouts.header`.
    HeaderTimeout => "header_timeout", Client;
    /// The TLS handshake did not end within `timeouts.handshake`.
    HandshakeTimeout => "handshake_timeout", Client;
    /// The TLS handshake failed.
    HandshakeFailed => "handshake_failed", Client;
    /// The body stalled for longer than `timeouts.body`.
    RequestBodyTimeout => "request_body_timeout", Client;
    /// The client did not take the response for longer than `timeouts.send`.
    SendTimeout => "send_timeout", Client;
    /// A tunnel carried nothing for longer than `timeouts.tunnel`.
    TunnelIdle => "tunnel_idle", Client;
    /// The client went away before the response was whole.
    ClientGone => "client_gone", Client;
    /// The request has been through this proxy too often (RFC 9110 §7.6.3).
    LoopDetected => "loop_detected", Client;
    /// No route matches.
    NoRoute => "no_route", Client;
    /// The client takes nothing but a stored response (`Cache-Control: only-if-cached`), and there is none.
    NotStored => "not_stored", Client;
    /// The name in TLS and the name in the request belong to different certificates.
    Misdirected => "misdirected", Client;

    // What the endpoint did.
    /// The endpoint refused the connection.
    ConnectRefused => "connect_refused", Endpoint;
    /// The endpoint did not accept the connection within `timeouts.connect`.
    ConnectTimeout => "connect_timeout", Endpoint;
    /// The connection could not be opened: no route, reset, no such socket.
    ConnectFailed => "connect_failed", Endpoint;
    /// The TLS handshake with the endpoint failed.
    EndpointTls => "endpoint_tls", Endpoint;
    /// The endpoint closed the connection before its response head.
    EndpointClosed => "endpoint_closed", Endpoint;
    /// The endpoint sent no response head within `timeouts.response`.
    ResponseTimeout => "response_timeout", Endpoint;
    /// The endpoint's response is no valid HTTP.
    BadResponse => "bad_response", Endpoint;
    /// The response's head is larger than headgate takes.
    ResponseHeadersTooLarge => "response_headers_too_large", Endpoint;
    /// The endpoint ended its response early.
    ResponseIncomplete => "response_incomplete", Endpoint;
    /// The endpoint's body stalled for longer than `timeouts.body`.
    ResponseBodyTimeout => "response_body_timeout", Endpoint;
    /// Every endpoint of the pool is down.
    AllDown => "all_down", Endpoint;

    // headgate's own limits.
    /// Every usable endpoint is at its limit, and the pool has no queue.
    PoolFull => "pool_full", Headgate;
    /// Likewise, and as many wait already as may.
    QueueFull => "queue_full", Headgate;
    /// It has waited for an endpoint for as long as it may.
    QueueTimeout => "queue_timeout", Headgate;
    /// The request's total time ran out.
    TotalTimeout => "total_timeout", Headgate;
    /// `process.max_connections` or the listener's limit is reached.
    ConnectionLimit => "connection_limit", Headgate;
    /// The operating system has no descriptor, port or buffer left.
    OutOfResources => "out_of_resources", Headgate;
    /// headgate is stopping and its deadline has passed.
    Draining => "draining", Headgate;
    /// A fault in headgate itself.
    Internal => "internal", Headgate;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
