//! MySQL's dialect (8.0.23 and later): `--initialize-insecure`, and replication by global transaction id with
//! automatic position. The replica keeps no binary log; its position is in `mysql.gtid_executed`.

use std::ffi::OsString;
use std::net::SocketAddr;

use crate::database::engine::{Member, Role, no_defaults, words};

pub(super) const STATUS_QUERY: &str = "SHOW REPLICA STATUS";

pub(super) fn install(member: &Member) -> Vec<OsString> {
    let mut arguments = no_defaults(member);
    arguments.extend(words(&["--initialize-insecure", "--innodb-use-native-aio=0"]));
    arguments
}

pub(super) fn serve(role: Role) -> Vec<OsString> {
    let mut arguments = words(&["--loose-mysqlx=OFF", "--gtid-mode=ON", "--enforce-gtid-consistency=ON"]);
    arguments.extend(match role {
        Role::Primary => words(&["--server-id=1", "--log-bin=binlog", "--binlog-expire-logs-seconds=0"]),
        Role::Replica => words(&["--server-id=2", "--read-only=1", "--skip-log-bin", "--relay-log=relay"]),
    });
    arguments
}

pub(super) fn follow(primary: SocketAddr) -> Vec<String> {
    vec![
        "STOP REPLICA".to_owned(),
        format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='{}', SOURCE_PORT={}, SOURCE_USER='replica', \
             SOURCE_PASSWORD='replica', SOURCE_CONNECT_RETRY=1, SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
            primary.ip(),
            primary.port()
        ),
        "START REPLICA".to_owned(),
    ]
}
