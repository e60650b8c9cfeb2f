//! The record of a forward pass from which gradients are computed: reverse-mode differentiation (Linnainmaa 1976)
//! with memory handed back on the way.
//!
//! candle's own backward pass fills a tensor of zeros for every gradient before it adds to it, adds on one thread, and
//! keeps every activation until its end. While [`record`] runs, the operators of this crate write themselves down here
//! instead: [`Tape::backward`] walks the record from its end, moves first gradients, adds further ones in place, and lets
//! go of each activation as soon as it was used. candle's own operators may stand between ours, before and after:
//! what they did is differentiated by candle. On devices without kernels of this crate, everything is left to candle.

use crate::elementwise::add_into;
use candle_core::backprop::GradStore;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Result, Shape, Storage, Tensor, TensorId, Var,
};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// An operator and what it was applied to.
enum Applied {
    One(Box<dyn CustomOp1 + Send + Sync>, [Tensor; 1]),
    Two(Box<dyn CustomOp2 + Send + Sync>, [Tensor; 2]),
    Three(Box<dyn CustomOp3 + Send + Sync>, [Tensor; 3]),
    /// A part of the forward pass that kept its inputs only.
    Part(Part, Vec<Tensor>),
}

type Part = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

impl Applied {
    fn arguments(&self) -> &[Tensor] {
        match self {
            Self::One(_, args) => args,
            Self::Two(_, args) => args,
            Self::Three(_, args) => args,
            Self::Part(_, args) => args,
        }
    }
}

struct Node {
    applied: Applied,
    result: Tensor,
}

/// What the operators of this thread do with what they compute.
enum Mode {
    /// candle keeps the graph.
    Graph,
    /// Operators are written down here.
    Record(Vec<Node>),
    /// Nothing is kept.
    Forget,
}

thread_local! {
    static MODE: RefCell<Mode> = const { RefCell::new(Mode::Graph) };
}

/// Puts the mode that was there before back, also after a panic.
struct Restore(Option<Mode>);

impl Restore {
    fn enter(mode: Mode) -> Self {
        Self(Some(MODE.with(|m| m.replace(mode))))
    }

    fn leave(mut self) -> Mode {
        let before = self.0.take().unwrap_or(Mode::Graph);
        MODE.with(|m| m.replace(before))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            MODE.with(|m| m.replace(before));
        }
    }
}

/// The operators that [`record`] saw on this thread, in order.
#[derive(Default)]
pub struct Tape(Vec<Node>);

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tape of {} operators", self.0.len())
    }
}

/// Runs `forward` and keeps what its operators did, for [`Tape::backward`].
///
/// ```
/// use allpet_nn::{Linear, Params, record};
/// use candle_core::{Device, Tensor};
///
/// let params = Params::new(0, &Device::Cpu);
/// let layer = Linear::new(&params, 2, 1)?;
/// let x = Tensor::new(&[[1f32, 2.0]], &Device::Cpu)?;
/// let (y, tape) = record(|| layer.forward(&x));
/// let gradients = tape.backward(&y?.sqr()?.sum_all()?)?;
/// assert!(gradients.get(&params.named()["weight"]).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn record<R>(forward: impl FnOnce() -> R) -> (R, Tape) {
    let restore = Restore::enter(Mode::Record(Vec::new()));
    let result = forward();
    match restore.leave() {
        Mode::Record(nodes) => (result, Tape(nodes)),
        Mode::Graph | Mode::Forget => (result, Tape::default()),
    }
}

/// Runs `forward` with nothing kept for gradients: inference, and frozen networks inside a training step.
pub fn without_gradients<R>(forward: impl FnOnce() -> R) -> R {
    let restore = Restore::enter(Mode::Forget);
    let result = forward();
    drop(restore);
    result
}

/// What a record keeps, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TapeSize {
    /// All tensors but parameters, each once, and with them the largest of the parts that are computed again.
    pub kept: usize,
    /// The largest tensor.
    pub largest: usize,
}

/// A gradient under way.
struct Sum {
    tensor: Tensor,
    /// Whether nobody else can see its storage, so that it may be added to in place.
    ours: bool,
}

