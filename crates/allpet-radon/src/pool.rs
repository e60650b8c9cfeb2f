//! Buffers that are used again: a call allocates no image or sinogram of its own once its sizes were seen.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers start where sixteen lanes fill one line of the cache: a load across two lines costs as much as two loads.
const ALIGNMENT: usize = 64;
/// Elements that make up for any start of an allocation.
const SPARE: usize = ALIGNMENT / size_of::<f32>();

/// Buffers at rest. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<f32>>>>);

/// A buffer in use; it goes back when dropped.
pub(crate) struct Buffer {
    values: Vec<f32>,
    start: usize,
    pool: Pool,
}

impl Pool {
    /// A buffer of `length` elements with whatever was in it.
    pub(crate) fn take(&self, length: usize) -> Buffer {
        let length = length + SPARE;
        let mut values = {
            let mut at_rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // The smallest that is large enough, or else the largest.
            let fitting = at_rest
                .iter()
                .enumerate()
                .min_by_key(|(_, b)| (b.capacity() < length, b.capacity().abs_diff(length)))
                .map(|(i, _)| i);
            fitting.map(|i| at_rest.swap_remove(i)).unwrap_or_default()
        };
        values.resize(length, 0.0);
        let start = values.as_ptr().align_offset(ALIGNMENT);
        // An offset may be unknown, and alignment is a matter of speed only.
        let start = if start < SPARE { start } else { 0 };
        values.truncate(start + length - SPARE);
        Buffer {
            start,
            values,
            pool: self.clone(),
        }
    }

    /// A buffer of zeros.
    pub(crate) fn zeros(&self, length: usize) -> Buffer {
        let mut buffer = self.take(length);
        buffer.fill(0.0);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut at_rest = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        at_rest.push(std::mem::take(&mut self.values));
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[self.start..]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..]
    }
}
