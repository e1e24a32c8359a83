//! The parsed text as a tree in which every key and value knows its place, and a cursor over it that knows the
//! path of keys it came by and collects every fault. Which keys there are is the reference's to say.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::base::units::ByteSize;
use crate::config::diagnostic::{Diagnostic, Severity, locate, syntax};
use crate::config::reference;

/// A place in one of the files.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) file: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl At {
    fn new(file: usize, span: Range<usize>) -> Self {
        Self { file, start: span.start, end: span.end }
    }
}

/// A value with its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// A table's entry; `at` is the key's place.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: At,
    pub(super) node: Node,
}

#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Integer(Option<i64>),
    Boolean(bool),
    Fraction(f64),
    /// A date, which no key takes.
    Other(&'static str),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// What has its fault already and leads to no other.
    Unread,
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Fraction(_) => "a number with a fraction",
            Self::Other(kind) => kind,
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Unread => "what cannot be read",
        }
    }
}

/// A file that the config names, to be read by the loader.
pub(super) struct Reference {
    pub(super) file: PathBuf,
    pub(super) at: At,
    pub(super) path: String,
}

/// A file of endpoints that the loader has read.
pub(super) struct ListFile {
    pub(super) path: PathBuf,
    /// Its place among the texts.
    pub(super) file: usize,
    pub(super) entries: Vec<Entry>,
}

/// All texts, and what was found wrong with them.
#[derive(Default)]
pub(super) struct Context {
    /// Name and text.
    pub(super) sources: Vec<(String, String)>,
    /// What relative paths are relative to.
    pub(super) directory: PathBuf,
    pub(super) found: RefCell<Vec<Diagnostic>>,
    pub(super) references: RefCell<Vec<Reference>>,
    pub(super) lists: Vec<ListFile>,
}

impl Context {
    pub(super) fn report(
        &self,
        severity: Severity,
        code: &'static str,
        at: At,
        path: &str,
        message: String,
        help: Option<String>,
    ) {
        let Some((file, text)) = self.sources.get(at.file) else { return };
        let (line, column, excerpt) = locate(text, at.start, at.end);
        let file = file.clone();
        let path = path.to_owned();
        self.found.borrow_mut().push(Diagnostic { severity, code, file, line, column, path, message, help, excerpt });
    }

    pub(super) fn fault(&self, code: &'static str, at: At, path: &str, message: String) {
        self.report(Severity::Error, code, at, path, message, None);
    }

    pub(super) fn has_faults(&self) -> bool {
        self.found.borrow().iter().any(|found| found.severity == Severity::Error)
    }

    /// `file:line`.
    pub(super) fn origin(&self, at: At) -> String {
        self.sources
            .get(at.file)
            .map_or_else(String::new, |(name, text)| format!("{name}:{}", locate(text, at.start, at.end).0))
    }

    /// Parses the source at `file`; syntax faults are collected.
    pub(super) fn parse(&self, file: usize, env: &dyn Fn(&str) -> Option<String>) -> Vec<Entry> {
        let Some((_, text)) = self.sources.get(file) else { return Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let (message, help) = syntax(error.message(), text.get(span.clone()).unwrap_or_default());
            self.report(Severity::Error, "syntax", At::new(file, span), "", message, help);
        }
        // What recovery made up would only lead to faults that are none.
        if self.found.borrow().iter().any(|found| found.code == "syntax") {
            return Vec::new();
        }
        self.entries(file, table.get_ref(), "", env)
    }

    /// Likewise, and whatever can be made out of a text with syntax faults. Tells of no fault.
    pub(super) fn parse_leniently(&self, file: usize, env: &dyn Fn(&str) -> Option<String>) -> Vec<Entry> {
        let Some((_, text)) = self.sources.get(file) else { return Vec::new() };
        self.entries(file, DeTable::parse_recoverable(text).0.get_ref(), "", env)
    }

