//! A token for a page that others can reach: random, in a file that only we can read, gone with the
//! process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// 128 bits: nobody guesses that.
const TOKEN_BYTES: usize = 16;
/// Enough that two demonstrations never take the same file.
const NAME_BYTES: usize = 8;

/// A token and its file, which is removed when this is dropped.
#[derive(Debug)]
pub struct Token {
    text: String,
    path: PathBuf,
}

impl Token {
    /// Makes one, with its file in `folder`.
    ///
    /// # Errors
    /// Where the kernel gives no random bytes, or the file cannot be made.
    pub fn make(folder: &Path) -> io::Result<Self> {
        let text = random(TOKEN_BYTES)?;
        let path = folder.join(format!("evenkeel-demo-{}", random(NAME_BYTES)?));
        // Never a file that is there already: in a folder of all users it would be somebody's trap.
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let token = Self { text, path };
        writeln!(file, "{}", token.text)?;
        Ok(token)
    }

    /// What the file says.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // Gone already, or left over: nobody can use it once the process has ended.
        fs::remove_file(&self.path).unwrap_or(());
    }
}

/// So many bytes of the kernel's, as hexadecimal digits.
fn random(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_private_random_and_goes_with_its_owner() {
        let folder = tempfile::TempDir::new().unwrap();
        let (one, other) = (
            Token::make(folder.path()).unwrap(),
            Token::make(folder.path()).unwrap(),
        );
        assert_ne!(one.text(), other.text());
        assert_eq!(one.text().len(), 32);
        let written = fs::read_to_string(one.path()).unwrap();
        assert_eq!(written.trim(), one.text());
        let mode = fs::metadata(one.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && other.path().exists());
    }
}
