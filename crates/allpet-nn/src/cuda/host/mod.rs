//! The kernels' text read by a C compiler and run on the host, against the operators of the CPU.
//!
//! Needs a C compiler: `CC`, or else `cc`.
#![allow(clippy::unwrap_used)]

mod operators;

use super::{Matrix, Product, Products};
use allpet_core::{fill_normal, stream};
use allpet_kernel::{ARGUMENTS, Element, Machine, Unit, host::Host};
use candle_core::{Device, Result as Candle, Tensor, Var};
use half::{bf16, f16};
use std::convert::Infallible;
use std::sync::LazyLock;

fn host(element: Element, definitions: &str, backward: bool) -> Host {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    Host::new(&compiler, element, definitions, backward)
}

static RISING: LazyLock<Host> = LazyLock::new(|| host(Element::F32, "", false));
static FALLING: LazyLock<Host> = LazyLock::new(|| host(Element::F32, "", true));
static F16: LazyLock<Host> = LazyLock::new(|| host(Element::F16, "", false));
static BF16: LazyLock<Host> = LazyLock::new(|| host(Element::BF16, "", false));

/// Scratch in which everything fits, and in which next to nothing does.
const AMPLE: usize = 1 << 26;
const SCARCE: usize = 1 << 10;

/// The host as a machine that multiplies matrices, in f64.
struct Bench<'a> {
    host: &'a Host,
    limit: usize,
}

impl Machine for Bench<'_> {
    type Memory = Vec<u64>;
    type Error = Infallible;

    fn element(&self) -> Element {
        self.host.element()
    }

    fn scratch(&self, bytes: usize) -> Result<Vec<u64>, Infallible> {
        self.host.scratch(bytes)
    }

    fn address(&self, memory: &Vec<u64>) -> u64 {
        self.host.address(memory)
    }

    fn launch(
        &self,
        unit: &'static Unit,
        kernel: &'static str,
        blocks: [usize; 3],
        arguments: [u64; ARGUMENTS],
    ) -> Result<(), Infallible> {
        self.host.launch(unit, kernel, blocks, arguments)
    }
}

fn read(element: Element, at: u64, i: usize) -> f32 {
    // SAFETY: products name matrices in live memory.
    unsafe {
        match element {
            Element::F32 => *(at as *const f32).add(i),
            Element::F16 => (*(at as *const f16).add(i)).to_f32(),
            Element::BF16 => (*(at as *const bf16).add(i)).to_f32(),
        }
    }
}

fn write(element: Element, at: u64, i: usize, value: f32) {
    // SAFETY: products name matrices in live memory.
    unsafe {
        match element {
            Element::F32 => *(at as *mut f32).add(i) = value,
            Element::F16 => *(at as *mut f16).add(i) = f16::from_f32(value),
            Element::BF16 => *(at as *mut bf16).add(i) = bf16::from_f32(value),
        }
    }
}

impl Products for Bench<'_> {
    fn product(&self, p: Product) -> Result<(), Infallible> {
        let element = self.element();
        let of_c = if p.wide { Element::F32 } else { element };
        let place = |m: &Matrix, row: usize, column: usize, i: usize| {
            let (row, column) = if m.flipped { (column, row) } else { (row, column) };
            i * m.step + row * m.row + column
        };
        for i in 0..p.count {
            for row in 0..p.rows {
                for column in 0..p.columns {
                    let sum: f64 = (0..p.depth)
                        .map(|k| {
                            let a = read(element, p.a.at, place(&p.a, row, k, i));
                            f64::from(a) * f64::from(read(element, p.b.at, place(&p.b, k, column, i)))
                        })
                        .sum();
                    let at = place(&p.c, row, column, i);
                    let before = if p.again { read(of_c, p.c.at, at) } else { 0.0 };
                    let value = sum * f64::from(p.scale) + f64::from(before);
                    write(of_c, p.c.at, at, value as f32);
                }
            }
        }
        Ok(())
    }

    fn limit(&self) -> usize {
        self.limit
    }
}

/// Memory that kernels read and write.
enum Memory {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
}

impl Memory {
    fn of(element: Element, values: &[f32]) -> Self {
        match element {
            Element::F32 => Self::F32(values.to_vec()),
            Element::F16 => Self::F16(values.iter().map(|v| f16::from_f32(*v)).collect()),
            Element::BF16 => Self::BF16(values.iter().map(|v| bf16::from_f32(*v)).collect()),
        }
    }

    fn at(&mut self) -> u64 {
        match self {
            Self::F32(v) => v.as_mut_ptr() as u64,
            Self::F16(v) => v.as_mut_ptr() as u64,
            Self::BF16(v) => v.as_mut_ptr() as u64,
        }
    }

