//! Days of the calendar: of a moment, in words, and as queries name them.
//!
//! Moments are taken as UTC. Who knows an agent's time zone shifts what is passed in.

use nexa_types::Timestamp;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAY_MILLIS: u64 = 24 * 60 * 60 * 1_000;
/// Years that a bare number of four digits in a query is taken for.
const YEARS: std::ops::RangeInclusive<i32> = 1900..=2100;

/// A day of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    /// The year.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

impl Day {
    /// The day of a moment.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self::from_number(i64::try_from(at.0 / DAY_MILLIS).unwrap_or(i64::MAX / 2))
    }

    /// The day so many days after 1970-01-01 (H. Hinnant, *chrono-compatible low-level date algorithms*).
    fn from_number(number: i64) -> Self {
        let shifted = number + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            year: i32::try_from(year).unwrap_or(i32::MAX),
            month: u32::try_from(month).unwrap_or(1),
            day: u32::try_from(day).unwrap_or(1),
        }
    }

    /// How many days after 1970-01-01 it is.
    fn number(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted_month = i64::from((self.month + 9) % 12);
        let of_year = (153 * shifted_month + 2) / 5 + i64::from(self.day) - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        era * 146_097 + of_era - 719_468
    }

    /// The first moment of the day; the first of all for a day before 1970.
    #[must_use]
    pub fn begin(self) -> Timestamp {
        Timestamp(u64::try_from(self.number()).unwrap_or(0).saturating_mul(DAY_MILLIS))
    }

    /// How people write it: `20 january 2023`.
    #[must_use]
    pub fn in_words(self) -> String {
        format!("{} {} {}", self.day, month_name(self.month), self.year)
    }
}

fn month_name(month: u32) -> &'static str {
    MONTHS.get(month.wrapping_sub(1) as usize).copied().unwrap_or("")
}

/// A date as a query names it: as much of it as is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedDate {
    /// The year, if it is said.
    pub year: Option<i32>,
    /// The month.
    pub month: u32,
    /// The day of the month, if it is said.
    pub day: Option<u32>,
}

/// How many days after the day that a query names it may be talked of.
const TALKED_OF_DAYS: i64 = 7;

impl NamedDate {
    /// The first date that a text names with its month: `19 January 2023`, `May 7th`, `in March`, `2023-05-07`.
    #[must_use]
    pub fn in_text(text: &str) -> Option<Self> {
        let words: Vec<&str> =
            text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        words.iter().enumerate().find_map(|(place, word)| {
            let near = |offset: isize| place.checked_add_signed(offset).and_then(|at| words.get(at)).copied();
            Self::named(word, near).or_else(|| Self::iso(word, near))
        })
    }

    fn named<'t>(word: &str, near: impl Fn(isize) -> Option<&'t str>) -> Option<Self> {
        let month = month_number(word)?;
        let day = |at: isize| near(at).and_then(day_number);
        let year = |at: isize| near(at).and_then(year_number);
        let (said, after) = match (day(-1), day(1)) {
            (Some(before), _) => (Some(before), 1),
            // `7th of May`
            (None, None) if near(-1) == Some("of") => (day(-2), 1),
            (None, Some(after)) => (Some(after), 2),
            (None, None) => (None, 1),
        };
        let year = year(after);
        // `may`, `march` and `Jan` are mostly no months: only with a day or a year, or with `in` before them.
        let is_doubtful = (word.len() == 3 || month == 3) && said.is_none() && year.is_none();
        if is_doubtful && !matches!(near(-1), Some("in" | "during" | "last" | "this" | "early" | "late")) {
            return None;
        }
        Some(Self { year, month, day: said })
    }

    fn iso<'t>(word: &str, near: impl Fn(isize) -> Option<&'t str>) -> Option<Self> {
        let year = year_number(word)?;
        let month = near(1).filter(|month| month.len() == 2)?.parse().ok().filter(|month| (1..=12).contains(month))?;
        Some(Self { year: Some(year), month, day: near(2).and_then(day_number) })
    }

    /// How near a day is to what was named, 0 to 1: people talk of things when they happen and in the days after.
    #[must_use]
    pub fn nearness(&self, day: Day) -> f64 {
        if self.year.is_some_and(|year| (year - day.year).abs() > 1) {
            return 0.0;
        }
        let Some(named) = self.day else {
            let is_in = day.month == self.month && self.year.is_none_or(|year| year == day.year);
            return if is_in { 1.0 } else { 0.0 };
        };
        let years = [day.year - 1, day.year];
        let years = years.into_iter().filter(|year| self.year.is_none_or(|said| said == *year));
        let after = years.map(|year| day.number() - Day { year, month: self.month, day: named }.number());
        after
            .filter(|days| (-1..=TALKED_OF_DAYS).contains(days))
            .map(|days| if days <= 0 { 1.0 } else { 1.0 - (days as f64) / (2 * TALKED_OF_DAYS) as f64 })
            .fold(0.0, f64::max)
    }
}

