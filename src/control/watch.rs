//! Watches every file that the config was read from.
//!
//! By their directories: editors and ConfigMaps replace files by renaming, which a watch of the file would miss. What is
//! written is heard of the files alone: somebody's log in the same directory may grow by 100,000 lines a second.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, EventKindMask, ModifyKind};
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

/// What is heard of a directory: names that come, go or change, and files that have been written.
const NAMES: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_NAME)
    .union(EventKindMask::MODIFY_META)
    .union(EventKindMask::ACCESS_CLOSE);
/// What is heard of a file: somebody writes it, and has written it.
const WRITES: EventKindMask = EventKindMask::MODIFY_DATA.union(EventKindMask::ACCESS_CLOSE);

/// The watch of all files of the config.
pub(super) struct Watch {
    dirs: Watched,
    files: Watched,
    interest: Shared,
}

/// What one watcher watches.
struct Watched {
    watcher: Option<RecommendedWatcher>,
    paths: BTreeMap<PathBuf, Identity>,
}

/// What a name stands for: device and inode. None where it stands for nothing.
type Identity = Option<(u64, u64)>;

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
        if event.need_rescan() {
            // Events were lost, and perhaps that of a file that was closed.
            self.written.clear();
            return true;
        }
        let ours: Vec<_> = event.paths.iter().filter(|path| self.concerns(path)).cloned().collect();
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.written.retain(|path, _| !ours.contains(path));
                !ours.is_empty()
            }
            EventKind::Access(_) => false,
            EventKind::Modify(ModifyKind::Data(_)) => {
                self.note_written(&ours, now);
                !ours.is_empty()
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => !ours.is_empty(),
            _ => {
                // Created, moved, removed: the name may stand for another file now, a directory's for other files.
                self.written.retain(|path, _| !event.paths.contains(path));
                if event.kind == EventKind::Create(CreateKind::File) {
                    let begun: Vec<_> = ours.into_iter().filter(|path| may_be_begun(path)).collect();
                    self.note_written(&begun, now);
                }
                true
            }
        }
    }

    /// Whether the config was read from it, or from its directory as a whole.
    fn concerns(&self, path: &Path) -> bool {
        self.files.contains(path) || path.parent().is_some_and(|dir| self.files.contains(dir))
    }

    fn note_written(&mut self, files: &[PathBuf], now: Instant) {
        for file in files {
            self.written.entry(file.clone()).or_insert(now);
        }
    }

    /// Takes other files as those that matter.
    fn turn_to(&mut self, files: BTreeSet<PathBuf>) {
        self.files = files;
        let mut written = std::mem::take(&mut self.written);
        written.retain(|path, _| self.concerns(path));
        self.written = written;
    }

    /// Whether a file is half written.
    fn is_written(&self, now: Instant) -> bool {
        self.written.values().any(|since| now.saturating_duration_since(*since) < LONGEST_WRITE)
    }
}

fn identity(path: &Path) -> Identity {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether a name that has just come may be that of a file which somebody has begun to write: a link is there as a whole,
/// and what an editor hides is none of ours.
fn may_be_begun(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}

fn lock(interest: &Shared) -> std::sync::MutexGuard<'_, Interest> {
    interest.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    fn start(mask: EventKindMask, handler: impl notify::EventHandler) -> Self {
        let watcher = RecommendedWatcher::new(handler, notify::Config::default().with_event_kinds(mask));
        let watcher = watcher.map_err(|error| {
            tracing::warn!(%error, "files cannot be watched; they are looked at every {} s", POLL.as_secs());
        });
        Self { watcher: watcher.ok(), paths: BTreeMap::new() }
    }

    /// Watches these and no others.
    fn follow(&mut self, paths: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let paths: BTreeMap<_, _> = paths.into_iter().map(|path| (path.clone(), identity(&path))).collect();
        for (path, was) in &self.paths {
            // notify stays with what had the name when it was asked to watch.
            if paths.get(path) != Some(was) {
                // What was removed is no longer watched anyway.
                drop(watcher.unwatch(path));
            }
        }
        self.paths.clear();
        for (path, is) in paths {
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.paths.insert(path, is)),
                Err(error) => tracing::debug!(%error, path = %path.display(), "cannot be watched"),
            }
        }
    }
}

