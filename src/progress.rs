//! Progress: what a person sees while long work goes on.
//!
//! Layer 3 (effects): owns stderr. Bars on a terminal, plain lines elsewhere, nothing when quiet. Must
//! never write to stdout (that is the command's result) and never decide anything.

#![allow(clippy::disallowed_methods, reason = "effects: owns stderr")]

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use crate::text::{bytes, duration};

/// How much is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verbosity {
    /// Bars or lines, by what stderr is.
    Normal,
    /// Warnings and errors only.
    Quiet,
}

/// The one printer for progress, notes and warnings; cheap to clone and safe to share between threads.
#[derive(Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    verbosity: Verbosity,
    total: Option<Arc<Task>>,
}

/// One piece of work that is under way; ends when dropped.
pub struct Task {
    bar: Option<ProgressBar>,
    plain: Option<Plain>,
    total: Option<Arc<Task>>,
}

struct Plain {
    name: String,
    total: u64,
    done: std::sync::atomic::AtomicU64,
    began: Instant,
    last: std::sync::Mutex<Instant>,
}

const LINE_EVERY: Duration = Duration::from_secs(5);
/// Work of hours says that it is alive this often where there is no terminal.
const SIGN_EVERY: Duration = Duration::from_secs(60);

/// A command that runs, of which nobody knows how long; ends when dropped.
pub struct Running {
    bar: Option<ProgressBar>,
    name: String,
    quiet: bool,
    began: Instant,
    last: Instant,
}

impl Running {
    /// What it is at: its memory, its last line.
    pub fn tell(&mut self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
            bar.tick();
        } else if !self.quiet && self.last.elapsed() >= SIGN_EVERY {
            self.last = Instant::now();
            say(format_args!("{}: {}, {what}", self.name, duration(self.began.elapsed().as_secs_f64())));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress {
    /// Chooses bars where stderr is a terminal.
    pub fn new(verbosity: Verbosity) -> Self {
        let bars = (verbosity == Verbosity::Normal && std::io::stderr().is_terminal())
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));
        Self { bars, verbosity, total: None }
    }

    /// A printer that says nothing, for tests and library use.
    pub fn silent() -> Self {
        Self { bars: None, verbosity: Verbosity::Quiet, total: None }
    }

    /// A printer whose tasks add up to one more, shown above them: `name`, of `total` bytes in all.
    pub fn totalled(&self, name: &str, total: u64) -> Self {
        Self { total: Some(Arc::new(self.task(name, total))), ..self.clone() }
    }

    /// Begins a piece of work of `total` bytes (0: not known).
    pub fn task(&self, name: &str, total: u64) -> Task {
        // With a total, plain lines are the total's; one line a file and five seconds would be noise.
        let parent = self.total.clone();
        if let Some(bars) = &self.bars {
            let style = if total > 0 {
                "{prefix:<28!} {bar:14} {decimal_bytes:>9}/{decimal_total_bytes:<9} {decimal_bytes_per_sec:>11} {eta:>4}"
            } else {
                "{prefix:<28!} {spinner} {decimal_bytes:>9} {elapsed:>4}"
            };
            let bar = bars.add(ProgressBar::new(total));
            bar.set_style(ProgressStyle::with_template(style).expect("the template is a constant"));
            bar.set_prefix(name.to_owned());
            return Task { bar: Some(bar), plain: None, total: parent };
        }
        let plain = (self.verbosity == Verbosity::Normal && parent.is_none()).then(|| Plain {
            name: name.to_owned(),
            total,
            done: 0.into(),
            began: Instant::now(),
            last: Instant::now().into(),
        });
        Task { bar: None, plain, total: parent }
    }

    /// Shows that a command runs.
    pub fn running(&self, name: &str) -> Running {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("{prefix} {spinner} {elapsed} {wide_msg}");
            bar.set_style(style.expect("the template is a constant"));
            bar.set_prefix(name.to_owned());
            bar
        });
        let now = Instant::now();
        Running { bar, name: name.to_owned(), quiet: self.verbosity == Verbosity::Quiet, began: now, last: now }
    }

    /// One line for the person, e.g. what was reused.
    pub fn note(&self, text: &str) {
        if self.verbosity == Verbosity::Normal {
            self.line(text);
        }
    }

    /// One line that quiet does not silence.
    pub fn warn(&self, text: &str) {
        self.line(&format!("warning: {text}"));
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| say(format_args!("{text}"))),
            None => say(format_args!("{text}")),
        }
    }
}

/// Writes a line. Where nobody reads any more, the work goes on all the same: it may be a day's.
fn say(text: std::fmt::Arguments) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

impl Task {
    /// A task that is not shown.
    pub fn hidden() -> Self {
        Self { bar: None, plain: None, total: None }
    }

    /// `n` more bytes are done.
    pub fn add(&self, n: u64) {
        if let Some(total) = &self.total {
            total.add(n);
        }
        if let Some(bar) = &self.bar {
            bar.inc(n);
        }
        if let Some(plain) = &self.plain {
            let done = plain.done.fetch_add(n, std::sync::atomic::Ordering::Relaxed) + n;
            let Ok(mut last) = plain.last.try_lock() else { return };
            if last.elapsed() >= LINE_EVERY {
                *last = Instant::now();
                if plain.total > 0 {
                    let percent = done * 100 / plain.total.max(1);
                    say(format_args!("{}: {} of {} ({percent} %)", plain.name, bytes(done), bytes(plain.total)));
                } else {
                    say(format_args!("{}: {}", plain.name, bytes(done)));
                }
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some(plain) = &self.plain
            && plain.began.elapsed() >= LINE_EVERY
        {
            let done = plain.done.load(std::sync::atomic::Ordering::Relaxed);
            say(format_args!("{}: {} in {:.1} s", plain.name, bytes(done), plain.began.elapsed().as_secs_f64()));
        }
    }
}
