//! What a call needs beyond its input and output, and that it allocates nothing once its buffers exist.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::{LinearOperator, Projector};
use ndarray::{ArrayD, IxDyn};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes held during `work` beyond those held before.
fn beyond(work: impl FnOnce()) -> usize {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    PEAK.load(Relaxed) - before
}

#[test]
fn a_call_needs_at_most_four_images() {
    let grid = ImageGrid::square(256, 1.0).unwrap();
    let geometry = ParallelGeometry::new(360, 367, 1.0).unwrap();
    let small = ImageGrid::square(16, 1.0).unwrap();
    let few = ParallelGeometry::new(8, 20, 1.0).unwrap();
    // Threads of the pool take memory of their own when they start.
    let tiny = Projector::new(small, few).unwrap();
    tiny.apply(ArrayD::zeros(IxDyn(&[16, 16])).view()).unwrap();
    for slices in [1, 16] {
        let mut image = ArrayD::<f32>::ones(IxDyn(&[slices, 256, 256]));
        let mut sinogram = ArrayD::<f32>::ones(IxDyn(&[slices, 360, 367]));
        let images = |bytes: usize| bytes as f64 / (image.len() * 4) as f64;
        let projector = Projector::new(grid, geometry).unwrap();
        let forward = images(beyond(|| {
            projector.forward(image.view(), sinogram.view_mut()).unwrap();
        }));
        let projector = Projector::new(grid, geometry).unwrap();
        let adjoint = beyond(|| projector.adjoint(sinogram.view(), image.view_mut()).unwrap());
        let adjoint = adjoint as f64 / (slices * 256 * 256 * 4) as f64;
        let again = beyond(|| projector.adjoint(sinogram.view(), image.view_mut()).unwrap());
        let again = again as f64 / (slices * 256 * 256 * 4) as f64;
        println!("{slices} slices, in images: forward {forward:.2}, adjoint {adjoint:.2}, again {again:.3}");
        assert!(forward < 4.0 && adjoint < 4.0, "{slices}: {forward}, {adjoint}");
        // Thread-local lists, not images.
        assert!(again < 0.1, "{slices}: {again}");
    }
}
