//! Watches the directories of every file that the config was read from.
//!
//! Directories and not files: editors and ConfigMaps replace files by renaming, which a watch of the file would miss.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::base::{clock, task};
use crate::config::load::SourceFile;
use crate::control::Command;

/// Quiet for so long means that whoever writes is done.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// A writer who never rests is looked at anyway.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(2);
/// A file that was begun and not closed is half a file; whoever leaves it so for longer meant to.
const LONGEST_WRITE: Duration = Duration::from_secs(10);
/// Some file systems tell nothing.
const POLL: Duration = Duration::from_secs(30);

/// The watch of all files of the config.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    dirs: BTreeSet<PathBuf>,
    interest: Shared,
}

type Shared = Arc<Mutex<Interest>>;

/// The files that matter, and those among them that somebody is writing.
#[derive(Default)]
struct Interest {
    files: BTreeSet<PathBuf>,
    /// Since when.
    written: BTreeMap<PathBuf, Instant>,
}

impl Interest {
    /// Takes an event in; tells whether a look is worth it.
    fn hear(&mut self, event: &notify::Event, now: Instant) -> bool {
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                event.paths.iter().filter(|path| self.written.remove(*path).is_some()).count() > 0
            }
            EventKind::Access(_) => false,
            EventKind::Modify(ModifyKind::Data(_)) => {
                // Somebody else's log in the same directory may grow all day.
                let ours: Vec<_> = event.paths.iter().filter(|path| self.files.contains(*path)).collect();
                for path in &ours {
                    self.written.entry((*path).clone()).or_insert(now);
                }
                !ours.is_empty()
            }
            _ => {
                // Created, moved, removed: the name may stand for another file now.
                for path in &event.paths {
                    self.written.remove(path);
                }
                true
            }
        }
    }

    /// Whether a file is half written.
    fn is_written(&self, now: Instant) -> bool {
        self.written.values().any(|since| now.saturating_duration_since(*since) < LONGEST_WRITE)
    }
}

fn lock(interest: &Shared) -> std::sync::MutexGuard<'_, Interest> {
    interest.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Begins to watch; [`Command::FilesChanged`] comes whenever a look is worth it.
    pub(super) fn start(commands: mpsc::UnboundedSender<Command>) -> Self {
        let interest = Shared::default();
        let (events, mut changed) = mpsc::unbounded_channel();
        // What was written between the first load and the watch has made no event.
        _ = events.send(());
        let heard = interest.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // What could not be told may have been anything.
            if event.map_or(true, |event| lock(&heard).hear(&event, clock::now())) {
                // Closed only when the process ends.
                _ = events.send(());
            }
        });
        let watcher = watcher.map_err(|error| {
            tracing::warn!(%error, "files cannot be watched; they are looked at every {} s", POLL.as_secs());
        });
        let written = interest.clone();
        task::spawn_local(async move {
            loop {
                // Without a watcher the channel is closed at once: then only the poll is left.
                match tokio::time::timeout(POLL, changed.recv()).await {
                    Ok(Some(())) => settle(&mut changed, &written).await,
                    Ok(None) => tokio::time::sleep(POLL).await,
                    Err(_) => {}
                }
                if commands.send(Command::FilesChanged).is_err() {
                    return;
                }
            }
        });
        Self { watcher: watcher.ok(), dirs: BTreeSet::new(), interest }
    }

    /// Watches the directories of these files, and of what they point to, and no others.
    pub(super) fn follow(&mut self, config: &Path, sources: &[SourceFile]) {
        let mut files = BTreeSet::new();
        for file in sources.iter().map(|source| source.path.as_path()).chain([config]) {
            add_hops(file, &mut files);
        }
        // A directory that files are included from is watched itself: what matters is what is in it.
        let itself = files.iter().filter(|file| file.is_dir()).cloned();
        let dirs: BTreeSet<PathBuf> = files.iter().filter_map(|file| parent(file)).chain(itself).collect();
        {
            let mut interest = lock(&self.interest);
            interest.written.retain(|path, _| files.contains(path));
            interest.files = files;
        }
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.dirs.difference(&dirs) {
            // A directory that was removed is no longer watched anyway.
            drop(watcher.unwatch(gone));
        }
        let mut watched = BTreeSet::new();
        for dir in dirs {
            // Watched anew each time: the directory of that name may be another one by now.
            match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(dir)),
                Err(error) => tracing::debug!(%error, dir = %dir.display(), "cannot be watched"),
            }
        }
        self.dirs = watched;
    }
}

/// Waits until nothing happens any more and no file is half written, within bounds.
async fn settle(changed: &mut mpsc::UnboundedReceiver<()>, interest: &Shared) {
    let began = clock::now();
    loop {
        let is_quiet = match tokio::time::timeout(DEBOUNCE, changed.recv()).await {
            Ok(Some(())) => false,
            Ok(None) => return,
            Err(_) => true,
        };
        let now = clock::now();
        // The bound is in `is_written` itself.
        if !lock(interest).is_written(now) && (is_quiet || now - began >= LONGEST_DEBOUNCE) {
            return;
        }
    }
}

/// The file, and every file that it is a symlink to, each by its absolute name.
fn add_hops(file: &Path, hops: &mut BTreeSet<PathBuf>) {
    let mut at = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    // As many as Linux follows.
    for _ in 0..40 {
        hops.insert(at.clone());
        let Ok(target) = std::fs::read_link(&at) else { break };
        at = parent(&at).unwrap_or_default().join(target);
    }
    if let Ok(real) = std::fs::canonicalize(file) {
        hops.insert(real);
    }
}

fn parent(file: &Path) -> Option<PathBuf> {
    file.parent().map(|dir| if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_owned() })
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange};

    use super::*;

    fn event(kind: EventKind, path: &str) -> notify::Event {
        notify::Event::new(kind).add_path(PathBuf::from(path))
    }

    #[test]
    fn a_file_is_half_written_from_its_first_byte_until_it_is_closed() {
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let mut interest = Interest { files: BTreeSet::from([PathBuf::from("/a/h.toml")]), ..Interest::default() };
        let now = clock::now();
        assert!(!interest.hear(&event(data, "/a/other.log"), now) && !interest.is_written(now));
        assert!(!interest.hear(&event(close, "/a/other.log"), now));
        assert!(interest.hear(&event(data, "/a/h.toml"), now) && interest.is_written(now));
        assert!(interest.is_written(now + LONGEST_WRITE / 2) && !interest.is_written(now + LONGEST_WRITE));
        assert!(interest.hear(&event(close, "/a/h.toml"), now) && !interest.is_written(now));
        interest.hear(&event(data, "/a/h.toml"), now);
        assert!(interest.hear(&event(EventKind::Create(CreateKind::File), "/a/h.toml"), now));
        assert!(!interest.is_written(now), "another file has taken its name");
    }
}
