//! Hours of the week: `Mon-Fri 06:00-20:00`.
//!
//! Why UTC, or an offset that is written down, and not the host's zone: hosts of one service then
//! agree when it may change, and no hour is there twice or never, as when summer time ends or
//! begins. `Mon-Fri 06:00-20:00 +02:00` is by a clock two hours ahead of UTC.
//!
//! Invariants:
//! * A window that ends at or before its beginning ends on the day after: `Sat 22:00-04:00` ends
//!   on Sunday, and `00:00-00:00` is the whole day.
//! * A window without days is open every day.
//!
//! Deliberately not here: waiting (`tender`).

use crate::base::time::WallTime;
use std::time::Duration;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_SECONDS: u64 = 86_400;
const WEEK_SECONDS: u64 = 7 * DAY_SECONDS;
/// 1970-01-01 was a Thursday.
const EPOCH_DAY: u64 = 3;

/// When something may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Seconds of the week it opens at, from Monday, by its own clock.
    opens: Vec<u64>,
    /// Seconds it is open.
    length: u64,
    /// Seconds its clock is ahead of UTC, or a week less what it is behind.
    ahead: u64,
}

impl Window {
    /// Reads `DAYS FROM-TO ZONE`, of which days and zone may be left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace().peekable();
        let days = match words.peek() {
            Some(word) if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                days_of(words.next()?)?
            }
            Some(_) | None => (0..7).collect(),
        };
        let (from, to) = words.next()?.split_once('-')?;
        let (from, to) = (time_of_day(from)?, time_of_day(to)?);
        let ahead = words.next().map_or(Some(0), ahead_of_utc)?;
        if words.next().is_some() || from >= DAY_SECONDS {
            return None;
        }
        let length = if to > from { to - from } else { to + DAY_SECONDS - from };
        let opens = days.into_iter().map(|day| day * DAY_SECONDS + from).collect();
        Some(Self { opens, length, ahead })
    }

    /// Time until it is open; 0 = it is.
    #[must_use]
    pub fn opens_in(&self, now: WallTime) -> Duration {
        let now = now.0 / 1_000_000_000 + EPOCH_DAY * DAY_SECONDS + self.ahead;
        let wait = |opened: &u64| match (now + WEEK_SECONDS - opened) % WEEK_SECONDS {
            since if since < self.length => 0,
            since => WEEK_SECONDS - since,
        };
        Duration::from_secs(self.opens.iter().map(wait).min().unwrap_or_default())
    }
}

/// `Mon-Fri`, `Sat,Sun`, `Mon,Wed-Fri`; a range may go over the end of the week.
fn days_of(text: &str) -> Option<Vec<u64>> {
    let day = |name: &str| {
        let name = name.to_ascii_lowercase();
        (0..7).zip(DAYS).find_map(|(number, day)| (day == name).then_some(number))
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (day(first)?, day(last)?);
        let count = (last + 7 - first) % 7;
        days.extend((0..=count).map(|after| (first + after) % 7));
    }
    Some(days)
}

/// `06:00` in seconds; `24:00` is the end of the day.
fn time_of_day(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| -> Option<u64> {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse().ok())?
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let seconds = hours * 3_600 + minutes * 60;
    (minutes < 60 && seconds <= DAY_SECONDS).then_some(seconds)
}

/// `UTC`, `+02:00`, `-05:00`.
fn ahead_of_utc(text: &str) -> Option<u64> {
    if text.eq_ignore_ascii_case("utc") || text == "Z" {
        return Some(0);
    }
    match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(ahead), _) => time_of_day(ahead),
        (None, Some(behind)) => Some(WEEK_SECONDS - time_of_day(behind)?),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thursday, 1970-01-01, plus days, at a time.
    fn at(days: u64, hours: u64, minutes: u64) -> WallTime {
        WallTime((days * DAY_SECONDS + hours * 3_600 + minutes * 60) * 1_000_000_000)
    }

    #[test]
    fn a_window_says_when_it_opens() {
        let (thursday, friday, saturday, sunday) = (0, 1, 2, 3);
        let table = [
            ("Mon-Fri 06:00-20:00", at(thursday, 6, 0), 0),
            ("Mon-Fri 06:00-20:00", at(thursday, 19, 59), 0),
            ("Mon-Fri 06:00-20:00", at(thursday, 20, 0), 10 * 60),
            ("Mon-Fri 06:00-20:00", at(friday, 20, 0), (2 * 24 + 10) * 60),
            ("mon-fri 06:00-20:00 +02:00", at(thursday, 4, 0), 0),
            ("Mon-Fri 06:00-20:00 -05:00", at(thursday, 10, 0), 60),
            ("Mon-Fri 06:00-20:00 -05:00", at(saturday, 0, 30), 0),
            ("Sat 22:00-04:00 UTC", at(sunday, 3, 59), 0),
            ("Sat 22:00-04:00", at(sunday, 4, 0), (6 * 24 + 18) * 60),
            ("Sun-Mon 00:00-24:00", at(saturday, 23, 0), 60),
            ("Sun 22:00-04:00", at(sunday + 1, 1, 0), 0),
            ("06:00-07:00", at(saturday, 5, 59), 1),
            ("00:00-00:00", at(saturday, 0, 0), 0),
            ("Mon,Wed-Fri 00:00-01:00", at(friday, 0, 30), 0),
        ];
        for (text, now, minutes) in table {
            let wait = Window::parse(text).unwrap().opens_in(now);
            assert_eq!(wait, Duration::from_secs(minutes * 60), "{text} at {now}");
        }
    }

    #[test]
    fn what_is_no_window_is_none() {
        for text in [
            "",
            "Mon",
            "Mon-Fri",
            "06:00",
            "6:00-7:00",
            "06:00-25:00",
            "06:60-07:00",
            "24:00-01:00",
            "Mon-Fry 06:00-07:00",
            "06:00-07:00 CET",
            "06:00-07:00 UTC x",
            "+6:00-07:00",
        ] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
    }
}
