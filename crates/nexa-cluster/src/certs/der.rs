//! Reads the few fields of an X.509 certificate that people and links ask for: RFC 5280, section 4.1.
//!
//! Only what has been signed by the cluster's authority decides anything, and that is rustls' to check. This reads
//! names and dates, and refuses whatever it does not understand.

use std::net::{Ipv4Addr, Ipv6Addr};

use nexa_types::Timestamp;

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// A name and an address within `subjectAltName`: RFC 5280, section 4.2.1.6.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// The object identifier 2.5.29.17.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The names that it is made out to; a node's id is among them.
    pub names: Vec<String>,
    /// The addresses that it is made out to.
    pub addresses: Vec<String>,
    /// From when on it counts.
    pub from: Timestamp,
    /// Up to when.
    pub until: Timestamp,
}

impl Seen {
    /// Reads a certificate's DER; `None` if it is none.
    pub fn of(der: &[u8]) -> Option<Self> {
        let mut outer = Reader(der);
        let mut certificate = Reader(outer.take(SEQUENCE)?);
        outer.0.is_empty().then_some(())?;
        let mut body = Reader(certificate.take(SEQUENCE)?);
        if body.peek() == Some(VERSION) {
            body.next()?;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            body.next()?;
        }
        let mut validity = Reader(body.take(SEQUENCE)?);
        let (from, until) = (validity.moment()?, validity.moment()?);
        let mut seen = Self { names: Vec::new(), addresses: Vec::new(), from, until };
        // Subject and key, and then what is optional.
        for _ in 0..2 {
            body.next()?;
        }
        while let Some(tag) = body.peek() {
            let content = body.take(tag)?;
            if tag == EXTENSIONS {
                seen.extensions(Reader(content).take(SEQUENCE)?)?;
            }
        }
        Some(seen)
    }

    /// Whether it is made out to exactly this name. A `*` in a certificate stands for nothing here.
    pub fn is_for(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    fn extensions(&mut self, bytes: &[u8]) -> Option<()> {
        let mut extensions = Reader(bytes);
        while extensions.peek().is_some() {
            let mut extension = Reader(extensions.take(SEQUENCE)?);
            if extension.take(OBJECT)? != SUBJECT_ALT_NAME {
                continue;
            }
            while extension.peek()? != OCTETS {
                extension.next()?;
            }
            let mut names = Reader(Reader(extension.take(OCTETS)?).take(SEQUENCE)?);
            while let Some(tag) = names.peek() {
                let name = names.take(tag)?;
                match tag {
                    DNS_NAME => self.names.push(std::str::from_utf8(name).ok()?.to_owned()),
                    IP_ADDRESS => self.addresses.push(address(name)?),
                    _ => {}
                }
            }
        }
        Some(())
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string())
}

/// What is left of some values, each a tag, a length and so many bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next value's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&short, mut rest) = rest.split_first()?;
        let len = if short < 0x80 {
            usize::from(short)
        } else {
            let (digits, after) = rest.split_at_checked(usize::from(short & 0x7f))?;
            rest = after;
            // Longer than 4 GiB is no certificate; none at all means "until its end", which DER does not have.
            (1..=4).contains(&digits.len()).then_some(())?;
            digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit))
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next value, which has to have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// A moment: `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` from then on.
    fn moment(&mut self) -> Option<Timestamp> {
        let (tag, text) = self.next()?;
        let (year_digits, pivot) = match tag {
            UTC_TIME => (2, true),
            GENERALIZED_TIME => (4, false),
            _ => return None,
        };
        let digits = text.strip_suffix(b"Z")?;
        (digits.len() == year_digits + 10 && digits.iter().all(u8::is_ascii_digit)).then_some(())?;
        let number =
            |from: usize, to: usize| digits[from..to].iter().fold(0, |all, digit| all * 10 + i64::from(digit - b'0'));
        let year = number(0, year_digits);
        let year = if pivot { year + if year >= 50 { 1_900 } else { 2_000 } } else { year };
        let part = |at: usize| number(year_digits + at, year_digits + at + 2);
        let seconds = days_since_1970(year, part(0), part(2)) * 86_400 + part(4) * 3_600 + part(6) * 60 + part(8);
        Some(Timestamp(u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000)))
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. March is taken as the first month, so that the day that a
/// leap year has more is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_over_leap_years() {
        let days =
            [(1970, 1, 1, 0), (1972, 2, 29, 789), (1972, 3, 1, 790), (2000, 2, 29, 11_016), (2100, 3, 1, 47_541)];
        for (year, month, day, count) in days {
            assert_eq!(days_since_1970(year, month, day), count, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn both_spellings_of_a_moment_are_read() {
        let read = |tag, text: &str| Reader(&[&[tag, text.len() as u8], text.as_bytes()].concat()).moment();
        assert_eq!(read(UTC_TIME, "700101000001Z"), Some(Timestamp(1_000)));
        assert_eq!(read(GENERALIZED_TIME, "20500101000000Z"), Some(Timestamp(2_524_608_000_000)));
        for bad in ["700101000001", "7001010000Z", "70010100000xZ", ""] {
            assert_eq!(read(UTC_TIME, bad), None, "{bad}");
        }
    }
}
