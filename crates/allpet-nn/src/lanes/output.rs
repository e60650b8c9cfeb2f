//! Memory for results, written once: filling megabytes with zeros first costs as much as a pass over them.

use std::mem::MaybeUninit;

/// A float that may not have been written yet.
#[repr(transparent)]
pub(crate) struct Slot(pub(super) MaybeUninit<f32>);

impl Slot {
    /// Floats as slots that have all been written.
    pub(crate) fn of(values: &mut [f32]) -> &mut [Self] {
        let (data, length) = (values.as_mut_ptr(), values.len());
        // SAFETY: a slot is a float in memory, and nothing outside this folder can unwrite one.
        unsafe { std::slice::from_raw_parts_mut(data.cast(), length) }
    }

    /// Writes all slots, as many as there are values.
    pub(crate) fn copy(to: &mut [Self], from: &[f32]) {
        assert_eq!(to.len(), from.len(), "as many slots as values");
        // SAFETY: a slot is a float in memory; the lengths agree, and the two cannot overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().cast(), from.len()) }
    }

    /// Writes the float.
    #[inline(always)]
    pub(crate) fn set(&mut self, value: f32) {
        self.0.write(value);
    }
}

/// Floats of a line of the cache.
const SLACK: usize = 16;

/// Zeros that begin where a register's memory does: loads and stores across two lines of the cache cost half as much again.
pub(crate) struct Aligned {
    values: Vec<f32>,
    first: usize,
}

impl Aligned {
    pub(crate) fn zeros(length: usize) -> Self {
        let values = vec![0f32; length + SLACK];
        let first = values.as_ptr().align_offset(SLACK * size_of::<f32>()).min(SLACK);
        Self { values, first }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let length = self.values.len() - SLACK;
        &self.values[self.first..self.first + length]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        let length = self.values.len() - SLACK;
        &mut self.values[self.first..self.first + length]
    }
}

/// `length` floats, all of them written by `fill`.
///
/// # Safety
/// `fill` must write every slot it is given before it returns.
pub(crate) unsafe fn filled(length: usize, fill: impl FnOnce(&mut [Slot])) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(length);
    let spare = &mut values.spare_capacity_mut()[..length];
    let (data, length) = (spare.as_mut_ptr(), spare.len());
    // SAFETY: a slot is a float that may be unwritten, as spare capacity is; after `fill` all of it was written.
    unsafe {
        fill(std::slice::from_raw_parts_mut(data.cast(), length));
        values.set_len(length);
    }
    values
}
