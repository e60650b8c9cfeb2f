//! Shapes that a physician draws: ellipses and polygons in mm, alone or in a file.

use super::chord::Ray;
use super::polygon;
use crate::error::{Result, all_faults};
use serde::{Deserialize, Serialize};

/// Most corners of a polygon.
const MAX_CORNERS: usize = 100_000;

/// An ellipse or a polygon; x to the right, y up, the axis of rotation at the origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RoiShape {
    /// An ellipse.
    Ellipse {
        /// x of the centre in mm.
        x_mm: f64,
        /// y of the centre in mm.
        y_mm: f64,
        /// Half axis in mm along the tilted x axis, above 0.
        a_mm: f64,
        /// The other half axis in mm, above 0.
        b_mm: f64,
        /// Counter-clockwise tilt in degrees.
        #[serde(default)]
        tilt_deg: f64,
    },
    /// A polygon, closed by itself; where it crosses itself the even-odd rule holds.
    Polygon {
        /// `[x, y]` of at least three corners in mm.
        corners_mm: Vec<[f64; 2]>,
    },
}

/// Shapes as they stand in a file: what belongs to the region of interest and what is taken out of it.
///
/// In TOML one `[[include]]` or `[[exclude]]` table for each shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoiShapes {
    /// Shapes that are added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<RoiShape>,
    /// Shapes that are taken out, whatever they were added by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<RoiShape>,
}

impl RoiShapes {
    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let named = |shapes: &[RoiShape], list: &str| -> Vec<String> {
            shapes
                .iter()
                .enumerate()
                .flat_map(|(i, shape)| shape.faults(&format!("{list} {i}")))
                .collect()
        };
        let mut faults = named(&self.include, "shape");
        faults.extend(named(&self.exclude, "excluded shape"));
        all_faults("region of interest", faults)
    }
}

impl RoiShape {
    fn faults(&self, name: &str) -> Vec<String> {
        let mut faults = Vec::new();
        match self {
            Self::Ellipse {
                x_mm,
                y_mm,
                a_mm,
                b_mm,
                tilt_deg,
            } => {
                if ![x_mm, y_mm, tilt_deg].iter().all(|v| v.is_finite()) {
                    faults.push(format!(
                        "{name}: ellipse at {x_mm}, {y_mm} mm, tilt {tilt_deg}; expected finite numbers"
                    ));
                }
                if ![a_mm, b_mm].iter().all(|v| v.is_finite() && **v > 0.0) {
                    faults.push(format!(
                        "{name}: half axes of {a_mm} and {b_mm} mm; expected positive lengths"
                    ));
                }
            }
            Self::Polygon { corners_mm } => {
                let count = corners_mm.len();
                if let Some(bad) = corners_mm.iter().position(|c| !c.iter().all(|v| v.is_finite())) {
                    faults.push(format!(
                        "{name}: corner {bad} at {:?} mm; expected finite numbers",
                        corners_mm[bad]
                    ));
                } else if !(3..=MAX_CORNERS).contains(&count) {
                    faults.push(format!(
                        "{name}: polygon of {count} corners; expected 3 to {MAX_CORNERS}"
                    ));
                } else if polygon::is_flat(corners_mm) {
                    faults.push(format!(
                        "{name}: polygon with all corners on one line; expected an area"
                    ));
                }
            }
        }
        faults
    }

    /// Whether a point lies inside.
    pub fn contains(&self, x_mm: f64, y_mm: f64) -> bool {
        match self {
            Self::Ellipse { .. } => {
                let [u, v] = self.unit_circle([x_mm, y_mm], true);
                u * u + v * v <= 1.0
            }
            Self::Polygon { corners_mm } => polygon::contains(corners_mm, x_mm, y_mm),
        }
    }

    /// A point (or, not `placed`, a direction) where the ellipse is the unit circle.
    fn unit_circle(&self, [x, y]: [f64; 2], placed: bool) -> [f64; 2] {
        match self {
            Self::Ellipse {
                x_mm,
                y_mm,
                a_mm,
                b_mm,
                tilt_deg,
            } => {
                let (sin, cos) = tilt_deg.to_radians().sin_cos();
                let (x, y) = if placed { (x - x_mm, y - y_mm) } else { (x, y) };
                [(x * cos + y * sin) / a_mm, (y * cos - x * sin) / b_mm]
            }
            Self::Polygon { .. } => [x, y],
        }
    }

    /// Least and greatest `s` of the rays of a direction that meet the shape.
    pub(crate) fn shadow(&self, ray: &Ray) -> [f64; 2] {
        match self {
            Self::Ellipse {
                x_mm,
                y_mm,
                a_mm,
                b_mm,
                tilt_deg,
            } => {
                let (sin, cos) = tilt_deg.to_radians().sin_cos();
                let half =
                    (a_mm * (ray.cos * cos + ray.sin * sin)).hypot(b_mm * (ray.sin * cos - ray.cos * sin));
                let centre = ray.across([*x_mm, *y_mm]);
                [centre - half, centre + half]
            }
            Self::Polygon { corners_mm } => corners_mm
                .iter()
                .map(|c| ray.across(*c))
                .fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], s| {
                    [a.min(s), b.max(s)]
                }),
        }
    }

    /// Adds the stretches of a ray inside the shape.
    pub(crate) fn add_chords(&self, ray: &Ray, scratch: &mut Vec<f64>, spans: &mut Vec<(f64, f64)>) {
        match self {
            Self::Ellipse { .. } => {
                // |p + t d|² = 1 with p, d in the frame of the unit circle.
                let p = self.unit_circle(ray.foot(), true);
                let d = self.unit_circle(ray.direction(), false);
                let speed = d[0].hypot(d[1]);
                let apart = (p[0] * d[1] - p[1] * d[0]).abs();
                if apart < speed {
                    let half = ((speed - apart) * (speed + apart)).sqrt() / (speed * speed);
                    let middle = -(p[0] * d[0] + p[1] * d[1]) / (speed * speed);
                    spans.push((middle - half, middle + half));
                }
            }
            Self::Polygon { corners_mm } => polygon::add_chords(corners_mm, ray, scratch, spans),
        }
    }

    /// Whether an edge runs along the rays.
    pub(crate) fn has_edge_along(&self, ray: &Ray) -> bool {
        match self {
            Self::Ellipse { .. } => false,
            Self::Polygon { corners_mm } => polygon::edges(corners_mm).any(|(p, q)| {
                let edge = [q[0] - p[0], q[1] - p[1]];
                ray.is_along(edge)
            }),
        }
    }
}
