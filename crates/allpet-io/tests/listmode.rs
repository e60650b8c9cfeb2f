//! List-mode: a generated twin of the real file that never skips, faults, and the real file where there is one.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{CylindricalScanner, ImageGrid, ParallelGeometry, stream};
use allpet_io::{
    Announcement, Histogram, HistogramOptions, InterfileHeader, ListMode, ListModeWriter, Record, read_npz,
    read_sinogram,
};
use allpet_radon::{
    Blocks, CrystalPairs, Osem, OsemConfig, arc_correct, arc_correct_efficiencies, estimate_efficiencies,
};
use ndarray::{Array2, Array3, ArrayD, Axis, Ix2, Ix3};
use rand::Rng;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const TABLE: [u64; 11] = [127, 115, 115, 93, 93, 71, 71, 49, 49, 27, 27];

fn small() -> CylindricalScanner {
    CylindricalScanner {
        crystals: 24,
        rings: 5,
        bins: 9,
        max_ring_difference: 3,
        ..CylindricalScanner::mmr()
    }
}

fn open(path: &Path) -> ListMode {
    ListMode::open(path, None).unwrap()
}

fn all(mode: &ListMode, planes: bool) -> Histogram {
    mode.histogram(&HistogramOptions {
        planes,
        ..HistogramOptions::default()
    })
    .unwrap()
}

/// Ring pairs of the span-1 planes, enumerated from the definition: segments 0, +1, -1, …, rising rings.
fn ring_pairs(rings: usize, largest: usize) -> Vec<(usize, usize)> {
    let mut pairs: Vec<(usize, usize)> = (0..rings).map(|r| (r, r)).collect();
    for d in 1..=largest {
        pairs.extend((0..rings - d).map(|r| (r, r + d)));
        pairs.extend((0..rings - d).map(|r| (r + d, r)));
    }
    pairs
}

struct Twin {
    prompts: Array3<f32>,
    delayeds: Array3<f32>,
    counts: [u64; 2],
}

/// Random events, one time tag per ms, and what they must add up to, rebinned here.
fn twin(header: &Path, scanner: &CylindricalScanner, ms: u32, per_ms: usize, says: Announcement) -> Twin {
    let pairs = ring_pairs(scanner.rings, scanner.max_ring_difference);
    assert_eq!(pairs.len(), scanner.planes());
    let shape = (2 * scanner.rings - 1, scanner.views(), scanner.bins);
    let (mut prompts, mut delayeds, mut counts) = (Array3::zeros(shape), Array3::zeros(shape), [0, 0]);
    let mut writer = ListModeWriter::create(header, scanner, says).unwrap();
    let mut draws = stream(5, "list-mode twin", 0);
    for time in 0..ms {
        writer.time(time).unwrap();
        for _ in 0..per_ms {
            let plane = draws.random_range(0..pairs.len());
            let (view, radial) = (draws.random_range(0..shape.1), draws.random_range(0..shape.2));
            let prompt = draws.random_range(0..7) != 0;
            writer.event(prompt, plane, view, radial).unwrap();
            let slice = pairs[plane].0 + pairs[plane].1;
            let into = if prompt { &mut prompts } else { &mut delayeds };
            into[[slice, view, radial]] += 1.0;
            counts[usize::from(!prompt)] += 1;
        }
    }
    writer.finish().unwrap();
    Twin {
        prompts,
        delayeds,
        counts,
    }
}

#[test]
fn the_twin_of_the_real_file_counts_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let header = folder.path().join("twin.l.hdr");
    let mmr = CylindricalScanner::mmr();
    assert_eq!(mmr.planes(), 4084);
    let says = Announcement {
        data_file: Some("another_name.l".to_owned()),
        words: Some(331_257_106),
        seconds: Some(900.0),
        segment_table: Some(TABLE.to_vec()),
    };
    let twin = twin(&header, &mmr, 613, 415, says);
    let mode = open(&header);
    assert_eq!(
        (mode.scanner.views(), mode.scanner.bins, mode.scanner.planes()),
        (252, 344, 4084)
    );
    let kept = all(&mode, true);
    assert_eq!(kept.prompts.shape(), [127, 252, 344]);
    assert_eq!(
        kept.prompts.clone().into_dimensionality::<Ix3>().unwrap(),
        twin.prompts
    );
    assert_eq!(
        kept.delayeds.clone().into_dimensionality::<Ix3>().unwrap(),
        twin.delayeds
    );
    assert_eq!([kept.prompt_count, kept.delayed_count], twin.counts);
    assert_eq!(
        (kept.time_tags, kept.time_ms, kept.largest_plane),
        (613, Some((0, 612)), Some(4083))
    );
    let summed = all(&mode, false);
    assert_eq!(summed.prompts, kept.prompts.sum_axis(Axis(0)));
    assert_eq!(
        summed.delayeds.into_dimensionality::<Ix2>().unwrap(),
        twin.delayeds.sum_axis(Axis(0))
    );

    // What the header says and the file does not keep is told, not refused.
    let told = summed.warnings.join("\n");
    for part in [
        "`another_name.l`, which is not there; reading",
        "255008 words of 331257106",
        "837 planes",
        "900 s",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!((mode.radial_mm()[172]).abs() < 1e-6);
    let edge = 334.7 * (-172.0 * std::f64::consts::PI / 504.0).sin();
    assert!((f64::from(mode.radial_mm()[0]) - edge).abs() < 1e-4);
}

