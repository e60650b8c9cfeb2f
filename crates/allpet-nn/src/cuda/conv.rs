//! Convolutions: windows as columns, some at a time, and products of matrices.
//!
//! Forward and input gradient are one algorithm: the input gradient's windows pass over the gradient, spread out by the
//! stride, with the weights turned over. Columns fill a bounded scratch, for several samples or for a
//! part of one. Weight gradients of samples are kept apart and added in order.

use super::{CONV, Matrix, Product, Products, SUMS};
use crate::conv::Sizes;

/// Windows over `channels` planes of each group.
#[derive(Clone, Copy)]
struct Windows {
    x: u64,
    channels: usize,
    height: usize,
    width: usize,
    side: usize,
    stride: usize,
    before: usize,
    spread: usize,
    out_height: usize,
    out_width: usize,
}

/// Some samples, or some pixels of one.
#[derive(Clone, Copy)]
struct Tile {
    sample: usize,
    samples: usize,
    pixel: usize,
    pixels: usize,
}

impl Windows {
    fn of_input(s: &Sizes, x: u64) -> Self {
        Self {
            x,
            channels: s.c_in,
            height: s.height,
            width: s.width,
            side: s.kernel,
            stride: s.window.stride,
            before: s.window.padding,
            spread: 1,
            out_height: s.out_height,
            out_width: s.out_width,
        }
    }

    fn of_gradient(s: &Sizes, dy: u64) -> Self {
        Self {
            x: dy,
            channels: s.c_out,
            height: s.out_height,
            width: s.out_width,
            side: s.kernel,
            stride: 1,
            before: s.kernel - 1 - s.window.padding,
            spread: s.window.stride,
            out_height: s.height,
            out_width: s.width,
        }
    }

    fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    fn depth(&self) -> usize {
        self.channels * self.side * self.side
    }

    /// Whether the planes are their own windows.
    fn plain(&self) -> bool {
        (self.side, self.stride, self.before, self.spread) == (1, 1, 0, 1)
    }

    /// Elements from sample to sample.
    fn per_sample(&self, s: &Sizes) -> usize {
        s.groups * self.channels * self.height * self.width
    }

    /// Tiles whose columns, and `beside` further bytes for each sample, stay within a limit.
    fn tiles(&self, batch: usize, limit: usize, bytes: usize, beside: usize) -> Vec<Tile> {
        let pixels = self.out_pixels();
        let of_columns = if self.plain() { 0 } else { self.depth() * bytes };
        let samples = (limit / (of_columns * pixels + beside).max(1)).clamp(1, batch.max(1));
        let most = match of_columns * pixels > limit {
            true => (limit / of_columns).max(1),
            false => pixels,
        };
        let starts = (0..batch)
            .step_by(samples)
            .flat_map(|sample| (0..pixels).step_by(most).map(move |pixel| (sample, pixel)));
        let tile = |(sample, pixel)| Tile {
            sample,
            samples: samples.min(batch - sample),
            pixel,
            pixels: most.min(pixels - pixel),
        };
        starts.map(tile).collect()
    }

    /// The windows of a group in a tile, `[depth, pixels]` for every sample; `memory` holds them where they are not
    /// the planes themselves.
    fn columns<M: Products>(
        &self,
        m: &M,
        s: &Sizes,
        group: usize,
        tile: Tile,
        memory: &Option<M::Memory>,
    ) -> Result<Matrix, M::Error> {
        let per_sample = self.per_sample(s);
        let plane = self.height * self.width;
        let x = m.behind(self.x, tile.sample * per_sample + group * self.channels * plane);
        let Some(memory) = memory else {
            return Ok(Matrix::new(m.behind(x, tile.pixel), plane, per_sample));
        };
        let to = m.address(memory);
        m.each(
            &CONV,
            "windows",
            tile.samples * self.channels * tile.pixels,
            &[x, to, per_sample as u64],
            &[
                tile.samples,
                self.channels,
                self.height,
                self.width,
                self.side,
                self.stride,
                self.before,
                self.spread,
                self.out_width,
                tile.pixel,
                tile.pixels,
            ],
        )?;
        Ok(Matrix::new(to, tile.pixels, self.depth() * tile.pixels))
    }

    fn memory<M: Products>(&self, m: &M, tiles: &[Tile]) -> Result<Option<M::Memory>, M::Error> {
        let most = tiles.iter().map(|t| t.samples * t.pixels).max().unwrap_or(0);
        match self.plain() || most == 0 {
            true => Ok(None),
            false => Ok(Some(m.scratch(most * self.depth() * m.element().bytes())?)),
        }
    }
}

/// `y [B, groups · rows, pixels] = weights [groups][rows][depth] · windows`, on top of what is there where `again`.
fn windows_product<M: Products>(
    m: &M,
    s: &Sizes,
    windows: &Windows,
    (weights, rows): (u64, usize),
    y: u64,
    again: bool,
) -> Result<(), M::Error> {
    let (pixels, depth) = (windows.out_pixels(), windows.depth());
    let tiles = windows.tiles(s.batch, m.limit(), m.element().bytes(), 0);
    let memory = windows.memory(m, &tiles)?;
    for group in 0..s.groups {
        for &tile in &tiles {
            let b = windows.columns(m, s, group, tile, &memory)?;
            let a = Matrix::new(m.behind(weights, group * rows * depth), depth, 0);
            let first = (tile.sample * s.groups + group) * rows * pixels + tile.pixel;
            let c = Matrix::new(m.behind(y, first), pixels, s.groups * rows * pixels);
            m.product(Product {
                again,
                ..Product::new([rows, tile.pixels, depth], tile.samples, [a, b, c])
            })?;
        }
    }
    Ok(())
}

