//! Watches the directories of every file that the config was read from.
//!
//! Directories and not files: editors and ConfigMaps replace files by renaming, which a watch of the file would miss.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::base::{clock, task};
use crate::config::load::SourceFile;
use crate::control::Command;

/// Quiet for so long means that whoever writes is done.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// A writer who never rests is looked at anyway.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(2);
/// Some file systems tell nothing.
const POLL: Duration = Duration::from_secs(30);

/// The watch of all files of the config.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    dirs: BTreeSet<PathBuf>,
    files: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Watch {
    /// Begins to watch; [`Command::FilesChanged`] comes whenever a look is worth it.
    pub(super) fn start(commands: mpsc::UnboundedSender<Command>) -> Self {
        let files: Arc<Mutex<BTreeSet<PathBuf>>> = Arc::default();
        let (events, mut changed) = mpsc::unbounded_channel();
        let interest = files.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let matters = match event {
                Ok(event) => match event.kind {
                    EventKind::Access(_) => false,
                    // Somebody else's log in the same directory may grow all day.
                    EventKind::Modify(ModifyKind::Data(_)) => {
                        let files = interest.lock().unwrap_or_else(PoisonError::into_inner);
                        event.paths.iter().any(|path| files.contains(path))
                    }
                    _ => true,
                },
                Err(_) => true,
            };
            if matters {
                // Closed only when the process ends.
                _ = events.send(());
            }
        });
        let watcher = watcher.map_err(|error| {
            tracing::warn!(%error, "files cannot be watched; they are looked at every {} s", POLL.as_secs());
        });
        task::spawn_local(async move {
            loop {
                // Without a watcher the channel is closed at once: then only the poll is left.
                match tokio::time::timeout(POLL, changed.recv()).await {
                    Ok(Some(())) => settle(&mut changed).await,
                    Ok(None) => tokio::time::sleep(POLL).await,
                    Err(_) => {}
                }
                if commands.send(Command::FilesChanged).is_err() {
                    return;
                }
            }
        });
        Self { watcher: watcher.ok(), dirs: BTreeSet::new(), files }
    }

    /// Watches the directories of these files, and of what they point to, and no others.
    pub(super) fn follow(&mut self, config: &Path, sources: &[SourceFile]) {
        let mut files = BTreeSet::new();
        for file in sources.iter().map(|source| source.path.as_path()).chain([config]) {
            add_hops(file, &mut files);
        }
        let dirs: BTreeSet<PathBuf> = files.iter().filter_map(|file| parent(file)).collect();
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
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

async fn settle(changed: &mut mpsc::UnboundedReceiver<()>) {
    let began = clock::now();
    while clock::now() - began < LONGEST_DEBOUNCE {
        match tokio::time::timeout(DEBOUNCE, changed.recv()).await {
            Ok(Some(())) => {}
            Ok(None) | Err(_) => return,
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
