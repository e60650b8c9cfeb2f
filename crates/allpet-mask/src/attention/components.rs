//! Connected components of a mask, and their clean-up by area.
//!
//! Two passes with union-find (A. Rosenfeld, J. L. Pfaltz, J. ACM 13 (1966) 471-494); labels in raster order of each
//! component's first pixel. Cost: linear in the pixels.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

/// Which pixels are neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connectivity {
    /// Those that share a side.
    Four,
    /// Those that share a side or a corner.
    #[default]
    Eight,
}

/// The connected components of a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// 0 off the mask, otherwise the number of the component, from 1.
    pub labels: Array2<u32>,
    /// Pixels of component 1, 2, ….
    pub pixels: Vec<usize>,
}

/// Labels the connected components of a mask.
pub fn label_components(mask: ArrayView2<'_, bool>, connectivity: Connectivity) -> Components {
    let (rows, cols) = mask.dim();
    let mut labels = Array2::<u32>::zeros((rows, cols));
    // parent[l] ≤ l, so that a root is the first label its component had.
    let mut parent = vec![0_u32];
    for row in 0..rows {
        for col in 0..cols {
            if !mask[[row, col]] {
                continue;
            }
            let mut mine = 0;
            let mut meet = |other: u32, parent: &mut Vec<u32>| {
                if other != 0 {
                    mine = if mine == 0 {
                        root(parent, other)
                    } else {
                        join(parent, mine, other)
                    };
                }
            };
            if col > 0 {
                meet(labels[[row, col - 1]], &mut parent);
            }
            if row > 0 {
                meet(labels[[row - 1, col]], &mut parent);
                if connectivity == Connectivity::Eight {
                    if col > 0 {
                        meet(labels[[row - 1, col - 1]], &mut parent);
                    }
                    if col + 1 < cols {
                        meet(labels[[row - 1, col + 1]], &mut parent);
                    }
                }
            }
            if mine == 0 {
                mine = parent.len() as u32;
                parent.push(mine);
            }
            labels[[row, col]] = mine;
        }
    }
    let mut number = vec![0_u32; parent.len()];
    let mut pixels = Vec::new();
    for label in labels.iter_mut().filter(|l| **l != 0) {
        let first = root(&mut parent, *label) as usize;
        if number[first] == 0 {
            pixels.push(0);
            number[first] = pixels.len() as u32;
        }
        *label = number[first];
        pixels[number[first] as usize - 1] += 1;
    }
    Components { labels, pixels }
}

impl Components {
    /// The mask of the components whose number of pixels passes.
    pub fn keep(&self, mut good: impl FnMut(usize) -> bool) -> Array2<bool> {
        let kept: Vec<bool> = self.pixels.iter().map(|&n| good(n)).collect();
        self.labels.mapv(|label| label != 0 && kept[label as usize - 1])
    }

    /// The mask of the largest component, the first of several; empty without any.
    pub fn largest(&self) -> Array2<bool> {
        let most = self.pixels.iter().copied().max().unwrap_or(0);
        let chosen = self.pixels.iter().position(|&n| n == most).map_or(0, |i| i + 1);
        self.labels.mapv(|label| label != 0 && label as usize == chosen)
    }
}

fn root(parent: &mut [u32], mut label: u32) -> u32 {
    while parent[label as usize] != label {
        // Halving the path keeps the next search short.
        parent[label as usize] = parent[parent[label as usize] as usize];
        label = parent[label as usize];
    }
    label
}

fn join(parent: &mut [u32], a: u32, b: u32) -> u32 {
    let (a, b) = (root(parent, a), root(parent, b));
    let (low, high) = (a.min(b), a.max(b));
    parent[high as usize] = low;
    low
}
