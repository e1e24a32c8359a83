//! Floor 10: the command line.

mod client;
mod print;
mod running;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::app::BAD_CONFIG;
use crate::base::address::Address;
use crate::cli::running::Target;
use crate::config::load;
use crate::control::explain::Question;
use crate::control::order::What;
use crate::snapshot::{Carried, Snapshot};
use crate::telemetry::logging;
use crate::tls::dev_certificate::write_dev_certificate;

/// Says of a build that `.ci/release` has guided that it is one: it needs 10 to 15 % less time than others.
const VERSION: &str = match option_env!("HEADGATE_PROFILE_GUIDED") {
    Some(_) => concat!(env!("CARGO_PKG_VERSION"), " (profile-guided)"),
    None => env!("CARGO_PKG_VERSION"),
};

#[derive(Debug, Parser)]
#[command(name = "headgate", version = VERSION, about = "A reverse proxy and load balancer")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The config file.
    #[arg(long, env = "HEADGATE_CONFIG", default_value = "headgate.toml")]
    config: PathBuf,
}

/// An endpoint of a pool, as it is written on the command line.
#[derive(Clone, Debug)]
struct Place {
    pool: String,
    endpoint: String,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pool, endpoint) = text.split_once('/').ok_or("say POOL/ENDPOINT, as in `app/127.0.0.1:7001`")?;
        Ok(Self { pool: pool.to_owned(), endpoint: endpoint.to_owned() })
    }
}

/// A weight; none is the config's.
#[derive(Clone, Copy, Debug)]
struct OrderedWeight(Option<u16>);

