//! The text literals of a script: the same forms and escapes as in the language, without interpolation.

use super::ScriptError;
use super::parse::Reader;

impl Reader<'_> {
    /// A text literal, if one starts here.
    pub(super) fn text(&mut self) -> Result<Option<String>, ScriptError> {
        let is_raw = self.rest().starts_with("r\"");
        if is_raw {
            self.skip(1);
        }
        if self.eat("\"\"\"") {
            let inside = self.until_quotes("\"\"\"", is_raw)?;
            return Ok(Some(self.unescape_block(&inside, is_raw)?));
        }
        if !self.eat("\"") {
            return Ok(None);
        }
        let inside = self.until_quotes("\"", is_raw)?;
        if inside.contains('\n') {
            return Err(self.wrong("a text in single quotes ends on its line; use `\"\"\"` for several lines"));
        }
        if is_raw { Ok(Some(inside)) } else { self.unescape(&inside).map(Some) }
    }

    /// Everything up to the closing quotes, escapes left as they are.
    fn until_quotes(&mut self, quotes: &str, is_raw: bool) -> Result<String, ScriptError> {
        let text = self.rest();
        let mut is_escaped = false;
        for (at, letter) in text.char_indices() {
            if !is_escaped && text[at..].starts_with(quotes) {
                self.skip(at + quotes.len());
                return Ok(text[..at].to_owned());
            }
            is_escaped = !is_raw && !is_escaped && letter == '\\';
        }
        Err(self.wrong(&format!("the text that begins here has no closing `{quotes}`")))
    }

    /// Drops the first newline, the closing line and its indentation.
    fn unescape_block(&self, inside: &str, is_raw: bool) -> Result<String, ScriptError> {
        let inside = inside.replace("\r\n", "\n");
        let inside = inside.strip_prefix('\n').unwrap_or(&inside);
        let (body, indent) = match inside.rsplit_once('\n') {
            Some((body, indent)) if indent.trim().is_empty() => (body, indent),
            _ => (inside, ""),
        };
        let lines: Vec<&str> =
            body.split('\n').map(|line| line.strip_prefix(indent).unwrap_or(line.trim_start())).collect();
        let text = lines.join("\n");
        if is_raw { Ok(text) } else { self.unescape(&text) }
    }

    fn unescape(&self, text: &str) -> Result<String, ScriptError> {
        let mut out = String::with_capacity(text.len());
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            if letter == '#' && letters.as_str().starts_with('{') {
                return Err(self.wrong("a script has no values to put into `#{…}`; write `\\#{` for the characters"));
            }
            if letter != '\\' {
                out.push(letter);
                continue;
            }
            match letters.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('0') => out.push('\0'),
                Some(same @ ('\\' | '"' | '#')) => out.push(same),
                Some('u') => {
                    let code = letters.as_str().strip_prefix('{').and_then(|rest| rest.split_once('}'));
                    let letter = code.and_then(|(code, rest)| {
                        letters = rest.chars();
                        char::from_u32(u32::from_str_radix(code, 16).ok()?)
                    });
                    out.push(
                        letter.ok_or_else(|| self.wrong("`\\u` is written `\\u{1F600}`, with a character's number"))?,
                    );
                }
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(self.wrong(&format!(
                        "`\\{other}` is no escape; there are \\n \\r \\t \\0 \\\\ \\\" \\# \\u{{…}}"
                    )));
                }
            }
        }
        Ok(out)
    }
}
