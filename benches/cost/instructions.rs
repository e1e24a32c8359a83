//! Counts the instructions of a worker: the program as it is, run by valgrind's callgrind with threads told apart. Two
//! runs, one with more requests; the difference is what those cost, without start and end. `HEADGATE` names the program
//! to count, which `make cost` sets to the release; without it the one of the bench's own profile is taken.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::callgrind;
use crate::load::{Client, Origin};
use crate::scenario::{COUNTED, Scenario, WARM_UP, config};

/// Why nothing can be counted here, where that is so.
pub(crate) fn lacking() -> Option<&'static str> {
    let runs = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|end| end.success());
    match runs {
        _ if cfg!(not(target_arch = "x86_64")) => Some("the expected figures are of x86-64"),
        true => None,
        false => Some("valgrind is missing; on Debian: apt-get install valgrind"),
    }
}

/// Instructions per request on the worker's thread.
pub(crate) fn per_request(scenario: &Scenario) -> anyhow::Result<u64> {
    let few = by_thread(scenario, WARM_UP)?;
    let many = by_thread(scenario, WARM_UP + COUNTED)?;
    let more = many.iter().filter_map(|(thread, count)| count.checked_sub(*few.get(thread)?));
    // Threads have numbers here and no names, but with more requests no other one does nearly as much more.
    let most = more.max().context("callgrind has told apart no threads")?;
    Ok(most / COUNTED)
}

/// What each thread of a whole run executed, by the number that valgrind gives it.
fn by_thread(scenario: &Scenario, requests: u64) -> anyhow::Result<BTreeMap<u32, u64>> {
    let origin = Origin::start()?;
    let folder = tempfile::tempdir()?;
    let (path, counts) = (folder.path().join("headgate.toml"), folder.path().join("counts"));
    fs::write(&path, config(folder.path(), origin.address))?;
    fs::create_dir(&counts)?;
    let (mut program, address) = Program::start(&path, &counts.join("of"))?;
    let mut client = Client::connect(address, scenario)?;
    client.exchange(requests)?;
    drop(client);
    kill(Pid::from_raw(program.0.id() as i32), Signal::SIGTERM)?;
    let end = program.0.wait()?;
    ensure!(end.success(), "headgate ended with {end}");
    let texts = fs::read_dir(&counts)?.map(|file| fs::read_to_string(file?.path()));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.iter().filter_map(|text| callgrind::executed(text)).collect())
}

/// headgate under callgrind; killed when dropped.
struct Program(Child);

impl Program {
    /// Returns when it listens.
    fn start(config: &Path, counts: &Path) -> anyhow::Result<(Self, SocketAddr)> {
        let child = Command::new("valgrind")
            .args(["-q", "--tool=callgrind", "--separate-threads=yes"])
            .arg(format!("--callgrind-out-file={}", counts.display()))
            .arg(std::env::var_os("HEADGATE").unwrap_or_else(|| env!("CARGO_BIN_EXE_headgate").into()))
            .args(["run", "--config"])
            .arg(config)
            .env("HEADGATE_LOG", "info")
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut program = Self(child);
        let mut lines = BufReader::new(program.0.stderr.take().context("stderr")?).lines();
        let mut said = String::new();
        for line in &mut lines {
            let line = line?;
            if let Some((_, address)) = line.split_once("listener http on ") {
                let address = address.parse()?;
                // It must not wait for someone to read.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok((program, address));
            }
            said = said + &line + "\n";
        }
        anyhow::bail!("headgate does not start under valgrind:\n{said}")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
