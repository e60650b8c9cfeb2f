//! 32-bit list-mode of the Siemens Biograph mMR: little-endian words, read as a stream.
//!
//! Bit 31 set: a tag; `word >> 29 == 4` is time in ms in the low 29 bits, other tags (gantry, singles) are passed
//! over. Bit 31 clear: an event; bit 30 set is a prompt, clear a delayed; the low 30 bits are an offset into a
//! span-1 sinogram, `(plane·views + view)·bins + radial`, planes in segments 0, +1, -1, +2, … .
//! Single-slice rebinning: Daube-Witherspoon & Muehllehner, J. Nucl. Med. 28:1717, 1987.

use crate::error::{Error, Result, invalid, io};
use crate::interfile::InterfileHeader;
use allpet_core::{CylindricalScanner, stream};
use ndarray::{Array1, ArrayD, IxDyn};
use rand::Rng;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A list-mode acquisition: its header read, its data file found and its length checked.
#[derive(Debug, Clone)]
pub struct ListMode {
    /// The header.
    pub header: InterfileHeader,
    /// The scanner the header describes.
    pub scanner: CylindricalScanner,
    /// The data file in use.
    pub data: PathBuf,
    /// Words in the data file.
    pub words: u64,
    /// Words the header announces.
    pub announced_words: Option<u64>,
    /// Seconds the header announces.
    pub announced_seconds: Option<f64>,
    /// Where header and data differ, and which data file was taken.
    pub warnings: Vec<String>,
    start: u64,
}

/// One coincidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The last time tag before it in ms; 0 before the first.
    pub time_ms: u32,
    /// True for a prompt, false for a delayed.
    pub prompt: bool,
    /// Plane of the span-1 sinogram.
    pub plane: usize,
    /// View.
    pub view: usize,
    /// Radial bin.
    pub radial: usize,
}

/// One word of list-mode that means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A time tag in ms.
    Time(u32),
    /// A coincidence.
    Event(Event),
}

/// Some of the events, chosen by chance: fewer counts of the same acquisition, with all that is true of it.
///
/// Every event, prompt or delayed, is kept with the same probability whatever happens to the others. Counts that were Poisson
/// with mean `ȳ` are then Poisson with mean `pȳ`, independent of those not kept (J. F. C. Kingman, "Poisson Processes",
/// Oxford 1993, §5.1). An event's lot depends on the seed and its number in the file only, not on the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thinning {
    /// Probability that an event is kept, more than 0 and at most 1.
    pub fraction: f64,
    /// Seed of the lots.
    pub seed: u64,
    /// Take the events that are not kept instead: both parts together are all events.
    pub rest: bool,
}

impl Thinning {
    fn validate(&self) -> Result<()> {
        if self.fraction > 0.0 && self.fraction <= 1.0 {
            return Ok(());
        }
        let fault = format!("{}; expected more than 0 and at most 1", self.fraction);
        Err(invalid("fraction of the events", fault))
    }
}

/// What to histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramOptions {
    /// Only events whose last time tag lies in this window in seconds, both ends included.
    pub seconds: Option<RangeInclusive<f64>>,
    /// Keep the `2·rings - 1` single-slice rebinned planes instead of their sum.
    pub planes: bool,
    /// A part of the events instead of all.
    pub thinning: Option<Thinning>,
}

/// Sinograms of a list-mode acquisition, not arc-corrected.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Prompts, `[view, radial]` or `[plane, view, radial]`.
    pub prompts: ArrayD<f32>,
    /// Delayeds, of the same shape.
    pub delayeds: ArrayD<f32>,
    /// Number of prompts.
    pub prompt_count: u64,
    /// Number of delayeds.
    pub delayed_count: u64,
    /// Number of time tags in the window.
    pub time_tags: u64,
    /// First and last time tag in the window in ms.
    pub time_ms: Option<(u32, u32)>,
    /// Largest span-1 plane that holds an event.
    pub largest_plane: Option<usize>,
    /// Signed distance of each radial bin from the axis in mm, not equally spaced.
    pub radial_mm: Array1<f32>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

impl Histogram {
    /// Prompts minus delayeds: the true and scattered coincidences, randoms estimated by the delayed window.
    pub fn net(&self) -> ArrayD<f32> {
        &self.prompts - &self.delayeds
    }

    /// Writes `prompts`, `delayeds` and `radial_mm` as `.npz`.
    ///
    /// # Errors
    /// Those of [`crate::write_npz`].
    pub fn write_npz(&self, path: &Path) -> Result<()> {
        let radial = self.radial_mm.view().into_dyn();
        let arrays = [
            ("prompts", self.prompts.view()),
            ("delayeds", self.delayeds.view()),
            ("radial_mm", radial),
        ];
        crate::write_npz(path, &arrays, true)
    }
}

