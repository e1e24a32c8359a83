//! Every "no" of this app: one table from the reason to the status and the words a client sees.
//!
//! The body is a problem detail of RFC 9457. `type` stays `about:blank` (so `title` is the name of
//! the status, as the RFC asks); `code` is the stable word a program may look at.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::store::StoreError;

/// A refusal or failure, on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
}

/// The reasons, each with one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// A parameter or field is missing or out of its bounds.
    BadInput,
    /// No such path.
    NoSuchPath,
    /// No such note.
    UnknownNote,
    /// No such user.
    UnknownUser,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// A read server was asked to write.
    ReadOnlyServer,
    /// A note with this `client_id` is already stored.
    DuplicateClientId,
    /// The body is larger than this app ever needs.
    BodyTooLarge,
    /// The database is away, not set up yet, or too slow.
    StoreUnavailable,
}

/// The body, as RFC 9457 names its members.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
}

// === impl Problem ===

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    pub(crate) fn bad_input(detail: impl Into<String>) -> Self {
        Self::new(Code::BadInput, detail)
    }

    pub(crate) fn unknown_note(id: i64) -> Self {
        Self::new(Code::UnknownNote, format!("there is no note {id}"))
    }

    pub(crate) fn unknown_user(id: i64) -> Self {
        Self::new(Code::UnknownUser, format!("there is no user {id}"))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::UnknownUser => Self::new(Code::UnknownUser, "there is no such user"),
            StoreError::DuplicateClientId => {
                Self::new(Code::DuplicateClientId, "a note with this client_id is already stored")
            }
            StoreError::Timeout(_)
            | StoreError::NotWritable
            | StoreError::Worker(_)
            | StoreError::Sqlite(_)
            | StoreError::Mysql(_) => {
                error.warn_sparingly();
                Self::new(Code::StoreUnavailable, error.to_string())
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = Body {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: &self.detail,
            code: self.code.name(),
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.code == Code::StoreUnavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

// === impl Code ===

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::BadInput => StatusCode::BAD_REQUEST,
            Self::NoSuchPath | Self::UnknownNote | Self::UnknownUser => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed | Self::ReadOnlyServer => StatusCode::METHOD_NOT_ALLOWED,
            Self::DuplicateClientId => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::BadInput => "bad-input",
            Self::NoSuchPath => "no-such-path",
            Self::UnknownNote => "unknown-note",
            Self::UnknownUser => "unknown-user",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::ReadOnlyServer => "read-only-server",
            Self::DuplicateClientId => "duplicate-client-id",
            Self::BodyTooLarge => "body-too-large",
            Self::StoreUnavailable => "store-unavailable",
        }
    }
}
