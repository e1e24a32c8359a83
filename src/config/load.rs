//! Reads a config with all files it names.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::base::address::Address;
use crate::config::check;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::document::{At, Context, Entry, ListFile, Value};
use crate::config::model::Config;

/// A config that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The config.
    pub config: Arc<Config>,
    /// What is risky about it.
    pub warnings: Vec<Diagnostic>,
    /// Every file read: config, includes, certificates, keys, CAs.
    pub files: Vec<SourceFile>,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// XXH3 of its content; 0 where it could not be read.
    pub hash: u64,
}

/// Why a config may not be used.
#[derive(Clone, Debug)]
pub struct Faults {
    /// All faults, and the warnings beside them.
    pub diagnostics: Vec<Diagnostic>,
    /// Every file read or missed, so that a watcher knows what to wait for.
    pub files: Vec<SourceFile>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.diagnostics.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Reads and checks the config at `path` with its includes, and reads the files it names.
///
/// # Errors
/// [`Faults`] with every fault found.
pub fn load(path: &Path) -> Result<Loaded, Faults> {
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut context = Context { directory, ..Context::default() };
    let mut files = Vec::new();
    let name = path.display().to_string();
    if let Err(message) = add_source(&mut context, &mut files, path) {
        let message = format!("cannot read the config: {message}");
        return Err(Faults { diagnostics: vec![Diagnostic::of_file("file", &name, message)], files });
    }
    let env = |name: &str| std::env::var(name).ok();
    let mut entries = context.parse(0, &env);
    for (path, at) in included(&context, &entries, &mut files) {
        match add_source(&mut context, &mut files, &path) {
            Ok(()) => {
                let more = context.parse(context.sources.len() - 1, &env);
                merge(&context, &mut entries, more);
            }
            Err(message) => {
                context.unreadable(at, "include", &path, &message);
            }
        }
    }
    read_lists(&mut context, &entries, &mut files, &env);
    let parsed = !context.found.borrow().iter().any(|found| found.code == "syntax");
    let config = if parsed { check::check(&context, &entries) } else { None };
    for reference in context.references.take() {
        if files.iter().any(|file| file.path == reference.file) {
            continue;
        }
        let content = read(&reference.file);
        if let Err(error) = &content {
            context.unreadable(reference.at, &reference.path, &reference.file, error);
        }
        files.push(SourceFile { path: reference.file, hash: content.map_or(0, |content| xxh3_64(&content)) });
    }
    let failed = context.has_faults();
    let diagnostics = context.found.into_inner();
    match config {
        Some(config) if !failed => Ok(Loaded { config: Arc::new(config), warnings: diagnostics, files }),
        _ => Err(Faults { diagnostics, files }),
    }
}

/// No config, certificate or key is larger: what is, was named by mistake (`/dev/zero` has no end).
const LARGEST_FILE: u64 = 16 << 20;

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut content)?;
    match content.len() as u64 > LARGEST_FILE {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16MiB")),
        false => Ok(content),
    }
}

impl Context {
    fn unreadable(&self, at: At, path: &str, file: &Path, error: &dyn fmt::Display) {
        let message = format!("cannot read `{}`: {error}", file.display());
        let help = "a relative path begins at the config's directory; headgate's own user must be able to read it";
        self.report(Severity::Error, "file", at, path, message, Some(help.to_owned()));
    }
}

fn add_source(context: &mut Context, files: &mut Vec<SourceFile>, path: &Path) -> Result<(), String> {
    let content = read(path);
    let hash = content.as_ref().map_or(0, |content| xxh3_64(content));
    files.push(SourceFile { path: path.to_owned(), hash });
    let text = String::from_utf8(content.map_err(|error| error.to_string())?).map_err(|_| "it is not UTF-8")?;
    context.sources.push((path.display().to_string(), text));
    Ok(())
}

