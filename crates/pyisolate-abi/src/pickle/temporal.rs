//! The state bytes of `datetime` objects.

use super::text::Text;

/// `datetime.date`, proleptic Gregorian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// 1 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to the length of the month.
    pub day: u8,
}

/// `datetime.time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<'m> {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// 0 to 999,999.
    pub microsecond: u32,
    /// Whether it is the second of two equal wall times.
    pub fold: bool,
    /// The zone of an aware time.
    pub zone: Option<TimeZone<'m>>,
}

/// `datetime.datetime`. An aware one has its zone in `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime<'m> {
    /// The day.
    pub date: Date,
    /// The time of day.
    pub time: Time<'m>,
}

/// `datetime.timedelta`, normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeDelta {
    /// -999,999,999 to 999,999,999.
    pub days: i32,
    /// 0 to 86,399.
    pub seconds: u32,
    /// 0 to 999,999.
    pub microseconds: u32,
}

impl TimeDelta {
    /// The whole of it in microseconds.
    #[must_use]
    pub fn total_microseconds(self) -> i128 {
        (i128::from(self.days) * 86_400 + i128::from(self.seconds)) * 1_000_000
            + i128::from(self.microseconds)
    }
}

/// `datetime.timezone`: a fixed offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeZone<'m> {
    /// East of UTC; less than a day either way.
    pub offset: TimeDelta,
    /// The name, if one was given.
    pub name: Option<Text<'m>>,
}

/// Set in the hour byte of a time and the month byte of a datetime.
pub(super) const FOLD: u8 = 0x80;

pub(super) fn date(state: [u8; 4]) -> Option<Date> {
    let [high, low, month, day] = state;
    let year = u16::from_be_bytes([high, low]);
    let length = match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    ((1..=9999).contains(&year) && (1..=length).contains(&day)).then_some(Date { year, month, day })
}

pub(super) fn time(state: [u8; 6]) -> Option<Time<'static>> {
    let [hour, minute, second, micro @ ..] = state;
    let fold = hour & FOLD != 0;
    let hour = hour & !FOLD;
    let [m0, m1, m2] = micro;
    let microsecond = u32::from_be_bytes([0, m0, m1, m2]);
    (hour < 24 && minute < 60 && second < 60 && microsecond < 1_000_000).then_some(Time {
        hour,
        minute,
        second,
        microsecond,
        fold,
        zone: None,
    })
}

pub(super) fn datetime(state: [u8; 10]) -> Option<DateTime<'static>> {
    let [y0, y1, month, day, time_state @ ..] = state;
    let date = date([y0, y1, month & !FOLD, day])?;
    // A time keeps its fold in the hour; a datetime has it in the month and must not have both.
    let mut time = time(time_state)?;
    if time.fold {
        return None;
    }
    time.fold = month & FOLD != 0;
    Some(DateTime { date, time })
}

pub(super) fn timedelta(days: i64, seconds: i64, microseconds: i64) -> Option<TimeDelta> {
    Some(TimeDelta {
        days: i32::try_from(days).ok().filter(|days| days.unsigned_abs() <= 999_999_999)?,
        seconds: u32::try_from(seconds).ok().filter(|seconds| *seconds < 86_400)?,
        microseconds: u32::try_from(microseconds).ok().filter(|micro| *micro < 1_000_000)?,
    })
}

/// Whether `datetime.timezone` takes it as an offset.
pub(super) fn is_zone_offset(offset: TimeDelta) -> bool {
    offset.total_microseconds().unsigned_abs() < 86_400_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_the_calendar() {
        let day = |year: u16, month, day| {
            let [y0, y1] = year.to_be_bytes();
            date([y0, y1, month, day]).is_some()
        };
        assert!(day(2024, 2, 29) && day(2000, 2, 29) && day(1, 1, 1) && day(9999, 12, 31));
        assert!(!day(2023, 2, 29) && !day(1900, 2, 29) && !day(2024, 4, 31));
        assert!(
            !day(0, 1, 1)
                && !day(10000, 1, 1)
                && !day(2024, 0, 1)
                && !day(2024, 13, 1)
                && !day(2024, 1, 0)
        );
    }

    #[test]
    fn fold_is_read_from_its_bit() {
        assert!(time([0x81, 2, 3, 0, 0, 4]).is_some_and(|time| time.fold && time.hour == 1));
        assert!(
            datetime([7, 232, 0x81, 2, 3, 4, 5, 0, 0, 6])
                .is_some_and(|t| t.time.fold && t.date.month == 1)
        );
        assert!(datetime([7, 232, 1, 2, 0x83, 4, 5, 0, 0, 6]).is_none());
        assert!(time([24, 0, 0, 0, 0, 0]).is_none());
        assert!(time([0, 0, 0, 15, 66, 64]).is_none());
    }

    #[test]
    fn offsets_stay_within_a_day() {
        let offset = |days, seconds| timedelta(days, seconds, 0).is_some_and(is_zone_offset);
        assert!(offset(0, 86_399) && offset(-1, 1));
        assert!(!offset(-1, 0) && !offset(1, 0));
    }
}
