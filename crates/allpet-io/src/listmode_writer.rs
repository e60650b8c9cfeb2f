//! Writes list-mode in the format of [`crate::ListMode`]: generated acquisitions, bootstrapped real ones.

use crate::error::{Result, invalid, io};
use crate::interfile::check_cells;
use allpet_core::{AtomicFile, CylindricalScanner, write_bytes_atomically};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the header says beyond the scanner; real headers are copied when files are shortened and then say things
/// the file does not keep.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Announcement {
    /// Name of the data file instead of the real one.
    pub data_file: Option<String>,
    /// Number of words instead of the real one.
    pub words: Option<u64>,
    /// Duration in seconds instead of the one the time tags span.
    pub seconds: Option<f64>,
    /// A segment table instead of none.
    pub segment_table: Option<Vec<u64>>,
}

/// Writes a header and its events; neither file appears before [`ListModeWriter::finish`].
#[derive(Debug)]
pub struct ListModeWriter {
    header: PathBuf,
    data: PathBuf,
    file: AtomicFile,
    scanner: CylindricalScanner,
    announcement: Announcement,
    words: u64,
    span_ms: Option<(u32, u32)>,
}

impl ListModeWriter {
    /// Starts an acquisition whose header is `X.l.hdr` or `X.hdr`; the data go beside it into `X.l`.
    ///
    /// # Errors
    /// A header path without `.hdr`; an invalid scanner; the file system's.
    pub fn create(header: &Path, scanner: &CylindricalScanner, announcement: Announcement) -> Result<Self> {
        if header.extension().is_none_or(|e| e != "hdr") {
            return Err(invalid(
                "list-mode header",
                format!("{}; expected a name ending in .hdr", header.display()),
            ));
        }
        scanner.validate()?;
        check_cells(scanner)?;
        let stem = header.with_extension("");
        let data = if stem.extension().is_some_and(|e| e == "l") {
            stem
        } else {
            stem.with_extension("l")
        };
        let file = AtomicFile::create(&data)?;
        let header = header.to_owned();
        Ok(Self {
            header,
            data,
            file,
            scanner: *scanner,
            announcement,
            words: 0,
            span_ms: None,
        })
    }

    /// Writes a time tag in ms (less than 2^29).
    ///
    /// # Errors
    /// A time that does not fit; the file system's.
    pub fn time(&mut self, ms: u32) -> Result<()> {
        if ms >= 1 << 29 {
            return Err(invalid("time tag", format!("{ms} ms; expected less than 2^29")));
        }
        self.span_ms = Some((self.span_ms.map_or(ms, |(first, _)| first), ms));
        self.word(4 << 29 | ms)
    }

    /// Writes an event at a cell of the span-1 sinogram.
    ///
    /// # Errors
    /// A cell outside the scanner's sinogram; the file system's.
    pub fn event(&mut self, prompt: bool, plane: usize, view: usize, radial: usize) -> Result<()> {
        let (planes, views, bins) = (self.scanner.planes(), self.scanner.views(), self.scanner.bins);
        if plane >= planes || view >= views || radial >= bins {
            let fault = format!(
                "plane {plane}, view {view}, bin {radial}; expected less than {planes}, {views}, {bins}"
            );
            return Err(invalid("event", fault));
        }
        let offset = (plane * views + view) * bins + radial;
        self.word(u32::from(prompt) << 30 | offset as u32)
    }

    /// Makes the data file appear, then its header.
    ///
    /// # Errors
    /// The file system's.
    pub fn finish(self) -> Result<()> {
        let header = self.header_text();
        self.file.commit()?;
        Ok(write_bytes_atomically(&self.header, header.as_bytes())?)
    }

    fn word(&mut self, word: u32) -> Result<()> {
        self.words += 1;
        self.file
            .write_all(&word.to_le_bytes())
            .map_err(io("write", &self.data))
    }

    fn header_text(&self) -> String {
        let s = &self.scanner;
        let said = &self.announcement;
        let own_name = || {
            self.data
                .file_name()
                .map_or(String::new(), |n| n.to_string_lossy().into_owned())
        };
        let name = said.data_file.clone().unwrap_or_else(own_name);
        let words = said.words.unwrap_or(self.words);
        let measured = self.span_ms.map_or(0.0, |(first, last)| {
            f64::from(last.saturating_sub(first) + 1) / 1000.0
        });
        let seconds = said.seconds.unwrap_or(measured);
        let (radius, spacing, bin) = (s.ring_radius_mm / 10.0, s.ring_spacing_mm / 10.0, s.bin_mm / 10.0);
        let table = said.segment_table.as_ref().map_or(String::new(), |table| {
            let list: Vec<_> = table.iter().map(ToString::to_string).collect();
            format!(
                "%number of segments:={}\n%segment table:={{{}}}\n",
                list.len(),
                list.join(", ")
            )
        });
        format!(
            "!INTERFILE:=\n\
             !GENERAL DATA:=\n\
             !data offset in bytes:=0\n\
             name of data file:={name}\n\
             !GENERAL IMAGE DATA:=\n\
             !type of data:=PET\n\
             PET data type:=Emission\n\
             data format:=CoincidenceList\n\
             !PET STUDY (Emission data):=\n\
             PET scanner type:=cylindrical\n\
             number of rings:={}\n\
             distance between rings (cm):={spacing}\n\
             gantry crystal radius (cm):={radius}\n\
             bin size (cm):={bin}\n\
             !IMAGE DATA DESCRIPTION:=\n\
             image duration (sec):={seconds}\n\
             %total listmode word counts:={words}\n\
             %COINCIDENCE LIST DATA:=\n\
             %LM event and tag words format (bits):=32\n\
             %timing tagwords interval (msec):=1\n\
             %axial compression:=1\n\
             %maximum ring difference:={}\n\
             %number of projections:={}\n\
             %number of views:={}\n\
             {table}",
            s.rings,
            s.max_ring_difference,
            s.bins,
            s.views(),
        )
    }
}
