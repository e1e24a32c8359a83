//! Notes in SQLite: the embedded default, for one server or several that share a file.
//!
//! SQLite blocks, so every call runs on tokio's blocking threads with a connection of its own.
//! Connections stand in two lanes: a few for reads, one for writes. One writer a process, because
//! SQLite lets one write at a time anyway and a queue in here is fair, while its busy handler
//! between processes is not. WAL lets readers go on beside the writer.
//!
//! `synchronous = NORMAL`: a commit survives the death of the process (kill -9), which is what the
//! fault runs count; after a power cut the last commits may be gone, but never half there.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, ffi, params};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{NewNote, Note, QUERY_DEADLINE, StoreError, User, Window, now_ms};
use crate::options::Role;

/// Connections that read at the same time.
const READERS: usize = 4;

/// How long a connection waits for another process's write: within the query deadline, so that
/// the answer is SQLite's own.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1500);

const SCHEMA: &str = "
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users (id),
    content TEXT NOT NULL CHECK (length(CAST(content AS BLOB)) <= 1024),
    client_id TEXT UNIQUE,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS notes_by_user ON notes (user_id, id);
COMMIT;
";

/// Users and notes in a SQLite database.
pub(crate) struct SqliteStore {
    reads: Arc<Lane>,
    writes: Arc<Lane>,
}

/// Connections of one kind, opened when they are first needed.
struct Lane {
    place: Place,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

enum Place {
    Memory,
    ReadOnly(PathBuf),
    ReadWrite(PathBuf),
}

// === impl SqliteStore ===

impl SqliteStore {
    /// A private database in memory. It lives in its connection, so there is only one.
    pub(crate) fn memory() -> Self {
        let lane = Arc::new(Lane::new(Place::Memory, 1));
        Self { reads: Arc::clone(&lane), writes: lane }
    }

    /// A database file; a read server opens it read-only.
    pub(crate) fn file(path: PathBuf, role: Role) -> Self {
        let place = |path| match role {
            Role::Read => Place::ReadOnly(path),
            Role::Write | Role::All => Place::ReadWrite(path),
        };
        Self { reads: Arc::new(Lane::new(place(path.clone()), READERS)), writes: Arc::new(Lane::new(place(path), 1)) }
    }

    pub(crate) async fn create_schema(&self) -> Result<(), StoreError> {
        run(&self.writes, QUERY_DEADLINE, |connection| {
            // Stays with the file. In memory it has no effect and says so by another word.
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
            connection.execute_batch(SCHEMA).inspect_err(|_| {
                // A batch that fails half way leaves its transaction open.
                let _ = connection.execute_batch("ROLLBACK");
            })
        })
        .await
    }

    pub(crate) async fn check(&self, within: Duration) -> Result<(), StoreError> {
        run(&self.reads, within, |connection| {
            connection
                .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM notes LIMIT 1)")?
                .query_row([], |row| row.get::<_, i64>(0))
                .map(|_| ())
        })
        .await
    }

    pub(crate) async fn create_user(&self, name: String) -> Result<User, StoreError> {
        run(&self.writes, QUERY_DEADLINE, move |connection| {
            let created_ms = now_ms();
            let id = connection
                .prepare_cached("INSERT INTO users (name, created_ms) VALUES (?, ?)")?
                .insert(params![name, created_ms])?;
            Ok(User { id, name, created_ms })
        })
        .await
    }

    pub(crate) async fn read_user(&self, id: i64) -> Result<Option<User>, StoreError> {
        run(&self.reads, QUERY_DEADLINE, move |connection| {
            connection
                .prepare_cached("SELECT id, name, created_ms FROM users WHERE id = ?")?
                .query_row([id], user)
                .optional()
        })
        .await
    }

    pub(crate) async fn list_users(&self, window: Window) -> Result<Vec<User>, StoreError> {
        run(&self.reads, QUERY_DEADLINE, move |connection| {
            connection
                .prepare_cached("SELECT id, name, created_ms FROM users WHERE id < ? ORDER BY id DESC LIMIT ?")?
                .query_map(params![window.before_or_end(), window.limit], user)?
                .collect()
        })
        .await
    }

    pub(crate) async fn create_note(&self, new: NewNote) -> Result<Note, StoreError> {
        run(&self.writes, QUERY_DEADLINE, move |connection| {
            let created_ms = now_ms();
            let id = connection
                .prepare_cached(
                    "INSERT INTO notes (user_id, content, client_id, created_ms, updated_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?4)",
                )?
                .insert(params![new.user_id, new.content, new.client_id, created_ms])?;
            Ok(Note { id, user_id: new.user_id, content: new.content, created_ms, updated_ms: created_ms })
        })
        .await
    }

