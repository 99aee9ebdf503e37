//! The token by which a server knows us: kept in one place, shown nowhere.

use crate::error::{Error, Result};
use crate::source::sql::plain;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A secret that a server asks for. It has no form that could be shown.
///
/// ```
/// use redtail::{Config, Token};
///
/// let config = Config { token: Some(Token::new("secret\n")?), ..Config::default() };
/// assert_eq!(format!("{:?}", config.token), "Some(Token(…))");
/// # Ok::<(), redtail::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token as it was given; white space around it is dropped.
    ///
    /// # Errors
    /// `Usage` if it is empty, or holds what cannot stand in a header.
    pub fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::usage("the token is empty"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::usage(
                "the token holds characters that no token has; give nothing but the token",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The value of the header that carries it.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where the token comes from, and the one in use.
pub(super) struct Tokens {
    file: Option<PathBuf>,
    now: Mutex<Option<Token>>,
}

impl Tokens {
    /// A file wins over a token given directly.
    pub fn new(given: Option<Token>, file: Option<PathBuf>) -> Result<Self> {
        let tokens = Self { file, now: Mutex::new(given) };
        tokens.read_again()?;
        Ok(tokens)
    }

    pub fn now(&self) -> Option<Token> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again. Returns whether there is another token now.
    pub fn read_again(&self) -> Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::usage(format!("token file {shown}: {}", plain(&e))))?;
        let token = Token::new(&text).map_err(|e| e.during(format!("token file {shown}")))?;
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let other = now.as_ref() != Some(&token);
        *now = Some(token);
        Ok(other)
    }

    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new(" eyCANARY.x \n").unwrap();
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert_eq!(token.header(), "Bearer eyCANARY.x");
        for wrong in ["", "  ", "a b", "a\nb", "ü"] {
            let said = Token::new(wrong).unwrap_err().to_string();
            assert!(wrong.trim().is_empty() || !said.contains(wrong), "{said}");
        }
    }
}
