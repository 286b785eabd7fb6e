//! Reads a script. Small on purpose: literals, four words, and errors that say what would be right.

use std::collections::BTreeMap;
use std::time::Duration;

use nexa_types::RunCode;
use serde_json::{Map, Value};

use super::{SCRIPT_BYTES_MAX, Say, Script, ScriptError, Turn, Turns, semantic};

/// Lists and records within each other.
const DEPTH_MAX: usize = 64;

pub(super) fn script(text: &str) -> Result<Script, ScriptError> {
    let mut reader = Reader { text, at: 0, from: 0, depth: 0 };
    if text.len() > SCRIPT_BYTES_MAX {
        return Err(reader.wrong(&format!("a script has at most {SCRIPT_BYTES_MAX} bytes, this one {}", text.len())));
    }
    let mut rules = BTreeMap::new();
    loop {
        reader.space();
        while reader.eat(";") {
            reader.space();
        }
        if reader.rest().is_empty() {
            return Ok(Script { rules });
        }
        let (target, turns) = reader.rule()?;
        if rules.contains_key(&target) {
            return Err(reader.wrong(&format!("`{target}` has a rule already; a list gives it several turns")));
        }
        rules.insert(target, turns);
    }
}

pub(super) struct Reader<'s> {
    text: &'s str,
    at: usize,
    /// Where the piece begins that an error is about.
    from: usize,
    depth: usize,
}

impl<'s> Reader<'s> {
    fn rule(&mut self) -> Result<(String, Turns), ScriptError> {
        self.from = self.at;
        if self.word() != Some("script") {
            return Err(self.wrong("a rule is written `script TARGET => turns`"));
        }
        self.space();
        self.from = self.at;
        let target = match self.word() {
            Some("approve") => {
                return Err(self.wrong("`approve` cannot be scripted in a file; only models can"));
            }
            Some("semantic") => {
                self.space_on_line();
                self.from = self.at;
                match self.text()? {
                    Some(question) => semantic(&question),
                    None => return Err(self.wrong("after `script semantic` stands the question in quotes")),
                }
            }
            Some(word) => word.to_owned(),
            None => return Err(self.wrong("after `script` stands the name of an agent")),
        };
        self.space();
        if !self.eat("=>") {
            self.from = self.at;
            return Err(self.wrong(&format!("after `script {target}` stands `=>`")));
        }
        self.space();
        let turns = if self.eat("[") { Turns::Each(self.until("]", Self::turn)?) } else { Turns::Always(self.turn()?) };
        let place = self.at;
        self.space();
        let is_apart =
            self.text[place..self.at].contains('\n') || self.rest().is_empty() || self.rest().starts_with(';');
        if is_apart {
            return Ok((target, turns));
        }
        self.from = self.at;
        Err(self.wrong("a rule ends at the end of its line or with `;`"))
    }

    fn turn(&mut self) -> Result<Turn, ScriptError> {
        self.space();
        self.from = self.at;
        let start = self.at;
        let now = |say| Turn { after: Duration::ZERO, say };
        let called = self.word().filter(|_| self.rest().trim_start_matches([' ', '\t']).starts_with('('));
        match called {
            Some("fail") => {
                let code = self.in_brackets(|reader| {
                    reader.from = reader.at;
                    let text = reader.text()?.ok_or_else(|| reader.wrong("`fail` takes a code in quotes"))?;
                    text.parse::<RunCode>().map_err(|_| {
                        let codes: Vec<&str> = RunCode::ALL.iter().map(|code| code.as_str()).collect();
                        reader.wrong(&format!("`{text}` is no error code; there are {}", codes.join(", ")))
                    })
                })?;
                Ok(now(Say::Fail(code)))
            }
            Some("after") => self.in_brackets(|reader| {
                let span = reader.duration()?;
                reader.space();
                if !reader.eat(",") {
                    return Err(reader.wrong("`after` takes a duration and a turn: `after(200ms, \"text\")`"));
                }
                let turn = reader.turn()?;
                Ok(Turn { after: span + turn.after, say: turn.say })
            }),
            Some("call") => Ok(now(self.in_brackets(Self::call)?)),
            Some(name) => Err(self.wrong(&format!("`{name}(…)` is no turn; there are `fail`, `call` and `after`"))),
            None => {
                self.at = start;
                Ok(now(Say::Text(match self.value()? {
                    Value::String(text) => text,
                    other => other.to_string(),
                })))
            }
        }
    }

    /// What stands in the brackets of `call`. A name that is no word stands in quotes.
    fn call(&mut self) -> Result<Say, ScriptError> {
        const FORM: &str = "`call` takes a tool's name and a record: `call(find, { q: 1 })`";
        self.from = self.at;
        let name = self.text()?.or_else(|| self.word().map(str::to_owned));
        let tool = name.filter(|name| !name.is_empty()).ok_or_else(|| self.wrong(FORM))?;
        self.space();
        if !self.eat(",") {
            return Err(self.wrong(FORM));
        }
        match self.value()? {
            arguments @ Value::Object(_) => Ok(Say::Call { tool, arguments: arguments.to_string() }),
            _ => Err(self.wrong(FORM)),
        }
    }