impl Watch {
    /// Begins to watch; [`Command::FilesChanged`] comes whenever a look is worth it.
    pub(super) fn start(commands: mpsc::UnboundedSender<Command>) -> Self {
        let interest = Shared::default();
        let (events, mut changed) = mpsc::unbounded_channel();
        // What was written between the first load and the watch has made no event.
        _ = events.send(());
        let heard = interest.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            // What could not be told may have been anything.
            if event.map_or(true, |event| lock(&heard).hear(&event, clock::now())) {
                // Closed only when the process ends.
                _ = events.send(());
            }
        };
        let (dirs, files) = (Watched::start(NAMES, handler.clone()), Watched::start(WRITES, handler));
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
        Self { dirs, files, interest }
    }

    /// Watches the directories of these files, and of what they point to, and no others.
    pub(super) fn follow(&mut self, config: &Path, sources: &[SourceFile]) {
        let mut files = BTreeSet::new();
        for file in sources.iter().map(|source| source.path.as_path()).chain([config]) {
            add_hops(file, &mut files);
        }
        // A directory that files are included from is watched itself: what matters is what is in it.
        let itself = files.iter().filter(|file| file.is_dir()).cloned();
        let dirs = files.iter().filter_map(|file| parent(file)).chain(itself).collect();
        // By one name each, whatever links lead to it.
        let written = files.iter().filter_map(|file| std::fs::canonicalize(file).ok()).filter(|file| file.is_file());
        let written = written.collect();
        lock(&self.interest).turn_to(files);
        self.dirs.follow(dirs);
        self.files.follow(written);
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
        let waited = now - began;
        let is_written = lock(interest).is_written(now) && waited < LONGEST_WRITE;
        if !is_written && (is_quiet || waited >= LONGEST_DEBOUNCE) {
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
    use std::io::Write;

    use notify::event::{DataChange, Flag, RenameMode};

    use super::*;

    fn event(kind: EventKind, path: &str) -> notify::Event {
        notify::Event::new(kind).add_path(PathBuf::from(path))
    }

    #[test]
    fn a_file_is_half_written_from_its_first_byte_until_it_is_closed() {
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let create = EventKind::Create(CreateKind::File);
        let files = ["/a/h.toml", "/a/conf.d"].map(PathBuf::from).into();
        let mut interest = Interest { files, ..Interest::default() };
        let now = clock::now();
        assert!(!interest.hear(&event(data, "/a/other.log"), now) && !interest.is_written(now));
        assert!(!interest.hear(&event(close, "/a/other.log"), now));
        assert!(interest.hear(&event(data, "/a/h.toml"), now) && interest.is_written(now));
        assert!(interest.is_written(now + LONGEST_WRITE / 2) && !interest.is_written(now + LONGEST_WRITE));
        assert!(interest.hear(&event(close, "/a/h.toml"), now) && !interest.is_written(now));
        assert!(interest.hear(&event(close, "/a/h.toml"), now), "nobody may have heard that it was written");
        interest.hear(&event(data, "/a/h.toml"), now);
        let moved = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        assert!(interest.hear(&event(moved, "/a/h.toml"), now));
        assert!(!interest.is_written(now), "another file has taken its name");
        let folder = tempfile::tempdir().unwrap();
        interest.files.insert(folder.path().to_owned());
        let new = |name: &str| folder.path().join(name).display().to_string();
        for (name, begun) in [("new.toml", true), (".new.toml.swp", false), ("not-there-any-more", false)] {
            if name != "not-there-any-more" {
                std::fs::write(new(name), "").unwrap();
            }
            assert!(interest.hear(&event(create, &new(name)), now));
            assert_eq!(interest.is_written(now), begun, "{name}");
            assert!(interest.hear(&event(close, &new(name)), now) && !interest.is_written(now));
        }
        std::fs::hard_link(new("new.toml"), new("link.toml")).unwrap();
        assert!(interest.hear(&event(create, &new("link.toml")), now) && !interest.is_written(now));
        interest.hear(&event(data, "/a/h.toml"), now);
        let lost = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(interest.hear(&lost, now) && !interest.is_written(now), "nobody knows whether it was closed");
    }

    #[test]
    fn a_log_that_grows_beside_the_config_wakes_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = std::fs::File::create(folder.path().join("some.log")).unwrap();
        let (events, heard) = std::sync::mpsc::channel();
        let mut dirs = Watched::start(NAMES, events);
        dirs.follow([folder.path().to_owned()].into());
        for _ in 0..1000 {
            log.write_all(b"a line\n").unwrap();
        }
        let last = folder.path().join("last");
        std::fs::File::create(&last).unwrap();
        let event = heard.recv().unwrap().unwrap();
        assert_eq!(event.paths, [last], "the lines have caused none before it");
    }
}
