//! `Cache-Status` (RFC 9211): what the cache did, said to the client in one item.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::freshness::NoStoreReason;
use super::store::MissReason;
use super::usable::BypassReason;

/// What the cache did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// Served from the store.
    Hit {
        /// How long it stays fresh.
        ttl: Duration,
    },
    /// Fetched.
    Miss {
        /// Why it had to be.
        reason: MissReason,
        /// The endpoint's status.
        status: StatusCode,
        /// Whether the response is being kept.
        stored: Result<(), NoStoreReason>,
    },
    /// Something stored was asked about; 304 as `status` confirmed it.
    Stale {
        /// The endpoint's status.
        status: StatusCode,
        /// Whether what the endpoint said is being kept.
        stored: Result<(), NoStoreReason>,
    },
    /// The request went past the cache.
    Bypass(BypassReason),
}

/// The value of the `Cache-Status` field.
pub fn cache_status(status: CacheStatus) -> HeaderValue {
    let text = match status {
        CacheStatus::Hit { ttl } => format!("headgate; hit; ttl={}", ttl.as_secs()),
        CacheStatus::Miss { reason, status, stored } => forwarded(reason.as_str(), status, stored),
        CacheStatus::Stale { status, stored } => forwarded(MissReason::Expired.as_str(), status, stored),
        CacheStatus::Bypass(BypassReason::Method) => "headgate; fwd=method".to_owned(),
        CacheStatus::Bypass(reason) => format!("headgate; fwd=bypass; detail={}", reason.as_str()),
    };
    // Fixed words and numbers: this cannot fail, and if it did, the name alone is a valid item.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("headgate"))
}

fn forwarded(why: &str, status: StatusCode, stored: Result<(), NoStoreReason>) -> String {
    let status = status.as_u16();
    match stored {
        Ok(()) => format!("headgate; fwd={why}; fwd-status={status}; stored"),
        Err(reason) => format!("headgate; fwd={why}; fwd-status={status}; detail={}", reason.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_its_words() {
        let ok = StatusCode::OK;
        let cases = [
            (CacheStatus::Hit { ttl: Duration::from_millis(12_900) }, "headgate; hit; ttl=12"),
            (
                CacheStatus::Miss { reason: MissReason::Absent, status: ok, stored: Ok(()) },
                "headgate; fwd=uri-miss; fwd-status=200; stored",
            ),
            (
                CacheStatus::Miss { reason: MissReason::Variant, status: ok, stored: Err(NoStoreReason::SetCookie) },
                "headgate; fwd=vary-miss; fwd-status=200; detail=set_cookie",
            ),
            (
                CacheStatus::Stale { status: StatusCode::NOT_MODIFIED, stored: Ok(()) },
                "headgate; fwd=stale; fwd-status=304; stored",
            ),
            (CacheStatus::Bypass(BypassReason::Authorization), "headgate; fwd=bypass; detail=authorization"),
            (CacheStatus::Bypass(BypassReason::Method), "headgate; fwd=method"),
        ];
        for (status, text) in cases {
            assert_eq!(cache_status(status), text);
        }
    }
}
