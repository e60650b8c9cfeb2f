//! The inner loop of `kernel` in AVX-512 and AVX2.
//!
//! Where 16 neighbouring positions span less than 32 elements, two loads and two permutations replace two gathers;
//! wider spacings and wider triangles gather.

use crate::kernel::{BLOCK, Tent};
use std::arch::x86_64::*;

/// Largest spacing at which a block and its upper neighbours fit two vectors (15·step + carry, rounding and neighbour).
const WINDOW_STEP: f64 = 28.0 / 15.0;

/// [`Tent::add`] with AVX-512F.
///
/// # Safety
/// The processor has AVX-512F, and every index the positions reach, with the padding that `Tent::add` asks for,
/// lies in `line`.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn add_avx512(tent: &Tent, acc: &mut [f32], line: &[f32], origin: usize, base: f64) {
    let windowed = tent.taps == 1 && tent.step.abs() <= WINDOW_STEP;
    // SAFETY: arrays of 16 elements.
    let (whole, part) = unsafe {
        (
            _mm512_loadu_si512(tent.whole.as_ptr().cast()),
            _mm512_loadu_ps(tent.part.as_ptr()),
        )
    };
    let (one, one_i, zero) = (_mm512_set1_ps(1.0), _mm512_set1_epi32(1), _mm512_setzero_ps());
    let slope = _mm512_set1_ps(tent.slope);
    for (block, acc) in acc.chunks_mut(BLOCK).enumerate() {
        let lanes = ((1u32 << acc.len()) - 1) as __mmask16;
        let (first, offset) = tent.start(block, base);
        let first = first + origin as i64;
        let sum = _mm512_add_ps(_mm512_set1_ps(offset), part);
        let carry = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(sum, one);
        let fraction = _mm512_mask_sub_ps(sum, carry, sum, one);
        // SAFETY: lanes past the end of `acc` are masked off; for the others the caller vouches.
        unsafe {
            let mut value = _mm512_maskz_loadu_ps(lanes, acc.as_ptr());
            let (below, above, index) = if windowed {
                // The lowest index that counts; lanes past the end of `acc` permute anything.
                let lowest = tent.whole[0].min(tent.whole[acc.len() - 1]);
                let relative = _mm512_sub_epi32(whole, _mm512_set1_epi32(lowest));
                let from = line.as_ptr().offset((first + i64::from(lowest)) as isize);
                let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(BLOCK)));
                let index = _mm512_mask_add_epi32(relative, carry, relative, one_i);
                let next = _mm512_add_epi32(index, one_i);
                (
                    _mm512_permutex2var_ps(low, index, high),
                    _mm512_permutex2var_ps(low, next, high),
                    index,
                )
            } else {
                let start = _mm512_set1_epi32(first as i32);
                let index = _mm512_add_epi32(start, whole);
                let index = _mm512_mask_add_epi32(index, carry, index, one_i);
                let from = line.as_ptr();
                let below = _mm512_mask_i32gather_ps::<4>(zero, lanes, index, from);
                (
                    below,
                    _mm512_mask_i32gather_ps::<4>(zero, lanes, index, from.add(1)),
                    index,
                )
            };
            if tent.linear {
                let step = _mm512_fmadd_ps(fraction, _mm512_sub_ps(above, below), below);
                value = _mm512_add_ps(value, step);
            } else {
                let rest = _mm512_sub_ps(one, fraction);
                let w = _mm512_max_ps(zero, _mm512_fnmadd_ps(slope, fraction, one));
                let v = _mm512_max_ps(zero, _mm512_fnmadd_ps(slope, rest, one));
                let sum = _mm512_fmadd_ps(w, below, _mm512_mul_ps(v, above));
                value = _mm512_add_ps(value, sum);
                for p in 1..tent.taps {
                    let distance = _mm512_set1_ps(p as f32);
                    let w = _mm512_fnmadd_ps(slope, _mm512_add_ps(fraction, distance), one);
                    let v = _mm512_fnmadd_ps(slope, _mm512_add_ps(rest, distance), one);
                    let below = _mm512_mask_i32gather_ps::<4>(zero, lanes, index, line.as_ptr().sub(p));
                    let above = _mm512_mask_i32gather_ps::<4>(zero, lanes, index, line.as_ptr().add(1 + p));
                    value = _mm512_fmadd_ps(_mm512_max_ps(zero, w), below, value);
                    value = _mm512_fmadd_ps(_mm512_max_ps(zero, v), above, value);
                }
            }
            _mm512_mask_storeu_ps(acc.as_mut_ptr(), lanes, value);
        }
    }
}

/// [`Tent::add`] with AVX2 and FMA; the last, incomplete block takes the portable path.
///
/// # Safety
/// As [`add_avx512`], with AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn add_avx2(tent: &Tent, acc: &mut [f32], line: &[f32], origin: usize, base: f64) {
    const HALF: usize = BLOCK / 2;
    let (one, one_i, zero) = (_mm256_set1_ps(1.0), _mm256_set1_epi32(1), _mm256_setzero_ps());
    let slope = _mm256_set1_ps(tent.slope);
    let full = acc.len() / BLOCK * BLOCK;
    let (blocks, tail) = acc.split_at_mut(full);
    for (block, acc) in blocks.chunks_exact_mut(BLOCK).enumerate() {
        let (first, offset) = tent.start(block, base);
        let start = _mm256_set1_epi32((first + origin as i64) as i32);
        for half in 0..2 {
            // SAFETY: both halves of arrays of 16; for the line the caller vouches.
            unsafe {
                let to = acc.as_mut_ptr().add(half * HALF);
                let whole = _mm256_loadu_si256(tent.whole.as_ptr().add(half * HALF).cast());
                let part = _mm256_loadu_ps(tent.part.as_ptr().add(half * HALF));
                let sum = _mm256_add_ps(_mm256_set1_ps(offset), part);
                let carry = _mm256_cmp_ps::<_CMP_GE_OQ>(sum, one);
                let fraction = _mm256_sub_ps(sum, _mm256_and_ps(carry, one));
                let index = _mm256_add_epi32(
                    _mm256_add_epi32(start, whole),
                    _mm256_and_si256(_mm256_castps_si256(carry), one_i),
                );
                let mut value = _mm256_loadu_ps(to);
                let rest = _mm256_sub_ps(one, fraction);
                for p in 0..tent.taps {
                    let below = _mm256_i32gather_ps::<4>(line.as_ptr().offset(-(p as isize)), index);
                    let above = _mm256_i32gather_ps::<4>(line.as_ptr().add(1 + p), index);
                    if tent.linear {
                        let step = _mm256_fmadd_ps(fraction, _mm256_sub_ps(above, below), below);
                        value = _mm256_add_ps(value, step);
                    } else {
                        let distance = _mm256_set1_ps(p as f32);
                        let w = _mm256_fnmadd_ps(slope, _mm256_add_ps(fraction, distance), one);
                        let v = _mm256_fnmadd_ps(slope, _mm256_add_ps(rest, distance), one);
                        value = _mm256_fmadd_ps(_mm256_max_ps(zero, w), below, value);
                        value = _mm256_fmadd_ps(_mm256_max_ps(zero, v), above, value);
                    }
                }
                _mm256_storeu_ps(to, value);
            }
        }
    }
    if !tail.is_empty() {
        tent.add_portable(tail, line, origin, base + full as f64 * tent.step);
    }
}
