//! Whole runs of a small problem: learning, resuming, stopping, being killed.

#![allow(clippy::unwrap_used)]

mod executor;
#[cfg(unix)]
mod killed;
mod toy;
