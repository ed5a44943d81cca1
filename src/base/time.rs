//! Time as data.
//!
//! *Cluster time* is what deadlines count in: milliseconds that pass only while a leader lives,
//! stamped into entries by the leader. *Wall time* is for people and TLS only; it never decides
//! whether a key lives. Nothing here reads a clock.

use std::fmt;
use std::time::Duration;

/// Milliseconds of cluster time since the cluster was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterTime(pub u64);

impl ClusterTime {
    /// This time plus `ms` milliseconds; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time, 0 if it is not earlier.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds since 1970-01-01T00:00:00Z, for display only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

impl WallTime {
    /// This time plus a time to live.
    #[must_use]
    pub fn plus(self, ttl: Ttl) -> Self {
        Self(self.0.saturating_add(ttl.seconds().saturating_mul(1_000_000_000)))
    }
}

/// Prints RFC 3339 in UTC with up to 9 fraction digits, trailing zeros dropped: Go's
/// `time.RFC3339Nano`, which is what etcd's v2 `expiration` shows.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) =
            (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if nanos > 0 {
            let digits = format!("{nanos:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// Gregorian date of a day count from 1970-01-01, by Howard Hinnant's `civil_from_days`
/// ("chrono-Compatible Low-Level Date Algorithms"), for days at or after the epoch.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// A time to live in whole seconds, at most `limits::TTL_SECONDS_MAX`. 0 expires at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u64);

impl Ttl {
    /// A time to live, or `None` past the limit.
    #[must_use]
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        (seconds <= super::limits::TTL_SECONDS_MAX).then_some(Self(seconds))
    }

    /// Whole seconds.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// Milliseconds.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 * 1_000
    }
}

/// Reads a length of time as operators write it: a whole number and `ms`, `s`, `m` or `h`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_prints_as_go_does() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (1_375_981_384_123_456_000, "2013-08-08T17:03:04.123456Z"),
            (4_107_542_399_000_000_001, "2100-02-28T23:59:59.000000001Z"),
            (4_107_542_400_500_000_000, "2100-03-01T00:00:00.5Z"),
        ];
        for (nanos, text) in cases {
            assert_eq!(WallTime(nanos).to_string(), text);
        }
    }

    #[test]
    fn lengths_of_time_have_a_unit() {
        for (text, ms) in [("0s", 0), ("30s", 30_000), ("250ms", 250), ("2m", 120_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "s", "30", "1.5s", "-1s", "1d", "99999999999999999999s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
