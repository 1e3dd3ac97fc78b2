//! The table as text: Markdown, padded so that it reads in a terminal too.

use super::{Figures, ROWS, Row, Spread, Target};

/// Renders all rows of which anything was measured. Ratios are to `base`, whose own column, like every
/// figure with no base to compare with, is absolute.
pub(crate) fn render(figures: &Figures, variants: &[&str], base: &str) -> String {
    // The targets are ratios to ztunnel; to another base they say nothing.
    render_rows(ROWS, figures, variants, base, base == "ztunnel")
}

/// Renders rows of another table; `judged` says whether their targets are about this base.
pub(crate) fn render_rows(
    rows: &[Row],
    figures: &Figures,
    variants: &[&str],
    base: &str,
    judged: bool,
) -> String {
    let mut lines = vec![head(variants, base)];
    for row in rows {
        let cells: Vec<String> = variants.iter().map(|variant| cell(figures, row, variant, base)).collect();
        if cells.iter().any(|cell| cell != NOTHING) {
            let ours = verdict(figures, row, base, judged);
            let mut line = vec![row.id.to_owned(), format!("{} ({})", row.what, row.unit), ours];
            line.extend(cells);
            lines.push(line);
        }
    }
    lay_out(&lines)
}

/// A cell of which nothing was measured.
const NOTHING: &str = "–";

fn head(variants: &[&str], base: &str) -> Vec<String> {
    let mut head = vec![String::new(), format!("÷ {base}: min / median / max"), "target".to_owned()];
    head.extend(variants.iter().map(|variant| {
        if *variant == base { format!("{variant} (absolute)") } else { (*variant).to_owned() }
    }));
    head
}

fn cell(figures: &Figures, row: &Row, variant: &str, base: &str) -> String {
    let Some(absolute) = figures.absolute(row.key, variant) else { return NOTHING.to_owned() };
    match figures.ratio(row.key, variant, base) {
        Some(ratio) if variant != base && !matches!(row.target, Target::Below(_)) => {
            format!("{:.2} / {:.2} / {:.2}", ratio.min, ratio.median, ratio.max)
        }
        _ => figure(absolute, row.unit),
    }
}

/// An absolute figure: the median, and the range where it is one.
fn figure(spread: Spread, unit: &str) -> String {
    let digits = match spread.median.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    let Spread { min, median, max } = spread;
    if min == max {
        return format!("{median:.digits$} {unit}");
    }
    format!("{median:.digits$} {unit} ({min:.digits$}–{max:.digits$})")
}

/// The target, and whether ours reach it.
fn verdict(figures: &Figures, row: &Row, base: &str, judged: bool) -> String {
    let bound = match row.target {
        Target::AtLeast(bound) => format!("≥ {bound}"),
        Target::AtMost(bound) => format!("≤ {bound}"),
        Target::Below(bound) => format!("≤ {bound} {}", row.unit),
        Target::Open => return String::new(),
    };
    let ratio = figures.ratio(row.key, "lateen", base).filter(|_| judged);
    match row.target.met(ratio, figures.absolute(row.key, "lateen")) {
        Some(true) => format!("{bound}: met"),
        Some(false) => format!("{bound}: MISSED"),
        None => bound,
    }
}

/// Lines of cells, the first of which is the head, as a table.
pub(crate) fn lay_out(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:width$} |"));
        text.push('|');
        text.extend(cells);
        text.push('\n');
        if index == 0 {
            text.push('|');
            text.extend(widths.iter().map(|width| format!("{}|", "-".repeat(width + 2))));
            text.push('\n');
        }
    }
    text
}
