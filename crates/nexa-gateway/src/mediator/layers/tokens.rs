//! The token file: who may come in, by the hash of what they show.
//!
//! One line a token: `HASH TENANT PRINCIPAL ACCESS`, where HASH is the BLAKE3 of the token in 64 hex digits and ACCESS is
//! `full`, `read` or `operator`. Empty lines and lines with `#` in front are skipped. The file never holds a token itself.
//!
//! Whoever can write the file can let themselves in, so one that others may write is refused. Whoever can read it can try
//! to guess tokens at leisure, so one that others may read is warned of.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nexa_types::{PrincipalId, TenantId};

use crate::mediator::Identity;

/// The most tokens in one file. A longer file is refused.
const TOKENS_MAX: usize = 1_024;
/// The most bytes of a token file. A longer one is refused.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The bits of a file's mode that let somebody else than its owner write it, and read it.
const OTHERS_WRITE: u32 = 0o022;
const OTHERS_READ: u32 = 0o044;

/// What a principal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everything within the tenant.
    Full,
    /// Queries only.
    Read,
    /// Everything within the tenant, and everything about nodes: which there are, what is kept away from them, and which
    /// agent is where, whosesoever it is.
    Operator,
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
    /// Others than its owner may change it.
    #[error("the token file `{path}` can be changed by others, who could let themselves in: run `chmod 600` on it")]
    Open {
        /// The file.
        path: String,
    },
    /// A line is wrong.
    #[error("line {line} of the token file is wrong: {why}; expected `HASH TENANT PRINCIPAL full|read|operator`")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// There are too many.
    #[error("the token file has more than {TOKENS_MAX} tokens, or than {FILE_BYTES_MAX} bytes")]
    TooMany,
    /// There are none, so nobody could come in.
    #[error("the token file `{path}` has no tokens, so nobody could come in")]
    Empty {
        /// The file.
        path: String,
    },
}

impl Tokens {
    /// Reads a token file. Blocks while it does.
    ///
    /// # Errors
    /// [`TokenError`] says which line is wrong. A wrong line is never skipped.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let named = || path.display().to_string();
        let unreadable = |source| TokenError::Unreadable { path: named(), source };
        // The mode of what was opened, and not of what stands there a moment later.
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & OTHERS_WRITE != 0 {
            return Err(TokenError::Open { path: named() });
        }
        if mode & OTHERS_READ != 0 {
            tracing::warn!(path = %path.display(), "others can read the token file and guess at its tokens: run `chmod 600` on it");
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(TokenError::TooMany);
        }
        let tokens = Self::parse(&text)?;
        if tokens.known.is_empty() {
            return Err(TokenError::Empty { path: named() });
        }
        Ok(tokens)
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
            Access::Operator => "operator",
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
        "operator" => Access::Operator,
        other => return Err(format!("`{other}` is no access")),
    };
    Ok((hash, Identity { tenant, principal, access }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_written_is_read() {
        for access in [Access::Full, Access::Read, Access::Operator] {
            let identity = Identity { access, ..Identity::local() };
            let text = format!("# people\n\n{}\n", Tokens::line("secret", &identity));
            let tokens = Tokens::parse(&text).expect("a good file");
            assert_eq!(tokens.find("secret"), Some(identity));
            assert_eq!(tokens.find("Secret"), None);
            assert_eq!(tokens.find(""), None);
        }
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
    fn a_file_that_others_can_change_or_that_lets_nobody_in_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens");
        let with = |text: &str, mode| {
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
            Tokens::load(&path)
        };
        let good = Tokens::line("secret", &Identity::local());
        for mode in [0o600, 0o400, 0o644] {
            assert!(with(&good, mode).expect("good enough").find("secret").is_some());
        }
        std::fs::remove_file(&path).expect("it is there");
        for mode in [0o660, 0o602, 0o666] {
            let told = with(&good, mode).expect_err("open").to_string();
            assert!(told.contains("chmod 600") && told.contains("tokens"), "{told}");
        }
        assert!(matches!(with("# nobody\n", 0o600), Err(TokenError::Empty { .. })));
        assert!(matches!(with(&"#\n".repeat(1 << 20), 0o600), Err(TokenError::TooMany)));
        std::fs::remove_file(&path).expect("it is there");
        assert!(matches!(Tokens::load(&path), Err(TokenError::Unreadable { .. })));
    }

    #[test]
    fn a_file_with_too_many_tokens_is_refused() {
        let line = Tokens::line("t", &Identity::local());
        assert!(Tokens::parse(&format!("{line}\n").repeat(TOKENS_MAX)).is_ok());
        assert!(matches!(Tokens::parse(&format!("{line}\n").repeat(TOKENS_MAX + 1)), Err(TokenError::TooMany)));
    }
}