#[test]
fn an_honest_header_gives_no_warning_and_the_same_scanner() {
    let folder = tempfile::tempdir().unwrap();
    let header = folder.path().join("a.hdr");
    let written = twin(&header, &small(), 20, 30, Announcement::default());
    let mode = open(&header);
    let read = all(&mode, true);
    assert_eq!(read.warnings, Vec::<String>::new());
    assert_eq!(read.prompts, written.prompts.clone().into_dyn());
    let (s, t) = (mode.scanner, small());
    assert_eq!(
        (s.crystals, s.rings, s.bins, s.max_ring_difference),
        (24, 5, 9, 3)
    );
    for (a, b) in [
        (s.ring_radius_mm, t.ring_radius_mm),
        (s.ring_spacing_mm, t.ring_spacing_mm),
        (s.bin_mm, t.bin_mm),
    ] {
        assert!((a / b - 1.0).abs() < 1e-14);
    }
    // The data file opens its header.
    assert_eq!(all(&open(&folder.path().join("a.l")), true), read);

    // A broken control: rebinning by one ring only is another sinogram.
    let mut wrong = Array3::<f32>::zeros(written.prompts.dim());
    for record in mode.records().unwrap() {
        if let Record::Event(e) = record.unwrap() {
            let (a, _) = ring_pairs(5, 3)[e.plane];
            wrong[[2 * a, e.view, e.radial]] += f32::from(u8::from(e.prompt));
        }
    }
    assert_ne!(wrong, written.prompts);
    assert_eq!(wrong.sum_axis(Axis(0)), written.prompts.sum_axis(Axis(0)));

    let npz = folder.path().join("h.npz");
    let summed = all(&mode, false);
    summed.write_npz(&npz).unwrap();
    let arrays = read_npz(&npz, &["prompts", "delayeds", "radial_mm"]).unwrap();
    assert_eq!(
        arrays,
        [
            summed.prompts.clone(),
            summed.delayeds.clone(),
            summed.radial_mm.clone().into_dyn()
        ]
    );
    let (from_npz, from_header) = (read_sinogram(&npz).unwrap(), read_sinogram(&header).unwrap());
    assert_eq!((&from_npz.0, &from_npz.1), (&from_header.0, &from_header.1));
    assert_eq!(from_npz.0, summed.net());
}

#[test]
fn time_windows_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let header = folder.path().join("a.l.hdr");
    twin(&header, &small(), 50, 10, Announcement::default());
    let mode = open(&header);
    let window = |a: f64, b: f64| {
        mode.histogram(&HistogramOptions {
            seconds: Some(a..=b),
            ..HistogramOptions::default()
        })
    };
    let (whole, first, second) = (
        all(&mode, false),
        window(0.0, 0.0195).unwrap(),
        window(0.02, 1.0).unwrap(),
    );
    assert_eq!((first.time_tags, first.time_ms), (20, Some((0, 19))));
    assert_eq!(first.prompt_count + first.delayed_count, 200);
    assert_eq!(&first.prompts + &second.prompts, whole.prompts);
    assert_eq!(first.delayed_count + second.delayed_count, whole.delayed_count);
    assert_eq!(
        window(0.01, 0.01).unwrap().time_tags,
        1,
        "both ends belong to a window"
    );
    let none = window(5.0, 6.0).unwrap();
    assert_eq!(
        (none.prompt_count, none.time_tags, none.largest_plane),
        (0, 0, None)
    );
    assert!(none.warnings.iter().any(|w| w.contains("no event")));
    for (a, b) in [(2.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
        assert!(
            window(a, b)
                .unwrap_err()
                .to_string()
                .contains("expected 0 <= a <= b")
        );
    }
}

