//! Numbers: where one ends, and what it is worth.

use crate::SyntaxKind;

/// The value of a number literal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// At most 2^63, which is in range only right after a minus.
    Int(u64),
    Float(f64),
    /// In milliseconds.
    Duration(i64),
    /// In bytes.
    Size(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberError {
    Malformed(&'static str),
    OutOfRange,
}

impl Number {
    pub(crate) fn kind(self) -> SyntaxKind {
        match self {
            Number::Int(_) => SyntaxKind::Int,
            Number::Float(_) => SyntaxKind::Float,
            Number::Duration(_) => SyntaxKind::Duration,
            Number::Size(_) => SyntaxKind::Size,
        }
    }
}

/// How many bytes at the start of `text`, which begins with a digit, look like one number, well formed or not.
pub(crate) fn length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let word_end = |from: usize| {
        let rest = bytes.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
    };
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut end = word_end(0);
    let is_decimal = bytes[..end].iter().all(|byte| byte.is_ascii_digit() || *byte == b'_');
    if is_decimal && bytes.get(end) == Some(&b'.') && is_digit(end + 1) {
        end = word_end(end + 1);
    }
    let is_prefixed = matches!(bytes, [b'0', b'x' | b'X' | b'b' | b'B', ..]);
    let has_exponent = !is_prefixed && matches!(bytes.get(end.wrapping_sub(1)), Some(b'e' | b'E'));
    if has_exponent && matches!(bytes.get(end), Some(b'+' | b'-')) && is_digit(end + 1) {
        end = word_end(end + 1);
    }
    end
}

/// Reads a number of the length that [`length`] gave.
pub(crate) fn read(text: &str) -> Result<Number, NumberError> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return int(digits, 16, "hexadecimal digits are 0 to 9 and a to f");
    }
    if let Some(digits) = text.strip_prefix("0b").or_else(|| text.strip_prefix("0B")) {
        return int(digits, 2, "binary digits are 0 and 1");
    }
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(digits_end);
    if suffix.starts_with('.') || suffix.starts_with(['e', 'E']) {
        return float(text);
    }
    let Ok(Number::Int(count)) = int(digits, 10, "an underscore stands between two digits") else {
        return int(digits, 10, "an underscore stands between two digits");
    };
    let in_units = |unit: u64| {
        let total = count.checked_mul(unit).and_then(|total| i64::try_from(total).ok());
        total.ok_or(NumberError::OutOfRange)
    };
    match suffix {
        "" => Ok(Number::Int(count)),
        "ms" => in_units(1).map(Number::Duration),
        "s" => in_units(1_000).map(Number::Duration),
        "m" => in_units(60_000).map(Number::Duration),
        "h" => in_units(3_600_000).map(Number::Duration),
        "d" => in_units(86_400_000).map(Number::Duration),
        "KiB" => in_units(1 << 10).map(Number::Size),
        "MiB" => in_units(1 << 20).map(Number::Size),
        "GiB" => in_units(1 << 30).map(Number::Size),
        _ => Err(NumberError::Malformed("suffixes are ms s m h d, and KiB MiB GiB")),
    }
}

fn int(digits: &str, radix: u32, why: &'static str) -> Result<Number, NumberError> {
    let is_well_formed = is_separated(digits) && digits.chars().all(|c| c == '_' || c.is_digit(radix));
    if !is_well_formed {
        return Err(NumberError::Malformed(why));
    }
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    match u64::from_str_radix(&plain, radix) {
        Ok(magnitude) if magnitude <= 1 << 63 => Ok(Number::Int(magnitude)),
        _ => Err(NumberError::OutOfRange),
    }
}

fn float(text: &str) -> Result<Number, NumberError> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let exponent_digits = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    let are_digits = |part: &str| is_separated(part) && part.chars().all(|c| c == '_' || c.is_ascii_digit());
    if !mantissa.split('.').chain(exponent_digits).all(are_digits) {
        return Err(NumberError::Malformed("a float looks like 1.5, 2e9 or 1.5e-3 and has no suffix"));
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    match plain.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Number::Float(value)),
        Ok(_) => Err(NumberError::Malformed("larger than any float")),
        Err(_) => Err(NumberError::Malformed("a float looks like 1.5, 2e9 or 1.5e-3")),
    }
}

/// Whether there are digits, and every underscore stands between two of them.
fn is_separated(digits: &str) -> bool {
    !digits.is_empty() && !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__")
}

#[cfg(test)]
mod tests {
    use super::{Number, NumberError, length, read};

    #[test]
    fn every_form_of_number_has_its_value() {
        let cases = [
            ("42", Number::Int(42)),
            ("1_000", Number::Int(1_000)),
            ("0xff", Number::Int(255)),
            ("0b101", Number::Int(5)),
            ("9223372036854775808", Number::Int(1 << 63)),
            ("1.5", Number::Float(1.5)),
            ("2e9", Number::Float(2e9)),
            ("1.5e-3", Number::Float(1.5e-3)),
            ("250ms", Number::Duration(250)),
            ("5m", Number::Duration(300_000)),
            ("1d", Number::Duration(86_400_000)),
            ("64KiB", Number::Size(65_536)),
        ];
        for (text, value) in cases {
            assert_eq!(read(text), Ok(value), "{text}");
            assert_eq!(length(text), text.len(), "{text}");
        }
    }

    #[test]
    fn malformed_numbers_are_refused_whole() {
        for text in ["1_", "1__0", "12abc", "0x", "0b12", "0b", "1.5s", "1e", "1.5e", "1e999", "5M", "1kb"] {
            assert!(matches!(read(text), Err(NumberError::Malformed(_))), "{text}");
            assert_eq!(length(text), text.len(), "{text}");
        }
        for text in ["9223372036854775809", "0xffff_ffff_ffff_ffff_f", "106751991168d"] {
            assert_eq!(read(text), Err(NumberError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn a_dot_belongs_to_a_number_only_before_a_digit() {
        assert_eq!(length("1.len()"), 1);
        assert_eq!(length("1.5.2"), 3);
        assert_eq!(length("0xe-1"), 3);
        assert_eq!(length("2e-3-1"), 4);
    }
}
