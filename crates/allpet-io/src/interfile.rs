//! Interfile headers (Todd-Pokropek, Cradduck & Deconinck, Nucl. Med. Commun. 13:673, 1992) with the list-mode keys
//! of Siemens: lines `key := value`, keys marked by `!` or `%` and sometimes indexed `[n]`.

use crate::error::{Error, Result, io};
use allpet_core::CylindricalScanner;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

// Real headers have two thousand characters.
const MAX_HEADER: u64 = 1 << 20;

/// One line of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfileEntry {
    /// The key without `!`, `%` and index, in lower case with single blanks.
    pub key: String,
    /// The index in brackets, if any.
    pub index: Option<usize>,
    /// The value without blanks around it.
    pub value: String,
    /// Line number, from 1.
    pub line: usize,
}

/// A parsed Interfile header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfileHeader {
    /// Where it was read.
    pub path: PathBuf,
    /// Its lines in order.
    pub entries: Vec<InterfileEntry>,
}

impl InterfileHeader {
    /// Reads and parses a header file.
    ///
    /// # Errors
    /// A missing file; one that does not begin with `!INTERFILE`; a line without `:=`.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io("read", path))?;
        let mut bytes = Vec::new();
        file.take(MAX_HEADER + 1)
            .read_to_end(&mut bytes)
            .map_err(io("read", path))?;
        if bytes.len() as u64 > MAX_HEADER {
            return Err(malformed(
                path,
                format!("more than {MAX_HEADER} bytes; expected a text of a few thousand"),
            ));
        }
        Self::parse(path, &String::from_utf8_lossy(&bytes))
    }

    /// Parses the text of a header; `path` serves messages and the search for the data file. Errors as
    /// [`InterfileHeader::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(';') {
                continue;
            }
            let Some((key, value)) = line.split_once(":=") else {
                let shown: String = line.chars().take(40).flat_map(char::escape_default).collect();
                return Err(malformed(
                    path,
                    format!("line {} `{shown}` has no `:=`", number + 1),
                ));
            };
            let (key, index) = normalise(key);
            entries.push(InterfileEntry {
                key,
                index,
                value: value.trim().to_owned(),
                line: number + 1,
            });
        }
        if entries.first().is_none_or(|e| e.key != "interfile") {
            return Err(malformed(
                path,
                "it does not begin with `!INTERFILE :=`".to_owned(),
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            entries,
        })
    }

    /// The value of a key (without index, or the first one), if it is there and not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|e| e.key == key)
            .map(|e| e.value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// The value of an indexed key such as `energy window lower level (kev) [1]`.
    pub fn get_indexed(&self, key: &str, index: usize) -> Option<&str> {
        let found = self
            .entries
            .iter()
            .find(|e| e.key == key && e.index == Some(index));
        found.map(|e| e.value.as_str()).filter(|v| !v.is_empty())
    }

    /// A number, if the key is there.
    ///
    /// # Errors
    /// A value that is not a finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        let parse = |v: &str| v.parse::<f64>().ok().filter(|n| n.is_finite());
        self.get(key)
            .map(|v| parse(v).ok_or_else(|| self.bad(key, v, "a number")))
            .transpose()
    }

    /// A whole number of 0 or more, if the key is there.
    ///
    /// # Errors
    /// A value that is not such a number.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.get(key)
            .map(|v| v.parse().map_err(|_| self.bad(key, v, "a whole number")))
            .transpose()
    }

    /// A list `{a, b, c}` of whole numbers, if the key is there.
    ///
    /// # Errors
    /// A value that is not such a list.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<u64>>> {
        let parse = |v: &str| -> Option<Vec<u64>> {
            let inside = v.strip_prefix('{')?.strip_suffix('}')?;
            inside.split(',').map(|n| n.trim().parse().ok()).collect()
        };
        self.get(key)
            .map(|v| parse(v).ok_or_else(|| self.bad(key, v, "a list {a, b, c}")))
            .transpose()
    }

    /// The scanner the header describes, lengths turned from cm to mm, crystals taken as twice the views.
    ///
    /// No header states the mean depth of interaction; the mMR's 6.7 mm is taken.
    ///
    /// # Errors
    /// A key that is missing or not a number; another kind of scanner; what [`CylindricalScanner::validate`] finds.
    pub fn scanner(&self) -> Result<CylindricalScanner> {
        if let Some(kind) = self
            .get("pet scanner type")
            .filter(|k| !k.eq_ignore_ascii_case("cylindrical"))
        {
            return Err(self.bad("pet scanner type", kind, "cylindrical"));
        }
        let count = |key: &str| -> Result<usize> {
            let n = self.integer(key)?.ok_or_else(|| self.lacks(key))?;
            // Far beyond any scanner, and small enough that no product of two overflows.
            usize::try_from(n)
                .ok()
                .filter(|&n| n <= 1 << 20)
                .ok_or_else(|| self.bad(key, &n.to_string(), "at most 1,048,576"))
        };
        let cm = |key: &str| -> Result<f64> { Ok(self.number(key)?.ok_or_else(|| self.lacks(key))? * 10.0) };
        let scanner = CylindricalScanner {
            crystals: count("number of views")? * 2,
            ring_radius_mm: cm("gantry crystal radius (cm)")?,
            depth_mm: CylindricalScanner::mmr().depth_mm,
            rings: count("number of rings")?,
            ring_spacing_mm: cm("distance between rings (cm)")?,
            bins: count("number of projections")?,
            bin_mm: cm("bin size (cm)")?,
            max_ring_difference: count("maximum ring difference")?,
        };
        scanner
            .validate()
            .and_then(|()| check_cells(&scanner))
            .map_err(|source| Error::Content {
                path: self.path.clone(),
                source,
            })?;
        Ok(scanner)
    }

    /// The data file: the caller's if given, else the file the header names if it exists beside it, else the
    /// header's own stem with `.l`. The note says which was taken when it is not the named one.
    ///
    /// # Errors
    /// None of them exists; the message lists those tried.
    pub fn data_file(&self, given: Option<&Path>) -> Result<(PathBuf, Option<String>)> {
        let named = self.get("name of data file");
        let said = named.map_or("the header names no data file".to_owned(), |n| {
            format!("the header names `{n}`")
        });
        if let Some(given) = given {
            let same = named.is_some_and(|n| given == self.beside(n));
            let note = (!same).then(|| format!("{said}; reading {} as asked", given.display()));
            return Ok((given.to_owned(), note));
        }
        let named_path = named.map(|n| self.beside(n));
        if let Some(path) = named_path.as_ref().filter(|p| p.is_file()) {
            return Ok((path.clone(), None));
        }
        let stem = self.path.with_extension("");
        let own = if stem.extension().is_some_and(|e| e == "l") {
            stem
        } else {
            stem.with_extension("l")
        };
        if own.is_file() {
            return Ok((
                own.clone(),
                Some(format!("{said}, which is not there; reading {}", own.display())),
            ));
        }
        let tried: Vec<_> = named_path
            .iter()
            .chain([&own])
            .map(|p| p.display().to_string())
            .collect();
        let fault = format!("its data file is not there; tried {}", tried.join(", "));
        Err(Error::Core(allpet_core::Error::Invalid {
            what: self.path.display().to_string(),
            faults: vec![fault],
        }))
    }

    pub(crate) fn bad(&self, key: &str, value: &str, expected: &str) -> Error {
        malformed(&self.path, format!("`{key}` is `{value}`; expected {expected}"))
    }

    fn lacks(&self, key: &str) -> Error {
        malformed(&self.path, format!("it lacks `{key}`"))
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(name)
    }
}

