//! The error of the mask crate.

/// What can be wrong with masks, their settings and the arrays they meet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or an array that the shared vocabulary already has a sentence for.
    #[error(transparent)]
    Core(#[from] allpet_core::Error),
    /// A fault found by the projector or a reconstruction.
    #[error(transparent)]
    Radon(#[from] allpet_radon::Error),
    /// A value of a mask outside 0 to 1: eqs. 7 and 8 want the normalised mask of eq. 4 or 5.
    #[error("mask holds {value} at index {index:?}; expected a normalised mask, 0 to 1")]
    MaskRange {
        /// The offending value.
        value: f32,
        /// `[view, radial]` of the first offender.
        index: [usize; 2],
    },
    /// A region-of-interest mask with values between.
    #[error("region of interest holds {value} at index {index:?}; expected 0 or 1")]
    RoiValue {
        /// The offending value.
        value: f32,
        /// `[row, col]` of the first offender.
        index: [usize; 2],
    },
    /// A region of interest where there has to be one.
    #[error("region of interest is empty; expected at least one pixel or shape")]
    EmptyRoi,
    /// Attention that would erase every feature.
    #[error(
        "attention of sample {sample} is 0 everywhere and the gate as printed (eq. 12) would erase every feature; \
         expected a region of interest in the field of view, or the residual gate"
    )]
    EmptyAttention {
        /// Position in the batch.
        sample: usize,
    },
    /// A cold threshold on an image without an outline.
    #[error("cold lesions without a body outline; expected one, as the air around is colder than any lesion")]
    ColdWithoutBody,
    /// A block that is empty or leaves the mask image.
    #[error(
        "block of {height} x {width} pixels at row {row}, column {col}; expected at least one pixel, inside the \
         {rows} x {cols} mask image"
    )]
    BlockOutside {
        /// Height of the block in pixels.
        height: usize,
        /// Width of the block in pixels.
        width: usize,
        /// Its first row.
        row: usize,
        /// Its first column.
        col: usize,
        /// Rows of the mask image.
        rows: usize,
        /// Columns of the mask image.
        cols: usize,
    },
    /// More masks than memory can hold.
    #[error("{count} masks of {views} x {bins} do not fit in memory; expected fewer at a time")]
    TooMany {
        /// Masks asked for.
        count: usize,
        /// Views of each.
        views: usize,
        /// Radial bins of each.
        bins: usize,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `Ok` when no faults were found, otherwise one error that lists them all.
pub(crate) fn all_faults(what: &str, faults: Vec<String>) -> Result<()> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(allpet_core::Error::Invalid {
            what: what.to_owned(),
            faults,
        }
        .into())
    }
}

/// The error of an array whose shape is not what its neighbours say.
pub(crate) fn shape_error(what: &str, expected: &[usize], got: &[usize]) -> Error {
    allpet_core::Error::Shape {
        what: what.to_owned(),
        expected: format!("{expected:?}"),
        got: got.to_vec(),
    }
    .into()
}
