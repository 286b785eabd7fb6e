//! Arithmetic on text: `+ - * / % ^`, parentheses, `pi` and `e`, and a few functions, on floats.
//!
//! `^` binds tighter than a sign and to the right, as on paper: `-2^2` is -4. A result that is no number is an error.

/// The longest expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 4 << 10;
/// The deepest nesting.
const DEPTH_MAX: u32 = 64;

/// The value of an expression.
///
/// # Errors
/// What is wrong and where, in words for whoever wrote the expression.
pub fn evaluate(expression: &str) -> Result<f64, String> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    let mut parser = Parser { text: expression, at: 0, depth: 0 };
    let value = parser.sum()?;
    parser.blanks();
    if parser.at < expression.len() {
        return Err(parser.expected("an operator or the end"));
    }
    if value.is_finite() { Ok(value) } else { Err("the result is no number".to_owned()) }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: u32,
}

impl Parser<'_> {
    fn expected(&self, what: &str) -> String {
        format!("{what} is expected at character {}", self.text[..self.at].chars().count() + 1)
    }

    fn blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn accept(&mut self, letter: char) -> bool {
        self.blanks();
        let found = self.text[self.at..].starts_with(letter);
        self.at += if found { letter.len_utf8() } else { 0 };
        found
    }

    fn sum(&mut self) -> Result<f64, String> {
        let mut value = self.product()?;
        loop {
            if self.accept('+') {
                value += self.product()?;
            } else if self.accept('-') {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, String> {
        let mut value = self.signed()?;
        loop {
            let is_times = self.accept('*');
            let is_by = !is_times && self.accept('/');
            if !is_times && !is_by && !self.accept('%') {
                return Ok(value);
            }
            let right = self.signed()?;
            if !is_times && right == 0.0 {
                return Err("division by zero".to_owned());
            }
            value = match (is_times, is_by) {
                (true, _) => value * right,
                (_, true) => value / right,
                _ => value % right,
            };
        }
    }

    fn signed(&mut self) -> Result<f64, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("the expression nests deeper than {DEPTH_MAX} levels"));
        }
        let value = if self.accept('-') {
            self.signed().map(|value| -value)
        } else if self.accept('+') {
            self.signed()
        } else {
            self.power()
        };
        self.depth -= 1;
        value
    }

    fn power(&mut self) -> Result<f64, String> {
        let base = self.operand()?;
        if self.accept('^') { Ok(base.powf(self.signed()?)) } else { Ok(base) }
    }

    fn operand(&mut self) -> Result<f64, String> {
        self.blanks();
        let rest = &self.text[self.at..];
        match rest.chars().next() {
            Some('(') => {
                self.at += 1;
                let value = self.sum()?;
                if self.accept(')') { Ok(value) } else { Err(self.expected("`)`")) }
            }
            Some('0'..='9' | '.') => self.number(),
            Some(letter) if letter.is_ascii_alphabetic() => self.named(),
            _ => Err(self.expected("a number, a name or `(`")),
        }
    }

    fn number(&mut self) -> Result<f64, String> {
        let rest = &self.text[self.at..];
        let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
        let mut end = digits(0);
        if rest[end..].starts_with('.') {
            end += 1 + digits(end + 1);
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            let exponent = digits(end + 1 + sign);
            end += if exponent > 0 { 1 + sign + exponent } else { 0 };
        }
        let value = rest[..end].parse().map_err(|_| self.expected("a number"))?;
        self.at += end;
        Ok(value)
    }

    fn named(&mut self) -> Result<f64, String> {
        let rest = &self.text[self.at..];
        let end = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let (name, wrong) = (rest[..end].to_owned(), self.expected("a known function or constant"));
        self.at += end;
        if !self.accept('(') {
            return match name.as_str() {
                "pi" => Ok(std::f64::consts::PI),
                "e" => Ok(std::f64::consts::E),
                _ => Err(wrong),
            };
        }
        let mut args = vec![self.sum()?];
        while self.accept(',') {
            args.push(self.sum()?);
        }
        if !self.accept(')') {
            return Err(self.expected("`,` or `)`"));
        }
        match (name.as_str(), args.as_slice()) {
            ("sqrt", [x]) => Ok(x.sqrt()),
            ("abs", [x]) => Ok(x.abs()),
            ("floor", [x]) => Ok(x.floor()),
            ("ceil", [x]) => Ok(x.ceil()),
            ("round", [x]) => Ok(x.round()),
            ("exp", [x]) => Ok(x.exp()),
            ("ln", [x]) => Ok(x.ln()),
            ("log", [x]) => Ok(x.log10()),
            ("sin", [x]) => Ok(x.sin()),
            ("cos", [x]) => Ok(x.cos()),
            ("tan", [x]) => Ok(x.tan()),
            ("min", [first, rest @ ..]) => Ok(rest.iter().fold(*first, |least, x| least.min(*x))),
            ("max", [first, rest @ ..]) => Ok(rest.iter().fold(*first, |most, x| most.max(*x))),
            _ => Err(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_have_the_values_that_they_have_on_paper() {
        for (expression, value) in [
            ("1 + 2 * 3", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("-2^2", -4.0),
            ("2^3^2", 512.0),
            ("2^-1", 0.5),
            ("7 % 4 - 10 / 4", 0.5),
            ("1.5e2 + .5", 150.5),
            ("sqrt(16) + max(1, 9, 3) - abs(-2)", 11.0),
            ("round(2 * pi)", 6.0),
            ("2e", f64::NAN),
        ] {
            match evaluate(expression) {
                Ok(found) => assert_eq!(found, value, "{expression}"),
                Err(_) => assert!(value.is_nan(), "{expression}"),
            }
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_place() {
        for (expression, why) in [
            ("", "a number, a name or `(` is expected at character 1"),
            ("1 +", "a number, a name or `(` is expected at character 4"),
            ("1 2", "an operator or the end is expected at character 3"),
            ("(1", "`)` is expected at character 3"),
            ("system(1)", "a known function or constant is expected at character 1"),
            ("1 / 0", "division by zero"),
            ("sqrt(-1)", "the result is no number"),
            ("é", "a number, a name or `(` is expected at character 1"),
        ] {
            assert_eq!(evaluate(expression), Err(why.to_owned()), "{expression}");
        }
        assert!(evaluate(&"(".repeat(1000)).is_err() && evaluate(&"-".repeat(1000)).is_err());
        assert!(evaluate(&"1".repeat(10_000)).is_err());
    }
}
