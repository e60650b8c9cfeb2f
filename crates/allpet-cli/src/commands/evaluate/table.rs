//! The table on a terminal.

use super::figures::Row;

/// Columns of one width each.
pub(super) fn lines(rows: &[Row]) -> Vec<String> {
    let intervals = rows.iter().any(|r| !r.interval.is_empty());
    let heads = [
        "metric",
        "value",
        if intervals { "95 % interval" } else { "" },
        "convention",
    ];
    let cells: Vec<[&str; 4]> = std::iter::once(heads)
        .chain(rows.iter().map(|r| {
            [
                r.metric.as_str(),
                r.value.as_str(),
                r.interval.as_str(),
                r.convention.as_str(),
            ]
        }))
        .collect();
    let width = |column: usize| cells.iter().map(|c| c[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2].map(width);
    cells
        .iter()
        .map(|[metric, value, interval, convention]| {
            let [a, b, c] = widths;
            let gap = if c == 0 { "" } else { "  " };
            format!("{metric:a$}  {value:b$}  {interval:c$}{gap}{convention}")
        })
        .collect()
}
