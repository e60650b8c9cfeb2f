//! Exchange of rows and columns in registers: 16 × 16 floats at a time where the machine has AVX-512.

/// `to[col · to_stride + row] = from[row · from_stride + col]` for `rows × cols` floats.
///
/// # Panics
/// When a slice is too short: a fault of the caller inside this crate.
pub(crate) fn transpose(
    from: &[f32],
    from_stride: usize,
    (rows, cols): (usize, usize),
    to: &mut [f32],
    to_stride: usize,
) {
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(
        from.len() >= (rows - 1) * from_stride + cols,
        "nothing to transpose"
    );
    assert!(
        to.len() >= (cols - 1) * to_stride + rows,
        "no room for the transpose"
    );
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        for row in (0..rows).step_by(SIDE) {
            for col in (0..cols).step_by(SIDE) {
                let size = (SIDE.min(rows - row), SIDE.min(cols - col));
                // SAFETY: AVX-512 was detected, and the asserted lengths cover this block on both sides.
                unsafe {
                    block(
                        from.as_ptr().add(row * from_stride + col),
                        from_stride,
                        to.as_mut_ptr().add(col * to_stride + row),
                        to_stride,
                        size,
                    );
                }
            }
        }
        return;
    }
    for row in 0..rows {
        for col in 0..cols {
            to[col * to_stride + row] = from[row * from_stride + col];
        }
    }
}

/// `[rows, cols]` (of `stride` floats a row) → `[cols, rows]`.
pub(crate) fn flipped(x: &[f32], rows: usize, cols: usize, stride: usize) -> Vec<f32> {
    let mut out = vec![0f32; rows * cols];
    transpose(x, stride, (rows, cols), &mut out, rows);
    out
}

#[cfg(target_arch = "x86_64")]
const SIDE: usize = 16;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn block(
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
    (rows, cols): (usize, usize),
) {
    use std::arch::x86_64::*;
    let first = |count: usize| ((1u32 << count) - 1) as __mmask16;
    // SAFETY: the caller's promise: `rows` rows of `cols` floats to read, the reverse to write; masks touch no more.
    unsafe {
        let mut r = [_mm512_setzero_ps(); SIDE];
        for (i, row) in r.iter_mut().enumerate().take(rows) {
            *row = _mm512_maskz_loadu_ps(first(cols), from.add(i * from_stride));
        }
        // Pairs of rows, then fours within each quarter of a register, then the quarters themselves.
        let mut s = r;
        for i in 0..8 {
            s[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            s[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            for half in 0..2 {
                let a = _mm512_castps_pd(s[4 * i + half]);
                let b = _mm512_castps_pd(s[4 * i + half + 2]);
                r[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                r[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        for i in 0..4 {
            s[i] = _mm512_shuffle_f32x4::<0x88>(r[i], r[4 + i]);
            s[4 + i] = _mm512_shuffle_f32x4::<0xdd>(r[i], r[4 + i]);
            s[8 + i] = _mm512_shuffle_f32x4::<0x88>(r[8 + i], r[12 + i]);
            s[12 + i] = _mm512_shuffle_f32x4::<0xdd>(r[8 + i], r[12 + i]);
        }
        for i in 0..4 {
            r[i] = _mm512_shuffle_f32x4::<0x88>(s[i], s[8 + i]);
            r[4 + i] = _mm512_shuffle_f32x4::<0x88>(s[4 + i], s[12 + i]);
            r[8 + i] = _mm512_shuffle_f32x4::<0xdd>(s[i], s[8 + i]);
            r[12 + i] = _mm512_shuffle_f32x4::<0xdd>(s[4 + i], s[12 + i]);
        }
        for (i, row) in r.iter().enumerate().take(cols) {
            _mm512_mask_storeu_ps(to.add(i * to_stride), first(rows), *row);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_size_is_exchanged() {
        for (rows, cols) in [(1, 1), (16, 16), (17, 16), (16, 33), (40, 24), (3, 50)] {
            let (from_stride, to_stride) = (cols + 3, rows + 2);
            let from: Vec<f32> = (0..rows * from_stride).map(|i| i as f32).collect();
            let mut to = vec![-1f32; cols * to_stride];
            super::transpose(&from, from_stride, (rows, cols), &mut to, to_stride);
            for col in 0..cols {
                for row in 0..to_stride {
                    let expected = if row < rows {
                        from[row * from_stride + col]
                    } else {
                        -1.0
                    };
                    assert_eq!(
                        to[col * to_stride + row],
                        expected,
                        "{rows} x {cols} at {row}, {col}"
                    );
                }
            }
        }
    }
}