impl Tape {
    /// Gradients of `loss` (one value) with respect to every variable it was computed from.
    ///
    /// # Errors
    /// Whatever an operator's backward pass reports.
    pub fn backward(self, loss: &Tensor) -> Result<GradStore> {
        let mut sums = HashMap::new();
        let mut store = if loss.is_variable() {
            // One of our operators came last: candle's pass has nothing to do, and would hand back only this.
            add(&mut sums, loss, loss.ones_like()?, true)?;
            empty_store(loss)?
        } else {
            loss.backward()?
        };
        take_all(&mut store, &mut sums)?;
        self.walk(&mut sums, &Cuts::new())?;
        for (id, sum) in sums {
            store.insert_id(id, sum.tensor);
        }
        Ok(store)
    }

    /// What the record keeps and what it takes to walk back through it, without doing so.
    ///
    /// # Errors
    /// What a part reports that is computed again.
    pub fn size(&self) -> Result<TapeSize> {
        let results: HashSet<TensorId> = self.0.iter().map(|node| node.result.id()).collect();
        let (mut seen, mut size) = (HashSet::new(), TapeSize::default());
        let mut again = 0;
        for Node { applied, result } in &self.0 {
            for tensor in applied.arguments().iter().chain([result]) {
                // A variable that no operator made is a parameter.
                let parameter = tensor.is_variable() && !results.contains(&tensor.id());
                if !parameter && seen.insert(tensor.id()) {
                    let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
                    size.kept += bytes;
                    size.largest = size.largest.max(bytes);
                }
            }
            if let Applied::Part(part, inputs) = applied {
                let (result, tape) = record(|| part(inputs));
                drop(result?);
                let inside = tape.size()?;
                again = again.max(inside.kept);
                size.largest = size.largest.max(inside.largest);
            }
        }
        size.kept += again;
        Ok(size)
    }

    /// From the gradients of what the last operators made to those of variables.
    fn walk(self, sums: &mut HashMap<TensorId, Sum>, cuts: &Cuts) -> Result<()> {
        for Node { applied, result } in self.0.into_iter().rev() {
            let Some(Sum { tensor: grad, .. }) = sums.remove(&result.id()) else {
                continue;
            };
            match applied {
                Applied::One(op, [x]) => {
                    let dx = op.bwd(&x, &result, &grad)?;
                    drop((result, op));
                    give(sums, cuts, x, dx, &grad)?;
                }
                Applied::Two(op, [x, y]) => {
                    let (dx, dy) = op.bwd(&x, &y, &result, &grad)?;
                    drop((result, op));
                    give(sums, cuts, x, dx, &grad)?;
                    give(sums, cuts, y, dy, &grad)?;
                }
                Applied::Three(op, [x, y, z]) => {
                    let (dx, dy, dz) = op.bwd(&x, &y, &z, &result, &grad)?;
                    drop((result, op));
                    give(sums, cuts, x, dx, &grad)?;
                    give(sums, cuts, y, dy, &grad)?;
                    give(sums, cuts, z, dz, &grad)?;
                }
                Applied::Part(part, inputs) => {
                    drop(result);
                    again(sums, cuts, &part, inputs, grad)?;
                }
            }
        }
        Ok(())
    }
}

/// What stands, inside a part that is computed again, for tensors that candle made outside of it.
type Cuts = HashMap<TensorId, Tensor>;

/// Computes a part once more, this time recorded, and walks back through it. Gradients go into the sums of the whole walk, so
/// that they are added in the order in which they would have been without a part: the results are the same bytes.
fn again(
    sums: &mut HashMap<TensorId, Sum>,
    outside: &Cuts,
    part: &Part,
    inputs: Vec<Tensor>,
    grad: Tensor,
) -> Result<()> {
    // What candle computed ends here for the time being; our own results and parameters are variables already.
    let cut = |t: &Tensor| match t.track_op() && !t.is_variable() {
        true => Ok(Var::from_tensor(t)?.as_tensor().clone()),
        false => Ok(t.clone()),
    };
    let tensors: Vec<Tensor> = inputs.iter().map(cut).collect::<Result<_>>()?;
    let (result, tape) = record(|| part(&tensors));
    let own: Vec<(TensorId, Tensor)> = inputs
        .into_iter()
        .zip(&tensors)
        .filter(|(input, cut)| input.id() != cut.id())
        .map(|(input, cut)| (cut.id(), input))
        .collect();
    let mut cuts = outside.clone();
    cuts.extend(own.iter().cloned());
    give(sums, &cuts, result?, Some(grad.clone()), &grad)?;
    tape.walk(sums, &cuts)?;
    // What candle's operators inside the part gave to what stands for candle's outside.
    for (cut, input) in own {
        if let Some(Sum { tensor, .. }) = sums.remove(&cut) {
            give(sums, outside, input, Some(tensor.clone()), &tensor)?;
        }
    }
    Ok(())
}

