//! Notes in MySQL or MariaDB, over a pool of connections.
//!
//! Every query runs in a task that owns its connection. A future of mysql_async that is dropped
//! half way (the client went away, a deadline passed) leaves an unread answer on the wire, and the
//! pool would hand it to the next query; so the task always finishes, and a connection whose query
//! failed below SQL or ran out of time is closed instead of returned.

use std::{pin::Pin, time::Duration};

use mysql_async::{Conn, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, ServerError, prelude::Queryable};
use tokio::time::{Instant, timeout, timeout_at};

use super::{NewNote, Note, QUERY_DEADLINE, StoreError, User, Window, now_ms};
use crate::options::Role;

/// Connections a server holds at most, and how long an idle one is kept.
const CONNECTIONS_MAX: usize = 32;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the goodbye to a connection that failed may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(100);

// https://mariadb.com/kb/en/mariadb-error-codes/
const ER_DUP_ENTRY: u16 = 1062;
const ER_OPTION_PREVENTS_STATEMENT: u16 = 1290;
const ER_NO_REFERENCED_ROW: u16 = 1216;
const ER_NO_REFERENCED_ROW_2: u16 = 1452;

const SCHEMA: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS users (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        name VARCHAR(100) NOT NULL,
        created_ms BIGINT NOT NULL
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
    "CREATE TABLE IF NOT EXISTS notes (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        user_id BIGINT NOT NULL,
        content VARCHAR(1024) NOT NULL,
        client_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
        created_ms BIGINT NOT NULL,
        updated_ms BIGINT NOT NULL,
        UNIQUE KEY notes_client_id (client_id),
        KEY notes_by_user (user_id, id),
        CONSTRAINT notes_user FOREIGN KEY (user_id) REFERENCES users (id)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
];

/// Users and notes in a MySQL database.
pub(crate) struct MysqlStore {
    pool: Pool,
    role: Role,
}

/// A query under way on a borrowed connection.
type Work<'c, T> = Pin<Box<dyn Future<Output = mysql_async::Result<T>> + Send + 'c>>;

type NoteRow = (i64, i64, String, i64, i64);
type UserRow = (i64, String, i64);

// === impl MysqlStore ===

impl MysqlStore {
    /// Connects on first use.
    pub(crate) fn new(opts: Opts, role: Role) -> Self {
        let mut pool_opts = PoolOpts::default()
            .with_inactive_connection_ttl(IDLE_TIMEOUT)
            // No session state is ever set, so a reset would only be a round trip a request.
            .with_reset_connection(false);
        if let Some(constraints) = PoolConstraints::new(0, CONNECTIONS_MAX) {
            pool_opts = pool_opts.with_constraints(constraints);
        }
        let opts = OptsBuilder::from_opts(opts)
            .pool_opts(pool_opts)
            // By default the driver leaves a loopback TCP address for the server's unix socket;
            // that would go around whatever was put between the app and its database.
            .prefer_socket(false)
            // A change to the same content must count as a note that was found.
            .client_found_rows(true);
        Self { pool: Pool::new(opts), role }
    }

    pub(crate) async fn create_schema(&self) -> Result<(), StoreError> {
        self.run(QUERY_DEADLINE, |conn| {
            Box::pin(async move {
                for statement in SCHEMA {
                    conn.query_drop(statement).await?;
                }
                Ok(())
            })
        })
        .await
    }

    pub(crate) async fn check(&self, within: Duration) -> Result<(), StoreError> {
        let read_only = self
            .run(within, |conn| {
                Box::pin(async move {
                    // Some versions say 0 and 1, some OFF and ON.
                    let read_only: Option<String> = conn.query_first("SELECT CAST(@@global.read_only AS CHAR)").await?;
                    conn.query_drop("SELECT 1 FROM notes LIMIT 1").await?;
                    Ok(!matches!(read_only.as_deref(), Some("0" | "OFF")))
                })
            })
            .await?;
        if read_only && self.role.writes() {
            return Err(StoreError::NotWritable);
        }
        Ok(())
    }

    pub(crate) async fn create_user(&self, name: String) -> Result<User, StoreError> {
        self.run(QUERY_DEADLINE, move |conn| {
            Box::pin(async move {
                let created_ms = now_ms();
                let insert = "INSERT INTO users (name, created_ms) VALUES (?, ?)";
                conn.exec_drop(insert, (&name, created_ms)).await?;
                Ok(User { id: last_id(conn), name, created_ms })
            })
        })
        .await
    }

    pub(crate) async fn read_user(&self, id: i64) -> Result<Option<User>, StoreError> {
        self.run(QUERY_DEADLINE, move |conn| {
            Box::pin(async move {
                let select = "SELECT id, name, created_ms FROM users WHERE id = ?";
                Ok(conn.exec_first(select, (id,)).await?.map(user))
            })
        })
        .await
    }

    pub(crate) async fn list_users(&self, window: Window) -> Result<Vec<User>, StoreError> {
        self.run(QUERY_DEADLINE, move |conn| {
            Box::pin(async move {
                let select = "SELECT id, name, created_ms FROM users WHERE id < ? ORDER BY id DESC LIMIT ?";
                let bounds = (window.before_or_end(), window.limit);
                conn.exec_map(select, bounds, user).await
            })
        })
        .await
    }

