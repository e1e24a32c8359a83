//! The main job, shown step by step: each says what was done and what was seen, and passes or fails.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::scene::{Running, Scene};
use crate::terminal::{Paint, say};

mod load;
mod steps;

/// A step that takes longer has failed.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// What the steps work on, and where they say what they see.
pub struct Tour<'a> {
    scene: &'a Scene,
    running: &'a Running,
    paint: Paint,
    /// Tells this tour's notes from those of an earlier one in the same data directory.
    run: String,
}

/// Takes the tour; true when every step passed.
pub async fn take(scene: &Scene, running: &Running) -> Result<bool> {
    let started = Instant::now();
    let run = format!("tour-{}-{}", std::process::id(), started_at());
    let tour = Tour { scene, running, paint: Paint::stdout(), run };
    let mut failed = 0_u32;
    macro_rules! step {
        ($number:literal, $title:literal, $step:path) => {
            if !tour.step($number, $title, $step(&tour)).await {
                failed += 1;
            }
        };
    }
    step!(1, "a read and a write over HTTPS go to servers of their own", steps::read_and_write);
    step!(2, "a static file is answered from the cache the second time", steps::cached_file);
    step!(3, "a read server is killed under load and no read fails", steps::kill_read_server);
    step!(4, "the active write server is killed and the backup takes over", steps::kill_write_server);
    step!(5, "an edited config is picked up live", steps::edit_config);
    step!(6, "a broken config is refused while traffic goes on", steps::break_config);
    step!(7, "explain tells where a request would go", steps::explain);
    step!(8, "why tells where traffic is after a kill, and what would bring it back", steps::why);

    let seconds = started.elapsed().as_secs_f64();
    match failed {
        0 => say(format_args!("{} the tour passed, 8 of 8 steps in {seconds:.1} s\n", tour.paint.good("✓"))),
        _ => say(format_args!("{} the tour failed: {failed} of 8 steps in {seconds:.1} s\n", tour.paint.bad("✗"))),
    }
    Ok(failed == 0)
}

impl Tour<'_> {
    async fn step(&self, number: u32, title: &str, step: impl Future<Output = Result<()>>) -> bool {
        say(format_args!("{}", self.paint.strong(&format!("{number}/8  {title}"))));
        let outcome = tokio::time::timeout(STEP_LIMIT, step).await;
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("not done within {STEP_LIMIT:?}")));
        match &outcome {
            Ok(()) => say(format_args!("  {}\n", self.paint.good("✓ passed"))),
            Err(error) => say(format_args!("  {} {error:#}\n", self.paint.bad("✗ failed:"))),
        }
        outcome.is_ok()
    }

    fn say(&self, line: impl AsRef<str>) {
        say(format_args!("  {}", line.as_ref()));
    }

    /// Shows what a program printed.
    fn quote(&self, text: &str) {
        for line in text.lines() {
            say(format_args!("  {} {line}", self.paint.faint("│")));
        }
    }
}

fn started_at() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs())
}
