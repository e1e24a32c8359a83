//! The page: `RESULTS.md`.

use std::fmt::Write;

use super::{Report, RowReport, decimals, number};
use crate::rows::Unit;

const METHOD: &str = "\
Each proxy has one worker on core 0, fed by a load generator that shares core 1 with the origin; traffic stays on \
loopback. Rounds interleave (headgate, nginx, HAProxy, headgate, …), because a machine's speed drifts: only figures of \
the same run are to be compared. The figure is the time that the proxy's processes ran on a core, as the kernel counts \
it in `/proc`, divided by the requests that were answered; it holds whoever is the limit. Requests/s and latency say \
something of a proxy only while the load was not the limit; where it was, the table says load-bound. *±* is half the \
distance between the lowest and the highest round. *Busy* is the share of its core that the proxy used, *load* the \
same of load and origin. *Load alone* is what the generator does against the origin, for TLS against a stand-in \
that ends TLS and answers at once. The ratio is taken within each round, to the better of nginx and HAProxy, \
and the median of these is told: the machine's drift would decide between two medians. Where it lies within a tenth of \
the gate, four more rounds follow. Before a row is measured each proxy has to answer one request of its kind rightly; a row with any error is refused.

headgate, where its version tells so, is the build of `make release`, guided by a profile of requests of the same kinds \
(`src/train.rs`); nginx and HAProxy are the distribution's builds. headgate writes a JSON access log to a file, serves metrics, checks its endpoints, \
sets the forwarding headers and splits reads from writes. nginx and HAProxy do the same, but for HAProxy's log (it has \
none that is buffered to a file) and metrics of theirs; their config files are in `peers/`. Reading a figure: HAProxy's \
lead in a row without its log is smaller than it looks.

The rows at fixed rates run each proxy with two workers over both cores, which load and origin share with them: they \
show how a proxy behaves on a machine that is not its own, and their latency counts from the intended send time. \
Memory is the growth of the resident set (VmRSS) of a fresh, warmed-up process; nginx takes part of it at its start, \
which is not counted.
";

/// The page.
pub fn page(report: &Report) -> String {
    let machine = &report.machine;
    let mut page = format!(
        "# headgate beside nginx and HAProxy\n\n\
         Written by `make bench`; not to be edited by hand.\n\n\
         - date: {}\n- machine: {}, {} cores\n- kernel: {}\n- programs: {}\n- command: `{}`\n\n",
        report.date,
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.programs.join("; "),
        report.command,
    );
    page += &headline_table(report);
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "\n## How it is measured\n\n{} rounds of {} s for each proxy. {METHOD}",
        report.rounds, report.seconds
    );
    for row in &report.rows {
        page += &section(row);
    }
    page
}

/// A line for each row; the README shows it too.
pub fn headline_table(report: &Report) -> String {
    let mut table = "| row | | headgate | nginx | HAProxy | relay | ratio | goal | |\n\
                     |---|---|--:|--:|--:|--:|--:|--:|---|\n"
        .to_owned();
    for row in &report.rows {
        let figure = |name: &str| {
            let proxy = row.proxies.iter().find(|proxy| proxy.name == name);
            proxy.map_or_else(String::new, |proxy| number(Some(proxy.figure.median), decimals(row.unit)))
        };
        let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let _ = writeln!(
            table,
            "| {} | {}, {} | {} | {} | {} | {} | {ratio} | {} | {} |",
            row.id,
            row.title,
            row.unit.label(),
            figure("headgate"),
            figure("nginx"),
            figure("HAProxy"),
            figure("relay"),
            row.goal,
            row.verdict.label(),
        );
    }
    table
}

fn section(row: &RowReport) -> String {
    let mut section = format!("\n## {}: {}\n\n", row.id, row.title);
    if let Some(reason) = &row.refused {
        return section + &format!("Refused: {reason}\n");
    }
    let _ = write!(section, "![{}](results/{}.svg)\n\n", row.title, row.id);
    let label = row.unit.label();
    if row.unit == Unit::Bytes {
        let _ = writeln!(section, "| proxy | {label} | ± |\n|---|--:|--:|");
    } else {
        let _ = writeln!(
            section,
            "| proxy | {label} | ± | requests/s | p50 µs | p99 µs | p99.9 µs | busy | load |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|"
        );
    }
    for proxy in &row.proxies {
        let figure = number(Some(proxy.figure.median), decimals(row.unit));
        let mut cells = vec![proxy.name.to_owned(), figure, format!("{:.1} %", proxy.figure.spread_percent())];
        if row.unit != Unit::Bytes {
            cells.extend(proxy.rate_and_latencies());
            cells.extend(proxy.busy());
        }
        let _ = writeln!(section, "| {} |", cells.join(" | "));
    }
    let mut facts = Vec::new();
    facts.extend(row.ratio.map(|ratio| format!("{ratio:.3} × the better peer")));
    facts.extend(row.relay_ratio.map(|ratio| format!("{ratio:.3} × the relay")));
    facts.push(format!("goal {}", row.goal));
    facts.extend(row.gate.map(|gate| format!("gate {gate}")));
    facts.push(row.verdict.label().to_owned());
    facts.extend(row.ceiling.map(|rate| format!("load alone {} requests/s", number(Some(rate), 0))));
    section + &format!("\n{}.\n", facts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_machine_table_and_sections() {
        let page = page(&super::super::tests::sample());
        for part in [
            "- machine: Example CPU, 2 cores\n",
            "| h1 | HTTP/1.1 keep-alive & more, CPU µs/request | 11.00 | 12.00 | 13.25 |  | 0.92 | ≤ 0.95 | goal reached |\n",
            "## h1: HTTP/1.1 keep-alive & more\n\n![HTTP/1.1 keep-alive & more](results/h1.svg)\n",
            "| headgate | 11.00 | 0.9 % | 71,234 | 880 | 1,400 | – | 80 % | 70 % |\n",
            "| nginx | 12.00 | 0.8 % | load-bound | load-bound | load-bound | load-bound | 80 % | 96 % |\n",
            "0.917 × the better peer; goal ≤ 0.95; gate 1.05; goal reached; load alone 100,000 requests/s.\n",
            "## h2: HTTP/1.1 keep-alive & more\n\nRefused: nginx: 3 read errors\n",
        ] {
            assert!(page.contains(part), "{part}\nis not in\n{page}");
        }
    }
}
