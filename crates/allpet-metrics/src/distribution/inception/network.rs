//! Inception v3 (Szegedy et al. 2016) as TensorFlow's graph of 2015-12-05 computes it: the network behind published
//! FID, KID and IS.
//!
//! Against the network of torchvision: the average pools of the mixed blocks divide by the pixels inside the image,
//! not by nine; the last block pools by maximum; the last layer has 1,008 classes.

use super::weights::Weights;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};

/// Side of the input.
pub(super) const SIDE: usize = 299;
pub(super) const FEATURES: usize = 2048;
pub(super) const LOGITS: usize = 1008;

/// Convolution, normalisation and ReLU.
struct Convolution {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    /// Zeros above and below, left and right.
    padding: [usize; 2],
}

impl Convolution {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [rows, columns] = self.padding;
        let y = if rows == columns {
            x.conv2d(&self.weight, rows, self.stride, 1, 1)?
        } else {
            // candle pads both axes alike.
            x.pad_with_zeros(2, rows, rows)?
                .pad_with_zeros(3, columns, columns)?
                .conv2d(&self.weight, 0, self.stride, 1, 1)?
        };
        let y = y.broadcast_add(&self.bias)?;
        // Checked here: rectification would turn the NaN of an overflow into 0.
        if !y.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Err(Error::Undefined {
                what: "Inception features",
                why: "the activations overflow f32, which trained weights do not cause",
            });
        }
        Ok(y.relu()?)
    }
}

enum Pool {
    None,
    /// Mean of the 3×3 neighbours inside the image.
    Average,
    /// Largest of the 3×3 neighbours.
    Maximum,
    /// Largest of 3×3 at every second pixel, no padding.
    Halve,
}

impl Pool {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::Halve => Ok(x.max_pool2d_with_stride(3, 2)?),
            // All activations are at least 0 after ReLU, so that a zero outside never wins.
            Self::Maximum => Ok(ringed(x)?.max_pool2d_with_stride(3, 1)?),
            Self::Average => {
                let (_, _, rows, columns) = x.dims4()?;
                let ninths = ringed(x)?.avg_pool2d_with_stride(3, 1)?;
                Ok(ninths.broadcast_mul(&ninths_to_mean(rows, columns)?)?)
            }
        }
    }
}

/// One zero around every plane.
fn ringed(x: &Tensor) -> Result<Tensor> {
    Ok(x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?)
}

/// Nine over the number of 3×3 neighbours inside the image, `[1, 1, rows, columns]`.
fn ninths_to_mean(rows: usize, columns: usize) -> Result<Tensor> {
    let inside = |at: usize, length: usize| (at + 2).min(length) - at.saturating_sub(1);
    let values = (0..rows)
        .flat_map(|i| (0..columns).map(move |j| 9.0 / (inside(i, rows) * inside(j, columns)) as f32))
        .collect();
    Ok(Tensor::from_vec(values, (1, 1, rows, columns), &Device::Cpu)?)
}

/// A pool, convolutions in a chain, and two more side by side on the end of the chain in the widest blocks.
struct Branch {
    pool: Pool,
    chain: Vec<Convolution>,
    fork: Vec<Convolution>,
}

impl Branch {
    fn forward(&self, x: &Tensor, out: &mut Vec<Tensor>) -> Result<()> {
        let mut x = self.pool.forward(x)?;
        for convolution in &self.chain {
            x = convolution.forward(&x)?;
        }
        if self.fork.is_empty() {
            out.push(x);
            return Ok(());
        }
        for convolution in &self.fork {
            out.push(convolution.forward(&x)?);
        }
        Ok(())
    }
}

/// Branches beside each other on the channel axis.
type Block = Vec<Branch>;

/// The end of a convolution's name, its channels and its kernel. Odd stride-1 kernels of the mixed blocks keep the
/// size of the image.
type Step<'a> = (&'a str, usize, [usize; 2]);

const ONE: [usize; 2] = [1, 1];
const THREE: [usize; 2] = [3, 3];
const FIVE: [usize; 2] = [5, 5];
const ROW3: [usize; 2] = [1, 3];
const COLUMN3: [usize; 2] = [3, 1];
const ROW7: [usize; 2] = [1, 7];
const COLUMN7: [usize; 2] = [7, 1];