    pub(crate) async fn create_note(&self, new: NewNote) -> Result<Note, StoreError> {
        self.run(QUERY_DEADLINE, move |conn| {
            Box::pin(async move {
                let now = now_ms();
                let insert = "INSERT INTO notes (user_id, content, client_id, created_ms, updated_ms) \
                              VALUES (?, ?, ?, ?, ?)";
                let values = (new.user_id, &new.content, &new.client_id, now, now);
                conn.exec_drop(insert, values).await?;
                let id = last_id(conn);
                Ok(note((id, new.user_id, new.content, now, now)))
            })
        })
        .await
    }

    pub(crate) async fn read_note(&self, id: i64) -> Result<Option<Note>, StoreError> {
        self.run(QUERY_DEADLINE, move |conn| Box::pin(async move { note_by_id(conn, id).await })).await
    }

    pub(crate) async fn list_notes(&self, user_id: Option<i64>, window: Window) -> Result<Vec<Note>, StoreError> {
        self.run(QUERY_DEADLINE, move |conn| {
            Box::pin(async move {
                let before = window.before_or_end();
                match user_id {
                    Some(user_id) => {
                        let select = "SELECT id, user_id, content, created_ms, updated_ms FROM notes \
                                      WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT ?";
                        conn.exec_map(select, (user_id, before, window.limit), note).await
                    }
                    None => {
                        let select = "SELECT id, user_id, content, created_ms, updated_ms FROM notes \
                                      WHERE id < ? ORDER BY id DESC LIMIT ?";
                        conn.exec_map(select, (before, window.limit), note).await
                    }
                }
            })
        })
        .await
    }

    pub(crate) async fn update_note(&self, id: i64, content: String) -> Result<Option<Note>, StoreError> {
        self.run(QUERY_DEADLINE, move |conn| {
            Box::pin(async move {
                let update = "UPDATE notes SET content = ?, updated_ms = ? WHERE id = ?";
                conn.exec_drop(update, (&content, now_ms(), id)).await?;
                if conn.affected_rows() == 0 {
                    return Ok(None);
                }
                note_by_id(conn, id).await
            })
        })
        .await
    }

    pub(crate) async fn delete_note(&self, id: i64) -> Result<bool, StoreError> {
        self.run(QUERY_DEADLINE, move |conn| {
            Box::pin(async move {
                conn.exec_drop("DELETE FROM notes WHERE id = ?", (id,)).await?;
                Ok(conn.affected_rows() > 0)
            })
        })
        .await
    }

    pub(crate) async fn search_notes(&self, pattern: String, limit: u32) -> Result<Vec<Note>, StoreError> {
        self.run(QUERY_DEADLINE, move |conn| {
            Box::pin(async move {
                let select = "SELECT id, user_id, content, created_ms, updated_ms FROM notes \
                              WHERE content LIKE ? ESCAPE '!' ORDER BY id DESC LIMIT ?";
                conn.exec_map(select, (pattern, limit), note).await
            })
        })
        .await
    }

    /// Ends every idle connection and refuses new work.
    pub(crate) async fn close(&self) {
        let _ = self.pool.clone().disconnect().await;
    }

    /// Does a piece of work on a connection of the pool, in a task that always finishes it.
    async fn run<T, W>(&self, within: Duration, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut Conn) -> Work<'c, T> + Send + 'static,
    {
        let deadline = Instant::now() + within;
        let pool = self.pool.clone();
        let task = tokio::spawn(async move {
            let mut conn = match timeout_at(deadline, pool.get_conn()).await {
                Ok(conn) => conn.map_err(translate)?,
                Err(_) => return Err(StoreError::Timeout(within)),
            };
            match timeout_at(deadline, work(&mut conn)).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => {
                    if error.is_fatal() {
                        hang_up(conn).await;
                    }
                    Err(translate(error))
                }
                Err(_) => {
                    hang_up(conn).await;
                    Err(StoreError::Timeout(within))
                }
            }
        });
        task.await.map_err(StoreError::Worker)?
    }
}

/// Closes a connection whose state is unknown; whether the server hears it does not matter.
async fn hang_up(conn: Conn) {
    let _ = timeout(GOODBYE_TIMEOUT, conn.disconnect()).await;
}

async fn note_by_id(conn: &mut Conn, id: i64) -> mysql_async::Result<Option<Note>> {
    let select = "SELECT id, user_id, content, created_ms, updated_ms FROM notes WHERE id = ?";
    Ok(conn.exec_first(select, (id,)).await?.map(note))
}

fn translate(error: mysql_async::Error) -> StoreError {
    let code = match &error {
        mysql_async::Error::Server(ServerError { code, .. }) => *code,
        mysql_async::Error::Driver(_)
        | mysql_async::Error::Io(_)
        | mysql_async::Error::Other(_)
        | mysql_async::Error::Url(_) => return StoreError::Mysql(error),
    };
    match code {
        ER_DUP_ENTRY => StoreError::DuplicateClientId,
        ER_NO_REFERENCED_ROW | ER_NO_REFERENCED_ROW_2 => StoreError::UnknownUser,
        ER_OPTION_PREVENTS_STATEMENT => StoreError::NotWritable,
        _ => StoreError::Mysql(error),
    }
}

fn last_id(conn: &Conn) -> i64 {
    conn.last_insert_id().and_then(|id| i64::try_from(id).ok()).unwrap_or_default()
}

fn user((id, name, created_ms): UserRow) -> User {
    User { id, name, created_ms }
}

fn note((id, user_id, content, created_ms, updated_ms): NoteRow) -> Note {
    Note { id, user_id, content, created_ms, updated_ms }
}
