//! Users and notes, kept in SQLite or in MySQL, behind one set of questions.
//!
//! Both stores promise the same: every call ends within [`QUERY_DEADLINE`] (readiness within its
//! own, shorter one), a client that goes away never leaves a connection half used, and an answer
//! to a write means that it is committed. A write that ends in [`StoreError::Timeout`] may still
//! have happened; a client that must know sends a `client_id` and asks again.
//!
//! An enum instead of a trait object: there are two stores, both known here, and async methods of
//! a trait object would cost a box a call.

mod mysql;
mod sqlite;

use std::{
    error::Error,
    fmt::Write,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::time::sleep;
use tracing::{info, warn};

use self::{mysql::MysqlStore, sqlite::SqliteStore};
use crate::options::{Role, StoreAddress};

/// The longest a query may take, its wait for a connection included.
const QUERY_DEADLINE: Duration = Duration::from_secs(2);

/// Pauses between attempts to create the schema: doubling from the first to the second.
const SCHEMA_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The least time between two log lines about failed requests.
const WARN_EVERY_MS: i64 = 1000;

/// One who writes notes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) name: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) created_ms: i64,
}

/// A note of a user.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Note {
    pub(crate) id: i64,
    pub(crate) user_id: i64,
    pub(crate) content: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) created_ms: i64,
    /// Milliseconds since the Unix epoch; the time of creation until the first change.
    pub(crate) updated_ms: i64,
}

/// A note before it has an id.
#[derive(Debug)]
pub(crate) struct NewNote {
    pub(crate) user_id: i64,
    pub(crate) content: String,
    /// A word the client chose; no two notes have the same.
    pub(crate) client_id: Option<String>,
}

/// A part of a list, newest first: at most `limit` items with ids below `before`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) limit: u32,
    pub(crate) before: Option<i64>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A note names a user that does not exist.
    #[error("there is no such user")]
    UnknownUser,
    /// A note with this `client_id` exists.
    #[error("a note with this client_id exists")]
    DuplicateClientId,
    /// The deadline passed; a write may have happened or not.
    #[error("the database did not answer within {0:?}")]
    Timeout(Duration),
    /// A server that writes was given a database that does not let it.
    #[error("the database is read-only, and this server writes")]
    NotWritable,
    /// The task that held the connection died.
    #[error("the database work was cut short")]
    Worker(#[source] tokio::task::JoinError),
    /// SQLite said no.
    #[error("the database is not available")]
    Sqlite(#[source] rusqlite::Error),
    /// MySQL said no, or cannot be reached.
    #[error("the database is not available")]
    Mysql(#[source] mysql_async::Error),
}

/// Where this server keeps its notes.
pub(crate) enum Store {
    Sqlite(SqliteStore),
    Mysql(MysqlStore),
}

/// Asks the same question of whichever store it is.
macro_rules! ask {
    ($store:expr, $method:ident($($argument:expr),*)) => {
        match $store {
            Store::Sqlite(store) => store.$method($($argument),*).await,
            Store::Mysql(store) => store.$method($($argument),*).await,
        }
    };
}

// === impl Store ===

impl Store {
    /// A store that connects when it is first asked.
    pub(crate) fn open(address: &StoreAddress, role: Role) -> Self {
        match address {
            StoreAddress::Memory => Self::Sqlite(SqliteStore::memory()),
            StoreAddress::File(path) => Self::Sqlite(SqliteStore::file(path.clone(), role)),
            StoreAddress::Mysql(opts) => Self::Mysql(MysqlStore::new(opts.clone(), role)),
        }
    }

    /// Creates what is missing of the schema, and tries again until it is there: the database may
    /// be started after its app.
    pub(crate) async fn create_schema_with_patience(&self) {
        let (mut pause, pause_max) = SCHEMA_PAUSES;
        let mut last_reason = String::new();
        while let Err(error) = ask!(self, create_schema()) {
            let reason = error.chain();
            if reason != last_reason {
                warn!("the schema cannot be created yet: {reason}");
                last_reason = reason;
            }
            sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
        info!("the schema is in place");
    }

    /// Whether this server could do its work now.
    pub(crate) async fn check(&self, within: Duration) -> Result<(), StoreError> {
        ask!(self, check(within))
    }

    pub(crate) async fn create_user(&self, name: String) -> Result<User, StoreError> {
        ask!(self, create_user(name))
    }

    pub(crate) async fn read_user(&self, id: i64) -> Result<Option<User>, StoreError> {
        ask!(self, read_user(id))
    }

    pub(crate) async fn list_users(&self, window: Window) -> Result<Vec<User>, StoreError> {
        ask!(self, list_users(window))
    }

    pub(crate) async fn create_note(&self, new: NewNote) -> Result<Note, StoreError> {
        ask!(self, create_note(new))
    }

    pub(crate) async fn read_note(&self, id: i64) -> Result<Option<Note>, StoreError> {
        ask!(self, read_note(id))
    }

    /// The notes of one user, or of all.
    pub(crate) async fn list_notes(&self, user_id: Option<i64>, window: Window) -> Result<Vec<Note>, StoreError> {
        ask!(self, list_notes(user_id, window))
    }

    /// The note after the change, or nothing if there is no such note.
    pub(crate) async fn update_note(&self, id: i64, content: String) -> Result<Option<Note>, StoreError> {
        ask!(self, update_note(id, content))
    }

    /// Whether there was such a note.
    pub(crate) async fn delete_note(&self, id: i64) -> Result<bool, StoreError> {
        ask!(self, delete_note(id))
    }

    /// The newest notes that contain a text.
    pub(crate) async fn search_notes(&self, text: String, limit: u32) -> Result<Vec<Note>, StoreError> {
        ask!(self, search_notes(like_pattern(&text), limit))
    }

    /// Says goodbye to the database.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(_) => {}
            Self::Mysql(store) => store.close().await,
        }
    }
}

// === impl Window ===

impl Window {
    /// One item more than asked for: whether it comes tells if the list goes on.
    pub(crate) fn plus_one(self) -> Self {
        Self { limit: self.limit.saturating_add(1), ..self }
    }

    fn before_or_end(self) -> i64 {
        self.before.unwrap_or(i64::MAX)
    }
}

// === impl StoreError ===

impl StoreError {
    /// This error and its causes in one line; a cause that the one above already tells is left
    /// out, as drivers repeat theirs.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !text.contains(&words) {
                let _ = write!(text, ": {words}");
            }
            cause = error.source();
        }
        text
    }

    /// Logs this failure, at most one line a second: while a database is away every request fails
    /// the same way.
    pub(crate) fn warn_sparingly(&self) {
        static LAST_MS: AtomicI64 = AtomicI64::new(0);
        static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
        let now = now_ms();
        let last = LAST_MS.load(Ordering::Relaxed);
        let is_due = (now - last).abs() >= WARN_EVERY_MS;
        let is_ours = || LAST_MS.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_due && is_ours() {
            let left_out = LEFT_OUT.swap(0, Ordering::Relaxed);
            warn!(left_out, "a request failed: {}", self.chain());
        } else {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A `LIKE .. ESCAPE '!'` pattern that finds exactly this text.
fn like_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_text_means_itself() {
        assert_eq!(like_pattern("50%_!"), "%50!%!_!!%");
    }
}