#[test]
fn records_come_in_the_order_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let header = folder.path().join("a.l.hdr");
    let mut writer = ListModeWriter::create(&header, &small(), Announcement::default()).unwrap();
    writer.event(true, 0, 0, 0).unwrap();
    writer.time(40).unwrap();
    writer.event(false, 24, 11, 8).unwrap_err();
    writer.event(false, 22, 11, 8).unwrap();
    writer.time(1 << 29).unwrap_err();
    let data = folder.path().join("a.l");
    assert!(!data.exists() && !header.exists());
    writer.finish().unwrap();
    // The words by the definition: the last cell of 23 planes x 12 views x 9 bins.
    let mut bytes = [0x4000_0000u32, 0x8000_0000 | 40, 23 * 12 * 9 - 1]
        .map(u32::to_le_bytes)
        .concat();
    assert_eq!(std::fs::read(&data).unwrap(), bytes);
    // Tags of other kinds are passed over.
    for tag in [0xa000_0001u32, 0xc000_0001, 0xe000_0001] {
        bytes.extend_from_slice(&tag.to_le_bytes());
    }
    std::fs::write(&data, &bytes).unwrap();
    let records: Vec<Record> = open(&header).records().unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    assert_eq!(records[1], Record::Time(40));
    let Record::Event(last) = records[2] else {
        panic!("{records:?}")
    };
    assert_eq!(
        (last.time_ms, last.prompt, last.plane, last.view, last.radial),
        (40, false, 22, 11, 8)
    );
    assert!(ListModeWriter::create(&folder.path().join("a.txt"), &small(), Announcement::default()).is_err());
}

#[test]
fn cut_and_impossible_words_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let header = folder.path().join("a.l.hdr");
    twin(&header, &small(), 4, 5, Announcement::default());
    let data = folder.path().join("a.l");
    let good = std::fs::read(&data).unwrap();
    std::fs::write(&data, &good[..good.len() - 2]).unwrap();
    let text = ListMode::open(&header, None).unwrap_err().to_string();
    assert!(text.contains("a.l: word 23: only 2 of its 4 bytes"), "{text}");
    std::fs::write(&data, &good[..good.len() - 4]).unwrap();
    assert!(open(&header).warnings[0].contains("shorter than announced: 23 words of 24"));

    let mut wrong = good.clone();
    wrong[28..32].copy_from_slice(&(0x4000_0000u32 + 23 * 12 * 9).to_le_bytes());
    std::fs::write(&data, &wrong).unwrap();
    let text = open(&header)
        .histogram(&HistogramOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("word 7: offset 2484; expected less than 2484"),
        "{text}"
    );
    wrong[28..32].copy_from_slice(&(0x4000_0000u32 + 23 * 12 * 9 - 1).to_le_bytes());
    std::fs::write(&data, &wrong).unwrap();
    all(&open(&header), false);
}

#[test]
fn the_data_file_is_searched_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let says = Announcement {
        data_file: Some("named.l".to_owned()),
        ..Announcement::default()
    };
    twin(&at("a.l.hdr"), &small(), 2, 3, says);
    let mode = open(&at("a.l.hdr"));
    assert_eq!(mode.data, at("a.l"));
    assert!(mode.warnings[0].contains("reading") && mode.warnings[0].contains("a.l"));
    std::fs::copy(at("a.l"), at("named.l")).unwrap();
    let mode = open(&at("a.l.hdr"));
    assert_eq!((mode.data.clone(), mode.warnings.len()), (at("named.l"), 0));
    std::fs::rename(at("a.l"), at("given.bin")).unwrap();
    let mode = ListMode::open(&at("a.l.hdr"), Some(&at("given.bin"))).unwrap();
    assert_eq!(mode.data, at("given.bin"));
    assert!(mode.warnings[0].contains("as asked"));
    std::fs::remove_file(at("named.l")).unwrap();
    let text = ListMode::open(&at("a.l.hdr"), None).unwrap_err().to_string();
    assert!(
        text.contains("named.l") && text.contains("a.l,") || text.ends_with("a.l"),
        "{text}"
    );
    assert!(ListMode::open(&at("a.l.hdr"), Some(&at("absent.l"))).is_err());
    assert!(
        ListMode::open(&at("absent.hdr"), None)
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
}