impl ListMode {
    /// Opens an acquisition by its header, or by its `.l` file when `X.l.hdr` or `X.hdr` stands beside it.
    ///
    /// `data` overrides the search of [`InterfileHeader::data_file`].
    ///
    /// # Errors
    /// A missing or unreadable header or data file; another word length, axial compression or time-of-flight;
    /// a partial word at the end.
    pub fn open(path: &Path, data: Option<&Path>) -> Result<Self> {
        let (header_path, data) = match path.extension() {
            Some(extension) if extension == "l" && data.is_none() => {
                let mut long = path.as_os_str().to_owned();
                long.push(".hdr");
                let long = PathBuf::from(long);
                let header = if long.is_file() {
                    long
                } else {
                    path.with_extension("hdr")
                };
                (header, Some(path))
            }
            _ => (path.to_owned(), data),
        };
        let header = InterfileHeader::read(&header_path)?;
        for (key, expected) in [
            ("lm event and tag words format (bits)", "32"),
            ("data format", "CoincidenceList"),
            ("axial compression", "1"),
            ("number of tof time bins", "1"),
        ] {
            if let Some(value) = header.get(key).filter(|v| !v.eq_ignore_ascii_case(expected)) {
                return Err(header.bad(key, value, expected));
            }
        }
        let scanner = header.scanner()?;
        let (data, note) = header.data_file(data)?;
        let mut warnings: Vec<String> = note.into_iter().collect();
        let length = std::fs::metadata(&data).map_err(io("read", &data))?.len();
        let start = header.integer("data offset in bytes")?.unwrap_or(0);
        let Some(bytes) = length.checked_sub(start) else {
            let fault = format!("at most {length}, the bytes of {}", data.display());
            return Err(header.bad("data offset in bytes", &start.to_string(), &fault));
        };
        let words = bytes / 4;
        if !bytes.is_multiple_of(4) {
            let fault = format!(
                "only {} of its 4 bytes are there; the file is cut short",
                bytes % 4
            );
            return Err(Error::Word {
                path: data,
                word: words,
                fault,
            });
        }
        let announced_words = header.integer("total listmode word counts")?;
        let announced_seconds = header.number("image duration (sec)")?;
        if let Some(announced) = announced_words.filter(|&a| a != words) {
            let how = if words < announced { "shorter" } else { "longer" };
            warnings.push(format!(
                "{} is {how} than announced: {words} words of {announced}",
                data.display()
            ));
        }
        if let Some(table) = header.integers("segment table")? {
            let described: u64 = table.iter().fold(0, |sum, &n| sum.saturating_add(n));
            if described != scanner.planes() as u64 {
                let span_1 = scanner.planes();
                warnings.push(format!(
                    "the segment table describes {described} planes; the events are span 1, {span_1} planes"
                ));
            }
        }
        Ok(Self {
            header,
            scanner,
            data,
            words,
            announced_words,
            announced_seconds,
            warnings,
            start,
        })
    }

    /// Streams the time tags and events in the order of the file.
    ///
    /// # Errors
    /// The data file cannot be opened; later, per record, an offset outside the sinogram.
    pub fn records(&self) -> Result<Records> {
        let mut file = File::open(&self.data).map_err(io("read", &self.data))?;
        file.seek(SeekFrom::Start(self.start))
            .map_err(io("read", &self.data))?;
        Ok(Records {
            reader: BufReader::with_capacity(1 << 18, file),
            path: self.data.clone(),
            planes: self.scanner.planes(),
            views: self.scanner.views(),
            bins: self.scanner.bins,
            word: 0,
            words: self.words,
            time_ms: 0,
        })
    }

