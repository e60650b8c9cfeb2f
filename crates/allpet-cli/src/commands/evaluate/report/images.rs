//! Images side by side: reference, candidate and signed error with their colour bars and line profile.

use super::super::figures::digits;
use super::super::pairs::PairFigures;
use super::choice::Shown;
use super::picture::{ERROR, INTENSITY, Picture, averaged, bar, picture, shrunk, window_of};
use super::profile::{peak, profile};
use crate::fault::Result;
use crate::output::by;
use allpet::io::{Palette, Window};
use maud::{Markup, html};
use ndarray::{ArrayView2, ArrayView3, Zip};

/// One picture with what it shows in words.
pub(super) fn tile(picture: &Picture, caption: &str, told: &str) -> Markup {
    html! {
        div .tile {
            div .name { (caption) }
            img src=(picture.uri) width=(picture.width) height=(picture.height) alt=(told);
        }
    }
}

/// A colour bar with the values of its ends.
pub(super) fn colour_bar(palette: Palette, low: f32, high: f32, what: &str) -> Result<Markup> {
    let strip = bar(palette)?;
    let (low, high) = (digits(f64::from(low), 4), digits(f64::from(high), 4));
    let told = format!("colour bar of the {what}, {low} to {high}");
    Ok(html! {
        div .scale {
            img src=(strip.uri) width=(strip.width) height="10" alt=(told);
            div .ends {
                span { (low) }
                @if palette == ERROR { span { "0" } }
                span { (high) }
            }
        }
    })
}

/// What to say of pictures that are smaller than their arrays.
pub(super) fn said_of_size(size: (usize, usize)) -> Option<String> {
    let (height, width) = shrunk(size);
    ((height, width) != size).then(|| {
        format!(
            "Pictures are {} pixels, averaged by area from {}, which softens single pixels; figures, profiles and \
             plots use every pixel.",
            by(&[height, width]),
            by(&[size.0, size.1])
        )
    })
}

/// All that is shown of one pair.
pub(super) fn pair(
    shown: &Shown,
    references: ArrayView3<'_, f32>,
    candidates: ArrayView3<'_, f32>,
    figures: &[PairFigures],
) -> Result<Markup> {
    let Shown { index, role } = shown;
    let of = |all: ArrayView3<'_, f32>| all.index_axis(ndarray::Axis(0), *index).to_owned();
    let (reference, candidate) = (of(references), of(candidates));
    let error = Zip::from(&candidate).and(&reference).map_collect(|&x, &y| x - y);
    let (small_reference, small_candidate, small_error) = (
        averaged(reference.view()),
        averaged(candidate.view()),
        averaged(error.view()),
    );
    let window = window_of(small_reference.view())?;
    let signed_window = Window::Symmetric.resolve(small_error.view())?;
    let grey = |values: ArrayView2<'_, f32>| picture(values, window, INTENSITY);
    let signed = picture(small_error.view(), signed_window, ERROR)?;
    let value = |figures: &PairFigures| {
        let value = figures.values[*index];
        let shown = if value.is_finite() {
            digits(value, 5)
        } else {
            "infinite".to_owned()
        };
        format!("{} {shown}", figures.metric.name())
    };
    let values: Vec<String> = figures.iter().map(value).collect();
    let (row, col) = peak(error.mapv(f32::abs).view());
    let mean = error.iter().map(|&e| f64::from(e)).sum::<f64>() / error.len() as f64;
    Ok(html! {
        figure .pair {
            figcaption { strong { "Image " (index) } ", " (role) span .small { (values.join(" · ")) } }
            div .row {
                div .tiles {
                    (tile(&grey(small_reference.view())?, "reference", &format!("reference, image {index}")))
                    (tile(&grey(small_candidate.view())?, "candidate", &format!("candidate, image {index}")))
                    div .across { (colour_bar(INTENSITY, window.0, window.1, "reference and candidate")?) }
                    div .error {
                        (tile(&signed, "signed error", &format!(
                            "signed error, image {index}: blue where the candidate is lower, red where it is higher"
                        )))
                        @if error.iter().all(|&e| e == 0.0) { p .small { "identical" } }
                        @else { (colour_bar(ERROR, signed_window.0, signed_window.1, "signed error")?) }
                    }
                }
                (profile(reference.view(), candidate.view()))
            }
            p .small {
                "Mean error " (digits(mean, 4)) "; largest " (digits(f64::from(error[[row, col]]), 4))
                " at row " (row) ", column " (col) "."
            }
        }
    })
}