#[test]
fn headers_are_read_by_meaning() {
    let text = "\u{feff}\n!INTERFILE  :=\n; a remark := 3\n%Energy   window lower level (keV) [1]:=430\n\
                energy window lower level (keV) [ 2 ] := 610\n%study date (yyyy:mm:dd):=2017:03:27\nempty:=\n\
                !number of rings := 64\nbin size (cm):= 0.2\n%segment table :={127,115, 115 ,93}\n";
    let header = InterfileHeader::parse(Path::new("x.hdr"), text).unwrap();
    assert_eq!(header.get("study date (yyyy:mm:dd)"), Some("2017:03:27"));
    assert_eq!(
        header.get_indexed("energy window lower level (kev)", 2),
        Some("610")
    );
    assert_eq!(header.get("empty"), None);
    assert_eq!(header.integer("number of rings").unwrap(), Some(64));
    assert_eq!(header.number("bin size (cm)").unwrap(), Some(0.2));
    assert_eq!(
        header.integers("segment table").unwrap(),
        Some(vec![127, 115, 115, 93])
    );
    assert!(
        header
            .scanner()
            .unwrap_err()
            .to_string()
            .contains("it lacks `number of views`")
    );
    for (text, part) in [
        ("hello", "no `:=`"),
        ("a := 3\n", "!INTERFILE"),
        ("", "!INTERFILE"),
        ("!INTERFILE:=\nx\n", "line 2"),
    ] {
        let error = InterfileHeader::parse(Path::new("x.hdr"), text)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part) && error.starts_with("x.hdr"), "{error}");
    }
}

#[test]
fn header_values_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let header = folder.path().join("a.l.hdr");
    twin(&header, &small(), 2, 3, Announcement::default());
    let good = std::fs::read_to_string(&header).unwrap();
    for (from, to, part) in [
        ("(bits):=32", "(bits):=64", "expected 32"),
        ("axial compression:=1", "axial compression:=11", "expected 1"),
        ("CoincidenceList", "sinogram", "expected CoincidenceList"),
        ("type:=cylindrical", "type:=block", "expected cylindrical"),
        (
            "number of rings:=5",
            "number of rings:=five",
            "expected a whole number",
        ),
        (
            "number of rings:=5",
            "number of rings:=99999999999",
            "expected at most",
        ),
        (
            "s:=9\n%number of views:=12",
            "s:=2000\n%number of views:=100000",
            "2^30",
        ),
        ("number of rings:=5", "number of rings:=0", "ring difference"),
        ("radius (cm):=32.8", "radius (cm):=nan", "expected a number"),
        ("bytes:=0", "bytes:=4000", "at most 32"),
        ("%number of views:=12\n", "", "it lacks `number of views`"),
    ] {
        assert!(good.contains(from), "{from}");
        std::fs::write(&header, good.replace(from, to)).unwrap();
        let text = ListMode::open(&header, None).unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    }
    std::fs::write(&header, good.replace("bytes:=0", "bytes:=8")).unwrap();
    assert_eq!(open(&header).words, 6);
}

#[test]
fn the_real_acquisition() {
    // The generated twin of this file is tested above; the file itself is not part of the repository.
    let Some(folder) = std::env::var_os("ALLPET_REAL_DATA") else {
        println!("skipped: ALLPET_REAL_DATA does not name the folder of mmr_fdg_small.l.hdr");
        return;
    };
    let header = PathBuf::from(folder).join("mmr_fdg_small.l.hdr");
    let mode = open(&header);
    let summed = all(&mode, false);
    assert_eq!(
        (summed.prompt_count, summed.delayed_count, summed.time_tags),
        (218_881, 35_320, 613)
    );
    assert_eq!(
        (summed.largest_plane, summed.time_ms),
        (Some(4083), Some((0, 612)))
    );
    assert_eq!(summed.prompts.shape(), [252, 344]);
    assert_eq!(summed.prompts.sum(), 218_881.0);
    assert_eq!(summed.warnings.len(), 4, "{:?}", summed.warnings);
    let kept = all(&mode, true);
    assert_eq!(kept.prompts.shape(), [127, 252, 344]);
    assert_eq!(kept.prompts.sum_axis(Axis(0)), summed.prompts);
    assert_eq!(kept.delayeds.sum_axis(Axis(0)), summed.delayeds);
    // A head, not noise: the net counts of the middle third are many times those of the flanks.
    let net: Array2<f32> = summed.net().into_dimensionality().unwrap();
    let part = |from: usize, to: usize| net.slice(ndarray::s![.., from..to]).sum();
    let (middle, flanks) = (part(115, 229), part(0, 115) + part(229, 344));
    assert!(middle > 5.0 * flanks, "{middle} {flanks}");
    // Randoms are flat in comparison.
    let delayeds = summed.delayeds.into_dimensionality::<Ix2>().unwrap();
    assert!(delayeds.slice(ndarray::s![.., 115..229]).sum() < delayeds.sum() * 0.5);
    real_gaps(&mode.scanner, &summed.prompts, &delayeds);
}

