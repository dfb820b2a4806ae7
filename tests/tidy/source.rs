//! The sources as tests/tidy.rs sees them: files, their code without comments, strings and tests,
//! and the names in it.
//!
//! A reader of Rust that knows just enough: what is a comment, a string, a character. It knows none
//! of the rules.

use std::fs;
use std::path::{Path, PathBuf};

/// A file below `src`.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// The text up to its tests, with comments and the insides of strings blanked, line by line.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).expect("a source is UTF-8");
        let code = without_comments_and_strings(without_tests(&text));
        Self { path, text, code }
    }

    /// The module of the library that it belongs to; none for `main.rs` and `lib.rs`.
    pub(crate) fn module(&self) -> Option<String> {
        let below = self
            .path
            .strip_prefix(root().join("src"))
            .expect("sources are below src");
        let first = Path::new(below.components().next()?.as_os_str()).with_extension("");
        let name = first.to_str().expect("names are ASCII").to_owned();
        (name != "lib" && name != "main").then_some(name)
    }

    pub(crate) fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.components().any(|c| c.as_os_str() == "tests")
    }

    /// A folder beside the file that holds more than its tests.
    pub(crate) fn has_children(&self) -> bool {
        let folder = self.path.with_extension("");
        folder.is_dir()
            && fs::read_dir(folder)
                .expect("the folder can be read")
                .any(|entry| entry.expect("an entry can be read").file_name() != "tests.rs")
    }

    /// Each `crate::name`, also from groups, with its line.
    pub(crate) fn imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (start, path) in self.code.match_indices("crate::") {
            let rest = &self.code[start + path.len()..];
            let line = self.code[..start].matches('\n').count() + 1;
            if let Some(group) = rest.strip_prefix('{') {
                found.extend(firsts_of_group(group).into_iter().map(|name| (line, name)));
            } else {
                found.push((line, leading_word(rest)));
            }
        }
        found
    }

    /// The identifiers of each line.
    pub(crate) fn words(&self) -> Vec<(usize, Vec<String>)> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let words_of = |line: &str| {
            line.split(|c| !is_word(c))
                .filter(|w| !w.is_empty())
                .map(str::to_owned)
                .collect()
        };
        self.code
            .lines()
            .enumerate()
            .map(|(number, line)| (number + 1, words_of(line)))
            .collect()
    }

    pub(crate) fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", shown(&self.path))
    }
}

/// The first words of `a::b, c::{d, e}, f}` : a, c, f.
fn firsts_of_group(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut firsts = vec![leading_word(group)];
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => firsts.push(leading_word(&group[at + 1..])),
            _ => {}
        }
    }
    firsts.retain(|first| !first.is_empty());
    firsts
}

fn leading_word(text: &str) -> String {
    let text = text.trim_start();
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    text[..end].to_owned()
}

/// Everything before the tests that stand at a file's bottom.
fn without_tests(text: &str) -> &str {
    let mut offset = 0;
    let mut after_attribute = None;
    for line in text.split_inclusive('\n') {
        if let Some(start) = after_attribute.take()
            && line.starts_with("mod ")
            && line.trim_end().ends_with('{')
        {
            return &text[..start];
        }
        if line.trim_end() == "#[cfg(test)]" && line.starts_with('#') {
            after_attribute = Some(offset);
        }
        offset += line.len();
    }
    text
}

/// Blanks what the compiler does not read as code, and keeps the lines.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_bytes(rest);
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            // The `r` of an identifier is not the `r` of a raw string.
            while let Some(next) = rest.chars().next().filter(|c| is_word_with(first, *c)) {
                code.push(next);
                rest = &rest[next.len_utf8()..];
            }
        } else {
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

fn is_word_with(first: char, next: char) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    is_word(first) && is_word(next)
}

/// The length of the comment, string or character that `text` begins with, or 0.
fn skipped_bytes(text: &str) -> usize {
    let until = |opening: usize, closing: &str| {
        text[opening..]
            .find(closing)
            .map_or(text.len(), |at| opening + at + closing.len())
    };
    if text.starts_with("//") {
        text.find('\n').unwrap_or(text.len())
    } else if text.starts_with("/*") {
        until(2, "*/")
    } else if text.starts_with("r#\"") {
        until(3, "\"#")
    } else if text.starts_with("r\"") {
        until(2, "\"")
    } else if text.starts_with("b\"") {
        1 + quoted_bytes(&text[1..], '"')
    } else if text.starts_with('"') {
        quoted_bytes(text, '"')
    } else if text.starts_with("'\\") {
        quoted_bytes(text, '\'')
    } else {
        // A character, and not a lifetime.
        let mut characters = text.chars();
        let is_character = characters.next() == Some('\'') && characters.nth(1) == Some('\'');
        if is_character {
            text.len() - characters.as_str().len()
        } else {
            0
        }
    }
}

/// From one quote to the next that no backslash stands before.
fn quoted_bytes(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if character == quote && !escaped {
            return at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    text.len()
}

/// `pick_server` and `PickServer` are both pick and server.
pub(crate) fn parts_of(word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for character in word.chars() {
        if character == '_' || character.is_uppercase() {
            parts.push(String::new());
        }
        if character != '_' {
            let part = parts.last_mut().expect("it never gets empty");
            part.extend(character.to_lowercase());
        }
    }
    parts
}

pub(crate) fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_below(&root().join("src"), "rs", &mut paths);
    assert!(
        paths.len() > 3,
        "the sources are not where they are looked for"
    );
    paths.into_iter().map(Source::read).collect()
}

pub(crate) fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("the folder is there");
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[test]
fn code_is_told_from_comments_strings_and_tests() {
    let text = r##"fn go<'a>(x: &'a str) { // unsafe
    let y = ["unsafe \" unsafe", r#"un"safe"#, b"unsafe"]; /* unsafe */ let z = '"';
    use crate::{here::a, there::{b, c}, both}; crate::last::go();
}
#[cfg(test)]
mod tests {
    unsafe
}
"##;
    let code = without_comments_and_strings(without_tests(text));
    assert!(!code.contains("unsafe"), "{code}");
    assert!(
        code.contains("let z =") && code.contains("&'a str"),
        "{code}"
    );
    assert_eq!(code.lines().count(), 4, "{code}");
    let source = Source {
        path: PathBuf::new(),
        text: String::new(),
        code,
    };
    let names: Vec<_> = source
        .imports()
        .into_iter()
        .map(|(line, name)| format!("{name}:{line}"))
        .collect();
    assert_eq!(names, ["here:3", "there:3", "both:3", "last:3"]);
}
