//! MLEM and OSEM against closed forms and against the textbook's MLEM in `f64`.

use crate::common::{area_sampled, geometry, noise, poisson, relative};
use crate::reference::joseph;
use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::analytic::{Ellipse, Shape};
use allpet_radon::operators::{Attenuation, Diagonal, GaussianPsf, Product};
use allpet_radon::{LinearOperator, Osem, OsemConfig, Projector};
use ndarray::{Array2, ArrayD, Axis, IxDyn, stack};
use std::ops::ControlFlow;

const PSF_MM: f64 = 5.0;

fn disc(value: f64, x_mm: f64, y_mm: f64, radius_mm: f64) -> Ellipse {
    Ellipse {
        value,
        x_mm,
        y_mm,
        a_mm: radius_mm,
        b_mm: radius_mm,
        tilt_rad: 0.0,
    }
}

/// A body of uniform activity and attenuation in a scanner with blocks, and what it counts on average.
struct Scan {
    grid: ImageGrid,
    geometry: ParallelGeometry,
    mu_per_mm: ArrayD<f32>,
    efficiencies: ArrayD<f32>,
    background: ArrayD<f32>,
    mean: Array2<f32>,
    activity: f64,
    body: Ellipse,
}

/// Closed forms throughout: bin means of the disc convolved with the PSF, `exp(-chord)`, efficiencies with or without
/// the stripes that gaps between detector blocks leave in a sinogram, scatter and randoms.
fn scan(gaps: bool, counts: f64) -> Scan {
    let grid = ImageGrid::square(64, 4.0).unwrap();
    let geometry = geometry(96, 73, 3.6, 180.0, 0.0, 0.0);
    let (body, mu) = (disc(1.0, 6.0, -9.0, 85.0), disc(0.0096, 6.0, -9.0, 85.0));
    let sigma = PSF_MM / (8.0 * 2f64.ln()).sqrt();
    let efficiencies = Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
        let dead = gaps && ((view + bin) % 24 < 2 || (view + 96 - bin) % 24 < 2);
        let ripple = 1.0 + 0.1 * ((bin as f32 * 0.9).sin() * (view as f32 * 0.4).cos());
        if dead { 0.0 } else { ripple }
    });
    let trues = Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
        let (angle, s) = (geometry.angle(view), geometry.s_mm(bin as f64));
        let (mut blurred, mut total) = (0.0, 0.0);
        for k in -24..=24 {
            let t = f64::from(k) / 6.0;
            let weight = (-0.5 * t * t).exp();
            blurred += weight * body.bin_mean(angle, s + t * sigma, geometry.bin_mm);
            total += weight;
        }
        let survive = (-mu.line_integral(angle, s)).exp();
        blurred / total * survive * f64::from(efficiencies[[view, bin]])
    });
    let activity = counts / trues.sum();
    let share = counts / trues.len() as f64;
    let background = Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
        let s = geometry.s_mm(bin as f64) / 90.0;
        let both = share * (0.25 + 0.5 * (-s * s).exp());
        (both * f64::from(efficiencies[[view, bin]])) as f32
    });
    let mean = trues.mapv(|t| (t * activity) as f32) + &background;
    Scan {
        grid,
        geometry,
        mu_per_mm: area_sampled(&[mu], &grid).into_dyn(),
        efficiencies: efficiencies.into_dyn(),
        background: background.into_dyn(),
        mean,
        activity,
        body,
    }
}

impl Scan {
    fn plain(&self, iterations: usize, subsets: usize) -> Osem {
        let config = OsemConfig { iterations, subsets };
        Osem::new(self.grid, self.geometry, config).unwrap()
    }

    fn osem(&self, iterations: usize, subsets: usize) -> Osem {
        self.plain(iterations, subsets)
            .with_attenuation(self.mu_per_mm.view())
            .unwrap()
            .with_normalisation(self.efficiencies.view())
            .unwrap()
            .with_background(self.background.view())
            .unwrap()
            .with_psf_mm(PSF_MM)
            .unwrap()
    }

    /// Mean and standard deviation over the inner 80 % of the body, in units of its activity.
    fn inner(&self, image: &ArrayD<f32>) -> (f64, f64) {
        let inner = disc(1.0, self.body.x_mm, self.body.y_mm, 0.8 * self.body.a_mm);
        let values: Vec<f64> = image
            .indexed_iter()
            .filter(|(at, _)| inner.contains(self.grid.x_mm(at[1] as f64), self.grid.y_mm(at[0] as f64)))
            .map(|(_, &v)| f64::from(v) / self.activity)
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance.sqrt())
    }
}

