//! The command line. `train` is for builds; `origin`, `relay`, `stand-in` and `load` are what the program
//! starts itself as.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// headgate beside nginx, HAProxy and a plain relay.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Options {
    /// A part of the program, run on its own.
    #[command(subcommand)]
    pub part: Option<Part>,
    /// How to compare.
    #[command(flatten)]
    pub comparison: Comparison,
}

/// Of one turn.
pub const SECONDS: u32 = 2;

/// How to compare.
#[derive(Debug, Clone, clap::Args)]
pub struct Comparison {
    /// Rows to run, by their ids; without it all.
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Rounds; in each, every proxy has its turn. The default is 7, with --quick 3.
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Seconds for each proxy in each round.
    #[arg(long, default_value_t = SECONDS)]
    pub seconds: u32,
    /// Only the headline rows, and no files written.
    #[arg(long)]
    pub quick: bool,
    /// Where RESULTS.md, results.json and results/ROW.svg go; without it to benches/compare after a run of all rows.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Another place for the figures as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// The headgate to measure; without it a release build is made.
    #[arg(long, env = "HEADGATE")]
    pub headgate: Option<PathBuf>,
}

/// The parts.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// Serve as the origin.
    Origin { listen: SocketAddr },
    /// Relay bytes, without any HTTP.
    Relay { listen: SocketAddr, target: SocketAddr },
    /// End TLS and answer at once, with localhost.pem and localhost.key of a directory.
    StandIn { listen: SocketAddr, directory: PathBuf },
    /// Give an instrumented headgate something to do, for a build that is guided by its profile (.ci/release).
    Train { headgate: PathBuf },
    /// Be one of the program's own load generators.
    #[command(hide = true)]
    Load { plan: String },
}