    fn values(self) -> Vec<f32> {
        match self {
            Self::F32(v) => v,
            Self::F16(v) => v.into_iter().map(f16::to_f32).collect(),
            Self::BF16(v) => v.into_iter().map(bf16::to_f32).collect(),
        }
    }
}

/// What a tensor is to a kernel.
#[derive(Clone, Copy)]
enum Kind {
    Elements,
    Floats,
}
use Kind::{Elements, Floats};

/// Runs `work` on copies of the inputs and returns the outputs, which start as NaN.
fn on<const I: usize, const O: usize>(
    bench: &Bench<'_>,
    inputs: [(&[f32], Kind); I],
    outputs: [(usize, Kind); O],
    work: impl FnOnce(&Bench<'_>, [u64; I], [u64; O]) -> Result<(), Infallible>,
) -> Vec<Vec<f32>> {
    let element = |kind| match kind {
        Elements => bench.element(),
        Floats => Element::F32,
    };
    let mut inputs = inputs.map(|(values, kind)| Memory::of(element(kind), values));
    let mut outputs = outputs.map(|(length, kind)| Memory::of(element(kind), &vec![f32::NAN; length]));
    work(
        bench,
        inputs.each_mut().map(Memory::at),
        outputs.each_mut().map(Memory::at),
    )
    .unwrap();
    outputs.into_iter().map(Memory::values).collect()
}

/// Normal numbers that all three types hold exactly, so that only what is computed from them is rounded.
fn draw(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut values = vec![0f32; shape.iter().product()];
    fill_normal(&mut stream(5, name, 0), &mut values);
    let round = |v: &f32| f16::from_f32(bf16::from_f32(*v).to_f32()).to_f32();
    values.iter().map(round).collect()
}

fn list(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// What the CPU makes of drawn inputs: these, the result, the gradient given, the gradients taken.
struct Cpu {
    inputs: Vec<Vec<f32>>,
    y: Vec<f32>,
    dy: Vec<f32>,
    gradients: Vec<Vec<f32>>,
}

impl Cpu {
    fn new(shapes: &[&[usize]], operator: impl Fn(&[Tensor]) -> Candle<Tensor>) -> Self {
        let inputs: Vec<_> = shapes
            .iter()
            .enumerate()
            .map(|(i, s)| draw(&format!("x{i}"), s))
            .collect();
        let tensor = |v: &[f32], s: &[usize]| Tensor::from_slice(v, s, &Device::Cpu).unwrap();
        let vars: Vec<Var> = inputs
            .iter()
            .zip(shapes)
            .map(|(v, s)| Var::from_tensor(&tensor(v, s)).unwrap())
            .collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = operator(&tensors).unwrap();
        let dy = draw("dy", y.dims());
        let loss = (&y * tensor(&dy, y.dims())).unwrap().sum_all().unwrap();
        let store = loss.backward().unwrap();
        let gradients = vars.iter().map(|v| list(store.get(v).unwrap())).collect();
        Self {
            inputs,
            y: list(&y),
            dy,
            gradients,
        }
    }
}

/// Largest deviation, relative to the largest entry.
fn worst(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1e-12f32, |m, v| m.max(v.abs()));
    let far = |(g, e): (&f32, &f32)| {
        let far = f64::from(g - e).abs();
        if far.is_nan() { f64::INFINITY } else { far }
    };
    got.iter().zip(expected).map(far).fold(0.0, f64::max) / f64::from(scale)
}

/// Runs an operator's kernels in every way there is, against what the CPU made of the same.
fn check(name: &str, expected: &[Vec<f32>], run: impl Fn(&Bench<'_>) -> Vec<Vec<f32>>) {
    let of = |host: &Host, limit: usize| run(&Bench { host, limit });
    let got = of(&RISING, AMPLE);
    let far = |got: &[Vec<f32>]| {
        assert_eq!(got.len(), expected.len());
        got.iter()
            .zip(expected)
            .map(|(g, e)| worst(g, e))
            .fold(0.0, f64::max)
    };
    let (wide, tiled) = (far(&got), far(&of(&RISING, SCARCE)));
    assert!(
        wide < 5e-6 && tiled < 5e-6,
        "{name}: {wide:.1e}, in parts {tiled:.1e}"
    );
    // Bytes: NaN would not equal itself, and there is none.
    assert_eq!(
        of(&FALLING, AMPLE),
        got,
        "{name}: the order of blocks and threads shows"
    );
    // Rounding to 11 or 8 digits leaves 2^-12 or 2^-9 of a value; some are rounded on the way too.
    for (host, bound) in [(&*F16, 4e-3), (&*BF16, 3e-2)] {
        let (wide, tiled) = (far(&of(host, AMPLE)), far(&of(host, SCARCE)));
        let element = host.element();
        assert!(
            wide < bound && tiled < bound,
            "{name}, {element:?}: {wide:.1e}, in parts {tiled:.1e}"
        );
    }
}
