//! Progress on a terminal, and interruption.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// A bar on standard error if that is a terminal, otherwise nothing.
pub(crate) fn bar(total: u64, unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
    let template = format!("{{bar:30}} {{pos}}/{{len}} {unit} {{msg}} {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// The flag that Ctrl-C sets: work stops at the next point where it can be left in order. A second one ends at once.
pub(crate) fn stop_flag() -> &'static AtomicBool {
    // Without a handler (there can be only one) an interruption ends the program as it does by default.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(1);
        }
    });
    &STOP
}

/// Whether an interruption was asked for.
pub(crate) fn stopped() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// For work that tells how far it is, shows nothing, and ends early when the user says so.
pub(crate) fn unless_stopped(_done: usize, _total: usize) -> ControlFlow<()> {
    match stopped() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// Work that tells its evaluations, behind a bar, until it ends or Ctrl-C stops it.
pub(crate) fn watched<T>(work: impl FnOnce(&mut dyn FnMut(usize, usize) -> ControlFlow<()>) -> T) -> T {
    stop_flag();
    let bar = bar(0, "evaluations");
    let done = work(&mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        unless_stopped(done, total)
    });
    bar.finish_and_clear();
    done
}
