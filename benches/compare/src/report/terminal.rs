//! The table on the terminal.

use super::{Report, RowReport, decimals, number};

/// The table, and below it what is to be said of single rows.
pub fn table(report: &Report) -> String {
    let mut lines =
        vec![cells(["row", "proxy", "figure", "±", "requests/s", "p50 µs", "p99 µs", "p99.9", "busy", "load"])];
    for row in &report.rows {
        lines.push(headline(row));
        for proxy in &row.proxies {
            let [rate, p50, p99, p999] = proxy.rate_and_latencies();
            let [busy, load] = proxy.busy();
            let figure = number(Some(proxy.figure.median), decimals(row.unit));
            let spread = format!("{:.1} %", proxy.figure.spread_percent());
            lines.push(cells(["", proxy.name, &figure, &spread, &rate, &p50, &p99, &p999, &busy, &load]));
        }
    }
    lines.extend(notes(report));
    lines.join("\n")
}

/// What a row came to.
fn headline(row: &RowReport) -> String {
    let gate = row.gate.map(|gate| format!(", gate {gate}")).unwrap_or_default();
    let ratio = row.ratio.map(|ratio| format!("{ratio:.3} × the better peer, ")).unwrap_or_default();
    let relay = row.relay_ratio.map(|ratio| format!("{ratio:.3} × the relay, ")).unwrap_or_default();
    let ceiling = row.ceiling.map(|rate| format!("; load alone {}/s", number(Some(rate), 0))).unwrap_or_default();
    let id = row.id;
    format!("{id} ({}): {ratio}{relay}goal {}{gate}: {}{ceiling}", row.unit.label(), row.goal, row.verdict.label())
}

/// A line for each row that fails, and one on what "load-bound" means.
fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if report.rows.iter().flat_map(|row| &row.proxies).any(super::ProxyReport::is_load_bound) {
        notes.push(
            "load-bound: the load's core was full and the proxy's was not, so rate and latency say nothing of the \
             proxy; its CPU time does."
                .to_owned(),
        );
    }
    for row in &report.rows {
        match (&row.refused, row.ratio) {
            (Some(reason), _) => notes.push(format!("{}: REFUSED: {reason}", row.id)),
            (None, Some(ratio)) if row.verdict.fails() => {
                notes.push(format!("{}: ABOVE THE GATE: {ratio:.3}, at most {}", row.id, row.gate.unwrap_or_default()));
            }
            _ => {}
        }
    }
    notes
}

fn cells(texts: [&str; 10]) -> String {
    const WIDTHS: [usize; 10] = [0, 9, 9, 7, 11, 11, 11, 11, 6, 6];
    let padded = texts.iter().zip(WIDTHS).enumerate().map(|(index, (text, width))| {
        let blank = " ".repeat(width.saturating_sub(text.chars().count()));
        if index < 2 { format!("{text}{blank}") } else { format!("{blank}{text}") }
    });
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_line_and_every_failure_its_reason() {
        let text = table(&super::super::tests::sample());
        assert!(
            text.contains(
                "h1 (CPU µs/request): 0.917 × the better peer, goal ≤ 0.95, gate 1.05: goal reached; load alone 100,000/s"
            ),
            "{text}"
        );
        assert!(text.contains("headgate       11.00"), "{text}");
        assert!(text.contains("load-bound: "), "{text}");
        assert!(text.ends_with("h2: REFUSED: nginx: 3 read errors"), "{text}");
    }
}
