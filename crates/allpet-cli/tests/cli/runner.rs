//! Runs the built program in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_allpet"));
        command
            .current_dir(self.0.path())
            .args(words(line))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    pub(crate) fn start(&self, line: &str) -> Child {
        self.command(line)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs a command that must succeed and say nothing on standard error.
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}\n{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// As [`Folder::ok`] with `--json`: exactly one JSON object on standard output.
    pub(crate) fn json(&self, line: &str) -> serde_json::Value {
        let out = self.ok(&format!("{line} --json"));
        assert_eq!(out.lines().count(), 1, "{line}: {out}");
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(value.is_object());
        value
    }

    /// Runs a command that must fail with this status, say nothing on standard output and one line on standard
    /// error that holds every one of `words`.
    pub(crate) fn fails(&self, status: i32, line: &str, words: &[&str]) {
        let output = self.run(line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{line}\n{said}");
        assert_eq!(text(&output.stdout), "", "{line}");
        assert_eq!(said.lines().count(), 1, "{line}\n{said}");
        assert!(said.starts_with("error: "), "{line}\n{said}");
        for word in words {
            assert!(said.contains(word), "{line}\nexpected `{word}` in: {said}");
        }
    }

    /// Names in the folder, hidden ones included.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Words divided by blanks; "several words" in double quotes are one.
fn words(line: &str) -> Vec<String> {
    line.split('"')
        .enumerate()
        .flat_map(|(i, part)| match i % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

pub(crate) fn npy<D: ndarray::Dimension>(path: &Path, array: &ndarray::Array<f32, D>) {
    allpet::io::write_npy(path, array.view()).unwrap();
}

pub(crate) fn read2(path: &Path) -> ndarray::Array2<f32> {
    allpet::io::read_npy(path).unwrap().into_dimensionality().unwrap()
}

pub(crate) fn read3(path: &Path) -> ndarray::Array3<f32> {
    allpet::io::read_npy(path).unwrap().into_dimensionality().unwrap()
}

/// An array of an `.npz`.
pub(crate) fn entry<D: ndarray::Dimension>(path: &Path, name: &str) -> ndarray::Array<f32, D> {
    allpet::io::read_npz(path, &[name])
        .unwrap()
        .remove(0)
        .into_dimensionality()
        .unwrap()
}
