//! Bearer tokens: who may come in.

use super::HttpError;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;

/// Shorter ones are guessed too easily.
const SHORTEST: usize = 16;

/// The tokens that are let in; several, so that one can be replaced while the other still holds. Only their digests are kept.
#[derive(Clone, Default)]
pub struct Tokens {
    digests: Vec<[u8; 32]>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.digests.len())
    }
}

impl Tokens {
    /// One token per line; empty lines and those that begin with `#` are skipped.
    pub fn from_file(path: &Path) -> Result<Self, HttpError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| HttpError::Tokens { path: path.to_owned(), source })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self::parse(&path.display().to_string(), lines)
    }

    /// Tokens separated by commas, as in an environment variable, which `origin` names in errors.
    pub fn from_list(origin: &str, list: &str) -> Result<Self, HttpError> {
        Self::parse(origin, list.split(',').map(str::trim).filter(|token| !token.is_empty()))
    }

    fn parse<'a>(origin: &str, tokens: impl Iterator<Item = &'a str>) -> Result<Self, HttpError> {
        let mut digests = Vec::new();
        for (index, token) in tokens.enumerate() {
            let fault = if token.len() < SHORTEST {
                "it is too short"
            } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                "it holds blanks or characters that no header carries"
            } else {
                digests.push(digest(token));
                continue;
            };
            let (origin, number) = (origin.to_owned(), index + 1);
            return Err(HttpError::BadToken { origin, number, fault, shortest: SHORTEST });
        }
        if digests.is_empty() {
            return Err(HttpError::NoTokens { origin: origin.to_owned() });
        }
        Ok(Tokens { digests })
    }

    /// These and those.
    pub fn and(mut self, other: Tokens) -> Tokens {
        self.digests.extend(other.digests);
        self
    }

    /// Whether there are none, so that everybody is let in.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether the request is let in.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        if self.is_empty() {
            return true;
        }
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|v| v.split_once(' '));
        let Some((_, token)) = header.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else { return false };
        // How long the comparison of digests takes tells nothing of the tokens.
        self.digests.contains(&digest(token.trim()))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn any_of_several_tokens_is_let_in_and_nothing_else() {
        let tokens = Tokens::from_list("X", &format!("{TOKEN}, another-long-token-1")).unwrap();
        assert!(tokens.admit(&headers(&format!("Bearer {TOKEN}"))));
        assert!(tokens.admit(&headers("bearer another-long-token-1")));
        for header in [format!("Basic {TOKEN}"), TOKEN.to_owned(), "Bearer".to_owned(), format!("Bearer {TOKEN}x")] {
            assert!(!tokens.admit(&headers(&header)), "{header}");
        }
        assert!(!tokens.admit(&HeaderMap::new()));
        assert!(Tokens::default().admit(&HeaderMap::new()));
    }

    #[test]
    fn a_file_of_tokens_has_comments_and_is_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("# ours\n\n{TOKEN}\n")).unwrap();
        let tokens = Tokens::from_file(file.path()).unwrap();
        assert!(tokens.admit(&headers(&format!("Bearer {TOKEN}"))));
        assert_eq!(format!("{tokens:?}"), "Tokens(1)");
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        let error = Tokens::from_list("PAWL_STORE_TOKENS", &format!("{TOKEN},hunter2")).unwrap_err().to_string();
        assert!(error.contains("PAWL_STORE_TOKENS, token 2") && error.contains("too short"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert!(matches!(Tokens::from_list("X", " , ").unwrap_err(), HttpError::NoTokens { .. }));
        assert!(Tokens::from_list("X", "sixteen characters, and more").is_err());
        assert!(matches!(Tokens::from_file(Path::new("no/such/file")).unwrap_err(), HttpError::Tokens { .. }));
    }
}
