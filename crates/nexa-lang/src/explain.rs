//! What each code means, from the page that people read and tests check: `docs/language/diagnostics.md`.

use crate::diagnostic::Code;

const PAGE: &str = include_str!("../../../docs/language/diagnostics.md");

/// What the page says of a code: why it is a mistake, a program with it, and what is printed. `None` for one that no
/// program leads to yet.
#[must_use]
pub fn section(code: Code) -> Option<&'static str> {
    let head = format!("\n### {code}: ");
    let start = PAGE.find(&head)? + head.len();
    let body = PAGE.get(start..)?.split_once('\n')?.1;
    let end = ["\n### ", "\n## "].iter().filter_map(|next| body.find(next)).min().unwrap_or(body.len());
    Some(body[..end].trim())
}

/// The code that says today what a retired one said.
#[must_use]
pub fn successor(name: &str) -> Option<Code> {
    match name.to_ascii_uppercase().as_str() {
        "W0901" => Some(Code::E0901),
        "W0902" | "W0415" => Some(Code::E0902),
        _ => None,
    }
}
