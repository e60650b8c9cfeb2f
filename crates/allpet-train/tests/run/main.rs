//! Whole runs of a small problem: learning, resuming, stopping, being killed.

#![allow(clippy::unwrap_used)]

mod early_stop;
mod executor;
#[cfg(unix)]
mod killed;
mod toy;
