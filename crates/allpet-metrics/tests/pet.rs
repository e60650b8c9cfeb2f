//! PET's own figures against values by hand and against counts of lattice points.

#![allow(clippy::unwrap_used)]

use allpet_metrics::pet::{
    RegionStatistics, SuvScale, background_variability, bias, coefficient_of_variation,
    cold_contrast_recovery, contrast_to_noise, ensemble_normalised_sd, hot_contrast_recovery,
    recovery_coefficient, region, suv_peak,
};
use ndarray::{Array2, Array3, Array4, array, s};

fn near(got: f64, expected: f64) {
    assert!(
        (got - expected).abs() <= 1e-12 * expected.abs().max(1.0),
        "{got} instead of {expected}"
    );
}

#[test]
fn region_statistics() {
    let images = array![[[1.0, 2.0], [3.0, 40.0]], [[-1.0, 0.0], [1.0, 5.0]]];
    let mask = array![[true, true], [true, false]];
    let found = region(images.view(), mask.view()).unwrap();
    let expected = [(2.0, 1.0, 3.0), (0.0, -1.0, 1.0)];
    for (found, (mean, min, max)) in found.iter().zip(expected) {
        assert_eq!(
            *found,
            RegionStatistics {
                pixels: 3,
                mean,
                sd: Some(1.0),
                min,
                max
            }
        );
    }
    // A strided view and a volume with one mask of three axes.
    let reversed = region(images.slice(s![..;-1, .., ..]), mask.view()).unwrap();
    assert_eq!(reversed, [found[1], found[0]]);
    let volume = region(
        images.view(),
        array![[[true, false], [false, false]], [[false, false], [false, true]]].view(),
    );
    let volume = volume.unwrap();
    assert_eq!((volume.len(), volume[0].mean, volume[0].pixels), (1, 3.0, 2));
    let one = region(images.view(), array![[false, false], [false, true]].view()).unwrap();
    assert_eq!((one[0].sd, one[0].mean), (None, 40.0));
}

#[test]
fn regions_that_cannot_be() {
    let mut images = Array3::<f32>::ones((2, 3, 3));
    let all = Array2::from_elem((3, 3), true);
    assert!(region(images.view(), Array2::from_elem((3, 3), false).view()).is_err());
    assert!(region(images.view(), Array2::from_elem((3, 2), true).view()).is_err());
    assert!(region(images.view(), ndarray::arr0(true).view()).is_err());
    images[[1, 2, 0]] = f32::NAN;
    let error = region(images.view(), all.view()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "image holds NaN at index [1, 2, 0]; every value must be finite"
    );
    let huge = array![[1e300, -1e300]];
    assert!(region(huge.view(), array![[true, true]].view()).is_err());
}

#[test]
fn suv_scale() {
    // 370 MBq in 70 kg: spread evenly the concentration is 370e3 kBq / 70e3 mL and the SUV 1.
    let scale = SuvScale::new(370.0, 70.0).unwrap();
    near(scale.suv(370e3 / 70e3), 1.0);
    for (activity, mass) in [
        (0.0, 70.0),
        (370.0, -1.0),
        (f64::NAN, 70.0),
        (370.0, f64::INFINITY),
        (1e-300, 1e300),
    ] {
        assert!(SuvScale::new(activity, mass).is_err(), "{activity} {mass}");
    }
}

#[test]
fn the_peak_counts_the_lattice_points_of_its_ball() {
    // Points of the integer lattice within 1.5, 2 and 3 of the origin (OEIS A000328 and A000605 at whole radii).
    for (spacing, disc, sphere) in [(4.0, 9, 19), (3.0, 13, 33), (2.0, 29, 123), (20.0, 1, 1)] {
        let mut slice = Array2::<f32>::zeros((15, 17));
        slice[[7, 8]] = 1.0;
        let all = Array2::from_elem((15, 17), true);
        near(
            suv_peak(slice.view(), all.view(), &[spacing; 2]).unwrap()[0],
            1.0 / f64::from(disc),
        );
        let mut volume = Array3::<f32>::zeros((13, 15, 17));
        volume[[6, 7, 8]] = 1.0;
        let all = Array3::from_elem((13, 15, 17), true);
        near(
            suv_peak(volume.view(), all.view(), &[spacing; 3]).unwrap()[0],
            1.0 / f64::from(sphere),
        );
    }
    // Anisotropic: planes 5 mm apart, so 29 points in the plane and r² ≤ 36 - 25 = 11 mm², at 2 mm: 9, on either side.
    let mut volume = Array3::<f64>::zeros((5, 15, 15));
    volume[[2, 7, 7]] = 1.0;
    let all = Array3::from_elem((5, 15, 15), true);
    near(
        suv_peak(volume.view(), all.view(), &[5.0, 2.0, 2.0]).unwrap()[0],
        1.0 / 47.0,
    );
}

