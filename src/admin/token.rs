//! The token that lets requests over TCP change things: read once at the start, compared in constant
//! time, never shown.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use subtle::ConstantTimeEq;

use super::AdminError;

/// Bytes below which a token is worth a warning: 16 random characters take longer than anybody has.
const LENGTH_MIN: usize = 16;

/// Far above any sensible token, far below what would not fit a request's head.
const BYTES_MAX: u64 = 4096;

const ADVICE: &str = "write one long random word, such as that of `openssl rand -hex 32`";

/// A secret.
pub(super) struct Token(Box<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads it from a file; blanks and line ends around it do not count.
    ///
    /// # Errors
    /// Where the file cannot be read, is empty, or has what no header can carry.
    pub(super) fn read(path: &Path) -> Result<Self, AdminError> {
        let refuse = |why: String| AdminError::Token(format!("{}: {why}", path.display()));
        let text = read_text(path).map_err(|error| {
            refuse(format!(
                "{error}: write a file that the user of evenkeel may read"
            ))
        })?;
        let token = text.trim();
        if token.is_empty() {
            return Err(refuse(format!("the file is empty: {ADVICE}")));
        }
        if text.len() as u64 > BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse(format!("that is no token: {ADVICE}")));
        }
        Ok(Self(token.into()))
    }

    /// What makes it a weak one, a line each; `path` is where it was read.
    pub(super) fn doubts(&self, path: &Path) -> Vec<String> {
        let shown = path.display();
        let guessed = format!("the token in {shown} can be guessed: {ADVICE}");
        let read = format!("every user of this machine may read {shown}: `chmod o-rwx {shown}`");
        let doubts = [
            (self.0.len() < LENGTH_MIN).then_some(guessed),
            may_all_read(path).then_some(read),
        ];
        let doubts = doubts.into_iter().flatten();
        doubts
            .map(|doubt| format!("admin.http_token_file: {doubt}"))
            .collect()
    }

    /// Whether `given` is it. How long the answer takes tells nothing but the length.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(text.into())
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The group may well be meant to read it; everybody is not.
fn may_all_read(path: &Path) -> bool {
    const OTHERS_READ: u32 = 0o004;
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
    mode.is_ok_and(|mode| mode & OTHERS_READ != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<Token, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, content).unwrap();
        Token::read(&path).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "F"))
    }

    #[test]
    fn a_token_is_what_stands_in_the_file_without_the_blanks_around_it() {
        let token = read(b"  s3cret\n").unwrap();
        assert!(token.is(b"s3cret"));
        for wrong in ["", "s3cre", "s3cret\n", "s3creT", "s3crets"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn a_token_that_can_be_guessed_or_read_is_doubted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "short").unwrap();
        let doubts = |mode, token: &str| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Token::of(token).doubts(&path)
        };
        let both = doubts(0o644, "short");
        assert!(
            both[0].contains("can be guessed: write one long"),
            "{both:?}"
        );
        assert!(both[1].contains("chmod o-rwx"), "{both:?}");
        assert_eq!(doubts(0o640, &"x".repeat(16)), [""; 0]);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for (content, part) in [
            (&b""[..], "F: the file is empty: write one long"),
            (b" \n", "the file is empty"),
            (b"two words", "that is no token"),
            (b"a\x01b", "that is no token"),
            (&[b'a'; 5000], "that is no token"),
            (b"\xff", "F: stream did not contain valid UTF-8: write"),
        ] {
            let error = read(content).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(error.starts_with("admin.http_token_file: "), "{error}");
        }
        let missing = Token::read(Path::new("/nonexistent/token")).unwrap_err();
        assert!(missing.to_string().contains("No such file"), "{missing}");
    }
}
