//! The token file: who may come in, by the hash of what they show.
//!
//! One line a token: `HASH TENANT PRINCIPAL ACCESS`, where HASH is the BLAKE3 of the token in 64 hex digits and ACCESS is
//! `full` or `read`. Empty lines and lines with `#` in front are skipped. The file never holds a token itself.

use std::path::Path;

use nexa_types::{PrincipalId, TenantId};

use crate::mediator::Identity;

/// The most tokens in one file. A longer file is refused.
const TOKENS_MAX: usize = 1_024;

/// What a principal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everything within the tenant.
    Full,
    /// Queries only.
    Read,
}

/// Known tokens.
#[derive(Debug, Default)]
pub struct Tokens {
    known: Vec<(blake3::Hash, Identity)>,
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("the token file `{path}` cannot be read")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("line {line} of the token file is wrong: {why}; expected `HASH TENANT PRINCIPAL full|read`")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// There are too many.
    #[error("the token file has more than {TOKENS_MAX} tokens")]
    TooMany,
}

impl Tokens {
    /// Reads a token file.
    ///
    /// # Errors
    /// [`TokenError`] says which line is wrong. A wrong line is never skipped.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenError::Unreadable { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// Reads the text of a token file.
    ///
    /// # Errors
    /// [`TokenError`] says which line is wrong.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut known = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if known.len() == TOKENS_MAX {
                return Err(TokenError::TooMany);
            }
            known.push(read_line(line).map_err(|why| TokenError::Line { line: index + 1, why })?);
        }
        Ok(Self { known })
    }

    /// The line of a token file for a new token.
    pub fn line(token: &str, identity: &Identity) -> String {
        let access = match identity.access {
            Access::Full => "full",
            Access::Read => "read",
        };
        format!("{} {} {} {access}", blake3::hash(token.as_bytes()).to_hex(), identity.tenant, identity.principal)
    }

    /// Who shows this token. Takes the same time for every token of a length: each known hash is compared, each in
    /// constant time.
    pub(super) fn find(&self, token: &str) -> Option<Identity> {
        let shown = blake3::hash(token.as_bytes());
        let mut found = None;
        for (hash, identity) in &self.known {
            // `blake3::Hash` compares in constant time.
            if *hash == shown {
                found = Some(identity);
            }
        }
        found.cloned()
    }
}

fn read_line(line: &str) -> Result<(blake3::Hash, Identity), String> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [hash, tenant, principal, access] = fields[..] else {
        return Err(format!("it has {} fields", fields.len()));
    };
    let hash = blake3::Hash::from_hex(hash).map_err(|_| "the hash is not 64 hex digits".to_owned())?;
    let tenant = TenantId::new(tenant).map_err(|error| error.to_string())?;
    let principal = PrincipalId::new(principal).map_err(|error| error.to_string())?;
    let access = match access {
        "full" => Access::Full,
        "read" => Access::Read,
        other => return Err(format!("`{other}` is no access")),
    };
    Ok((hash, Identity { tenant, principal, access }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_written_is_read() {
        let identity = Identity { access: Access::Read, ..Identity::local() };
        let text = format!("# people\n\n{}\n", Tokens::line("secret", &identity));
        let tokens = Tokens::parse(&text).expect("a good file");
        assert_eq!(tokens.find("secret"), Some(identity));
        assert_eq!(tokens.find("Secret"), None);
        assert_eq!(tokens.find(""), None);
    }

    #[test]
    fn a_wrong_line_is_refused_with_its_number() {
        let hash = "0".repeat(64);
        for (wrong, why) in [
            ("x", "1 fields"),
            ("x local me full", "64 hex digits"),
            (&format!("{hash} a+b me full"), "tenant"),
            (&format!("{hash} local me admin"), "no access"),
        ] {
            let error = Tokens::parse(&format!("# first\n{wrong}\n")).expect_err(wrong).to_string();
            assert!(error.contains("line 2") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_file_with_too_many_tokens_is_refused() {
        let line = Tokens::line("t", &Identity::local());
        assert!(Tokens::parse(&format!("{line}\n").repeat(TOKENS_MAX)).is_ok());
        assert!(matches!(Tokens::parse(&format!("{line}\n").repeat(TOKENS_MAX + 1)), Err(TokenError::TooMany)));
    }
}
