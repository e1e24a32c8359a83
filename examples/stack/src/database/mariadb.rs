//! MariaDB's dialect: `mariadb-install-db`, and replication by global transaction id with `slave_pos`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::database::engine::{Member, Role, find_program, no_defaults, words};

pub(super) const STATUS_QUERY: &str = "SHOW SLAVE STATUS";

pub(super) fn install(member: &Member) -> Result<(PathBuf, Vec<OsString>)> {
    let installer = find_program("mariadb-install-db")
        .or_else(|| find_program("mysql_install_db"))
        .context("mariadb-install-db is missing; on Debian: apt-get install mariadb-server-core mariadb-client-core")?;
    let mut arguments = no_defaults(member);
    arguments.extend(words(&[
        "--skip-test-db",
        "--skip-name-resolve",
        "--innodb-log-file-size=16M",
        "--innodb-use-native-aio=0",
    ]));
    Ok((installer, arguments))
}

pub(super) fn serve(role: Role) -> Vec<OsString> {
    let mut arguments = words(&["--innodb-log-file-size=16M", "--aria-pagecache-buffer-size=8M"]);
    arguments.extend(match role {
        Role::Primary => words(&["--server-id=1", "--log-bin=binlog", "--binlog-format=ROW", "--gtid-strict-mode=1"]),
        Role::Replica => words(&["--server-id=2", "--read-only=1", "--relay-log=relay"]),
    });
    arguments
}

pub(super) fn follow(primary: SocketAddr) -> Vec<String> {
    vec![
        "STOP SLAVE".to_owned(),
        format!(
            "CHANGE MASTER TO MASTER_HOST='{}', MASTER_PORT={}, MASTER_USER='replica', MASTER_PASSWORD='replica', \
             MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos",
            primary.ip(),
            primary.port()
        ),
        "START SLAVE".to_owned(),
    ]
}