fn likelihoods(osem: &Osem, counts: &ArrayD<f32>) -> (ArrayD<f32>, Vec<f64>) {
    let mut seen = Vec::new();
    let image = osem
        .reconstruct_observed(counts.view(), &mut |step| {
            assert_eq!(step.iteration, seen.len() + 1);
            seen.push(step.log_likelihood[0]);
            ControlFlow::Continue(())
        })
        .unwrap();
    (image, seen)
}

#[test]
fn the_likelihood_rises_with_every_iteration_of_mlem_and_over_osem() {
    for gaps in [false, true] {
        let scan = scan(gaps, 4e5);
        let counts = poisson(1, &scan.mean);
        let (_, mlem) = likelihoods(&scan.osem(40, 1), &counts);
        let least = mlem
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .fold(f64::INFINITY, f64::min);
        println!(
            "gaps {gaps}: MLEM {:.1} to {:.1}, smallest step {least:.3}",
            mlem[0], mlem[39]
        );
        assert!(least > 0.0);
        let (image, osem) = likelihoods(&scan.osem(5, 12), &counts);
        println!("OSEM {osem:.1?}");
        // 60 updates come further than 40.
        assert!(osem[4] > osem[0] && osem[0] > mlem[4] && osem[4] > mlem[20]);

        // The figure is the textbook's, from operators put together by hand.
        let projector = Projector::new(scan.grid, scan.geometry).unwrap();
        let model = Product::new(
            Diagonal::new(scan.efficiencies.view()).unwrap(),
            Product::new(
                Attenuation::from_image(&projector, scan.mu_per_mm.view()).unwrap(),
                Product::new(&projector, GaussianPsf::new(scan.grid, PSF_MM).unwrap()).unwrap(),
            )
            .unwrap(),
        )
        .unwrap();
        let mean = model.apply(image.view()).unwrap() + &scan.background;
        let own: f64 = mean
            .iter()
            .zip(&counts)
            .zip(&scan.efficiencies)
            .filter(|(_, e)| **e > 0.0)
            .map(|((&mean, &y), _)| f64::from(y) * f64::from(mean).ln() - f64::from(mean))
            .sum();
        assert!((own / osem[4] - 1.0).abs() < 1e-7, "{own} {}", osem[4]);
    }
}

#[test]
fn a_uniform_cylinder_comes_back_with_its_activity_also_between_gaps() {
    for gaps in [false, true] {
        let scan = scan(gaps, 1e6);
        let started = std::time::Instant::now();
        let exact = scan.osem(6, 12).reconstruct(scan.mean.view().into_dyn()).unwrap();
        let took = started.elapsed();
        let noisy = scan
            .osem(4, 12)
            .reconstruct(poisson(2, &scan.mean).view())
            .unwrap();
        let ((mean, spread), (drawn, drawn_spread)) = (scan.inner(&exact), scan.inner(&noisy));
        println!(
            "gaps {gaps}: {mean:.5} ± {spread:.4}, Poisson {drawn:.5} ± {drawn_spread:.4}, {:.1} ms per iteration",
            took.as_secs_f64() * 1e3 / 6.0
        );
        assert!((mean - 1.0).abs() < 0.01 && spread < 0.02 && (drawn - 1.0).abs() < 0.01);
        // No streaks: nothing like the block pattern outside the body.
        let corner = exact[[4, 4]];
        assert!(f64::from(corner) < 0.02 * scan.activity);

        // Each part of the model is needed.
        let without_attenuation = scan
            .plain(4, 12)
            .with_normalisation(scan.efficiencies.view())
            .unwrap()
            .with_background(scan.background.view())
            .unwrap();
        let without_background = scan
            .plain(4, 12)
            .with_normalisation(scan.efficiencies.view())
            .unwrap()
            .with_attenuation(scan.mu_per_mm.view())
            .unwrap();
        for broken in [without_attenuation, without_background] {
            let image = broken.reconstruct(scan.mean.view().into_dyn()).unwrap();
            assert!((scan.inner(&image).0 - 1.0).abs() > 0.05);
        }
    }
    // Gaps that the model takes for measured zeros.
    let scan = scan(true, 1e6);
    let naive = scan
        .osem(4, 12)
        .with_normalisation(ArrayD::ones(IxDyn(&scan.geometry.shape())).view())
        .unwrap()
        .reconstruct(scan.mean.view().into_dyn())
        .unwrap();
    assert!((scan.inner(&naive).0 - 1.0).abs() > 0.05);
}