    fn in_brackets<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, ScriptError>) -> Result<T, ScriptError> {
        self.space();
        self.eat("(");
        self.deeper()?;
        self.space();
        let inside = read(self)?;
        self.space();
        self.depth -= 1;
        if self.eat(")") { Ok(inside) } else { Err(self.wrong("a closing `)` is missing")) }
    }

    fn value(&mut self) -> Result<Value, ScriptError> {
        self.space();
        self.from = self.at;
        if let Some(text) = self.text()? {
            return Ok(Value::String(text));
        }
        if self.eat("[") {
            return Ok(Value::Array(self.until("]", Self::value)?));
        }
        if self.eat("{") {
            return self.record();
        }
        if self.rest().starts_with(|letter: char| letter == '-' || letter.is_ascii_digit()) {
            return self.number();
        }
        match self.word() {
            Some("true") => Ok(Value::Bool(true)),
            Some("false") => Ok(Value::Bool(false)),
            Some("none") => Ok(Value::Null),
            Some(label) => {
                self.space_on_line();
                // A typed record is written with its protocol's name, which JSON does not show.
                if self.eat("{") { self.record() } else { Ok(Value::String(label.to_owned())) }
            }
            None => {
                Err(self.wrong("here stands a text, a record, a list, a number, `true`, `false`, `none` or a label"))
            }
        }
    }

    fn record(&mut self) -> Result<Value, ScriptError> {
        let entries = self.until("}", |reader| {
            reader.space();
            reader.from = reader.at;
            let key = match reader.text()? {
                Some(key) => key,
                None => reader.word().map(str::to_owned).ok_or_else(|| reader.wrong("a field begins with its name"))?,
            };
            reader.space();
            if !reader.eat(":") {
                return Err(reader.wrong(&format!("after the field's name `{key}` stands `:`")));
            }
            Ok((key, reader.value()?))
        })?;
        let len = entries.len();
        let fields: Map<String, Value> = entries.into_iter().collect();
        if fields.len() < len { Err(self.wrong("a field is there twice")) } else { Ok(Value::Object(fields)) }
    }

    /// Items with commas between them, up to and with the closing bracket.
    fn until<T>(
        &mut self,
        closing: &str,
        mut read: impl FnMut(&mut Self) -> Result<T, ScriptError>,
    ) -> Result<Vec<T>, ScriptError> {
        let opened = self.at.saturating_sub(1);
        self.deeper()?;
        let mut items = Vec::new();
        loop {
            self.space();
            if self.eat(closing) {
                break;
            }
            items.push(read(self)?);
            self.space();
            if !self.eat(",") {
                if self.eat(closing) {
                    break;
                }
                self.from = if self.rest().is_empty() { opened } else { self.at };
                return Err(self.wrong(&format!("a `,` or the closing `{closing}` is missing")));
            }
        }
        self.depth -= 1;
        Ok(items)
    }

    fn number(&mut self) -> Result<Value, ScriptError> {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-' | '+');
        let len = self.rest().find(|letter| !is_part(letter)).unwrap_or(self.rest().len());
        let written = self.rest()[..len].replace('_', "");
        let (sign, digits) = written.strip_prefix('-').map_or(("", written.as_str()), |digits| ("-", digits));
        let radix =
            |prefix: &str, radix| i64::from_str_radix(&format!("{sign}{}", digits.strip_prefix(prefix)?), radix).ok();
        let whole = written.parse::<i64>().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0b", 2));
        // Digits on both sides of the dot, which also keeps out `inf` and `nan`.
        let is_float = digits.split('.').all(|part| part.starts_with(|digit: char| digit.is_ascii_digit()));
        let float = || written.parse::<f64>().ok().filter(|number| is_float && number.is_finite()).map(Value::from);
        let value = whole.map(Value::from).or_else(float);
        let value = value.ok_or_else(|| self.wrong(&format!("`{}` is no number", &self.rest()[..len])))?;
        self.skip(len);
        Ok(value)
    }

    fn duration(&mut self) -> Result<Duration, ScriptError> {
        self.from = self.at;
        let digits_len = self.rest().find(|letter: char| !letter.is_ascii_digit() && letter != '_').unwrap_or(0);
        let (digits, rest) = self.rest().split_at(digits_len);
        let unit_len = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..unit_len] {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            "d" => Some(86_400_000),
            _ => None,
        };
        let millis =
            digits.replace('_', "").parse::<u64>().ok().zip(unit).and_then(|(count, unit)| count.checked_mul(unit));
        let millis = millis.ok_or_else(|| self.wrong("a duration is written `250ms`, `30s`, `5m`, `2h` or `1d`"))?;
        self.skip(digits_len + unit_len);
        Ok(Duration::from_millis(millis))
    }

    fn word(&mut self) -> Option<&'s str> {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let rest = &self.text[self.at..];
        if !rest.starts_with(|letter: char| is_part(letter) && !letter.is_numeric()) {
            return None;
        }
        let word = &rest[..rest.find(|letter| !is_part(letter)).unwrap_or(rest.len())];
        self.skip(word.len());
        Some(word)
    }

    /// Skips white space and comments.
    fn space(&mut self) {
        loop {
            let rest = self.rest();
            self.skip(rest.len() - rest.trim_start().len());
            if !self.rest().starts_with("//") {
                return;
            }
            self.skip(self.rest().find('\n').unwrap_or(self.rest().len()));
        }
    }

    fn space_on_line(&mut self) {
        let rest = self.rest();
        self.skip(rest.len() - rest.trim_start_matches([' ', '\t']).len());
    }

    pub(super) fn rest(&self) -> &'s str {
        &self.text[self.at..]
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let is_here = self.rest().starts_with(text);
        if is_here {
            self.skip(text.len());
        }
        is_here
    }

    fn deeper(&mut self) -> Result<(), ScriptError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            Err(self.wrong(&format!("more than {DEPTH_MAX} brackets within each other")))
        } else {
            Ok(())
        }
    }

    pub(super) fn wrong(&self, message: &str) -> ScriptError {
        let before = &self.text[..self.from];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ScriptError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.to_owned(),
        }
    }
}
