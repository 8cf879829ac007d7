//! Clock: what time it is, for Records, reports and attestations.
//!
//! Layer 3 (effects). Must never reach a lock, an image or a key.

#![allow(clippy::disallowed_methods, reason = "effects: reads the clock")]

use std::time::SystemTime;

/// Now, as RFC 3339 in UTC with whole seconds: `2023-10-25T12:00:00Z`.
pub fn now() -> String {
    text(SystemTime::now())
}

/// A time as RFC 3339 in UTC with whole seconds.
pub fn text(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = i64::try_from(seconds).unwrap_or(0);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_reads_as_the_standard_says() {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_698_235_200_500);
        assert_eq!(super::text(time), "2023-10-25T12:00:00Z");
    }
}
