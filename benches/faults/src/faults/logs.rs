//! Logs that cannot be written: F35, F36.

use std::fs::File;
use std::io::{PipeReader, Read, pipe};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};

use crate::lab::headgate::Launch;
use crate::lab::namespace::small_disk;
use crate::lab::{Control, Lab, POOL, eventually, origins, pass, simple};
use crate::load::Load;

/// The disk of F35.
const DISK: u64 = 1 << 20;
const DROPPED: &str = "headgate_access_log_dropped_total";

/// F35: the disk is full.
pub fn disk_full(lab: &mut Lab) -> Result<()> {
    let disk = lab.folder.join("disk");
    std::fs::create_dir_all(&disk)?;
    if let Err(error) = small_disk(&disk, DISK) {
        lab.findings.skip("all of it", format!("{error:#}"));
        return Ok(());
    }
    let [a, b] = origins(["a", "b"])?;
    let config = format!("[access_log]\noutput = \"{}/access.log\"\n{}", disk.display(), simple(&[&a, &b], POOL));
    let headgate = lab.headgate(&config)?;
    let load = Load { rate: 400, path: format!("/{}", "long".repeat(200)), ..Load::new(headgate.address) };
    let control = Control::start()?;
    let start = Instant::now();
    let running = load.start_both()?;
    pass(1000);
    let roomy = Instant::now();
    let dropped = || headgate.metrics().map_or(0.0, |metrics| metrics.sum(DROPPED, &[]));
    ensure!(eventually(Duration::from_secs(20), || dropped() > 0.0).is_some(), "the disk does not fill");
    let full = Instant::now();
    lab.pass(1.0);
    let full_until = Instant::now();
    let lines = dropped();
    // As logrotate does with copytruncate: the file is appended to, so there is room again.
    File::options().write(true).open(disk.join("access.log"))?.set_len(0)?;
    let log = || std::fs::metadata(disk.join("access.log")).map_or(0, |meta| meta.len());
    let resumed = eventually(Duration::from_secs(15), || log() > 0);
    let all = running.finish()?;
    lab.none_failed(&all);
    lab.findings.at_least("dropped lines counted", lines as usize, 1);
    lab.p99_beside(&all, &control.finish()?, (start, roomy), (full, full_until), 1.2);
    lab.findings.within("written again after there is room", resumed, Duration::from_secs(5));
    let complaints = headgate.log().matches("cannot be written").count();
    lab.findings.at_most("complaints in the other log", complaints, 3);
    lab.findings.note(format!("400 requests/s in each protocol, long lines; {lines:.0} lines dropped"));
    Ok(())
}

/// F36: nobody reads.
pub fn pipe_blocked(lab: &mut Lab) -> Result<()> {
    let [a, mut b] = origins(["a", "b"])?;
    let config = format!("[access_log]\noutput = \"stdout\"\n{}", simple(&[&a, &b], POOL));
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    // A page: some lines fill it.
    fcntl(&err, FcntlArg::F_SETPIPE_SZ(4096))?;
    let launch = Launch { stdout: Some(out_end.into()), stderr: Some(err_end.into()), ..Launch::default() };
    let headgate = lab.headgate_with(&config, launch)?;
    let load = Load { rate: 300, path: format!("/{}", "long".repeat(1800)), ..Load::new(headgate.address) };
    // Read for a while, and then no more, as a collector that is stopped.
    let (stop, readers) = read_until_told([out, err]);
    let control = Control::start()?;
    let start = Instant::now();
    let running = load.start_both()?;
    pass(3000);
    let read_until = Instant::now();
    let before = headgate.account()?;
    drop(stop);
    let pipes: Vec<_> = readers.join().ok().context("a reader has panicked")?;
    let blocked = Instant::now();
    let dropped = || headgate.metrics().map_or(0.0, |metrics| metrics.sum(DROPPED, &[]));
    ensure!(eventually(Duration::from_secs(60), || dropped() > 0.0).is_some(), "the queue does not fill");
    let full = headgate.account()?;
    // stderr is filled by what is worth a line: configs that are refused.
    let filler = "x = 1\n".to_owned() + &"#".repeat(2000);
    for _ in 0..if lab.quick { 60 } else { 200 } {
        headgate.write(&format!("{config}{filler}"))?;
        headgate.signal(nix::sys::signal::Signal::SIGHUP)?;
        pass(20);
    }
    lab.pass(0.3);
    let died = b.kill();
    lab.pass(0.3);
    let blocked_until = Instant::now();
    // The metrics' door belongs to the control plane, which may hang on stderr.
    let told = headgate.metrics().map(|metrics| metrics.sum(DROPPED, &[]));
    let reading = drain(pipes);
    let all = running.finish()?;
    for seen in &all {
        let meanwhile = seen.between(blocked, died);
        lab.findings
            .none(format!("{} failed of {} while blocked", seen.protocol, meanwhile.samples.len()), meanwhile.failed());
        let late = seen.between(died, blocked_until);
        let failed = late.failed();
        lab.findings.at_most(format!("{} failed, a server killed meanwhile (in flight)", seen.protocol), failed, 1);
    }
    lab.p99_beside(&all, &control.finish()?, (start, read_until), (blocked, died), 1.2);
    let grown = full.resident.saturating_sub(before.resident) / 1_000_000;
    lab.findings.hard("memory of queued lines", "<= 16 MB", format!("{grown} MB"), grown <= 16);
    let answers = told.is_ok();
    lab.findings.hard("metrics answer while blocked", "yes", if answers { "yes" } else { "no" }, answers);
    let lines = told.unwrap_or_else(|_| headgate.metrics().map_or(0.0, |metrics| metrics.sum(DROPPED, &[])));
    lab.findings.at_least("dropped lines counted", lines as usize, 1);
    lab.findings.note("300 requests/s in each protocol, lines of 7.5 kB");
    lab.note_failures(&all);
    drop(reading);
    Ok(())
}

type Pipes = Vec<PipeReader>;

/// Reads pipes until the sender is dropped, and gives them back.
fn read_until_told(pipes: [PipeReader; 2]) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<Pipes>) {
    let (stop, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Arc::new(std::sync::Mutex::new(told));
    let one = |mut pipe: PipeReader| {
        let told = told.clone();
        std::thread::spawn(move || {
            let mut bytes = vec![0; 65536];
            let goes_on = || crate::load::locked(&told).try_recv() == Err(std::sync::mpsc::TryRecvError::Empty);
            while goes_on() && pipe.read(&mut bytes).is_ok_and(|count| count > 0) {}
            pipe
        })
    };
    let [out, err] = pipes;
    // stderr has long had its first lines, and none may come for a while: it is not waited for.
    let out = one(out);
    let joined = std::thread::spawn(move || {
        let out = out.join();
        out.into_iter().chain([err]).collect()
    });
    (stop, joined)
}

/// Reads what is left, so that headgate can end.
fn drain(pipes: Pipes) -> Vec<std::thread::JoinHandle<()>> {
    let read = |mut pipe: PipeReader| {
        std::thread::spawn(move || {
            let mut bytes = vec![0; 65536];
            while pipe.read(&mut bytes).is_ok_and(|count| count > 0) {}
        })
    };
    pipes.into_iter().map(read).collect()
}
