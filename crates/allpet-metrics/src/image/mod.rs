//! Metrics of a candidate image against a reference image.
//!
//! Every function takes `[.., row, col]` twice and gives one value per image, in the shape of the leading axes.
//! PSNR, SSIM and MS-SSIM need the data range R of the images (the largest minus the smallest value that they *may*
//! hold), which is never guessed from the values.

mod error_norms;
mod ms_ssim;
mod psnr;
mod ssim;
mod window;

pub use error_norms::{mae, mse, nmse, nrmse, rmse};
pub use ms_ssim::{MS_SSIM_SIDE, MS_SSIM_WEIGHTS, MsSsimConvention, ms_ssim};
pub use psnr::psnr;
pub use ssim::{SsimConvention, ssim};