/// The number of a month by its name or its first three letters.
pub(crate) fn month_number(word: &str) -> Option<u32> {
    let word = word.to_ascii_lowercase();
    let is_it = |name: &&str| **name == word || (word.len() == 3 && name.starts_with(word.as_str()) && word != "mar");
    MONTHS.iter().position(is_it).map(|place| place as u32 + 1)
}

fn day_number(word: &str) -> Option<u32> {
    let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let suffix = &word[digits.len()..];
    let is_day = digits.len() <= 2 && matches!(suffix, "" | "st" | "nd" | "rd" | "th");
    digits.parse().ok().filter(|day| is_day && (1..=31).contains(day))
}

fn year_number(word: &str) -> Option<i32> {
    word.parse().ok().filter(|year| word.len() == 4 && YEARS.contains(year))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(year: i32, month: u32, day: u32) -> Day {
        Day { year, month, day }
    }

    #[test]
    fn days_of_moments_are_those_of_the_calendar() {
        assert_eq!(Day::of(Timestamp(0)), day(1970, 1, 1));
        assert_eq!(Day::of(Timestamp(951_782_400_000)), day(2000, 2, 29));
        assert_eq!(Day::of(Timestamp(1_674_230_640_000)).in_words(), "20 january 2023");
        for number in (0..40_000).step_by(7) {
            let day = Day::from_number(number);
            assert_eq!(day.number(), number);
            assert_eq!(Day::of(day.begin()), day);
        }
    }

    #[test]
    fn dates_are_found_as_people_write_them() {
        let named = |text| NamedDate::in_text(text).map(|date| (date.year, date.month, date.day));
        assert_eq!(named("What happened on 19 January, 2023?"), Some((Some(2023), 1, Some(19))));
        assert_eq!(named("on May 7th"), Some((None, 5, Some(7))));
        assert_eq!(named("the 7th of May, 2022, at night"), Some((Some(2022), 5, Some(7))));
        assert_eq!(named("trip in December"), Some((None, 12, None)));
        assert_eq!(named("in March?"), Some((None, 3, None)));
        assert_eq!(named("Dec 2023"), Some((Some(2023), 12, None)));
        assert_eq!(named("log of 2023-05-07 10:00"), Some((Some(2023), 5, Some(7))));
        assert_eq!(named("what may they march for in 2023"), None);
        assert_eq!(named("nothing of the sort"), None);
        assert_eq!(named(""), None);
    }

    #[test]
    fn the_days_after_a_named_one_are_near_and_others_are_not() {
        let date = NamedDate::in_text("on 30 December 2022").expect("a date");
        assert!((date.nearness(day(2022, 12, 30)) - 1.0).abs() < 1e-9);
        assert!(date.nearness(day(2023, 1, 2)) > 0.5, "over the end of a year");
        assert!(date.nearness(day(2023, 1, 20)) < 1e-9 && date.nearness(day(2021, 12, 30)) < 1e-9);
        let month = NamedDate::in_text("in June").expect("a month");
        assert!(month.nearness(day(2021, 6, 3)) > 0.9 && month.nearness(day(2021, 7, 1)) < 1e-9);
    }
}