/// Reads the files that pools have their endpoints in.
fn read_lists(
    context: &mut Context,
    entries: &[Entry],
    files: &mut Vec<SourceFile>,
    env: &dyn Fn(&str) -> Option<String>,
) {
    let pools = entries.iter().filter(|entry| entry.key == "pools").flat_map(below);
    let named: Vec<(PathBuf, At, String)> = pools
        .flat_map(|pool| below(pool).iter().map(move |key| (&pool.key, key)))
        .filter(|(_, key)| key.key == "endpoints_file")
        .filter_map(|(pool, key)| match &key.node.value {
            Value::Text(text) if !text.is_empty() => {
                Some((context.directory.join(text), key.node.at, format!("pools.{pool}.endpoints_file")))
            }
            _ => None,
        })
        .collect();
    let mut seen = HashSet::new();
    for (path, at, key) in named {
        if !seen.insert(path.clone()) {
            continue;
        }
        match add_source(context, files, &path) {
            Ok(()) => {
                let file = context.sources.len() - 1;
                let entries = context.parse(file, env);
                context.lists.push(ListFile { path, file, entries });
            }
            Err(message) => context.unreadable(at, &key, &path, &message),
        }
    }
}

fn below(entry: &Entry) -> &[Entry] {
    match &entry.node.value {
        Value::Table(entries) => entries,
        _ => &[],
    }
}

/// The files that `include` names, in lexical order per pattern, without dotfiles. The directories they were
/// looked for in become part of `files`, so that a new file is noticed.
fn included(context: &Context, entries: &[Entry], files: &mut Vec<SourceFile>) -> Vec<(PathBuf, At)> {
    let Some(entry) = entries.iter().find(|entry| entry.key == "include") else { return Vec::new() };
    let nodes = match &entry.node.value {
        Value::List(nodes) => nodes.iter().collect(),
        _ => vec![&entry.node],
    };
    let mut paths: Vec<(PathBuf, At)> = Vec::new();
    for node in nodes {
        let fault = |message: String| context.fault("value", node.at, "include", message);
        let Value::Text(pattern) = &node.value else { continue };
        let whole = context.directory.join(pattern);
        let (Some(parent), Some(last)) = (whole.parent(), whole.file_name().and_then(|name| name.to_str())) else {
            fault(format!("`{pattern}` names no file"));
            continue;
        };
        let Some((before, after)) = last.split_once('*') else {
            paths.push((whole, node.at));
            continue;
        };
        if parent.to_string_lossy().contains('*') || after.contains('*') {
            fault("one `*` is understood, in the last part of the path".to_owned());
            continue;
        }
        files.push(SourceFile { path: parent.to_owned(), hash: hash_of(parent) });
        let all = listing(parent);
        let names: Vec<&String> = all
            .iter()
            .filter(|name| {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            })
            .collect();
        // An empty directory is one that waits for files.
        if names.is_empty() && (!all.is_empty() || !parent.is_dir()) {
            let message = format!("`{pattern}` includes nothing: no file in `{}` fits", parent.display());
            let help = Some("a relative path begins at the config's directory; dotfiles are left out".to_owned());
            context.report(Severity::Warning, "risk", node.at, "include", message, help);
        }
        paths.extend(names.into_iter().map(|name| (parent.join(name), node.at)));
    }
    let mut unique: Vec<(PathBuf, At)> = Vec::new();
    for path in paths {
        if !unique.iter().any(|(other, _)| *other == path.0) {
            unique.push(path);
        }
    }
    unique
}

