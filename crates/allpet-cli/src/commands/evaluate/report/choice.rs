//! Which images a page shows.

use super::super::pairs::PairFigures;

/// Most images that are shown.
const MOST: usize = 6;

/// An image of a page, and why it stands there.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) index: usize,
    pub(super) role: String,
}

/// The best, the median and the worst image by a metric, then others evenly spaced over the file.
pub(super) fn by_metric(figures: &PairFigures) -> Vec<Shown> {
    let values = &figures.values;
    let name = figures.metric.name();
    let mut order: Vec<usize> = (0..values.len()).collect();
    // Stable: of equally good images the first counts.
    order.sort_by(|&a, &b| match figures.metric.rises_with_quality() {
        true => values[b].total_cmp(&values[a]),
        false => values[a].total_cmp(&values[b]),
    });
    let mut shown: Vec<Shown> = Vec::new();
    let ranks = [
        ("best", Some(0)),
        ("median", order.len().checked_sub(1).map(|last| last / 2)),
        ("worst", order.len().checked_sub(1)),
    ];
    for (word, rank) in ranks {
        let Some(&index) = rank.and_then(|rank| order.get(rank)) else {
            continue;
        };
        match shown.iter_mut().find(|s| s.index == index) {
            Some(same) => same.role = format!("{} and {word}", same.role),
            None => shown.push(Shown {
                index,
                role: word.to_owned(),
            }),
        }
    }
    if let [only] = shown.as_mut_slice()
        && values.len() == 1
    {
        only.role = "the only image".to_owned();
    } else {
        for one in &mut shown {
            one.role = format!("{} by {name}", one.role);
        }
    }
    for index in evenly(values.len(), MOST) {
        if shown.len() < MOST && shown.iter().all(|s| s.index != index) {
            shown.push(Shown {
                index,
                role: "one of the others".to_owned(),
            });
        }
    }
    shown
}

/// Up to `most` of `n` images at equal distances.
pub(super) fn evenly(n: usize, most: usize) -> Vec<usize> {
    let count = n.min(most);
    (0..count).map(|i| (2 * i + 1) * n / (2 * count)).collect()
}