fn weight(text: &str) -> Result<OrderedWeight, String> {
    match text {
        "config" => Ok(OrderedWeight(None)),
        text => match text.parse() {
            Ok(weight) => Ok(OrderedWeight(Some(weight))),
            Err(_) => Err("a weight is 0 to 65535, or `config`".to_owned()),
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to end.
    Run(ConfigFile),
    /// Check a config file, its certificates included.
    #[command(visible_alias = "validate")]
    Check {
        /// The config file; unless given, as with --config.
        file: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigFile,
        /// How findings are printed.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
        /// Warnings are faults.
        #[arg(long)]
        strict: bool,
    },
    /// Have the running headgate load its config.
    Reload(Target),
    /// Show what runs.
    Status {
        #[command(flatten)]
        target: Target,
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Only whether it is ready: exit code 0 or 1, for scripts and container health checks.
        #[arg(long, conflicts_with = "json")]
        ready: bool,
    },
    /// Tell what would be done with a request, and why.
    Explain {
        /// The method.
        method: String,
        /// The whole URL.
        url: String,
        /// A header field, `Name: value`.
        #[arg(short = 'H', long = "header")]
        headers: Vec<String>,
        /// The client's address.
        #[arg(long)]
        client: Option<IpAddr>,
        /// The listener that it comes to; unless given, the one that the URL's scheme and port lead to.
        #[arg(long)]
        listener: Option<String>,
        /// Explain this config file, with every endpoint taken as up, instead of asking the running headgate.
        #[arg(long)]
        config: Option<PathBuf>,
        /// The running headgate's admin API; unless given, as in the config at HEADGATE_CONFIG or headgate.toml.
        #[arg(long, conflicts_with = "config")]
        admin: Option<Address>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tell why a pool's traffic is where it is, and what would change it; of one endpoint with all that is known.
    Why {
        /// POOL, or POOL/ENDPOINT.
        place: String,
        #[command(flatten)]
        target: Target,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send a pool's traffic back to its best usable stage, where `failback` is not by itself.
    Failback {
        /// The pool.
        pool: String,
        #[command(flatten)]
        target: Target,
    },
    /// Give an endpoint no new requests; those that run finish. Holds over reloads, until `undrain` or a restart.
    Drain {
        /// POOL/ENDPOINT, as status shows them: `app/127.0.0.1:7001`.
        endpoint: Place,
        #[command(flatten)]
        target: Target,
    },
    /// Give a drained endpoint requests again.
    Undrain {
        /// POOL/ENDPOINT.
        endpoint: Place,
        #[command(flatten)]
        target: Target,
    },
    /// Give an endpoint another weight. Holds over reloads, until it is set to `config` or a restart.
    SetWeight {
        /// POOL/ENDPOINT.
        endpoint: Place,
        /// 0 to 65535, or `config` for what the config says.
        #[arg(value_parser = weight)]
        weight: OrderedWeight,
        #[command(flatten)]
        target: Target,
    },
    /// Make a certificate for localhost, and the CA that signs it.
    DevCert {
        /// Where to.
        #[arg(long, default_value = "certs")]
        dir: PathBuf,
    },
    /// Print every key of a config with its default.
    Reference,
    /// Print the version.
    Version,
}

/// How long the last lines of the log may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs the command line.
pub fn main() -> ExitCode {
    logging::init();
    let ended = execute(Arguments::parse().command);
    logging::flush(LAST_WORDS);
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print::error(&format!("headgate: {error:#}"));
            ExitCode::from(1)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(file) => Ok(crate::app::run(file.config)),
        Command::Check { file, config, format, strict } => Ok(check(&file.unwrap_or(config.config), format, strict)),
        Command::Reload(target) => running::reload(target),
        Command::Status { target, ready: true, .. } => running::ready(target),
        Command::Status { target, json, .. } => running::status(target, json),
        Command::Explain { method, url, headers, client, listener, config, admin, json } => {
            let headers = headers.iter().map(|field| {
                let (name, value) = field.split_once(':').with_context(|| format!("`{field}` needs `Name: value`"))?;
                Ok((name.trim().to_owned(), value.trim().to_owned()))
            });
            let headers = headers.collect::<anyhow::Result<_>>()?;
            let question = Question { method: method.to_ascii_uppercase(), url, headers, client, listener };
            let answer = match config {
                Some(config) => running::explain_config(&config, &question)?,
                None => running::explain_live(admin, &question)?,
            };
            match json {
                true => print::json(&answer),
                false => print::explanation(&answer),
            }
            Ok(0)
        }
        Command::Why { place, target, json } => running::why(target, &place, json),
        Command::Failback { pool, target } => running::failback(target, &pool),
        Command::Drain { endpoint, target } => running::order(target, endpoint, What::Drain),
        Command::Undrain { endpoint, target } => running::order(target, endpoint, What::Undrain),
        Command::SetWeight { endpoint, weight, target } => {
            running::order(target, endpoint, What::SetWeight { weight: weight.0 })
        }
        Command::DevCert { dir } => {
            let made = write_dev_certificate(&dir)?;
            let word = if made.created { "made" } else { "still good" };
            print::line(&format!("{word}: {}, {}", made.cert.display(), made.key.display()));
            print::line(&format!("trust this CA: {}", made.ca.display()));
            Ok(0)
        }
        Command::Reference => {
            print::line(crate::config::reference::text().trim_end());
            Ok(0)
        }
        Command::Version => {
            print::line(&format!("headgate {VERSION}"));
            Ok(0)
        }
    }
}

fn check(file: &Path, format: Format, strict: bool) -> u8 {
    let (mut findings, mut is_bad, mut text) = (Vec::new(), false, String::new());
    match load::load(file) {
        Ok(loaded) => {
            is_bad |= strict && !loaded.warnings.is_empty();
            for warning in &loaded.warnings {
                text.push_str(&format!("{warning}\n"));
                findings.push(json!(warning));
            }
            if let Err(error) = Snapshot::build(0, loaded.config, &Carried::new()) {
                is_bad = true;
                text.push_str(&format!("error: {error}\n"));
                findings.push(json!({ "severity": "error", "code": "tls", "message": error.to_string() }));
            }
        }
        Err(faults) => {
            is_bad = true;
            text = faults.to_string();
            findings = faults.diagnostics.iter().map(|diagnostic| json!(diagnostic)).collect();
        }
    }
    match format {
        Format::Json => print::json(&json!({ "ok": !is_bad, "diagnostics": findings })),
        Format::Human => {
            if !text.is_empty() {
                print::error(text.trim_end());
            }
            if !is_bad {
                print::line(&format!("{}: good", file.display()));
            }
        }
    }
    if is_bad { BAD_CONFIG } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_file_that_is_not_there_fails_the_check() {
        assert_eq!(check(Path::new("/nonexistent/headgate.toml"), Format::Json, false), BAD_CONFIG);
    }
}
