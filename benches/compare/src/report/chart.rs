//! A bar for each proxy, as SVG that is read in light and in dark.

use std::fmt::Write;

use super::{RowReport, decimals, number};

const WIDTH: f64 = 640.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 80.0;
const TOP: f64 = 44.0;
const STEP: f64 = 30.0;
const BAR: f64 = 20.0;

/// The chart of a row.
pub fn svg(row: &RowReport) -> String {
    let height = TOP + STEP * row.proxies.len() as f64 + 8.0;
    let largest = row.proxies.iter().map(|proxy| proxy.figure.median).fold(f64::MIN_POSITIVE, f64::max);
    let title = escape(row.title);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{title}">
<style>
text {{ font: 13px system-ui, sans-serif; fill: #1f2328; }}
.title {{ font-weight: 600; }}
.unit {{ fill: #59636e; }}
.peer {{ fill: #9aa4ae; }}
.own {{ fill: #1a7f64; }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #f0f6fc; }}
.unit {{ fill: #9198a1; }}
.peer {{ fill: #656c76; }}
.own {{ fill: #3fb68f; }}
}}
</style>
<text class="title" x="0" y="15">{title}</text>
<text class="unit" x="0" y="33">{}, lower is better</text>
"##,
        row.unit.label()
    );
    for (index, proxy) in row.proxies.iter().enumerate() {
        let y = TOP + STEP * index as f64;
        let width = (WIDTH - LEFT - RIGHT) * proxy.figure.median / largest;
        let class = if proxy.name == "headgate" { "own" } else { "peer" };
        let value = number(Some(proxy.figure.median), decimals(row.unit));
        let (text_y, label_x) = (y + 15.0, LEFT + width + 6.0);
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{text_y}\">{}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>\
             <text x=\"{label_x:.1}\" y=\"{text_y}\">{value}</text>",
            proxy.name
        );
    }
    svg + "</svg>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_width_and_the_others_are_in_proportion() {
        let report = super::super::tests::sample();
        let svg = svg(&report.rows[0]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains("HTTP/1.1 keep-alive &amp; more"), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark"), "{svg}");
        assert!(svg.contains(r#"<rect class="peer" x="90" y="104" width="470.0""#), "{svg}");
        assert!(svg.contains(r#"<rect class="own" x="90" y="44" width="390.2""#), "{svg}");
        assert!(svg.contains(">13.25</text>"), "{svg}");
        assert!(svg.len() < 3000, "{}", svg.len());
    }
}
