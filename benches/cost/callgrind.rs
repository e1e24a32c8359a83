//! Reads what callgrind has written of one thread.

/// The thread's number and the instructions it executed; none for a file without both.
pub(crate) fn executed(text: &str) -> Option<(u32, u64)> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    // In a file with one dump its summary is the thread's total.
    Some((value("thread")?.parse().ok()?, value("summary").or_else(|| value("totals"))?.parse().ok()?))
}
