//! Numbers within bounds, digit by digit.
//!
//! A number is held as an integer of the smallest step that its kind can write (1 for integers, a ten-thousandth
//! otherwise). A digit is allowed if some completion of the digits so far lies between the bounds, which is
//! a question about a handful of intervals: one for each count of digits that may still follow.

/// The most digits of an integer; all such integers are exact in every JSON reader.
pub(super) const INTEGER_DIGITS_MAX: u32 = 15;
/// The most digits before the dot of a number that may have a fraction.
pub(super) const WHOLE_DIGITS_MAX: u32 = 12;
/// The most digits after the dot.
pub(super) const FRACTION_DIGITS_MAX: u32 = 4;

/// What numbers are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumberShape {
    /// The least and the greatest, both allowed, in steps of 10^-`fraction_digits`.
    pub(super) least: i128,
    pub(super) greatest: i128,
    /// 0 for integers.
    pub(super) fraction_digits: u32,
}

/// The part of a number that is already written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Written {
    negative: bool,
    /// All digits so far as one integer.
    digits: i64,
    whole_len: u8,
    /// `None` before the dot.
    fraction_len: Option<u8>,
}

impl NumberShape {
    pub(super) fn integer(least: Option<i128>, greatest: Option<i128>) -> Self {
        Self::new(least, greatest, 0, INTEGER_DIGITS_MAX)
    }

    /// Bounds in steps of 10^-`FRACTION_DIGITS_MAX`.
    pub(super) fn fractional(least: Option<i128>, greatest: Option<i128>) -> Self {
        Self::new(least, greatest, FRACTION_DIGITS_MAX, WHOLE_DIGITS_MAX)
    }

    fn new(least: Option<i128>, greatest: Option<i128>, fraction_digits: u32, whole_digits: u32) -> Self {
        let edge = ten_to(whole_digits + fraction_digits) - 1;
        Self {
            least: least.map_or(-edge, |least| least.max(-edge)),
            greatest: greatest.map_or(edge, |greatest| greatest.min(edge)),
            fraction_digits,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.least > self.greatest
    }

    fn whole_digits_max(&self) -> u32 {
        if self.fraction_digits == 0 { INTEGER_DIGITS_MAX } else { WHOLE_DIGITS_MAX }
    }

    /// What is written after one more byte, if the number can still be completed.
    pub(super) fn step(&self, written: Written, byte: u8) -> Option<Written> {
        let mut next = written;
        match (byte, written.fraction_len) {
            (b'-', None) if !written.negative && written.whole_len == 0 => next.negative = true,
            (b'.', None) if self.fraction_digits > 0 && written.whole_len > 0 => next.fraction_len = Some(0),
            (b'0'..=b'9', None) if u32::from(written.whole_len) < self.whole_digits_max() => {
                let has_leading_zero = written.whole_len == 1 && written.digits == 0;
                if has_leading_zero {
                    return None;
                }
                next.digits = written.digits * 10 + i64::from(byte - b'0');
                next.whole_len += 1;
            }
            (b'0'..=b'9', Some(len)) if u32::from(len) < self.fraction_digits => {
                next.digits = written.digits * 10 + i64::from(byte - b'0');
                next.fraction_len = Some(len + 1);
            }
            _ => return None,
        }
        self.nearest(next).map(|_| next)
    }

    /// Whether what is written is a whole number within the bounds.
    pub(super) fn may_end(&self, written: Written) -> bool {
        let fraction_len = written.fraction_len.map_or(0, u32::from);
        if written.whole_len == 0 || written.fraction_len == Some(0) {
            return false;
        }
        let steps = i128::from(written.digits) * ten_to(self.fraction_digits - fraction_len);
        let (least, greatest) = self.magnitudes(written.negative);
        (least..=greatest).contains(&steps)
    }

    /// The bytes that end what is written with the fewest digits; empty if it may end here.
    pub(super) fn closing(&self, written: Written) -> Vec<u8> {
        if self.may_end(written) {
            return Vec::new();
        }
        // A fresh number takes the side of zero that is allowed, the positive one first.
        let (sign, written) = match self.nearest(written) {
            None if written == Written::default() => ("-", Written { negative: true, ..written }),
            _ => ("", written),
        };
        let steps = self.nearest(written).unwrap_or(0);
        let unit = ten_to(self.fraction_digits);
        let mut text = (steps / unit).to_string();
        let done = usize::from(written.whole_len) + written.fraction_len.map_or(0, |len| 1 + usize::from(len));
        if written.fraction_len.is_some() || steps % unit != 0 {
            let least_len = done.max(text.len() + 2);
            let width = usize::try_from(self.fraction_digits).unwrap_or(0);
            text.push_str(&format!(".{:0width$}", steps % unit));
            while text.len() > least_len && text.ends_with('0') {
                text.pop();
            }
        }
        let rest = text.get(done..).unwrap_or("");
        format!("{sign}{rest}").into_bytes()
    }

    /// The magnitudes that a number of this sign may have; minus zero is not one.
    fn magnitudes(&self, negative: bool) -> (i128, i128) {
        if negative { ((-self.greatest).max(1), -self.least) } else { (self.least.max(0), self.greatest) }
    }

    /// The magnitude of the shortest completion within the bounds.
    fn nearest(&self, written: Written) -> Option<i128> {
        let (least, greatest) = self.magnitudes(written.negative);
        let digits = i128::from(written.digits);
        let within = |low: i128, high: i128| {
            let nearest = low.max(least);
            (nearest <= high.min(greatest)).then_some(nearest)
        };
        if let Some(len) = written.fraction_len {
            let unit = ten_to(self.fraction_digits - u32::from(len));
            return within(digits * unit, (digits + 1) * unit - 1);
        }
        let unit = ten_to(self.fraction_digits);
        if written.whole_len == 0 {
            return within(0, ten_to(self.whole_digits_max()) * unit - 1);
        }
        let more_max = if digits == 0 { 0 } else { self.whole_digits_max() - u32::from(written.whole_len) };
        (0..=more_max).find_map(|more| {
            let reach = ten_to(more) * unit;
            within(digits * reach, (digits + 1) * reach - 1)
        })
    }
}

fn ten_to(power: u32) -> i128 {
    10_i128.pow(power)
}