/// Reads the convolutions of one mixed block, which all start from `channels`.
struct Reader<'a> {
    weights: &'a Weights<'a>,
    block: &'a str,
    channels: usize,
}

impl Reader<'_> {
    fn convolution(&self, step: Step<'_>, channels: usize, stride: usize) -> Result<Convolution> {
        let (name, out, kernel) = step;
        let shape = [out, channels, kernel[0], kernel[1]];
        let (weight, bias) = self
            .weights
            .convolution(&format!("{}.{name}", self.block), shape)?;
        let padding = match stride {
            1 => kernel.map(|side| side / 2),
            _ => [0, 0],
        };
        Ok(Convolution {
            weight,
            bias,
            stride,
            padding,
        })
    }

    /// A chain; `stride` is that of its last convolution.
    fn strided(&self, pool: Pool, steps: &[Step<'_>], stride: usize) -> Result<Branch> {
        let mut channels = self.channels;
        let mut chain = Vec::with_capacity(steps.len());
        for (index, &step) in steps.iter().enumerate() {
            let last = index + 1 == steps.len();
            chain.push(self.convolution(step, channels, if last { stride } else { 1 })?);
            channels = step.1;
        }
        Ok(Branch {
            pool,
            chain,
            fork: Vec::new(),
        })
    }

    fn chain(&self, steps: &[Step<'_>]) -> Result<Branch> {
        self.strided(Pool::None, steps, 1)
    }

    fn pooled(&self, pool: Pool, out: usize) -> Result<Branch> {
        self.strided(pool, &[("branch_pool", out, ONE)], 1)
    }

    fn forked(&self, steps: &[Step<'_>], fork: [Step<'_>; 2]) -> Result<Branch> {
        let mut branch = self.chain(steps)?;
        let channels = steps.last().map_or(self.channels, |step| step.1);
        for step in fork {
            branch.fork.push(self.convolution(step, channels, 1)?);
        }
        Ok(branch)
    }

    /// 35×35.
    fn a(&self, pooled: usize) -> Result<Block> {
        Ok(vec![
            self.chain(&[("branch1x1", 64, ONE)])?,
            self.chain(&[("branch5x5_1", 48, ONE), ("branch5x5_2", 64, FIVE)])?,
            self.chain(&[
                ("branch3x3dbl_1", 64, ONE),
                ("branch3x3dbl_2", 96, THREE),
                ("branch3x3dbl_3", 96, THREE),
            ])?,
            self.pooled(Pool::Average, pooled)?,
        ])
    }

    /// 35×35 to 17×17.
    fn b(&self) -> Result<Block> {
        Ok(vec![
            self.strided(Pool::None, &[("branch3x3", 384, THREE)], 2)?,
            self.strided(
                Pool::None,
                &[
                    ("branch3x3dbl_1", 64, ONE),
                    ("branch3x3dbl_2", 96, THREE),
                    ("branch3x3dbl_3", 96, THREE),
                ],
                2,
            )?,
            self.strided(Pool::Halve, &[], 1)?,
        ])
    }

    /// 17×17.
    fn c(&self, inner: usize) -> Result<Block> {
        Ok(vec![
            self.chain(&[("branch1x1", 192, ONE)])?,
            self.chain(&[
                ("branch7x7_1", inner, ONE),
                ("branch7x7_2", inner, ROW7),
                ("branch7x7_3", 192, COLUMN7),
            ])?,
            self.chain(&[
                ("branch7x7dbl_1", inner, ONE),
                ("branch7x7dbl_2", inner, COLUMN7),
                ("branch7x7dbl_3", inner, ROW7),
                ("branch7x7dbl_4", inner, COLUMN7),
                ("branch7x7dbl_5", 192, ROW7),
            ])?,
            self.pooled(Pool::Average, 192)?,
        ])
    }

    /// 17×17 to 8×8.
    fn d(&self) -> Result<Block> {
        Ok(vec![
            self.strided(
                Pool::None,
                &[("branch3x3_1", 192, ONE), ("branch3x3_2", 320, THREE)],
                2,
            )?,
            self.strided(
                Pool::None,
                &[
                    ("branch7x7x3_1", 192, ONE),
                    ("branch7x7x3_2", 192, ROW7),
                    ("branch7x7x3_3", 192, COLUMN7),
                    ("branch7x7x3_4", 192, THREE),
                ],
                2,
            )?,
            self.strided(Pool::Halve, &[], 1)?,
        ])
    }

    /// 8×8.
    fn e(&self, pool: Pool) -> Result<Block> {
        Ok(vec![
            self.chain(&[("branch1x1", 320, ONE)])?,
            self.forked(
                &[("branch3x3_1", 384, ONE)],
                [("branch3x3_2a", 384, ROW3), ("branch3x3_2b", 384, COLUMN3)],
            )?,
            self.forked(
                &[("branch3x3dbl_1", 448, ONE), ("branch3x3dbl_2", 384, THREE)],
                [("branch3x3dbl_3a", 384, ROW3), ("branch3x3dbl_3b", 384, COLUMN3)],
            )?,
            self.pooled(pool, 192)?,
        ])
    }
}

pub(super) struct Network {
    /// From the image to 35×35, a chain like any other.
    stem: Vec<(Convolution, Pool)>,
    mixed: Vec<Block>,
    /// Transposed, `[2048, 1008]`.
    last: Tensor,
}

impl Network {
    pub(super) fn new(weights: &Weights<'_>) -> Result<Self> {
        let stem = [
            ("Conv2d_1a_3x3", [32, 3, 3, 3], 2, 0, Pool::None),
            ("Conv2d_2a_3x3", [32, 32, 3, 3], 1, 0, Pool::None),
            ("Conv2d_2b_3x3", [64, 32, 3, 3], 1, 1, Pool::Halve),
            ("Conv2d_3b_1x1", [80, 64, 1, 1], 1, 0, Pool::None),
            ("Conv2d_4a_3x3", [192, 80, 3, 3], 1, 0, Pool::Halve),
        ];
        let stem = stem
            .into_iter()
            .map(|(name, shape, stride, padding, pool)| {
                let (weight, bias) = weights.convolution(name, shape)?;
                let convolution = Convolution {
                    weight,
                    bias,
                    stride,
                    padding: [padding; 2],
                };
                Ok((convolution, pool))
            })
            .collect::<Result<_>>()?;
        let block = |block, channels| Reader {
            weights,
            block,
            channels,
        };
        let mixed = vec![
            block("Mixed_5b", 192).a(32)?,
            block("Mixed_5c", 256).a(64)?,
            block("Mixed_5d", 288).a(64)?,
            block("Mixed_6a", 288).b()?,
            block("Mixed_6b", 768).c(128)?,
            block("Mixed_6c", 768).c(160)?,
            block("Mixed_6d", 768).c(160)?,
            block("Mixed_6e", 768).c(192)?,
            block("Mixed_7a", 768).d()?,
            block("Mixed_7b", 1280).e(Pool::Average)?,
            block("Mixed_7c", 2048).e(Pool::Maximum)?,
        ];
        let last = weights.values("fc.weight", &[LOGITS, FEATURES])?;
        let last = Tensor::from_vec(last, (LOGITS, FEATURES), &Device::Cpu)?.t()?;
        Ok(Self { stem, mixed, last })
    }

    /// Features and logits of one image, whose single channel of 299×299 stands for all three.
    pub(super) fn forward(&self, plane: Vec<f32>) -> Result<(Vec<f32>, Vec<f32>)> {
        let mut x = Tensor::from_vec(plane, (1, 1, SIDE, SIDE), &Device::Cpu)?.repeat((1, 3, 1, 1))?;
        for (convolution, pool) in &self.stem {
            x = pool.forward(&convolution.forward(&x)?)?;
        }
        for block in &self.mixed {
            let mut parts = Vec::with_capacity(6);
            for branch in block {
                branch.forward(&x, &mut parts)?;
            }
            x = Tensor::cat(&parts, 1)?;
        }
        let features = x.mean((2, 3))?;
        let logits = features.matmul(&self.last)?;
        Ok((
            features.flatten_all()?.to_vec1()?,
            logits.flatten_all()?.to_vec1()?,
        ))
    }
}