#[test]
fn the_peak_lies_in_the_region_and_its_ball_in_the_image() {
    // On a ramp the mean over any ball is the value at its centre.
    let ramp = Array4::from_shape_fn((2, 1, 20, 20), |(n, _, i, j)| {
        (1 + n) as f64 * (3.0 * i as f64 + j as f64)
    });
    let mut mask = Array2::from_elem((20, 20), false);
    mask.slice_mut(s![4..9, 5..11]).fill(true);
    let peaks = suv_peak(ramp.view(), mask.view(), &[2.0, 2.0]).unwrap();
    near(peaks[0], 3.0 * 8.0 + 10.0);
    near(peaks[1], 2.0 * (3.0 * 8.0 + 10.0));
    // A region up to the edge: centres stop three pixels before it.
    let peaks = suv_peak(ramp.view(), Array2::from_elem((20, 20), true).view(), &[2.0, 2.0]).unwrap();
    near(peaks[0], 3.0 * 16.0 + 16.0);
    let mut corner = Array2::from_elem((20, 20), false);
    corner[[0, 0]] = true;
    let error = suv_peak(ramp.view(), corner.view(), &[2.0, 2.0]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("SUVpeak needs at least 1 pixels of the region"),
        "{error}"
    );
    for spacing in [
        vec![2.0],
        vec![2.0, 0.0],
        vec![2.0, f64::NAN],
        vec![1.0, 2.0, 2.0],
        vec![1e-300, 1e-300],
    ] {
        assert!(
            suv_peak(ramp.view(), mask.view(), &spacing).is_err(),
            "{spacing:?}"
        );
    }
}

#[test]
fn nema_figures_by_hand() {
    // A sphere at 4 : 1 measured at 3.1 over 1.0 recovers 2.1 of 3.
    near(hot_contrast_recovery(6.2, 2.0, 4.0).unwrap(), 0.7);
    near(cold_contrast_recovery(0.5, 2.0).unwrap(), 0.75);
    near(background_variability(&[9.0, 10.0, 11.0]).unwrap(), 0.1);
    assert!(hot_contrast_recovery(1.0, 0.0, 4.0).is_err());
    assert!(hot_contrast_recovery(1.0, 1.0, 1.0).is_err());
    assert!(hot_contrast_recovery(f64::NAN, 1.0, 4.0).is_err());
    assert!(cold_contrast_recovery(1.0, 0.0).is_err());
    assert!(background_variability(&[1.0]).is_err());
    assert!(background_variability(&[1.0, -1.0]).is_err());
    assert!(background_variability(&[1.0, f64::NAN]).is_err());
}

#[test]
fn noise_and_quantification_by_hand() {
    let statistics = |mean, sd| RegionStatistics {
        pixels: 50,
        mean,
        sd,
        min: 0.0,
        max: 9.0,
    };
    let (hot, background) = (statistics(5.0, Some(0.4)), statistics(2.0, Some(0.5)));
    near(coefficient_of_variation(&background).unwrap(), 0.25);
    near(contrast_to_noise(&hot, &background).unwrap(), 6.0);
    near(contrast_to_noise(&background, &hot).unwrap(), -7.5);
    assert!(coefficient_of_variation(&statistics(0.0, Some(1.0))).is_err());
    assert!(coefficient_of_variation(&statistics(1.0, None)).is_err());
    assert!(contrast_to_noise(&hot, &statistics(1.0, Some(0.0))).is_err());
    near(bias(0.9, 1.2).unwrap(), -0.25);
    near(recovery_coefficient(0.9, 1.2).unwrap(), 0.75);
    let error = bias(1.0, 0.0).unwrap_err();
    assert_eq!(error.to_string(), "bias is undefined: the truth is zero");
}

#[test]
fn the_ensemble_sees_noise_and_not_structure() {
    // Pixels a·(1 + d) and a·(1 - d): sample sd a·d·√2 about a, whatever the structure a.
    let structure = Array2::from_shape_fn((6, 7), |(i, j)| 1.0 + (i * j) as f64);
    let mut pair = Array3::zeros((2, 6, 7));
    pair.slice_mut(s![0, .., ..]).assign(&(&structure * 1.1));
    pair.slice_mut(s![1, .., ..]).assign(&(&structure * 0.9));
    let all = Array2::from_elem((6, 7), true);
    near(
        ensemble_normalised_sd(pair.view(), all.view()).unwrap(),
        0.1 * 2f64.sqrt(),
    );
    // The control: the spread within one image is structure alone.
    let within = coefficient_of_variation(&region(structure.view(), all.view()).unwrap()[0]).unwrap();
    assert!(within > 0.5);
    assert!(ensemble_normalised_sd(pair.slice(s![..1, .., ..]), all.view()).is_err());
    assert!(ensemble_normalised_sd(structure.view(), all.view()).is_err());
    assert!(ensemble_normalised_sd(Array3::<f32>::zeros((3, 6, 7)).view(), all.view()).is_err());
}