/// The names in a directory in lexical order, without dotfiles; none where it cannot be read.
fn listing(directory: &Path) -> Vec<String> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// Adds an included file's entries. Only named sections may stand in several files, each name in one.
fn merge(context: &Context, entries: &mut Vec<Entry>, more: Vec<Entry>) {
    for entry in more {
        let Some(present) = entries.iter_mut().find(|present| present.key == entry.key) else {
            if entry.key == "include" || entry.key == "config_version" {
                context.fault("value", entry.at, &entry.key, format!("`{}` stands in the main file only", entry.key));
                continue;
            }
            entries.push(entry);
            continue;
        };
        let named = ["keys", "listeners", "caches", "pools", "routes"].contains(&entry.key.as_str());
        let (Value::Table(there), true) = (&mut present.node.value, named) else {
            let first = context.origin(present.at);
            context.fault("duplicate", entry.at, &entry.key, format!("`{}` stands at {first} already", entry.key));
            continue;
        };
        let Value::Table(named) = entry.node.value else {
            context.fault("type", entry.node.at, &entry.key, format!("`{}` takes a table", entry.key));
            continue;
        };
        for section in named {
            let path = format!("{}.{}", entry.key, section.key);
            match there.iter().find(|other| other.key == section.key) {
                Some(other) => {
                    let message = format!("`{path}` stands at {} already", context.origin(other.at));
                    context.fault("duplicate", section.at, &path, message);
                }
                None => there.push(section),
            }
        }
    }
}

/// Where the config says that the admin API is, as far as it can be read: whoever asks what runs may have broken the
/// file a moment ago. None where it does not say.
///
/// # Errors
/// Where the file cannot be read at all.
pub fn admin_address(path: &Path) -> io::Result<Option<Address>> {
    let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut context = Context { directory, ..Context::default() };
    context.sources.push((path.display().to_string(), text.clone()));
    let env = |name: &str| std::env::var(name).ok();
    let main = context.parse_leniently(0, &env);
    let included = included(&context, &main, &mut Vec::new());
    for (path, _) in included {
        let text = std::fs::read(path).unwrap_or_default();
        context.sources.push((String::new(), String::from_utf8_lossy(&text).into_owned()));
    }
    let parsed = (0..context.sources.len()).map(|file| context.parse_leniently(file, &env));
    let found =
        parsed.filter_map(|entries| text_at(&entries, &["admin", "address"])).find_map(|text| text.parse().ok());
    Ok(found.or_else(|| admin_line(&text)))
}