    fn entries(
        &self,
        file: usize,
        table: &DeTable<'_>,
        path: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Entry> {
        let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            let name = key.get_ref().to_string();
            let path = join(path, &name);
            Entry { at: At::new(file, key.span()), node: self.node(file, value, &path, env), key: name }
        };
        table.iter().map(entry).collect()
    }

    fn node(
        &self,
        file: usize,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Node {
        let at = At::new(file, value.span());
        let value = match value.get_ref() {
            DeValue::String(text) => expand(text, env).map_or_else(
                |message| {
                    self.fault("environment", at, path, message);
                    Value::Unread
                },
                Value::Text,
            ),
            DeValue::Integer(number) => {
                Value::Integer(i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok())
            }
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Float(number) => Value::Fraction(number.as_str().replace('_', "").parse().unwrap_or(f64::NAN)),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(list) => Value::List(list.iter().map(|value| self.node(file, value, path, env)).collect()),
            DeValue::Table(table) => Value::Table(self.entries(file, table, path, env)),
        };
        Node { at, value }
    }
}

/// Puts `${NAME}` and `${NAME:-default}` in; `$${` stands for `${`.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let (inside, after) = after.split_once('}').ok_or("`${` without `}`; write `$${` for the text itself")?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("`{name}` is no name of an environment variable"));
        }
        match env(name).filter(|value| default.is_none() || !value.is_empty()).or(default.map(str::to_owned)) {
            Some(value) => out.push_str(&value),
            None => {
                return Err(format!(
                    "the environment variable `{name}` is not set: set it, or give a default: `${{{name}:-default}}`"
                ));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The name among `names` that `word` was probably meant to be.
pub(super) fn near<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A cursor at a value.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub(super) context: &'a Context,
    pub(super) node: &'a Node,
    /// The key's place; the value's own in a list.
    pub(super) key_at: At,
    pub(super) path: String,
    /// The path in the reference: `*` for a name, `[]` for a list's entries.
    pub(super) place: String,
}

impl<'a> Item<'a> {
    pub(super) fn fault(&self, code: &'static str, message: impl Into<String>) {
        self.context.fault(code, self.node.at, &self.path, message.into());
    }

    pub(super) fn fault_help(&self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into());
        self.context.report(Severity::Error, code, self.node.at, &self.path, message.into(), help);
    }

    pub(super) fn key_fault(&self, code: &'static str, message: impl Into<String>) {
        self.context.fault(code, self.key_at, &self.path, message.into());
    }

    pub(super) fn key_fault_help(&self, code: &'static str, message: impl Into<String>, help: &str) {
        let help = Some(help.to_owned());
        self.context.report(Severity::Error, code, self.key_at, &self.path, message.into(), help);
    }

    pub(super) fn warn(&self, message: impl Into<String>, help: &str) {
        let help = Some(help.to_owned());
        self.context.report(Severity::Warning, "risk", self.key_at, &self.path, message.into(), help);
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        if !matches!(self.node.value, Value::Unread) {
            let message = format!("`{}` takes {what}, not {}", self.path, self.node.value.kind());
            let help = reference::example(&self.place).map(|example| format!("for example: {example}"));
            self.context.report(Severity::Error, "type", self.node.at, &self.path, message, help);
        }
        None
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => self.expected("text"),
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.node.value, Value::Text(_))
    }

    pub(super) fn bool(&self) -> Option<bool> {
        match self.node.value {
            Value::Boolean(value) => Some(value),
            _ => self.expected("true or false"),
        }
    }

    pub(super) fn number(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let Value::Integer(number) = self.node.value else { return self.expected("a number") };
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            self.fault("value", format!("`{}` goes from {} to {}", self.path, range.start(), range.end()));
        }
        number
    }

    /// A number such as 1.25, in hundredths.
    pub(super) fn hundredths(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = match self.node.value {
            Value::Integer(number) => number.map_or(f64::NAN, |number| number as f64),
            Value::Fraction(number) => number,
            _ => return self.expected("a number such as 1.25"),
        } * 100.0;
        let whole = number.round();
        let fine =
            (number - whole).abs() < 1e-6 && (f64::from(*range.start())..=f64::from(*range.end())).contains(&whole);
        if !fine {
            let (least, most) = (f64::from(*range.start()) / 100.0, f64::from(*range.end()) / 100.0);
            self.fault("value", format!("`{}` goes from {least} to {most}, in steps of 0.01", self.path));
        }
        fine.then_some(whole as u32)
    }

    pub(super) fn duration_or_zero(&self) -> Option<Duration> {
        let Value::Text(text) = &self.node.value else { return self.expected("a duration such as \"2s\"") };
        let parsed = humantime::parse_duration(text).ok();
        if parsed.is_none() {
            self.fault_help("value", format!("`{text}` is no duration"), "write `500ms`, `2s`, `1m` or `1h`");
        }
        // Beyond a year a deadline could leave the clock's range.
        let year = Duration::from_secs(366 * 24 * 3600);
        if parsed.is_some_and(|parsed| parsed > year) {
            self.fault("value", format!("`{text}` is longer than a year"));
        }
        parsed.filter(|parsed| *parsed <= year)
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        let duration = self.duration_or_zero()?;
        if duration < Duration::from_millis(1) {
            self.fault("value", format!("`{}` must be 1ms or longer", self.path));
            return None;
        }
        Some(duration)
    }

    pub(super) fn size(&self) -> Option<ByteSize> {
        let Value::Text(text) = &self.node.value else { return self.expected("a size such as \"16MiB\"") };
        let size = parse_size(text);
        if size.is_none() {
            self.fault_help("value", format!("`{text}` is no size"), "write `512B`, `64KiB`, `16MiB` or `1GiB`");
        }
        size
    }

    pub(super) fn parse<T: FromStr>(&self) -> Option<T>
    where
        T::Err: Display,
    {
        let text = self.text()?;
        text.parse().map_err(|error| self.fault("value", format!("`{text}`: {error}"))).ok()
    }

    /// One of `choices`.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let help = near(text, choices.iter().map(|(name, _)| *name)).map_or_else(
                || {
                    let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
                    format!("one of {}", names.join(", "))
                },
                |name| format!("did you mean `{name}`?"),
            );
            self.fault_help("value", format!("`{text}` is not understood here"), help);
        }
        found
    }

    /// A path of a file, relative to the config's directory.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() {
            self.fault("value", format!("`{}` is empty", self.path));
            return None;
        }
        Some(self.context.directory.join(text))
    }

    /// Such a path, which the loader reads.
    pub(super) fn file_to_read(&self) -> Option<PathBuf> {
        let file = self.file()?;
        let reference = Reference { file: file.clone(), at: self.node.at, path: self.path.clone() };
        self.context.references.borrow_mut().push(reference);
        Some(file)
    }

    /// What stands in the file of endpoints that this value names; none where it was not read.
    pub(super) fn list_file(&self, path: &Path) -> Option<Table<'a>> {
        let list = self.context.lists.iter().find(|list| list.path == path)?;
        // Its keys are the pool's.
        let place = self.place.rsplit_once('.').map_or_else(String::new, |(above, _)| above.to_owned());
        let at = At { file: list.file, start: 0, end: 0 };
        let (context, entries, path) = (self.context, &list.entries, self.path.clone());
        Some(Table { context, entries, path, place, at, reserved: RefCell::default() })
    }

    /// The items of a list; a single value counts as a list of one.
    pub(super) fn one_or_list(&self) -> Vec<Item<'a>> {
        match &self.node.value {
            Value::List(list) => {
                let place = format!("{}[]", self.place);
                let item = |node: &'a Node| Item { node, key_at: node.at, place: place.clone(), ..self.clone() };
                list.iter().map(item).collect()
            }
            _ => vec![self.clone()],
        }
    }

    pub(super) fn list(&self) -> Option<Vec<Item<'a>>> {
        match self.node.value {
            Value::List(_) => Some(self.one_or_list()),
            _ => self.expected("a list"),
        }
    }

    pub(super) fn table(&self) -> Option<Table<'a>> {
        match &self.node.value {
            Value::Table(entries) => {
                let (path, place) = (self.path.clone(), self.place.clone());
                Some(Table {
                    context: self.context,
                    entries,
                    path,
                    place,
                    at: self.key_at,
                    reserved: RefCell::default(),
                })
            }
            _ => self.expected("a table"),
        }
    }
}