    /// Counts the events into sinograms.
    ///
    /// # Errors
    /// An impossible offset, naming the word; a window that is not a range of seconds; a fraction of the
    /// events that is not more than 0 and at most 1.
    pub fn histogram(&self, options: &HistogramOptions) -> Result<Histogram> {
        if let Some(window) = &options.seconds
            && !(*window.start() >= 0.0 && window.end() >= window.start() && window.end().is_finite())
        {
            let fault = format!("{}..{}; expected 0 <= a <= b", window.start(), window.end());
            return Err(invalid("time window in seconds", fault));
        }
        let mut lots = match &options.thinning {
            Some(thinning) => {
                thinning.validate()?;
                Some((thinning, stream(thinning.seed, "thinning", 0)))
            }
            None => None,
        };
        let inside = |ms: u32| {
            options
                .seconds
                .as_ref()
                .is_none_or(|w| w.contains(&(f64::from(ms) / 1000.0)))
        };
        let (views, bins) = (self.scanner.views(), self.scanner.bins);
        let slice_of = self.slices();
        let slices = if options.planes {
            2 * self.scanner.rings - 1
        } else {
            1
        };
        // Counted in integers: f32 would stop at 2^24.
        let mut counts = [
            vec![0u32; slices * views * bins],
            vec![0u32; slices * views * bins],
        ];
        let mut totals = [0u64; 2];
        let (mut time_tags, mut time_ms, mut largest_plane, mut backwards) = (0, None, None, 0u64);
        let mut last = 0;
        let mut open = inside(0);
        for record in self.records()? {
            match record? {
                Record::Time(ms) => {
                    backwards += u64::from(ms < last);
                    last = ms;
                    open = inside(ms);
                    if open {
                        time_tags += 1;
                        time_ms = Some((time_ms.map_or(ms, |(first, _)| first), ms));
                    }
                }
                Record::Event(event) => {
                    let taken = match &mut lots {
                        Some((thinning, lots)) => (lots.random::<f64>() < thinning.fraction) != thinning.rest,
                        None => true,
                    };
                    if !(open && taken) {
                        continue;
                    }
                    let kind = usize::from(!event.prompt);
                    let slice = if options.planes { slice_of[event.plane] } else { 0 };
                    let cell = &mut counts[kind][(slice * views + event.view) * bins + event.radial];
                    *cell = cell.saturating_add(1);
                    totals[kind] += 1;
                    largest_plane = largest_plane.max(Some(event.plane));
                }
            }
        }
        let mut warnings = self.warnings.clone();
        if let (None, Some(announced), Some((first, last))) =
            (&options.seconds, self.announced_seconds, time_ms)
        {
            let measured = f64::from(last - first.min(last) + 1) / 1000.0;
            if (measured - announced).abs() > 1.0 {
                warnings.push(format!(
                    "time tags span {measured} s; the header announces {announced} s"
                ));
            }
        }
        if backwards > 0 {
            warnings.push(format!("time runs backwards at {backwards} tags"));
        }
        if totals == [0, 0] {
            warnings.push("no event in the window".to_owned());
        }
        let shape = if options.planes {
            vec![slices, views, bins]
        } else {
            vec![views, bins]
        };
        let array = |counts: Vec<u32>| {
            ArrayD::from_shape_vec(IxDyn(&shape), counts.into_iter().map(|n| n as f32).collect())
                .map_err(|e| invalid("histogram", e.to_string()))
        };
        let [prompts, delayeds] = counts;
        Ok(Histogram {
            prompts: array(prompts)?,
            delayeds: array(delayeds)?,
            prompt_count: totals[0],
            delayed_count: totals[1],
            time_tags,
            time_ms,
            largest_plane,
            radial_mm: self.radial_mm(),
            warnings,
        })
    }

    /// Signed distance of each radial bin from the axis in mm, not equally spaced.
    pub fn radial_mm(&self) -> Array1<f32> {
        (0..self.scanner.bins)
            .map(|bin| self.scanner.s_mm(bin) as f32)
            .collect()
    }

    /// The single slice halfway between the rings of each span-1 plane: `ring_a + ring_b`.
    fn slices(&self) -> Vec<usize> {
        let rings = |plane| self.scanner.plane_rings(plane).map_or(0, |(a, b)| a + b);
        (0..self.scanner.planes()).map(rings).collect()
    }
}

/// Iterator over the records of a data file; see [`ListMode::records`].
#[derive(Debug)]
pub struct Records {
    reader: BufReader<File>,
    path: PathBuf,
    planes: usize,
    views: usize,
    bins: usize,
    word: u64,
    words: u64,
    time_ms: u32,
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.word >= self.words {
                return None;
            }
            let mut bytes = [0u8; 4];
            if let Err(e) = self.reader.read_exact(&mut bytes) {
                self.words = self.word;
                return Some(Err(io("read", &self.path)(e)));
            }
            let word = u32::from_le_bytes(bytes);
            let number = self.word;
            self.word += 1;
            if word >> 31 == 1 {
                if word >> 29 == 4 {
                    self.time_ms = word & 0x1fff_ffff;
                    return Some(Ok(Record::Time(self.time_ms)));
                }
                continue;
            }
            let offset = (word & 0x3fff_ffff) as usize;
            let (row, radial) = (offset / self.bins, offset % self.bins);
            let (plane, view) = (row / self.views, row % self.views);
            if plane >= self.planes {
                self.words = self.word;
                let (planes, views, bins) = (self.planes, self.views, self.bins);
                let limit = planes * views * bins;
                let fault = format!(
                    "offset {offset}; expected less than {limit} = {planes} planes x {views} views x {bins} bins"
                );
                return Some(Err(Error::Word {
                    path: self.path.clone(),
                    word: number,
                    fault,
                }));
            }
            return Some(Ok(Record::Event(Event {
                time_ms: self.time_ms,
                prompt: word >> 30 & 1 == 1,
                plane,
                view,
                radial,
            })));
        }
    }
}
