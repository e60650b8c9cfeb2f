//! Depths and distances of the shapes anatomy is painted with (lengths in mm).

/// Approximate depth inside an ellipsoid, negative outside: `(1 - q)·q / |∇(q²)/2|`, exact to first order at the
/// surface, with `q² = (x/a)² + (y/b)² + (z/c)²`.
pub(crate) fn ellipsoid_depth(p: [f32; 3], r: [f32; 3]) -> f32 {
    let n = [p[0] / r[0], p[1] / r[1], p[2] / r[2]];
    let q2 = n[0] * n[0] + n[1] * n[1] + n[2] * n[2];
    let g = [n[0] / r[0], n[1] / r[1], n[2] / r[2]];
    let gradient = (g[0] * g[0] + g[1] * g[1] + g[2] * g[2]).sqrt();
    let q = q2.sqrt();
    (1.0 - q) * q / gradient.max(1e-6)
}

/// Length of `(x, y)`; lengths here need no care for overflow, and `f32::hypot` is a slow call.
pub(crate) fn norm(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// Largest integer not above `v`, for values of an `i32`; `f32::floor` is a call where SSE4.1 may not be assumed.
pub(crate) fn floor(v: f32) -> i32 {
    let whole = v as i32;
    whole - i32::from((whole as f32) > v)
}

/// Fractional part in [0, 1).
pub(crate) fn fraction(v: f32) -> f32 {
    v - floor(v) as f32
}

/// [`ellipsoid_depth`] in the plane.
pub(crate) fn ellipse_depth(x: f32, y: f32, a: f32, b: f32) -> f32 {
    let (u, v) = (x / a, y / b);
    let q = norm(u, v);
    (1.0 - q) * q / norm(u / a, v / b).max(1e-6)
}

/// True inside the ellipsoid of `centre` and `radii`.
pub(crate) fn in_ellipsoid(p: [f32; 3], centre: [f32; 3], radii: [f32; 3]) -> bool {
    let n = |i: usize| (p[i] - centre[i]) / radii[i];
    n(0) * n(0) + n(1) * n(1) + n(2) * n(2) < 1.0
}

/// Distance from `p` to the segment `a`-`b`.
pub(crate) fn segment_distance(p: [f32; 2], a: [f32; 2], b: [f32; 2]) -> f32 {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let (px, py) = (p[0] - a[0], p[1] - a[1]);
    let t = ((px * dx + py * dy) / (dx * dx + dy * dy).max(1e-9)).clamp(0.0, 1.0);
    norm(px - t * dx, py - t * dy)
}

/// Rotates `(x, y)` by the angle whose cosine and sine are given.
pub(crate) fn rotated(x: f32, y: f32, turn: [f32; 2]) -> (f32, f32) {
    (turn[0] * x - turn[1] * y, turn[1] * x + turn[0] * y)
}

/// 1 in the middle of `[low, high]`, falling to 0 at both ends as the half-axis of an ellipse does.
pub(crate) fn bulge(h: f32, low: f32, high: f32) -> f32 {
    let u = (2.0 * h - low - high) / (high - low);
    (1.0 - u * u).max(0.0).sqrt()
}