fn parse_size(text: &str) -> Option<ByteSize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let unit: u64 = match unit.trim_start() {
        "B" => 1,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(ByteSize)
}

/// A cursor over a table, which reports the keys that do not belong there.
pub(super) struct Table<'a> {
    pub(super) context: &'a Context,
    pub(super) entries: &'a [Entry],
    pub(super) path: String,
    /// The path in the reference.
    place: String,
    pub(super) at: At,
    reserved: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    pub(super) fn root(context: &'a Context, entries: &'a [Entry]) -> Self {
        let (path, place) = (String::new(), String::new());
        Self { context, entries, path, place, at: At { file: 0, start: 0, end: 0 }, reserved: RefCell::default() }
    }

    fn item(&self, entry: &'a Entry, name: &str) -> Item<'a> {
        let (path, place) = (join(&self.path, &entry.key), join(&self.place, name));
        Item { context: self.context, node: &entry.node, key_at: entry.at, path, place }
    }

    /// The value at a key, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Item<'a>> {
        // `finish` would refuse it.
        debug_assert!(reference::below(&self.place).contains(&key), "`{}.{key}` is not in the reference", self.place);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.item(entry, key))
    }

    /// The value at a key that must be there.
    pub(super) fn need(&self, key: &'static str) -> Option<Item<'a>> {
        let item = self.get(key);
        if item.is_none() && !self.is_misspelt(key) {
            let message = format!("`{}` is missing", join(&self.path, key));
            let help = reference::example(&join(&self.place, key)).map(|example| format!("for example: {example}"));
            self.context.report(Severity::Error, "missing", self.at, &self.path, message, help);
        }
        item
    }

    /// Whether an unknown key, which `finish` reports, is probably this one.
    fn is_misspelt(&self, key: &'static str) -> bool {
        let known = reference::below(&self.place);
        let unknown = self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str()));
        unknown.into_iter().any(|entry| near(&entry.key, known.iter().copied()) == Some(key))
    }

    /// The table at a key, if it is there.
    pub(super) fn sub(&self, key: &'static str) -> Option<Table<'a>> {
        self.get(key)?.table()
    }

    /// Sets `target` where the key is there and right.
    pub(super) fn set<T>(&self, key: &'static str, target: &mut T, read: impl FnOnce(&Item<'a>) -> Option<T>) {
        if let Some(value) = self.get(key).and_then(|item| read(&item)) {
            *target = value;
        }
    }

    /// Keys that a later version will know.
    pub(super) fn reserve(&self, keys: &[&'static str]) {
        self.reserved.borrow_mut().extend(keys);
    }

    pub(super) fn fault(&self, code: &'static str, message: impl Into<String>) {
        self.context.fault(code, self.at, &self.path, message.into());
    }

    /// All entries, for tables whose keys are names.
    pub(super) fn items(&self) -> impl Iterator<Item = (&'a str, Item<'a>)> + '_ {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.item(entry, "*")))
    }

    /// Reports the keys that the reference does not know here.
    pub(super) fn finish(&self) {
        let known = reference::below(&self.place);
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let path = join(&self.path, &entry.key);
            if self.reserved.borrow().contains(&entry.key.as_str()) {
                self.context.fault("reserved", entry.at, &path, format!("`{path}` is not in this version"));
                continue;
            }
            let help = match near(&entry.key, known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let message = format!("unknown key `{path}`");
            self.context.report(Severity::Error, "unknown-key", entry.at, &path, message, Some(help));
        }
    }
}