/// Runs a part of a forward pass without keeping anything but its inputs; it is computed again on the way back.
///
/// For blocks whose activations would not fit: memory falls to that of one block, at the price of one more forward pass
/// (Chen et al. 2016). Outside of [`record`] it is the part itself. The part must compute the same each time it is called,
/// from `inputs` (at least one) and from parameters.
///
/// # Errors
/// What the part reports.
pub fn recomputed(
    inputs: &[&Tensor],
    part: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let inputs: Vec<Tensor> = inputs.iter().map(|t| (*t).clone()).collect();
    let recording = MODE.with(|mode| matches!(&*mode.borrow(), Mode::Record(_)));
    if !recording || inputs.is_empty() || !inputs.iter().all(recordable) {
        return part(&inputs);
    }
    let result = without_gradients(|| part(&inputs))?;
    // candle's operators on parameters track whatever the mode is; the values alone go on.
    let result = Var::from_tensor(&result.detach())?.as_tensor().clone();
    MODE.with(|mode| {
        if let Mode::Record(nodes) = &mut *mode.borrow_mut() {
            nodes.push(Node {
                applied: Applied::Part(Box::new(part), inputs),
                result: result.clone(),
            });
        }
    });
    Ok(result)
}

/// candle hands out its store of gradients from a backward pass only.
fn empty_store(like: &Tensor) -> Result<GradStore> {
    Tensor::zeros((), like.dtype(), like.device())?.backward()
}

/// Moves what candle computed into the sums.
fn take_all(store: &mut GradStore, sums: &mut HashMap<TensorId, Sum>) -> Result<()> {
    let ids: Vec<TensorId> = store.get_ids().copied().collect();
    for id in ids {
        if let Some(tensor) = store.get_id(id) {
            add_by_id(sums, id, tensor.clone(), false)?;
        }
    }
    Ok(())
}

/// Adds an operator's gradient to its argument's, or hands it to candle where candle made the argument.
fn give(
    sums: &mut HashMap<TensorId, Sum>,
    cuts: &Cuts,
    arg: Tensor,
    gradient: Option<Tensor>,
    came_from: &Tensor,
) -> Result<()> {
    let Some(gradient) = gradient.filter(|_| arg.track_op()) else {
        return Ok(());
    };
    let arg = cuts.get(&arg.id()).cloned().unwrap_or(arg);
    if arg.is_variable() {
        // An operator returns storage of its own, or hands on what it was given, perhaps to several: then nobody may
        // write to it.
        let ours = gradient.id() != came_from.id();
        return add(sums, &arg, gradient, ours);
    }
    let mut store = (arg * gradient.detach())?.sum_all()?.backward()?;
    take_all(&mut store, sums)
}

fn add(sums: &mut HashMap<TensorId, Sum>, to: &Tensor, gradient: Tensor, ours: bool) -> Result<()> {
    add_by_id(sums, to.id(), gradient, ours)
}

fn add_by_id(sums: &mut HashMap<TensorId, Sum>, id: TensorId, gradient: Tensor, ours: bool) -> Result<()> {
    let sum = match sums.remove(&id) {
        None => Sum {
            tensor: gradient,
            ours,
        },
        Some(sum) if sum.ours && add_into(&sum.tensor, &gradient)? => sum,
        Some(sum) if ours && add_into(&gradient, &sum.tensor)? => Sum {
            tensor: gradient,
            ours,
        },
        Some(sum) => Sum {
            tensor: (sum.tensor + gradient)?.detach(),
            ours: true,
        },
    };
    sums.insert(id, sum);
    Ok(())
}

/// What an operator's application comes to in the present mode.
enum Plan {
    Graph,
    Plain,
    Record,
}

/// Whether operators of this crate compute with the tensor's device.
fn recordable(t: &Tensor) -> bool {
    t.device().is_cpu() || t.device().is_cuda()
}

fn plan(args: &[&Tensor]) -> Plan {
    MODE.with(|mode| match &*mode.borrow() {
        Mode::Graph => Plan::Graph,
        Mode::Record(_) if args.iter().any(|a| a.track_op()) => match args.iter().all(|a| recordable(a)) {
            true => Plan::Record,
            false => Plan::Graph,
        },
        Mode::Record(_) | Mode::Forget => Plan::Plain,
    })
}