/// The text at a path of keys.
fn text_at(entries: &[Entry], path: &[&str]) -> Option<String> {
    let (key, rest) = path.split_first()?;
    match &entries.iter().find(|entry| entry.key == *key)?.node.value {
        Value::Table(entries) => text_at(entries, rest),
        Value::Text(text) if rest.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// The `address` under `[admin]`, line by line, where the parser could make nothing of the text.
fn admin_line(text: &str) -> Option<Address> {
    let within = text.lines().map(str::trim).skip_while(|line| *line != "[admin]").skip(1);
    let line = within.take_while(|line| !line.starts_with('[')).find(|line| line.starts_with("address"))?;
    line.split('"').nth(1)?.parse().ok()
}

/// Whether every file has the content that it had when it was read.
pub fn unchanged(files: &[SourceFile]) -> bool {
    files.iter().all(|file| hash_of(&file.path) == file.hash)
}

/// Of a file its content, of a directory its names; 0 where neither can be read.
fn hash_of(path: &Path) -> u64 {
    if path.is_dir() {
        return xxh3_64(listing(path).join("/").as_bytes());
    }
    read(path).map_or(0, |content| xxh3_64(&content))
}

/// Checks a text alone: no includes, no other files. Relative paths stay as they are.
///
/// # Errors
/// Every fault found, and the warnings beside them.
pub fn parse_text(
    name: &str,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut context = Context::default();
    context.sources.push((name.to_owned(), text.to_owned()));
    let entries = context.parse(0, env);
    let parsed = !context.found.borrow().iter().any(|found| found.code == "syntax");
    let config = if parsed { check::check(&context, &entries) } else { None };
    let diagnostics = context.found.into_inner();
    let failed = diagnostics.iter().any(|found| found.severity == Severity::Error);
    config.filter(|_| !failed).map_or_else(|| Err(diagnostics.clone()), |config| Ok((config, diagnostics.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("h.toml");
        std::fs::write(&main, MAIN.replace("ca.pem", "/dev/zero")).unwrap();
        let faults = load(&main).unwrap_err();
        assert!(faults.to_string().contains("`/dev/zero`: it is larger than 16MiB"), "{faults}");
        assert!(load(Path::new("/dev/zero")).unwrap_err().to_string().contains("larger"));
    }

    /// The parser gives up on depth, not the stack.
    #[test]
    fn a_config_of_a_thousand_depths_is_refused() {
        for text in [
            format!("{} = 1", vec!["a"; 20_000].join(".")),
            format!("a = {}", "[".repeat(20_000)),
            format!("[{}]", vec!["a"; 20_000].join(".")),
        ] {
            assert!(parse_text("t.toml", &text, &|_| None).is_err());
        }
    }

    const MAIN: &str = "config_version = 1\ninclude = [\"conf.d/*.toml\"]\nlisteners.a.address = \"127.0.0.1:80\"\n\
        pools.p.endpoints = [\"127.0.0.1:1\"]\npools.p.tls.ca_file = \"ca.pem\"\n";

    #[test]
    fn includes_and_named_files_are_read_and_watched() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        write("h.toml", MAIN);
        write("conf.d/b.toml", "[routes.b]\npool = \"p\"\nmatch.path = \"/b\"\n");
        write("conf.d/a.toml", "[routes.a]\npool = \"p\"\n");
        write("conf.d/.x.toml", "nonsense");
        let faults = load(&dir.path().join("h.toml")).unwrap_err();
        assert!(faults.to_string().contains("ca.pem"), "{faults}");
        write("ca.pem", "1");
        let loaded = load(&dir.path().join("h.toml")).unwrap();
        let names: Vec<&str> = loaded.config.routes.iter().map(|route| &*route.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(loaded.files.len(), 5);
        assert!(unchanged(&loaded.files));
        write("ca.pem", "2");
        assert!(!unchanged(&loaded.files));
        write("conf.d/c.toml", "[routes.a]\npool = \"p\"\n");
        let faults = load(&dir.path().join("h.toml")).unwrap_err();
        assert!(faults.to_string().contains("`routes.a` stands at"), "{faults}");
    }

    #[test]
    fn what_an_include_does_not_find_is_told_at_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("h.toml");
        let head = MAIN.replace("pools.p.tls.ca_file = \"ca.pem\"\n", "routes.r.pool = \"p\"\n");
        std::fs::write(&main, &head).unwrap();
        let warned = |loaded: Loaded| loaded.warnings.iter().map(ToString::to_string).collect::<String>();
        let missing = warned(load(&main).unwrap());
        assert!(missing.contains("`conf.d/*.toml` includes nothing") && missing.contains("h.toml:2:12"), "{missing}");
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        assert_eq!(warned(load(&main).unwrap()), "", "an empty directory waits for files");
        std::fs::write(dir.path().join("conf.d/a.conf"), "").unwrap();
        assert!(warned(load(&main).unwrap()).contains("includes nothing"));

        std::fs::write(&main, head.replace("*.toml", "b.toml")).unwrap();
        let faults = load(&main).unwrap_err().to_string();
        for part in ["cannot read", "conf.d/b.toml", "h.toml:2:12", "help: a relative path begins at"] {
            assert!(faults.contains(part), "{part:?} is not in {faults}");
        }
    }

    #[test]
    fn a_file_of_endpoints_is_read_watched_and_its_faults_have_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("h.toml");
        let head =
            MAIN.replace("include = [\"conf.d/*.toml\"]\n", "").replace("pools.p.tls.ca_file = \"ca.pem\"\n", "");
        let head = head.replace("pools.p.endpoints = [\"127.0.0.1:1\"]", "pools.p.endpoints_file = \"app.toml\"");
        let text =
            format!("{head}pools.q.endpoints_file = \"app.toml\"\nroutes.p.pool = \"p\"\nroutes.q.pool = \"q\"\n");
        std::fs::write(&main, text + "routes.q.match.path = \"/q\"\n").unwrap();
        let missing = load(&main).unwrap_err();
        for part in ["cannot read", "app.toml", "h.toml:3:26", "help: a relative path begins at"] {
            assert!(missing.to_string().contains(part), "{part:?} is not in {missing}");
        }
        assert_eq!(missing.files.len(), 2, "it is waited for");

        let list = dir.path().join("app.toml");
        std::fs::write(&list, "endpoints = [\n  \"127.0.0.1:1\",\n  { address = \"app:2\", weight = 2 },\n]\n")
            .unwrap();
        let loaded = load(&main).unwrap();
        for pool in &loaded.config.pools {
            let told: Vec<String> = pool.endpoints.iter().map(|one| one.address.to_string()).collect();
            assert_eq!((told.join(" ").as_str(), pool.endpoints[1].weight.value()), ("127.0.0.1:1 app:2", 2));
            assert_eq!(pool.endpoints_file.as_ref(), Some(&list));
        }
        assert_eq!((loaded.files.len(), loaded.warnings), (2, vec![]));
        for (text, line, column, fragment) in [
            ("endpoints = [\n  \"127.0.0.1\",\n]", 2, 3, "needs a port"),
            ("endpoints = [\n  { address = \"a:1\", wieght = 2 },\n]", 2, 22, "did you mean `weight`?"),
            ("endpoints = []", 1, 13, "at least one endpoint"),
            ("endpoints = \"127.0.0.1:1\"", 1, 13, "takes a list, not text"),
            ("endpoints = [\"127.0.0.1:1\"]\nbalance = \"random\"", 2, 1, "known in a file of endpoints: endpoints"),
            ("endpoint = [\"127.0.0.1:1\"]", 1, 1, "unknown key `endpoint`"),
            ("", 1, 1, "has no `endpoints`"),
            ("endpoints = [", 1, 14, ""),
        ] {
            std::fs::write(&list, text).unwrap();
            let faults = load(&main).unwrap_err().to_string();
            let place = format!("{}:{line}:{column}", list.display());
            assert!(faults.contains(&place) && faults.contains(fragment), "{text}: {place} {fragment}\n{faults}");
        }
        assert!(!unchanged(&loaded.files));
    }

    #[test]
    fn the_admin_address_is_found_in_a_broken_config() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.toml");
        std::fs::write(dir.path().join("more.toml"), "admin.address = \"unix:/more.sock\"\n").unwrap();
        let own = "[admin]\naddress = \"unix:/a.sock\"\n";
        for (text, found) in [
            (format!("{own}[pools.p]\nnonsense = 1\n"), Some("unix:/a.sock")),
            (format!("{own}[pools.p\nendpoints = ["), Some("unix:/a.sock")),
            (format!("x = \"open\n[[[\n= 3\n{own}"), Some("unix:/a.sock")),
            (format!("a = [\n\"\"\"\n{own}"), Some("unix:/a.sock")),
            ("admin = { address = \"localhost:1\" }\nx = ".to_owned(), Some("127.0.0.1:1")),
            ("include = [\"m*.toml\"]\n]".to_owned(), Some("unix:/more.sock")),
            ("[listeners.a]\naddress = \"127.0.0.1:80\"\n".to_owned(), None),
            ("[admin]\n[listeners.a]\naddress = \"127.0.0.1:80\"\n".to_owned(), None),
        ] {
            std::fs::write(&path, &text).unwrap();
            let address = admin_address(&path).unwrap().map(|address| address.to_string());
            assert_eq!(address.as_deref(), found, "{text}");
        }
        assert!(admin_address(&dir.path().join("none.toml")).is_err());
    }
}
