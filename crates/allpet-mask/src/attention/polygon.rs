//! A polygon under a ray: where it enters and leaves, by the even-odd rule.

use super::chord::Ray;

/// Whether a point lies inside (M. Shimrat, Commun. ACM 5 (1962) 434); self-crossing polygons by the even-odd rule.
pub(crate) fn contains(corners: &[[f64; 2]], x: f64, y: f64) -> bool {
    edges(corners)
        .filter(|(p, q)| (p[1] > y) != (q[1] > y) && x < p[0] + (q[0] - p[0]) * (y - p[1]) / (q[1] - p[1]))
        .count()
        % 2
        == 1
}

/// Adds the stretches of a ray inside the polygon; `crossings` is scratch.
pub(crate) fn add_chords(
    corners: &[[f64; 2]],
    ray: &Ray,
    crossings: &mut Vec<f64>,
    spans: &mut Vec<(f64, f64)>,
) {
    crossings.clear();
    for (p, q) in edges(corners) {
        let (from, to) = (ray.across(p) - ray.s_mm, ray.across(q) - ray.s_mm);
        // A corner on the ray belongs to one side only, so that it is not counted twice.
        if (from > 0.0) != (to > 0.0) {
            let (start, end) = (ray.along(p), ray.along(q));
            crossings.push(start + (end - start) * from / (from - to));
        }
    }
    crossings.sort_unstable_by(f64::total_cmp);
    spans.extend(crossings.chunks_exact(2).map(|pair| (pair[0], pair[1])));
}

/// Whether all corners lie on one line, so that there is no inside.
pub(crate) fn is_flat(corners: &[[f64; 2]]) -> bool {
    let Some(&[x, y]) = corners.first() else {
        return true;
    };
    let from_first = |c: &[f64; 2]| [c[0] - x, c[1] - y];
    let [dx, dy] = corners
        .iter()
        .map(from_first)
        .max_by(|a, b| a[0].hypot(a[1]).total_cmp(&b[0].hypot(b[1])))
        .unwrap_or_default();
    let length = dx.hypot(dy);
    corners
        .iter()
        .map(from_first)
        .all(|[u, v]| (u * dy - v * dx).abs() <= 1e-12 * length * length)
}

pub(crate) fn edges(corners: &[[f64; 2]]) -> impl Iterator<Item = ([f64; 2], [f64; 2])> + '_ {
    corners
        .iter()
        .copied()
        .zip(corners.iter().copied().cycle().skip(1))
}
