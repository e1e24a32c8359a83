//! What clients send, read and checked before a handler sees it.
//!
//! A handler takes these types only, so a bad value cannot get past its signature. Everything here
//! ends in a value or in a [`Problem`] that says which field is wrong and what is accepted.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    problem::{Code, Problem},
    store::{NewNote, Window},
};

/// The largest body read: a full note in JSON escapes, with room to spare.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;

/// The most a note may hold.
pub(crate) const CONTENT_BYTES_MAX: usize = 1024;

const NAME_CHARS_MAX: usize = 100;
const CLIENT_ID_BYTES_MAX: usize = 64;
const SEARCH_BYTES_MAX: usize = 256;
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;
const SLOW_MS_MAX: u64 = 10_000;

/// A number from the path: the id of a user or note.
pub(crate) struct Id(pub(crate) i64);

/// Which part of a list is asked for: `?limit=&before=`.
pub(crate) struct WindowQuery(pub(crate) Window);

/// How long `/api/slow` shall wait: `?ms=`.
pub(crate) struct SlowQuery(pub(crate) u64);

/// A JSON body that passed its checks.
pub(crate) struct Checked<T>(pub(crate) T);

/// The name of a new user.
pub(crate) struct UserName(pub(crate) String);

/// The text of a note.
pub(crate) struct Content(pub(crate) String);

/// What to look for, and how many notes at most.
pub(crate) struct Search {
    pub(crate) text: String,
    pub(crate) limit: u32,
}

/// A body whose JSON form is `Form` and which is valid by construction.
pub(crate) trait Check: Sized {
    type Form: DeserializeOwned;

    fn check(form: Self::Form) -> Result<Self, Problem>;
}

#[derive(Deserialize)]
pub(crate) struct UserForm {
    name: String,
}

#[derive(Deserialize)]
pub(crate) struct NoteForm {
    user_id: i64,
    content: String,
    client_id: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct ContentForm {
    content: String,
}

#[derive(Deserialize)]
pub(crate) struct SearchForm {
    text: String,
    limit: Option<i64>,
}

#[derive(Deserialize)]
struct WindowForm {
    limit: Option<String>,
    before: Option<String>,
}

#[derive(Deserialize)]
struct SlowForm {
    ms: Option<String>,
}

// === impl Check ===

impl Check for UserName {
    type Form = UserForm;

    fn check(form: UserForm) -> Result<Self, Problem> {
        let name = form.name.trim();
        if name.is_empty() {
            return Err(Problem::bad_input("name must not be empty"));
        }
        if name.chars().any(char::is_control) {
            return Err(Problem::bad_input("name must not hold control characters"));
        }
        if name.chars().count() > NAME_CHARS_MAX {
            return Err(Problem::bad_input(format!("name must not be longer than {NAME_CHARS_MAX} characters")));
        }
        Ok(Self(name.to_owned()))
    }
}

impl Check for NewNote {
    type Form = NoteForm;

    fn check(form: NoteForm) -> Result<Self, Problem> {
        if form.user_id < 1 {
            return Err(Problem::bad_input("user_id must be a whole number from 1"));
        }
        if let Some(client_id) = &form.client_id {
            let fits = (1..=CLIENT_ID_BYTES_MAX).contains(&client_id.len());
            if !fits || !client_id.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(Problem::bad_input(format!(
                    "client_id must be 1 to {CLIENT_ID_BYTES_MAX} visible ASCII characters"
                )));
            }
        }
        Ok(Self { user_id: form.user_id, content: check_content(form.content)?, client_id: form.client_id })
    }
}

impl Check for Content {
    type Form = ContentForm;

    fn check(form: ContentForm) -> Result<Self, Problem> {
        check_content(form.content).map(Self)
    }
}

impl Check for Search {
    type Form = SearchForm;

    fn check(form: SearchForm) -> Result<Self, Problem> {
        if form.text.trim().is_empty() {
            return Err(Problem::bad_input("text must not be empty"));
        }
        if form.text.len() > SEARCH_BYTES_MAX {
            return Err(Problem::bad_input(format!("text must not be longer than {SEARCH_BYTES_MAX} bytes")));
        }
        let limit = match form.limit {
            None => LIMIT_DEFAULT,
            Some(limit) => check_limit(Some(limit))?,
        };
        Ok(Self { text: form.text, limit })
    }
}

// === impl FromRequest ===

impl<S: Send + Sync, T: Check> FromRequest<S> for Checked<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let detail = format!("the body must not be longer than {BODY_BYTES_MAX} bytes");
                Problem::new(Code::BodyTooLarge, detail)
            } else {
                Problem::bad_input(rejection.body_text())
            }
        })?;
        let form = serde_json::from_slice(&body)
            .map_err(|error| Problem::bad_input(format!("the JSON body is not right: {error}")))?;
        T::check(form).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_input(rejection.body_text()))?;
        parse_id("the id in the path", &text).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WindowQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let form: WindowForm = query(parts, state).await?;
        let limit = match form.limit {
            None => LIMIT_DEFAULT,
            Some(text) => check_limit(text.parse().ok())?,
        };
        let before = match form.before {
            None => None,
            Some(text) => Some(parse_id("before", &text)?),
        };
        Ok(Self(Window { limit, before }))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SlowQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let form: SlowForm = query(parts, state).await?;
        form.ms
            .and_then(|text| text.parse().ok())
            .filter(|ms| *ms <= SLOW_MS_MAX)
            .map(Self)
            .ok_or_else(|| Problem::bad_input(format!("ms must be a whole number from 0 to {SLOW_MS_MAX}")))
    }
}

// === checks shared by several inputs ===

async fn query<T: DeserializeOwned, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T, Problem> {
    let Query(form) = Query::<T>::from_request_parts(parts, state)
        .await
        .map_err(|rejection| Problem::bad_input(rejection.body_text()))?;
    Ok(form)
}

fn check_content(content: String) -> Result<String, Problem> {
    if content.trim().is_empty() {
        return Err(Problem::bad_input("content must not be empty"));
    }
    if content.len() > CONTENT_BYTES_MAX {
        return Err(Problem::bad_input(format!(
            "content must not be longer than {CONTENT_BYTES_MAX} bytes, these are {}",
            content.len()
        )));
    }
    Ok(content)
}

fn check_limit(limit: Option<i64>) -> Result<u32, Problem> {
    limit
        .and_then(|limit| u32::try_from(limit).ok())
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| Problem::bad_input(format!("limit must be a whole number from 1 to {LIMIT_MAX}")))
}

fn parse_id(what: &str, text: &str) -> Result<i64, Problem> {
    text.parse()
        .ok()
        .filter(|id| *id >= 1)
        .ok_or_else(|| Problem::bad_input(format!("{what} must be a whole number from 1")))
}
