//! The operators on a CUDA device: tensors in, tensors out, on candle's stream and its cuBLAS handle.

use super::attention::AttentionSizes;
use super::channel_attention::ChannelSizes;
use super::norm::GroupSizes;
use super::{Matrix, Product, Products, attention, channel_attention, conv, layer_norm, moves, norm};
use crate::conv::Sizes;
use allpet_kernel::device::{Program, address};
use allpet_kernel::{Element, Machine};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_strided_batched_ex, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaStream, DevicePtrMut, DeviceRepr, SyncOnDrop};
use candle_core::cuda_backend::{
    CudaDType, CudaDevice, CudaStorageSlice, WrapErr, gemm_reduced_precision_f32,
};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};
use half::{bf16, f16};

/// Scratch of one step of an operator, in bytes: about what the second-level cache holds.
const LIMIT: usize = 64 << 20;

impl Products for Program {
    fn product(&self, p: Product) -> Result<()> {
        if p.rows * p.columns * p.count == 0 {
            return Ok(());
        }
        let int = |n: usize| match i32::try_from(n) {
            Ok(n) => Ok(n),
            Err(_) => bail!("a matrix product over {n}; expected less than 2147483648"),
        };
        let turn = |m: &Matrix| match m.flipped {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let wide = sys::cudaDataType_t::CUDA_R_32F;
        let of_elements = match self.element() {
            Element::F32 => wide,
            Element::F16 => sys::cudaDataType_t::CUDA_R_16F,
            Element::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
        };
        let compute = match self.element() {
            Element::F32 if gemm_reduced_precision_f32() => {
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
            }
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (alpha, beta) = (p.scale, if p.again { 1f32 } else { 0f32 });
        let blas = self.device().cublas_handle();
        // SAFETY: addresses of memory of this stream that holds the matrices, and factors that outlive the call. cuBLAS
        // takes columns as they lie: to it, row-major C = A·B is C' = B'·A'.
        unsafe {
            gemm_strided_batched_ex(
                *blas.handle(),
                turn(&p.b),
                turn(&p.a),
                int(p.columns)?,
                int(p.rows)?,
                int(p.depth)?,
                (&raw const alpha).cast(),
                p.b.at as *const _,
                of_elements,
                int(p.b.row)?,
                p.b.step as i64,
                p.a.at as *const _,
                of_elements,
                int(p.a.row)?,
                p.a.step as i64,
                (&raw const beta).cast(),
                p.c.at as *mut _,
                if p.wide { wide } else { of_elements },
                int(p.c.row)?,
                p.c.step as i64,
                int(p.count)?,
                compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        }
        .w()
    }

    fn limit(&self) -> usize {
        LIMIT
    }
}

/// A tensor's memory.
pub(crate) type Held<'a> = (&'a CudaStorage, &'a Layout);

fn element(dtype: DType) -> Result<Element> {
    match dtype {
        DType::F32 => Ok(Element::F32),
        DType::F16 => Ok(Element::F16),
        DType::BF16 => Ok(Element::BF16),
        other => bail!(
            "an operator on CUDA was given {}; expected f32, f16 or bf16",
            other.as_str()
        ),
    }
}

fn address_mut<'a>(storage: &'a mut CudaStorage, stream: &'a CudaStream) -> Result<(u64, SyncOnDrop<'a>)> {
    match &mut storage.slice {
        CudaStorageSlice::F32(slice) => Ok(slice.device_ptr_mut(stream)),
        CudaStorageSlice::F16(slice) => Ok(slice.device_ptr_mut(stream)),
        CudaStorageSlice::BF16(slice) => Ok(slice.device_ptr_mut(stream)),
        _ => bail!("a result on CUDA of another type; expected f32, f16 or bf16"),
    }
}

fn allocate(device: &CudaDevice, element: Element, length: usize) -> Result<CudaStorage> {
    fn of<T: CudaDType + DeviceRepr>(device: &CudaDevice, length: usize) -> Result<CudaStorage> {
        // SAFETY: the kernels write every element.
        let slice = unsafe { device.alloc::<T>(length.max(1)) }?;
        Ok(CudaStorage::wrap_cuda_slice(slice, device.clone()))
    }
    match element {
        Element::F32 => of::<f32>(device, length),
        Element::F16 => of::<f16>(device, length),
        Element::BF16 => of::<bf16>(device, length),
    }
}

/// Whether a tensor holds what the activations hold, or floats.
#[derive(Clone, Copy)]
enum Kind {
    Elements,
    Floats,
}
use Kind::{Elements, Floats};

/// Runs `work` on the addresses of inputs and of new outputs of some lengths; the first input's type is the elements'.
fn run<const I: usize, const O: usize>(
    inputs: [(Held<'_>, Kind); I],
    outputs: [(usize, Kind); O],
    work: impl FnOnce(&Program, [u64; I], [u64; O]) -> Result<()>,
) -> Result<[CudaStorage; O]> {
    let Some((first, _)) = inputs.first() else {
        bail!("an operator on CUDA without a tensor");
    };
    let (device, of_elements) = (first.0.device(), element(first.0.dtype())?);
    let stream = device.cuda_stream();
    let of = |kind| match kind {
        Elements => of_elements,
        Floats => Element::F32,
    };
    let mut reads = Vec::with_capacity(I);
    let mut from = [0; I];
    for (to, (held, kind)) in from.iter_mut().zip(inputs) {
        let (at, guard) = address(held.0, held.1, of(kind), &stream)?;
        *to = at;
        reads.push(guard);
    }
    let mut made = Vec::with_capacity(O);
    for (length, kind) in outputs {
        made.push(allocate(device, of(kind), length)?);
    }
    let Ok(mut made) = <[CudaStorage; O]>::try_from(made) else {
        bail!("an operator on CUDA lost a result");
    };
    let mut writes = Vec::with_capacity(O);
    let mut to = [0; O];
    for (to, storage) in to.iter_mut().zip(&mut made) {
        let (at, guard) = address_mut(storage, &stream)?;
        *to = at;
        writes.push(guard);
    }
    work(&Program::new(device, of_elements, ""), from, to)?;
    drop((reads, writes));
    Ok(made)
}

/// Runs `work` on the memory of tensors on a device.
fn held<const I: usize, R>(
    tensors: [&Tensor; I],
    work: impl FnOnce([Held<'_>; I]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut all = Vec::with_capacity(I);
    for (storage, layout) in &guards {
        match &**storage {
            Storage::Cuda(storage) => all.push((storage, *layout)),
            _ => bail!("an operator on CUDA was given a tensor of another device"),
        }
    }
    match <[Held<'_>; I]>::try_from(all) {
        Ok(all) => work(all),
        Err(_) => bail!("an operator on CUDA lost a tensor"),
    }
}

fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

fn length(held: Held<'_>) -> usize {
    held.1.shape().elem_count()
}

/// The only output, in a shape.
fn one([storage]: [CudaStorage; 1], shape: impl Into<Shape>) -> (CudaStorage, Shape) {
    (storage, shape.into())
}

/// `x`, scale and shift to the result.
pub(crate) fn group_norm(s: &GroupSizes, [x, scale, shift]: [Held<'_>; 3]) -> Result<(CudaStorage, Shape)> {
    let inputs = [(x, Elements), (scale, Floats), (shift, Floats)];
    let made = run(inputs, [(length(x), Elements)], |m, inputs, [y]| {
        norm::forward(m, s, inputs, y)
    })?;
    Ok(one(made, x.1.shape()))
}

/// `dx`, `dscale`, `dshift` from `x`, scale, shift, `dy`, all contiguous.
pub(crate) fn group_norm_gradient(s: &GroupSizes, tensors: [&Tensor; 4]) -> Result<[Tensor; 3]> {
    let affine = tensors[1].elem_count();
    let [dx, dscale, dshift] = held(tensors, |[x, scale, shift, dy]| {
        let inputs = [(x, Elements), (scale, Floats), (shift, Floats), (dy, Elements)];
        let outputs = [(length(x), Elements), (affine, Floats), (affine, Floats)];
        run(
            inputs,
            outputs,
            |m, [x, scale, shift, dy], [dx, dscale, dshift]| {
                let inputs = [x, scale, shift];
                if s.own {
                    return norm::backward(m, s, inputs, dy, [dx, dscale, dshift]);
                }
                let parts = m.scratch(8 * s.batch * affine)?;
                let at = m.address(&parts);
                let second = at + (4 * s.batch * affine) as u64;
                norm::backward(m, s, inputs, dy, [dx, at, second])?;
                m.sum_parts(at, dscale, [s.batch, affine], false)?;
                m.sum_parts(second, dshift, [s.batch, affine], false)
            },
        )
    })?;
    let [x, scale, shift, _] = tensors;
    Ok([
        tensor(dx, x.shape()),
        tensor(dscale, scale.shape()),
        tensor(dshift, shift.shape()),
    ])
}

fn rows_of(x: Held<'_>, weight: Held<'_>) -> [usize; 2] {
    let channels = length(weight);
    [length(x) / channels.max(1), channels]
}

/// `x`, weight and bias to the result.
pub(crate) fn layer_norm([x, weight, bias]: [Held<'_>; 3]) -> Result<(CudaStorage, Shape)> {
    let inputs = [(x, Elements), (weight, Floats), (bias, Floats)];
    let made = run(inputs, [(length(x), Elements)], |m, inputs, [y]| {
        layer_norm::forward(m, rows_of(x, weight), inputs, y)
    })?;
    Ok(one(made, x.1.shape()))
}

/// `dx`, `dweight`, `dbias` from `x`, `dy`, weight, all contiguous.
pub(crate) fn layer_norm_gradient(tensors: [&Tensor; 3]) -> Result<[Tensor; 3]> {
    let channels = tensors[2].elem_count();
    let [dx, both] = held(tensors, |[x, dy, weight]| {
        let inputs = [(x, Elements), (dy, Elements), (weight, Floats)];
        let outputs = [(length(x), Elements), (2 * channels, Floats)];
        run(inputs, outputs, |m, inputs, outputs| {
            layer_norm::backward(m, rows_of(x, weight), inputs, outputs)
        })
    })?;
    let both = tensor(both, (2, channels));
    Ok([tensor(dx, tensors[0].shape()), both.get(0)?, both.get(1)?])
}

/// `x`, weight and bias to the result.
pub(crate) fn conv2d(s: &Sizes, [x, w, b]: [Held<'_>; 3]) -> Result<(CudaStorage, Shape)> {
    let shape = (s.batch, s.groups * s.c_out, s.out_height, s.out_width);
    let inputs = [(x, Elements), (w, Floats), (b, Floats)];
    let outputs = [(Shape::from(shape).elem_count(), Elements)];
    let made = run(inputs, outputs, |m, inputs, [y]| conv::forward(m, s, inputs, y))?;
    Ok(one(made, shape))
}

/// `dx` from `dy` and the weight, both contiguous.
pub(crate) fn conv2d_input_gradient(s: &Sizes, tensors: [&Tensor; 2]) -> Result<Tensor> {
    let shape = (s.batch, s.groups * s.c_in, s.height, s.width);
    let [dx] = held(tensors, |[dy, w]| {
        let outputs = [(Shape::from(shape).elem_count(), Elements)];
        run([(dy, Elements), (w, Floats)], outputs, |m, inputs, [dx]| {
            conv::input_gradient(m, s, inputs, dx)
        })
    })?;
    Ok(tensor(dx, shape))
}

/// `dw` from `x` and `dy`, both contiguous.
pub(crate) fn conv2d_weight_gradient(s: &Sizes, tensors: [&Tensor; 2]) -> Result<Tensor> {
    let shape = (s.groups * s.c_out, s.c_in, s.kernel, s.kernel);
    let [dw] = held(tensors, |[x, dy]| {
        let outputs = [(Shape::from(shape).elem_count(), Floats)];
        run([(x, Elements), (dy, Elements)], outputs, |m, inputs, [dw]| {
            conv::weight_gradient(m, s, inputs, dw)
        })
    })?;
    Ok(tensor(dw, shape))
}

/// Floats `[C]`: sums of `[B, C, H, W]`, contiguous.
pub(crate) fn channel_sums(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let [sums] = held([x], |[x]| {
        run([(x, Elements)], [(channels, Floats)], |m, [x], [sums]| {
            conv::channel_sums(m, [batch, channels, height * width], x, sums)
        })
    })?;
    Ok(tensor(sums, channels))
}

fn attention_sizes(dims: &[usize], heads: usize) -> Result<AttentionSizes> {
    let &[batch, c3, height, width] = dims else {
        bail!("attention: input {dims:?}; expected 4 axes")
    };
    Ok(AttentionSizes {
        batch,
        heads,
        d: c3 / 3 / heads,
        pixels: height * width,
    })
}

/// `qkv` to the result.
pub(crate) fn attention(heads: usize, x: Held<'_>) -> Result<(CudaStorage, Shape)> {
    let dims = x.1.dims();
    let s = attention_sizes(dims, heads)?;
    let made = run([(x, Elements)], [(length(x) / 3, Elements)], |m, [x], [y]| {
        attention::forward(m, &s, x, y)
    })?;
    Ok(one(made, [&[dims[0], dims[1] / 3], &dims[2..]].concat()))
}

/// `dqkv` from `qkv` and `dy`, both contiguous.
pub(crate) fn attention_gradient(heads: usize, tensors: [&Tensor; 2]) -> Result<Tensor> {
    let s = attention_sizes(tensors[0].dims(), heads)?;
    let [dx] = held(tensors, |[x, dy]| {
        let inputs = [(x, Elements), (dy, Elements)];
        run(inputs, [(length(x), Elements)], |m, inputs, [dx]| {
            attention::backward(m, &s, inputs, dx)
        })
    })?;
    Ok(tensor(dx, tensors[0].shape()))
}

fn channel_sizes(dims: &[usize], heads: usize) -> Result<ChannelSizes> {
    let AttentionSizes { batch, d, pixels, .. } = attention_sizes(dims, heads)?;
    Ok(ChannelSizes {
        batch,
        heads,
        d,
        pixels,
    })
}

/// `qkv` and the temperature to the result.
pub(crate) fn channel_attention([x, t]: [Held<'_>; 2]) -> Result<(CudaStorage, Shape)> {
    let dims = x.1.dims();
    let s = channel_sizes(dims, length(t))?;
    let inputs = [(x, Elements), (t, Floats)];
    let made = run(inputs, [(length(x) / 3, Elements)], |m, inputs, [y]| {
        channel_attention::forward(m, &s, inputs, y)
    })?;
    Ok(one(made, [&[dims[0], dims[1] / 3], &dims[2..]].concat()))
}

/// `dqkv` and the temperature's gradient from `qkv`, the temperature and `dy`, all contiguous.
pub(crate) fn channel_attention_gradient(tensors: [&Tensor; 3]) -> Result<[Tensor; 2]> {
    let heads = tensors[1].elem_count();
    let s = channel_sizes(tensors[0].dims(), heads)?;
    let [dx, dt] = held(tensors, |[x, t, dy]| {
        let inputs = [(x, Elements), (t, Floats), (dy, Elements)];
        let outputs = [(length(x), Elements), (heads, Floats)];
        run(inputs, outputs, |m, inputs, outputs| {
            channel_attention::backward(m, &s, inputs, outputs)
        })
    })?;
    Ok([tensor(dx, tensors[0].shape()), tensor(dt, heads)])
}

fn image(dims: &[usize]) -> Result<[usize; 4]> {
    match dims {
        &[b, c, h, w] => Ok([b, c, h, w]),
        _ => bail!("an operator on images was given {dims:?}; expected 4 axes"),
    }
}

/// Every pixel twice along both axes.
pub(crate) fn upsample(x: Held<'_>) -> Result<(CudaStorage, Shape)> {
    let [b, c, h, w] = image(x.1.dims())?;
    let small = length(x);
    let made = run([(x, Elements)], [(4 * small, Elements)], |m, [x], [y]| {
        moves::double(m, [small, w], x, y)
    })?;
    Ok(one(made, (b, c, 2 * h, 2 * w)))
}

/// The transpose of [`upsample`].
pub(crate) fn sum_of_four(x: Held<'_>) -> Result<(CudaStorage, Shape)> {
    let [b, c, h, w] = image(x.1.dims())?;
    let small = length(x) / 4;
    let made = run([(x, Elements)], [(small, Elements)], |m, [x], [y]| {
        moves::sum_of_fours(m, [small, w / 2], x, y)
    })?;
    Ok(one(made, (b, c, h / 2, w / 2)))
}

/// Blocks of `f × f` pixels into channels.
pub(crate) fn space_to_depth(f: usize, x: Held<'_>) -> Result<(CudaStorage, Shape)> {
    let [b, c, h, w] = image(x.1.dims())?;
    let made = run([(x, Elements)], [(length(x), Elements)], |m, [from], [to]| {
        moves::move_blocks(m, length(x), [f, h / f, w / f], false, from, to)
    })?;
    Ok(one(made, (b, c * f * f, h / f, w / f)))
}

/// The inverse of [`space_to_depth`].
pub(crate) fn depth_to_space(f: usize, x: Held<'_>) -> Result<(CudaStorage, Shape)> {
    let [b, c, h, w] = image(x.1.dims())?;
    let made = run([(x, Elements)], [(length(x), Elements)], |m, [from], [to]| {
        moves::move_blocks(m, length(x), [f, h, w], true, from, to)
    })?;
    Ok(one(made, (b, c / (f * f), h * f, w * f)))
}

/// Two tensors joined on the channels.
pub(crate) fn concat([x, y]: [Held<'_>; 2]) -> Result<(CudaStorage, Shape)> {
    let ([b, cx, h, w], [_, cy, _, _]) = (image(x.1.dims())?, image(y.1.dims())?);
    let (nx, ny) = (cx * h * w, cy * h * w);
    let inputs = [(x, Elements), (y, Elements)];
    let made = run(inputs, [(b * (nx + ny), Elements)], |m, [x, y], [z]| {
        moves::copy_runs(m, [x, z], [b, nx], [nx, nx + ny])?;
        moves::copy_runs(m, [y, m.behind(z, nx)], [b, ny], [ny, nx + ny])
    })?;
    Ok(one(made, (b, cx + cy, h, w)))
}

/// Some channels.
pub(crate) fn channels((first, count): (usize, usize), x: Held<'_>) -> Result<(CudaStorage, Shape)> {
    let [b, c, h, w] = image(x.1.dims())?;
    let (all, some) = (c * h * w, count * h * w);
    let made = run([(x, Elements)], [(b * some, Elements)], |m, [x], [y]| {
        moves::copy_runs(m, [m.behind(x, first * h * w), y], [b, some], [all, some])
    })?;
    Ok(one(made, (b, count, h, w)))
}

/// `gelu(a)·b` of the two halves of the channels.
pub(crate) fn gelu_gate(x: Held<'_>) -> Result<(CudaStorage, Shape)> {
    let [b, c, h, w] = image(x.1.dims())?;
    let half = c / 2 * h * w;
    let made = run([(x, Elements)], [(b * half, Elements)], |m, [x], [y]| {
        moves::gate(m, [b, half], x, y)
    })?;
    Ok(one(made, (b, c / 2, h, w)))
}

/// The gradient of [`gelu_gate`] from `x` and `dy`.
pub(crate) fn gelu_gate_gradient([x, dy]: [Held<'_>; 2]) -> Result<(CudaStorage, Shape)> {
    let [b, c, h, w] = image(x.1.dims())?;
    let half = c / 2 * h * w;
    let inputs = [(x, Elements), (dy, Elements)];
    let made = run(inputs, [(length(x), Elements)], |m, inputs, [dx]| {
        moves::gate_gradient(m, [b, half], inputs, dx)
    })?;
    Ok(one(made, (b, c, h, w)))
}

/// `x + y`.
pub(crate) fn add([x, y]: [Held<'_>; 2]) -> Result<(CudaStorage, Shape)> {
    let inputs = [(x, Elements), (y, Elements)];
    let made = run(inputs, [(length(x), Elements)], |m, inputs, [z]| {
        moves::add(m, length(x), inputs, z)
    })?;
    Ok(one(made, x.1.shape()))
}

/// `sum += term` in place, for contiguous tensors of one type.
pub(crate) fn add_into(sum: &mut CudaStorage, layout: &Layout, term: Held<'_>) -> Result<()> {
    let (device, element) = (sum.device().clone(), element(sum.dtype())?);
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("sum of gradients: expected a contiguous tensor");
    };
    let stream = device.cuda_stream();
    let (from, _read) = address(term.0, term.1, element, &stream)?;
    let (to, _written) = address_mut(sum, &stream)?;
    let to = to + (start * element.bytes()) as u64;
    moves::add(&Program::new(&device, element, ""), end - start, [to, from], to)
}
