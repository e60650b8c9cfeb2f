//! Dense f64 linear algebra in the forms the metrics need, on faer's sequential kernels.
//!
//! Work is cut into blocks of fixed size, one thread per block: the figures are the same bytes for any number of
//! threads, which a library that cuts by thread count does not promise.

use crate::error::{Error, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::{evd, matmul::matmul, svd};
use faer::{Accum, Mat, MatMut, MatRef, Par, Spec};
use rayon::prelude::*;

/// Rows of the result that one task computes.
const BLOCK: usize = 128;

/// A row-major matrix that owns its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    pub(crate) values: Vec<f64>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Rows {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self {
            values: vec![0.0; rows * columns],
            rows,
            columns,
        }
    }

    pub(crate) fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.values, self.rows, self.columns)
    }
}

/// `lhs · rhs`.
pub(crate) fn product(lhs: MatRef<'_, f64>, rhs: MatRef<'_, f64>) -> Rows {
    let mut out = Rows::zeros(lhs.nrows(), rhs.ncols());
    let columns = out.columns;
    if columns > 0 {
        out.values
            .par_chunks_mut(BLOCK * columns)
            .enumerate()
            .for_each(|(block, chunk)| {
                let rows = chunk.len() / columns;
                let part = lhs.subrows(block * BLOCK, rows);
                let into = MatMut::from_row_major_slice_mut(chunk, rows, columns);
                matmul(into, Accum::Replace, part, rhs, 1.0, Par::Seq);
            });
    }
    out
}

/// Adds `partᵀ · part` to the lower triangle of `out`; what lies above its blocks stays as it was.
pub(crate) fn add_gram_lower(out: &mut Rows, part: MatRef<'_, f64>) {
    let columns = out.columns;
    if columns == 0 {
        return;
    }
    out.values
        .par_chunks_mut(BLOCK * columns)
        .enumerate()
        .for_each(|(block, chunk)| {
            let rows = chunk.len() / columns;
            let (first, end) = (block * BLOCK, block * BLOCK + rows);
            let into = MatMut::from_row_major_slice_mut(chunk, rows, columns).subcols_mut(0, end);
            let left = part.subcols(first, rows).transpose();
            matmul(into, Accum::Add, left, part.subcols(0, end), 1.0, Par::Seq);
        });
}

/// Adds `lhs · rhsᵀ` to `out`, all row-major slices, in the calling thread.
pub(crate) fn add_product_transposed(out: &mut [f64], lhs: &[f64], rhs: &[f64], shape: [usize; 3]) {
    let [rows, columns, inner] = shape;
    matmul(
        MatMut::from_row_major_slice_mut(out, rows, columns),
        Accum::Add,
        MatRef::from_row_major_slice(lhs, rows, inner),
        MatRef::from_row_major_slice(rhs, columns, inner).transpose(),
        1.0,
        Par::Seq,
    );
}

/// A factor `F` with `FᵀF` the symmetric positive semidefinite matrix whose lower triangle is given, `rank × n`.
///
/// Eigenvalues below `n·ε·λ_max` are rounding and leave no row: their roots would be `√ε` large.
pub(crate) fn symmetric_factor(matrix: &Rows) -> Result<Rows> {
    let n = matrix.rows;
    let mut vectors = Mat::<f64>::zeros(n, n);
    let mut values = Diag::<f64>::zeros(n);
    let request =
        evd::self_adjoint_evd_scratch::<f64>(n, evd::ComputeEigenvectors::Yes, Par::Seq, Spec::default());
    evd::self_adjoint_evd(
        matrix.view(),
        values.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(request)),
        Spec::default(),
    )
    .map_err(|_| Error::NoConvergence {
        what: "the eigenvalues of the covariance",
    })?;
    let values: Vec<f64> = values.column_vector().iter().copied().collect();
    let largest = values.iter().copied().fold(0.0, f64::max);
    let floor = n as f64 * f64::EPSILON * largest;
    let mut factor = Vec::new();
    for (column, &value) in values.iter().enumerate() {
        if value > floor {
            let root = value.sqrt();
            factor.extend(vectors.col(column).iter().map(|v| v * root));
        }
    }
    Ok(Rows {
        rows: factor.len() / n.max(1),
        values: factor,
        columns: n,
    })
}

/// The sum of the singular values.
pub(crate) fn nuclear_norm(matrix: &Rows) -> Result<f64> {
    let (rows, columns) = (matrix.rows, matrix.columns);
    if rows == 0 || columns == 0 {
        return Ok(0.0);
    }
    let mut values = Diag::<f64>::zeros(rows.min(columns));
    let request = svd::svd_scratch::<f64>(
        rows,
        columns,
        svd::ComputeSvdVectors::No,
        svd::ComputeSvdVectors::No,
        Par::Seq,
        Spec::default(),
    );
    svd::svd(
        matrix.view(),
        values.as_mut(),
        None,
        None,
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(request)),
        Spec::default(),
    )
    .map_err(|_| Error::NoConvergence {
        what: "the singular values of the product of covariance roots",
    })?;
    Ok(values.column_vector().iter().sum())
}