/// The result as a variable, so that candle's operators on it are tracked down to here and no further.
fn write_down(computed: (Storage, Shape), applied: Applied) -> Tensor {
    let (storage, shape) = computed;
    let result = Tensor::from_storage(storage, shape, BackpropOp::none(), true);
    MODE.with(|mode| {
        if let Mode::Record(nodes) = &mut *mode.borrow_mut() {
            nodes.push(Node {
                applied,
                result: result.clone(),
            });
        }
    });
    result
}

fn on_host((storage, shape): (CpuStorage, Shape)) -> (Storage, Shape) {
    (Storage::Cpu(storage), shape)
}

fn on_cuda((storage, shape): (CudaStorage, Shape)) -> (Storage, Shape) {
    (Storage::Cuda(storage), shape)
}

fn elsewhere() -> Result<(Storage, Shape)> {
    candle_core::bail!("the tensors of a recorded operator lie on different devices")
}

/// Applies an operator of one argument: written down while [`record`] runs, in candle's graph elsewhere.
///
/// For operators of one's own that shall be differentiated as this crate's are. Its backward pass must return tensors
/// of their own, or the gradient it was given itself.
///
/// # Errors
/// What the operator reports.
pub fn apply1(x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    match plan(&[x]) {
        Plan::Graph => x.apply_op1(op),
        Plan::Plain => x.apply_op1_no_bwd(&op),
        Plan::Record => {
            let computed = {
                let (sx, lx) = x.storage_and_layout();
                match &*sx {
                    Storage::Cpu(sx) => on_host(op.cpu_fwd(sx, lx)?),
                    Storage::Cuda(sx) => on_cuda(op.cuda_fwd(sx, lx)?),
                    Storage::Metal(_) => elsewhere()?,
                }
            };
            Ok(write_down(computed, Applied::One(Box::new(op), [x.clone()])))
        }
    }
}

/// [`apply1`] for two arguments.
///
/// # Errors
/// What the operator reports.
pub fn apply2(x: &Tensor, y: &Tensor, op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
    match plan(&[x, y]) {
        Plan::Graph => x.apply_op2(y, op),
        Plan::Plain => x.apply_op2_no_bwd(y, &op),
        Plan::Record => {
            let computed = {
                let ((sx, lx), (sy, ly)) = (x.storage_and_layout(), y.storage_and_layout());
                match (&*sx, &*sy) {
                    (Storage::Cpu(sx), Storage::Cpu(sy)) => on_host(op.cpu_fwd(sx, lx, sy, ly)?),
                    (Storage::Cuda(sx), Storage::Cuda(sy)) => on_cuda(op.cuda_fwd(sx, lx, sy, ly)?),
                    _ => elsewhere()?,
                }
            };
            Ok(write_down(
                computed,
                Applied::Two(Box::new(op), [x.clone(), y.clone()]),
            ))
        }
    }
}

/// [`apply1`] for three arguments.
///
/// # Errors
/// What the operator reports.
pub fn apply3(
    x: &Tensor,
    y: &Tensor,
    z: &Tensor,
    op: impl CustomOp3 + Send + Sync + 'static,
) -> Result<Tensor> {
    match plan(&[x, y, z]) {
        Plan::Graph => x.apply_op3(y, z, op),
        Plan::Plain => x.apply_op3_no_bwd(y, z, &op),
        Plan::Record => {
            let computed = {
                let (sx, lx) = x.storage_and_layout();
                let ((sy, ly), (sz, lz)) = (y.storage_and_layout(), z.storage_and_layout());
                match (&*sx, &*sy, &*sz) {
                    (Storage::Cpu(sx), Storage::Cpu(sy), Storage::Cpu(sz)) => {
                        on_host(op.cpu_fwd(sx, lx, sy, ly, sz, lz)?)
                    }
                    (Storage::Cuda(sx), Storage::Cuda(sy), Storage::Cuda(sz)) => {
                        on_cuda(op.cuda_fwd(sx, lx, sy, ly, sz, lz)?)
                    }
                    _ => elsewhere()?,
                }
            };
            Ok(write_down(
                computed,
                Applied::Three(Box::new(op), [x.clone(), y.clone(), z.clone()]),
            ))
        }
    }
}
