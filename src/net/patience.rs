//! Patience: how long to wait for a server, and how often to ask it again.
//!
//! Layer 3 (effects): sleeps. Must never repeat what cannot succeed: whoever makes a [`Failure`] says whether
//! another try makes sense.

#![allow(clippy::disallowed_methods, reason = "effects: reads the clock for Retry-After dates")]

use std::time::{Duration, SystemTime};

use super::NetError;
use crate::progress::Progress;

/// Waiting times and the number of tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// How often one thing is asked for before the error is reported.
    pub tries: u32,
    /// Pause before the second try; each further one is twice as long.
    pub pause: Duration,
    /// No pause is longer, whatever the server's Retry-After says.
    pub longest_pause: Duration,
    /// For a connection to come about.
    pub connect: Duration,
    /// For an answer to begin, and for each further piece of its body; there is no limit for the whole.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            pause: Duration::from_millis(300),
            longest_pause: Duration::from_secs(60),
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        }
    }
}

/// A try that failed.
pub(super) struct Failure {
    pub error: NetError,
    pub again: Again,
}

/// Whether another try makes sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    Never,
    Soon,
    /// The server named a time.
    After(Duration),
}

impl<E: Into<NetError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), again: Again::Never }
    }
}

impl Failure {
    pub fn passing(error: NetError) -> Self {
        Self { error, again: Again::Soon }
    }
}

/// The tries for one thing.
pub(super) struct Tries<'a> {
    patience: Patience,
    progress: Option<&'a Progress>,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub fn new(patience: Patience, progress: Option<&'a Progress>) -> Self {
        Self { patience, progress, failed: 0 }
    }

    /// Things move on: what failed before does not count any more.
    pub fn reset(&mut self) {
        self.failed = 0;
    }

    /// Waits until the next try is due, or gives the error back where there is none.
    pub fn again(&mut self, failure: Failure) -> Result<(), NetError> {
        self.failed += 1;
        if failure.again == Again::Never || self.failed >= self.patience.tries {
            return Err(failure.error);
        }
        let pause = pause(&self.patience, self.failed, failure.again);
        if let Some(progress) = self.progress {
            progress.note(&format!("{}; trying again in {:.1} s", failure.error, pause.as_secs_f64()));
        }
        std::thread::sleep(pause);
        Ok(())
    }
}

fn pause(patience: &Patience, failed: u32, again: Again) -> Duration {
    let doubled = patience.pause.saturating_mul(1 << (failed - 1).min(16));
    let asked = match again {
        Again::After(time) => time,
        Again::Never | Again::Soon => Duration::ZERO,
    };
    doubled.max(asked).min(patience.longest_pause)
}

/// Whether a server that answers so may answer otherwise in a moment.
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// Reads Retry-After, in seconds or as a date.
pub(super) fn retry_after(header: Option<&str>) -> Again {
    parse_retry_after(header, SystemTime::now())
}

fn parse_retry_after(header: Option<&str>, now: SystemTime) -> Again {
    let Some(text) = header.map(str::trim) else { return Again::Soon };
    if let Ok(seconds) = text.parse() {
        return Again::After(Duration::from_secs(seconds));
    }
    match httpdate::parse_http_date(text) {
        // A date that has passed means: now.
        Ok(date) => Again::After(date.duration_since(now).unwrap_or_default()),
        Err(_) => Again::Soon,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Mon, 23 Nov 2026 10:00:00 GMT").unwrap();
        let after = |seconds| Again::After(Duration::from_secs(seconds));
        for (header, expected) in [
            (None, Again::Soon),
            (Some("0"), after(0)),
            (Some(" 7 "), after(7)),
            (Some("Mon, 23 Nov 2026 10:00:09 GMT"), after(9)),
            (Some("Mon, 23 Nov 2026 09:00:00 GMT"), after(0)),
            (Some("-3"), Again::Soon),
            (Some("soon"), Again::Soon),
            (Some(""), Again::Soon),
        ] {
            assert_eq!(parse_retry_after(header, now), expected, "{header:?}");
        }
    }

    #[test]
    fn pauses_double_and_have_an_end() {
        let patience = Patience { pause: Duration::from_secs(1), ..Patience::default() };
        let seconds = |failed, again| pause(&patience, failed, again).as_secs();
        assert_eq!([1, 2, 3, 4].map(|failed| seconds(failed, Again::Soon)), [1, 2, 4, 8]);
        assert_eq!(seconds(40, Again::Soon), 60);
        assert_eq!(seconds(1, Again::After(Duration::from_secs(9))), 9);
        assert_eq!(seconds(4, Again::After(Duration::from_secs(1))), 8);
        assert_eq!(seconds(1, Again::After(Duration::MAX)), 60);
    }

    #[test]
    fn only_passing_troubles_are_tried_again() {
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert!(is_passing(status), "{status}");
        }
        for status in [200, 304, 400, 401, 403, 404, 410, 416, 422, 451, 600] {
            assert!(!is_passing(status), "{status}");
        }
    }
}