/// A list-mode word names a cell of the span-1 sinogram by 30 bits; a description of more is damage.
pub(crate) fn check_cells(scanner: &CylindricalScanner) -> allpet_core::Result<()> {
    let cells = scanner.planes() as u128 * scanner.views() as u128 * scanner.bins as u128;
    if cells <= 1 << 30 {
        return Ok(());
    }
    let fault = format!("{cells} sinogram cells; expected at most the 2^30 that a list-mode word can name");
    Err(allpet_core::Error::Invalid {
        what: "scanner".to_owned(),
        faults: vec![fault],
    })
}

/// `%Energy  window lower level (keV) [1]` becomes `energy window lower level (kev)`, 1.
fn normalise(raw: &str) -> (String, Option<usize>) {
    let bare = raw.trim().trim_start_matches(['!', '%']).trim();
    let indexed = bare.strip_suffix(']').and_then(|b| b.rsplit_once('['));
    let (words, index) = match indexed.and_then(|(w, n)| Some((w, n.trim().parse().ok()?))) {
        Some((words, index)) => (words, Some(index)),
        None => (bare, None),
    };
    (
        words
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .to_lowercase(),
        index,
    )
}

fn malformed(path: &Path, fault: String) -> Error {
    Error::Malformed {
        place: path.display().to_string(),
        format: "Interfile",
        fault,
    }
}
