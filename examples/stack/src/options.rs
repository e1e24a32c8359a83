//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Starts a database pair, four app servers and headgate, and stops them cleanly.
#[derive(Debug, Parser)]
#[command(name = "stack", version, about)]
pub struct Options {
    /// Where everything is kept: databases, logs, the working config
    #[arg(long, value_name = "DIR", default_value = "target/stack")]
    pub data: PathBuf,

    /// What the app servers store in (auto: mariadb or mysqld when installed, else sqlite)
    #[arg(long, value_enum, default_value_t = StoreChoice::Auto)]
    pub store: StoreChoice,

    /// The headgate program [default: beside this one]
    #[arg(long, value_name = "PATH")]
    pub headgate: Option<PathBuf>,

    /// The notes program [default: beside this one]
    #[arg(long, value_name = "PATH")]
    pub notes: Option<PathBuf>,

    /// The config the working copy is made from
    #[arg(long, value_name = "FILE", default_value = "config/headgate.toml")]
    pub config: PathBuf,

    /// Where the dev certificate is, or is made
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub certs: PathBuf,

    /// Show the main job step by step, then stop; the exit code says whether every step passed
    #[arg(long)]
    pub tour: bool,

    /// The address headgate's HTTP and HTTPS listeners bind; everything else stays on 127.0.0.1
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub bind: IpAddr,

    /// fixed: the ports below; auto: free ones, so that several stacks can run on one machine
    #[arg(long, value_enum, default_value_t = PortChoice::Fixed)]
    pub ports: PortChoice,

    /// headgate's HTTP port (0: a free one, here and below)
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub http_port: u16,

    /// headgate's HTTPS port
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    pub https_port: u16,

    /// headgate's port for /metrics, /livez and /readyz
    #[arg(long, value_name = "PORT", default_value_t = 9901)]
    pub metrics_port: u16,

    /// The app servers' first port: read servers take it and the next, write servers ten above
    #[arg(long, value_name = "PORT", default_value_t = 7001)]
    pub base_port: u16,

    /// The database primary's port; the replica takes the next
    #[arg(long, value_name = "PORT", default_value_t = 13306)]
    pub db_port: u16,
}

/// Which store to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreChoice {
    /// The pair when a server is installed, else SQLite.
    Auto,
    /// The pair; a missing server is a failure.
    Mariadb,
    /// One file.
    Sqlite,
}

/// Where ports come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PortChoice {
    /// From the options.
    Fixed,
    /// Free ones.
    Auto,
}
