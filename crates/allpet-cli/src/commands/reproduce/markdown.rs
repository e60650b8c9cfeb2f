//! Tables in Markdown.

/// A table of cells; the first row is the heading.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
        if i == 0 {
            text.push_str(&format!("|{}\n", " --- |".repeat(row.len())));
        }
    }
    text
}

/// `mean ± sd`, with so many decimals.
pub(super) fn spread(mean: f64, sd: f64, decimals: usize) -> String {
    format!("{mean:.decimals$} ± {sd:.decimals$}")
}

/// A difference with its sign and its interval.
pub(super) fn difference(mean: f64, [low, high]: [f64; 2], decimals: usize) -> String {
    format!("{mean:+.decimals$} [{low:+.decimals$}, {high:+.decimals$}]")
}

/// What must stand over figures of a quick run.
pub(super) fn warning(quick: bool) -> &'static str {
    match quick {
        true => "**Quick run: these figures mean nothing.**\n\n",
        false => "",
    }
}