/// Planes as the depthwise kernels want them (`Depth`).
fn depth_shape(s: &Sizes) -> [usize; 8] {
    let window = [s.kernel, s.window.stride, s.window.padding];
    [
        s.groups,
        s.height,
        s.width,
        s.out_height,
        s.out_width,
        window[0],
        window[1],
        window[2],
    ]
}

fn one_channel_each(s: &Sizes) -> bool {
    s.c_in == 1 && s.c_out == 1
}

/// `y` from `x`, weights and bias.
pub(super) fn forward<M: Products>(
    m: &M,
    s: &Sizes,
    [x, weights, bias]: [u64; 3],
    y: u64,
) -> Result<(), M::Error> {
    let channels = s.groups * s.c_out;
    let length = s.batch * channels * s.out_pixels();
    if one_channel_each(s) {
        let words = [x, weights, bias, y, length as u64];
        return m.each(&CONV, "depth_forward", length, &words, &depth_shape(s));
    }
    let words = [bias, y, length as u64, s.out_pixels() as u64];
    m.each(&CONV, "fill_bias", length, &words, &[channels])?;
    let (narrow, memory) = m.narrowed(weights, channels * s.c_in * s.taps())?;
    windows_product(m, s, &Windows::of_input(s, x), (narrow, s.c_out), y, true)?;
    drop(memory);
    Ok(())
}

/// `dx` from `dy` and the weights.
pub(super) fn input_gradient<M: Products>(
    m: &M,
    s: &Sizes,
    [dy, weights]: [u64; 2],
    dx: u64,
) -> Result<(), M::Error> {
    if one_channel_each(s) {
        let length = s.batch * s.groups * s.pixels();
        let words = [dy, weights, dx, length as u64];
        return m.each(&CONV, "depth_input", length, &words, &depth_shape(s));
    }
    let length = s.groups * s.c_out * s.c_in * s.taps();
    let memory = m.scratch(length * m.element().bytes())?;
    let turned = m.address(&memory);
    let numbers = [s.groups, s.c_out, s.c_in, s.taps()];
    m.each(&CONV, "turn_weights", length, &[weights, turned], &numbers)?;
    windows_product(m, s, &Windows::of_gradient(s, dy), (turned, s.c_in), dx, false)?;
    drop(memory);
    Ok(())
}

/// `dw`, floats, from `x` and `dy`.
pub(super) fn weight_gradient<M: Products>(
    m: &M,
    s: &Sizes,
    [x, dy]: [u64; 2],
    dw: u64,
) -> Result<(), M::Error> {
    if one_channel_each(s) {
        let length = s.groups * s.taps();
        let parts = m.scratch(4 * s.batch * length)?;
        let words = [x, dy, m.address(&parts)];
        m.start(&CONV, "depth_weight", s.batch * length, &words, &depth_shape(s))?;
        return m.sum_parts(m.address(&parts), dw, [s.batch, length], false);
    }
    let windows = Windows::of_input(s, x);
    let (depth, pixels) = (windows.depth(), s.out_pixels());
    let length = s.c_out * depth;
    let tiles = windows.tiles(s.batch, m.limit(), m.element().bytes(), 4 * length);
    let memory = windows.memory(m, &tiles)?;
    let parts = m.scratch(4 * length * tiles.iter().map(|t| t.samples).max().unwrap_or(0))?;
    for group in 0..s.groups {
        let dw = dw + (4 * group * length) as u64;
        for (i, &tile) in tiles.iter().enumerate() {
            let b = windows.columns(m, s, group, tile, &memory)?.flipped();
            let first = (tile.sample * s.groups + group) * s.c_out * pixels + tile.pixel;
            let a = Matrix::new(m.behind(dy, first), pixels, s.groups * s.c_out * pixels);
            let c = Matrix::new(m.address(&parts), depth, length);
            m.product(Product {
                wide: true,
                ..Product::new([s.c_out, depth, tile.pixels], tile.samples, [a, b, c])
            })?;
            m.sum_parts(c.at, dw, [tile.samples, length], i > 0)?;
        }
        if tiles.is_empty() {
            m.sum_parts(m.address(&parts), dw, [0, length], false)?;
        }
    }
    Ok(())
}

/// Floats `[channels]`, the sums over samples and pixels of `x [batch, channels, pixels]`.
pub(super) fn channel_sums<M: Products>(
    m: &M,
    [batch, channels, pixels]: [usize; 3],
    x: u64,
    sums: u64,
) -> Result<(), M::Error> {
    let parts = m.scratch(4 * batch * channels)?;
    let at = m.address(&parts);
    m.start(
        &SUMS,
        "plane_sums",
        batch * channels,
        &[x, at, pixels as u64],
        &[],
    )?;
    m.sum_parts(at, sums, [batch, channels], false)
}
