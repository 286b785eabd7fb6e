//! `time.format` and `time.parse`: moments as text, in UTC. The moment itself comes from an effect.

use nexa_types::RunCode;

use super::{Context, StdFault, fail, int_arg, str_arg};
use crate::value::Value;

const DAY_MILLIS: i64 = 86_400_000;
/// The first moment of the year 0 and the last of the year 9999.
const MILLIS_RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// The days from 1970-01-01 to a date of the proleptic Gregorian calendar.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // A year starts in March here, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// `%Y %m %d %H %M %S %L` (milliseconds) and `%%`; everything else stands for itself.
pub(super) fn format(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (millis, pattern) = (int_arg(args, 0)?, str_arg(args, 1)?);
    if !MILLIS_RANGE.contains(&millis) {
        return Err(fail(RunCode::Overflow, "only the years 0 to 9999 have a text"));
    }
    let (year, month, day) = date_of(millis.div_euclid(DAY_MILLIS));
    let rest = millis.rem_euclid(DAY_MILLIS);
    let mut out = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => out.push_str(&format!("{year:04}")),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('H') => out.push_str(&format!("{:02}", rest / 3_600_000)),
            Some('M') => out.push_str(&format!("{:02}", rest / 60_000 % 60)),
            Some('S') => out.push_str(&format!("{:02}", rest / 1_000 % 60)),
            Some('L') => out.push_str(&format!("{:03}", rest % 1_000)),
            Some('%') => out.push('%'),
            other => {
                let found = other.map_or_else(|| "the end".to_owned(), |other| format!("`%{other}`"));
                let message = format!("{found} is no part of a date; use %Y %m %d %H %M %S %L or %%");
                return Err(fail(RunCode::ParseFailed, message));
            }
        }
    }
    context.text(out)
}

/// `2031-05-07`, `2031-05-07T10:20`, `…:30`, `….123`, with a space or `T` between and an optional `Z`.
pub(super) fn parse(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let text = str_arg(args, 0)?.trim();
    moment(text).map(Value::Int).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        fail(RunCode::ParseFailed, format!("`{shown}` is no moment such as 2031-05-07T10:20:30Z"))
    })
}

fn moment(text: &str) -> Option<i64> {
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let (date, time) = text.split_once(['T', 't', ' ']).map_or((text, None), |(date, time)| (date, Some(time)));
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4, 0, 9999)?;
    let month = number(parts.next()?, 2, 1, 12)?;
    let day = number(parts.next()?, 2, 1, 31)?;
    let days = days_of(year, month, day);
    if parts.next().is_some() || date_of(days) != (year, month, day) {
        return None;
    }
    let mut millis = days * DAY_MILLIS;
    if let Some(time) = time {
        let (clock, fraction) = time.split_once('.').map_or((time, None), |(clock, fraction)| (clock, Some(fraction)));
        let mut parts = clock.split(':');
        millis += number(parts.next()?, 2, 0, 23)? * 3_600_000;
        millis += number(parts.next()?, 2, 0, 59)? * 60_000;
        millis += parts.next().map_or(Some(0), |seconds| number(seconds, 2, 0, 59))? * 1_000;
        if parts.next().is_some() {
            return None;
        }
        if let Some(fraction) = fraction {
            let is_right = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
            let padded: String = fraction.chars().chain("00".chars()).take(3).collect();
            millis += if is_right { padded.parse::<i64>().ok()? } else { return None };
        }
    }
    Some(millis)
}

fn number(text: &str, digits: usize, low: i64, high: i64) -> Option<i64> {
    let is_right = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_right.then(|| text.parse().ok()).flatten().filter(|number| (low..=high).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_a_thousand_years_is_the_day_after_the_one_before() {
        let mut before = date_of(-200_001);
        for days in -200_000..200_000 {
            let (year, month, day) = date_of(days);
            assert_eq!(days_of(year, month, day), days);
            assert!((year, month, day) > before, "{days}");
            before = (year, month, day);
        }
        assert_eq!(date_of(0), (1970, 1, 1));
    }

    #[test]
    fn moments_that_are_none_are_refused() {
        assert_eq!(moment("2000-02-29T12:34:56.7Z"), Some(951_827_696_700));
        for wrong in ["2001-02-29", "2001-13-01", "2001-1-1", "2001-01-01T24:00", "2001-01-01T10:00:00.", "x", ""] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }
}
