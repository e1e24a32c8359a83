//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// What a pool promises, held against faults. Fails when a hard criterion does, or a soft one by more than three times
/// its bound.
#[derive(Debug, Parser)]
#[command(name = "faults")]
pub struct Options {
    /// The program under test.
    #[arg(long, env = "HEADGATE", default_value = "target/ci/headgate")]
    pub headgate: PathBuf,

    /// Shortened, within five minutes.
    #[arg(long)]
    pub quick: bool,

    /// These alone, such as F01,F02.
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub only: Vec<String>,

    /// Everything that was found, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Print the table of faults with their criteria, and run nothing.
    #[arg(long)]
    pub list: bool,

    /// Keep each run's folder, with headgate's config and logs, below this one.
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
}
