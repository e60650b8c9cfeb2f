//! The program as its users meet it: run as a process, judged by its files, its output and its exit status.
// Helpers of tests, where clippy.toml allows it only inside the tests themselves.
#![allow(clippy::unwrap_used)]

mod arrays;
mod evaluate;
mod evaluate_report;
mod faults;
mod formats;
#[cfg(target_os = "linux")]
mod memory;
mod model;
mod pairs;
mod runner;
mod task;