/// `x ← x / s_m · A_mᵀ(y / (A x + b))` with dense matrices, as printed.
struct Textbook {
    /// `[bin of the sinogram][pixel]`, factors and PSF included.
    matrix: Vec<Vec<f64>>,
    views: usize,
    bins: usize,
}

impl Textbook {
    fn new(grid: ImageGrid, geometry: ParallelGeometry, factors: &[f64], fwhm_mm: f64) -> Self {
        let pixels = grid.rows * grid.cols;
        let mut matrix = vec![vec![0.0; pixels]; geometry.views * geometry.bins];
        let sigma = fwhm_mm / (8.0 * 2f64.ln()).sqrt() / grid.pixel_mm;
        let reach = (4.0 * sigma).ceil();
        let line = |d: f64| {
            if d.abs() <= reach {
                (-0.5 * (d / sigma).powi(2)).exp()
            } else {
                0.0
            }
        };
        let whole: f64 = (-50..=50).map(|d| line(f64::from(d))).sum();
        for pixel in 0..pixels {
            let mut impulse = Array2::<f32>::zeros(grid.shape());
            impulse[[pixel / grid.cols, pixel % grid.cols]] = 1.0;
            let column = joseph(impulse.view(), &grid, &geometry);
            for (row, &weight) in matrix.iter_mut().zip(&column).filter(|(_, w)| **w > 0.0) {
                for (other, value) in row.iter_mut().enumerate() {
                    let (dr, dc) = (
                        (other / grid.cols) as f64 - (pixel / grid.cols) as f64,
                        (other % grid.cols) as f64 - (pixel % grid.cols) as f64,
                    );
                    *value += f64::from(weight) * line(dr) * line(dc) / (whole * whole);
                }
            }
        }
        for (row, factor) in matrix.iter_mut().zip(factors) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
        Self {
            matrix,
            views: geometry.views,
            bins: geometry.bins,
        }
    }

    fn run(&self, y: &ArrayD<f32>, b: &ArrayD<f32>, iterations: usize, subsets: usize) -> Vec<f32> {
        let (y, b) = (y.as_slice().unwrap(), b.as_slice().unwrap());
        let mut x = vec![1.0f64; self.matrix[0].len()];
        for update in 0..iterations * subsets {
            let (mut sensitivity, mut back) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            for view in (update % subsets..self.views).step_by(subsets) {
                for i in view * self.bins..(view + 1) * self.bins {
                    let row = &self.matrix[i];
                    let mean = row.iter().zip(&x).map(|(a, x)| a * x).sum::<f64>() + f64::from(b[i]);
                    let ratio = f64::from(y[i]) / mean;
                    for ((a, s), back) in row.iter().zip(&mut sensitivity).zip(&mut back) {
                        if *a > 0.0 {
                            *s += a;
                            *back += a * ratio;
                        }
                    }
                }
            }
            for ((x, s), back) in x.iter_mut().zip(sensitivity).zip(back) {
                *x *= back / s;
            }
        }
        x.iter().map(|&x| x as f32).collect()
    }
}

#[test]
fn mlem_and_osem_are_the_textbooks() {
    let grid = ImageGrid::new(17, 14, 4.0).unwrap();
    let g = geometry(22, 27, 3.7, 180.0, 5.0, 0.3);
    let body = [disc(5.0, 3.0, -4.0, 24.0), disc(9.0, -8.0, 6.0, 7.0)];
    let mu = area_sampled(&[disc(0.0096, 3.0, -4.0, 26.0)], &grid);
    let efficiencies = Array2::from_shape_fn(g.shape(), |(view, bin)| {
        if (view + 2 * bin) % 11 == 0 {
            0.0
        } else {
            0.7 + 0.05 * ((view * bin) % 7) as f32
        }
    });
    let factors: Vec<f64> = joseph(mu.view(), &grid, &g)
        .iter()
        .zip(&efficiencies)
        .map(|(&integral, &n)| (-f64::from(integral)).exp() * f64::from(n))
        .collect();
    let background = Array2::from_elem(g.shape(), 12.5f32).into_dyn();
    let trues = allpet_radon::analytic::project(&body, &g);
    let mean = Array2::from_shape_fn(g.shape(), |(view, bin)| {
        trues[[view, bin]] * factors[view * 27 + bin] as f32 + 12.5
    });
    let counts = poisson(3, &mean);
    let textbook = Textbook::new(grid, g, &factors, 6.0);
    for (iterations, subsets) in [(1, 1), (25, 1), (10, 5)] {
        let osem = Osem::new(grid, g, OsemConfig { iterations, subsets })
            .unwrap()
            .with_attenuation(mu.view().into_dyn())
            .unwrap()
            .with_normalisation(efficiencies.view().into_dyn())
            .unwrap()
            .with_background(background.view())
            .unwrap()
            .with_psf_mm(6.0)
            .unwrap()
            .with_start(ArrayD::ones(IxDyn(&[17, 14])).view())
            .unwrap();
        let got = osem.reconstruct(counts.view()).unwrap();
        let expected = textbook.run(&counts, &background, iterations, subsets);
        let error = relative(got.as_slice().unwrap(), &expected);
        println!("{iterations} x {subsets}: {error:.1e}");
        assert!(error <= 1e-4);
        // One iteration more is another image.
        let more = textbook.run(&counts, &background, iterations + 1, subsets);
        assert!(relative(got.as_slice().unwrap(), &more) > 2e-4);
    }
}

