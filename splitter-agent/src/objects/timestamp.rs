//! Points in time, as far as it takes to say which object is older.

/// A point in time (RFC 3339), ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970 (UTC).
    seconds: i64,
    /// And nanoseconds.
    nanoseconds: u32,
}

impl Timestamp {
    /// Reads `2026-01-31T12:00:00Z`, also with a fraction or an offset; `None` if it is
    /// anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once(['T', 't', ' '])?;
        let mut date = date.split('-');
        let year = digits(date.next()?, 4)?;
        let month = within(digits(date.next()?, 2)?, 1, 12)?;
        let day = within(digits(date.next()?, 2)?, 1, 31)?;
        if date.next().is_some() {
            return None;
        }
        let (time, offset) = match rest.strip_suffix(['Z', 'z']) {
            Some(time) => (time, 0),
            None => {
                let (time, zone) = rest.split_at(rest.rfind(['+', '-'])?);
                (time, offset(zone)?)
            }
        };
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let mut time = time.split(':');
        let hour = within(digits(time.next()?, 2)?, 0, 23)?;
        let minute = within(digits(time.next()?, 2)?, 0, 59)?;
        let second = within(digits(time.next()?, 2)?, 0, 60)?;
        if time.next().is_some() {
            return None;
        }
        Some(Self {
            seconds: days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset,
            nanoseconds: nanoseconds(fraction)?,
        })
    }
}

/// Seconds of an offset `+01:30`.
fn offset(zone: &str) -> Option<i64> {
    let (sign, zone) = match zone.strip_prefix('-') {
        Some(zone) => (-1, zone),
        None => (1, zone.strip_prefix('+')?),
    };
    let (hours, minutes) = zone.split_once(':')?;
    let hours = within(digits(hours, 2)?, 0, 23)?;
    let minutes = within(digits(minutes, 2)?, 0, 59)?;
    Some(sign * (hours * 3_600 + minutes * 60))
}

fn nanoseconds(fraction: &str) -> Option<u32> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nine: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    nine.parse().ok()
}

fn digits(text: &str, length: usize) -> Option<i64> {
    (text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn within(number: i64, least: i64, most: i64) -> Option<i64> {
    (least..=most).contains(&number).then_some(number)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, by counting years from
/// March, so that the leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Option<i64> {
        Timestamp::parse(text).map(|timestamp| timestamp.seconds)
    }

    #[test]
    fn known_moments() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T00:00:00Z"), Some(951_782_400));
        assert_eq!(seconds("2000-03-01T00:00:00Z"), Some(951_868_800));
        assert_eq!(seconds("2026-11-21T11:30:00Z"), Some(1_795_260_600));
        assert_eq!(seconds("1969-12-31T23:59:59Z"), Some(-1));
        assert_eq!(seconds("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(seconds("1969-12-31T22:30:00-01:30"), Some(0));
    }

    #[test]
    fn fractions_order() {
        let at = |text| Timestamp::parse(text).unwrap();
        assert!(at("2026-01-01T00:00:00Z") < at("2026-01-01T00:00:00.000001Z"));
        assert!(at("2026-01-01T00:00:00.1Z") < at("2026-01-01T00:00:00.25Z"));
    }

    #[test]
    fn anything_else_is_none() {
        for bad in [
            "",
            "now",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "2026-01-01T25:00:00Z",
            "26-01-01T00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01-01T00:00:00Z",
            "2026-01-01T00:00:00:00Z",
            "2026-01-01T00:00:00+0100",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = Timestamp::parse(&text);
        }
    }
}
