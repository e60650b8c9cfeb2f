//! What a command says: one JSON object or a few lines on standard output, notes and faults on standard error.

use crate::fault::{Fault, Result};
use serde_json::Value;
use std::io::Write;

/// What a command has done.
#[derive(Debug)]
pub(crate) struct Report {
    json: Value,
    text: String,
}

impl Report {
    /// The JSON object, and the same for people.
    pub(crate) fn new(json: Value, text: impl Into<String>) -> Self {
        Self {
            json,
            text: text.into(),
        }
    }

    pub(crate) fn print(&self, json: bool) -> Result<()> {
        let text = if json {
            self.json.to_string()
        } else {
            self.text.clone()
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", text.trim_end())
            .and_then(|()| out.flush())
            .map_err(|e| Fault::Other(format!("cannot write to standard output: {e}")))
    }
}

/// A line that the user should know, on standard error.
pub(crate) fn note(text: &str) {
    line("note", text);
}

/// A fault, on standard error.
pub(crate) fn complain(text: &str) {
    line("error", text);
}

fn line(kind: &str, text: &str) {
    let one: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    // Nowhere is left to say that standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{kind}: {}", one.join(" "));
}
