//! Parts of the command line's contract that are not built yet: each says so, and help does not list them.

use crate::fault::Fault;
use std::ffi::OsString;

/// Words of an option (or of the first plain word, `""`) of a command.
const CHOICES: &[(&str, &str, &[&str])] = &[
    ("simulate", "--task", &["fusion"]),
    ("train", "", &["fusion"]),
    ("bench", "", &["sampler"]),
];

/// The answer to a command line that asks for one of them.
pub(crate) fn asked_for(words: &[OsString]) -> Option<Fault> {
    let words: Vec<&str> = words
        .iter()
        .skip(1)
        .map(|w| w.to_str().unwrap_or_default())
        .collect();
    let start = words.iter().position(|w| !w.starts_with('-'))?;
    let (command, rest) = (words[start], &words[start + 1..]);
    for (_, option, choices) in CHOICES.iter().filter(|(name, ..)| *name == command) {
        let value = match *option {
            "" => rest.iter().find(|w| !w.starts_with('-')).copied(),
            option => value_of(rest, option),
        };
        let value = value.and_then(|list| list.split(',').find(|v| choices.contains(v)));
        if let Some(value) = value {
            let option = if option.is_empty() {
                String::new()
            } else {
                format!("{option} ")
            };
            return Some(Fault::Given(format!(
                "`allpet {command} {option}{value}` is not built yet"
            )));
        }
    }
    None
}

/// `--option value` or `--option=value`.
fn value_of<'a>(words: &[&'a str], option: &str) -> Option<&'a str> {
    words
        .iter()
        .enumerate()
        .find_map(|(i, word)| match word.strip_prefix(option)? {
            "" => words.get(i + 1).copied(),
            glued => glued.strip_prefix('='),
        })
}