    pub(crate) async fn read_note(&self, id: i64) -> Result<Option<Note>, StoreError> {
        run(&self.reads, QUERY_DEADLINE, move |connection| {
            connection
                .prepare_cached("SELECT id, user_id, content, created_ms, updated_ms FROM notes WHERE id = ?")?
                .query_row([id], note)
                .optional()
        })
        .await
    }

    pub(crate) async fn list_notes(&self, user_id: Option<i64>, window: Window) -> Result<Vec<Note>, StoreError> {
        run(&self.reads, QUERY_DEADLINE, move |connection| {
            let before = window.before_or_end();
            match user_id {
                Some(user_id) => connection
                    .prepare_cached(
                        "SELECT id, user_id, content, created_ms, updated_ms FROM notes \
                         WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT ?",
                    )?
                    .query_map(params![user_id, before, window.limit], note)?
                    .collect(),
                None => connection
                    .prepare_cached(
                        "SELECT id, user_id, content, created_ms, updated_ms FROM notes \
                         WHERE id < ? ORDER BY id DESC LIMIT ?",
                    )?
                    .query_map(params![before, window.limit], note)?
                    .collect(),
            }
        })
        .await
    }

    pub(crate) async fn update_note(&self, id: i64, content: String) -> Result<Option<Note>, StoreError> {
        run(&self.writes, QUERY_DEADLINE, move |connection| {
            connection
                .prepare_cached(
                    "UPDATE notes SET content = ?, updated_ms = ? WHERE id = ? \
                     RETURNING id, user_id, content, created_ms, updated_ms",
                )?
                .query_row(params![content, now_ms(), id], note)
                .optional()
        })
        .await
    }

    pub(crate) async fn delete_note(&self, id: i64) -> Result<bool, StoreError> {
        run(&self.writes, QUERY_DEADLINE, move |connection| {
            let deleted = connection.prepare_cached("DELETE FROM notes WHERE id = ?")?.execute([id])?;
            Ok(deleted > 0)
        })
        .await
    }

    pub(crate) async fn search_notes(&self, pattern: String, limit: u32) -> Result<Vec<Note>, StoreError> {
        run(&self.reads, QUERY_DEADLINE, move |connection| {
            connection
                .prepare_cached(
                    "SELECT id, user_id, content, created_ms, updated_ms FROM notes \
                     WHERE content LIKE ? ESCAPE '!' ORDER BY id DESC LIMIT ?",
                )?
                .query_map(params![pattern, limit], note)?
                .collect()
        })
        .await
    }
}

/// Does a piece of work on a connection of this lane, on a blocking thread.
///
/// The work goes on when nobody waits for it any more; connection and place in the lane come back
/// when it is done.
async fn run<T, W>(lane: &Arc<Lane>, within: Duration, work: W) -> Result<T, StoreError>
where
    T: Send + 'static,
    W: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
{
    let deadline = Instant::now() + within;
    let timed_out = |_| StoreError::Timeout(within);
    let permit = timeout_at(deadline, Arc::clone(&lane.free).acquire_owned()).await.map_err(timed_out)?;
    let lane = Arc::clone(lane);
    let job = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut connection = lane.take()?;
        let outcome = work(&mut connection);
        if outcome.as_ref().err().is_none_or(leaves_usable) {
            lane.put_back(connection);
        }
        outcome
    });
    timeout_at(deadline, job).await.map_err(timed_out)?.map_err(StoreError::Worker)?.map_err(translate)
}

fn leaves_usable(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

fn translate(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error().map(|error| error.extended_code) {
        Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => StoreError::UnknownUser,
        Some(ffi::SQLITE_CONSTRAINT_UNIQUE) => StoreError::DuplicateClientId,
        Some(_) | None => StoreError::Sqlite(error),
    }
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User { id: row.get(0)?, name: row.get(1)?, created_ms: row.get(2)? })
}

fn note(row: &Row<'_>) -> rusqlite::Result<Note> {
    Ok(Note {
        id: row.get(0)?,
        user_id: row.get(1)?,
        content: row.get(2)?,
        created_ms: row.get(3)?,
        updated_ms: row.get(4)?,
    })
}

// === impl Lane ===

impl Lane {
    fn new(place: Place, connections: usize) -> Self {
        Self { place, free: Arc::new(Semaphore::new(connections)), idle: Mutex::new(Vec::with_capacity(connections)) }
    }

    fn take(&self) -> rusqlite::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => self.place.connect(),
        }
    }

    fn put_back(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

// === impl Place ===

impl Place {
    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = match self {
            Self::Memory => Connection::open_in_memory()?,
            Self::ReadOnly(path) => open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
            Self::ReadWrite(path) => open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?,
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(connection)
    }
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time, so SQLite's own mutex is not needed.
    Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}