/// Every bin of a gap is empty, no other place of the gaps would do, and with the efficiencies of its own delayeds a
/// reconstruction loses the rings.
fn real_gaps(scanner: &CylindricalScanner, prompts: &ArrayD<f32>, delayeds: &Array2<f32>) {
    let pairs = CrystalPairs::of(scanner).unwrap();
    let blocks = Blocks::of(scanner).unwrap();
    let native = prompts.clone().into_dimensionality::<Ix2>().unwrap();
    for gap in 0..blocks.period {
        let moved = Blocks {
            gap: Some(gap),
            ..blocks
        };
        for counts in [&native, delayeds] {
            assert_eq!(pairs.check_gaps(counts.view(), moved).is_ok(), moved == blocks);
        }
    }
    let found = estimate_efficiencies(delayeds.view(), &pairs, Some(blocks)).unwrap();
    let positions: Vec<f64> = (0..blocks.period)
        .map(|p| {
            found
                .crystals()
                .iter()
                .skip(p)
                .step_by(blocks.period)
                .sum::<f64>()
                / 56.0
        })
        .collect();
    println!("efficiency by position in the block: {positions:.3?}");
    // Crystals at the edge of a block lose more.
    assert!(positions[0] == 0.0 && positions[1].max(positions[8]) < 0.95 * positions[4].min(positions[5]));
    let (n, randoms) = (found.sinogram(), found.randoms());
    let live = n.iter().filter(|&&n| n > 0.0).count() as f64;
    let chi2 = delayeds
        .iter()
        .zip(&randoms)
        .filter(|&(_, &r)| r > 0.0)
        .map(|(&y, &r)| f64::from((y - r).powi(2) / r))
        .sum::<f64>();
    println!("delayeds against their mean: chi2 {:.4} per bin", chi2 / live);
    assert!((chi2 / live - 1.0).abs() < 0.03);

    let target = ParallelGeometry::new(252, 287, scanner.bin_mm).unwrap();
    let grid = ImageGrid::square(128, 2.0 * scanner.bin_mm).unwrap();
    let counts = arc_correct(prompts.view(), scanner, &target).unwrap();
    let background = arc_correct(delayeds.view().into_dyn(), scanner, &target).unwrap();
    let judge = |n: Option<&Array2<f32>>| {
        let mut osem = Osem::new(grid, target, OsemConfig::default())
            .unwrap()
            .with_background(background.view())
            .unwrap();
        if let Some(n) = n {
            let n = arc_correct_efficiencies(n.view().into_dyn(), scanner, &target).unwrap();
            osem = osem.with_normalisation(n.view()).unwrap();
        }
        let mut likelihoods = Vec::new();
        let image = osem
            .reconstruct_observed(counts.view(), &mut |step| {
                likelihoods.push(step.log_likelihood[0]);
                ControlFlow::Continue(())
            })
            .unwrap();
        (likelihoods, rings(&grid, &image))
    };
    let (likelihoods, with) = judge(Some(&n));
    let (uniform, without) = judge(None);
    println!("rings {with:.3}, without efficiencies {without:.3}; {likelihoods:.0?}, without {uniform:.0?}");
    assert!(likelihoods.is_sorted() && likelihoods[3] > uniform[3] + 30_000.0);
    assert!(with < 0.5 * without);
}

/// How much the means over rings of one pixel differ from those of their neighbours within 55 mm of the axis, relative.
fn rings(grid: &ImageGrid, image: &ArrayD<f32>) -> f64 {
    let mut sums = [(0.0, 0.0); 14];
    for (at, &value) in image.indexed_iter() {
        let radius = grid.x_mm(at[1] as f64).hypot(grid.y_mm(at[0] as f64)) / grid.pixel_mm;
        if let Some((sum, count)) = sums.get_mut(radius as usize) {
            *sum += f64::from(value);
            *count += 1.0;
        }
    }
    let means: Vec<f64> = sums.iter().map(|(sum, count)| sum / count).collect();
    let differences = means
        .windows(3)
        .map(|m| (m[1] - (m[0] + m[2]) / 2.0).powi(2))
        .sum::<f64>();
    (differences / 12.0).sqrt() / (means.iter().sum::<f64>() / 14.0)
}