#[test]
fn threads_and_batches_leave_the_bytes_alone() {
    let scan = scan(true, 3e5);
    let counts: Vec<_> = (0..3).map(|seed| poisson(seed, &scan.mean)).collect();
    let backgrounds: Vec<_> = (1..4).map(|k| &scan.background * (k as f32 * 0.4)).collect();
    let views = |arrays: &[ArrayD<f32>]| {
        let views: Vec<_> = arrays.iter().map(|a| a.view()).collect();
        stack(Axis(0), &views).unwrap()
    };
    let together = scan
        .osem(2, 7)
        .with_background(views(&backgrounds).view())
        .unwrap();
    let (all, likelihood) = (views(&counts), |osem: &Osem, y: &ArrayD<f32>| {
        let mut last = Vec::new();
        let image = osem
            .reconstruct_observed(y.view(), &mut |step| {
                last = step.log_likelihood.to_vec();
                ControlFlow::Continue(())
            })
            .unwrap();
        (image, last)
    });
    let (images, values) = likelihood(&together, &all);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            assert_eq!(
                likelihood(&together.clone(), &all),
                (images.clone(), values.clone())
            );
            // An observer changes nothing, and neither does the plan that an earlier call left.
            assert_eq!(together.reconstruct(all.view()).unwrap(), images);
            for k in 0..3 {
                let alone = scan.osem(2, 7).with_background(backgrounds[k].view()).unwrap();
                let (image, value) = likelihood(&alone, &counts[k]);
                assert_eq!(image, images.index_axis(Axis(0), k));
                assert_eq!(value, values[k..=k]);
            }
        });
    }
}

#[test]
fn nothing_blows_up() {
    let scan = scan(true, 1e5);
    let shape = IxDyn(&scan.geometry.shape());
    let counts = poisson(4, &scan.mean);
    let finite = |image: &ArrayD<f32>| image.iter().all(|v| v.is_finite() && *v >= 0.0);
    let expected = scan.osem(2, 6).reconstruct(counts.view()).unwrap();

    // What dead bins counted does not matter.
    let mut junk = counts.clone();
    junk.zip_mut_with(&scan.efficiencies, |y, e| {
        if *e == 0.0 {
            *y = 1e9
        }
    });
    assert_eq!(scan.osem(2, 6).reconstruct(junk.view()).unwrap(), expected);
    // Nothing counted, nothing alive, nothing there.
    let nothing = ArrayD::zeros(shape.clone());
    assert!(
        scan.osem(2, 6)
            .reconstruct(nothing.view())
            .unwrap()
            .iter()
            .all(|v| *v == 0.0)
    );
    let (image, likelihood) = likelihoods(
        &scan.osem(2, 6).with_normalisation(nothing.view()).unwrap(),
        &counts,
    );
    assert!(image.iter().all(|v| *v == 0.0) && likelihood == [0.0, 0.0]);
    assert_eq!(
        scan.osem(1, 6)
            .reconstruct(ArrayD::zeros(IxDyn(&[0, 96, 73])).view())
            .unwrap()
            .shape(),
        [0, 64, 64]
    );
    // Counts where the image is not, absurd scales, start images with holes and of every size.
    let small = ImageGrid::square(9, 4.0).unwrap();
    let config = OsemConfig {
        iterations: 3,
        subsets: 5,
    };
    let tight = Osem::new(small, scan.geometry, config).unwrap();
    for scale in [1e-30, 1.0, 1e20, 1e34] {
        let (image, likelihood) = likelihoods(&tight, &(&counts * scale));
        assert!(
            finite(&image) && likelihood.iter().all(|v| v.is_finite()),
            "{scale}"
        );
    }
    for start in [0.0, 1e-38, 1e-20, 1e20, 1e38] {
        let mut image = ArrayD::from_elem(IxDyn(&[64, 64]), start);
        image[[30, 31]] = 0.0;
        let image = scan
            .osem(3, 6)
            .with_start(image.view())
            .unwrap()
            .reconstruct(counts.view())
            .unwrap();
        assert!(finite(&image) && image[[30, 31]] == 0.0, "{start}");
    }
    // Pixels that no ray meets are 0 whatever the start; those in view are not.
    let narrow = geometry(30, 11, 4.0, 60.0, 0.0, 0.0);
    let image = Osem::new(scan.grid, narrow, config)
        .unwrap()
        .with_start(ArrayD::ones(IxDyn(&[64, 64])).view())
        .unwrap()
        .reconstruct((noise(1, &[30, 11]).mapv(f32::abs) + 1.0).view())
        .unwrap();
    assert!(finite(&image) && image[[32, 63]] == 0.0 && image[[32, 32]] > 0.0);
}

#[test]
fn an_observer_sees_every_iterate_and_may_stop() {
    let scan = scan(false, 1e5);
    let counts = poisson(5, &scan.mean);
    let mut iterates = Vec::new();
    let stopped = scan
        .osem(9, 8)
        .reconstruct_observed(counts.view(), &mut |step| {
            iterates.push(step.image.to_owned());
            if step.iteration == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
    assert_eq!(iterates.len(), 3);
    for (k, iterate) in iterates.iter().enumerate() {
        let alone = scan.osem(k + 1, 8).reconstruct(counts.view()).unwrap();
        assert_eq!(&alone, iterate);
    }
    assert_eq!(stopped, iterates[2]);
    // From an iterate on, the rest is the same.
    let rest = scan.osem(2, 8).with_start(iterates[0].view()).unwrap();
    assert_eq!(rest.reconstruct(counts.view()).unwrap(), stopped);
}

#[test]
fn faults_of_the_input_are_errors_that_name_the_place() {
    let scan = scan(false, 1e5);
    let counts = poisson(6, &scan.mean);
    let said = |error: allpet_radon::Error| error.to_string();
    for (at, value) in [([3, 5], -1.0), ([95, 72], f32::NAN)] {
        let mut wrong = counts.clone();
        wrong[at] = value;
        assert_eq!(
            said(scan.osem(1, 1).reconstruct(wrong.view()).unwrap_err()),
            format!("counts holds {value} at index {at:?}; every value must be finite and not negative")
        );
        assert!(
            said(scan.osem(1, 1).with_normalisation(wrong.view()).unwrap_err())
                .starts_with("normalisation holds")
        );
        assert!(
            said(scan.osem(1, 1).with_background(wrong.view()).unwrap_err()).starts_with("background holds")
        );
        assert!(
            said(
                scan.osem(1, 1)
                    .with_attenuation_factors(wrong.view())
                    .unwrap_err()
            )
            .starts_with("attenuation factors holds")
        );
    }
    let osem = |iterations, subsets| Osem::new(scan.grid, scan.geometry, OsemConfig { iterations, subsets });
    assert_eq!(
        said(osem(4, 97).unwrap_err()),
        "number of subsets is 97; expected at least 1 and at most the number of views"
    );
    assert!(osem(4, 0).is_err() && osem(0, 4).is_err() && osem(1, 96).is_ok());
    assert_eq!(
        said(
            scan.osem(1, 1)
                .reconstruct(noise(1, &[73, 96]).view())
                .unwrap_err()
        ),
        "counts has shape [73, 96]; expected [.., 96, 73]"
    );
    let two = ArrayD::zeros(IxDyn(&[2, 96, 73]));
    let batch = scan.osem(1, 1).with_background(two.view()).unwrap();
    assert_eq!(
        said(batch.reconstruct(counts.view()).unwrap_err()),
        "background has shape [2, 96, 73]; expected [96, 73] or [96, 73]"
    );
    assert!(scan.osem(1, 1).with_attenuation(counts.view()).is_err());
    assert!(scan.osem(1, 1).with_psf_mm(-2.0).is_err());
}
