//! What is wrong in a configuration, where, and what to write instead: gathered, sorted by place and
//! printed one a line. Also the wording that all of them share: how a user's words are quoted, and
//! which known name is nearest to one that is not known.
//!
//! Knows neither the keys nor YAML.

use std::fmt;

use super::tree::Path;

/// A person corrects the first few and runs `check` again; a hostile file must not fill the memory.
const SHOWN_MAX: usize = 100;

/// In characters: enough to recognise the user's own words, too short to flood a terminal.
const QUOTED_MAX: usize = 60;

/// Where something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// On the command line, behind this option.
    Argument(&'static str),
    /// In the file, both counted from 1; columns are characters.
    Text {
        /// The line.
        line: u32,
        /// The character in the line.
        column: u32,
    },
}

impl Place {
    /// Where a file begins: the place of what is missing from it altogether.
    pub(super) const START: Self = Self::Text { line: 1, column: 1 };

    /// The place as a message about `other` names it.
    pub(super) fn mention(self, other: Self) -> String {
        match self {
            Self::Argument(option) if self == other => format!("another {option}"),
            Self::Argument(option) => option.to_owned(),
            Self::Text { line, .. } => format!("line {line}"),
        }
    }
}

/// What is wrong with a value, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    what: String,
    remedy: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// In words, where no place and no key need be named.
    pub(super) fn text(&self) -> String {
        format!("{}, {}", self.what, self.remedy)
    }

    /// The same with one more word that may be written instead.
    pub(super) fn or_write(self, word: &str) -> Self {
        let remedy = match self.remedy.strip_prefix("write ") {
            Some(rest) => format!("write {word} or {rest}"),
            None => format!("write {word}, or {}", self.remedy),
        };
        Self { remedy, ..self }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Where it was written.
    pub(super) place: Place,
    /// The key, such as `pools.web.servers[2].weight`; empty for the file as a whole.
    pub(super) path: String,
    /// What is wrong, in lower case and with the user's own words.
    pub(super) what: String,
    /// What to write instead.
    pub(super) remedy: String,
}

/// Everything that is wrong in one file, or in the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    file: String,
    /// The first hundred found, in the order of the text.
    pub(super) shown: Vec<Mistake>,
    /// How many there are besides.
    not_shown: usize,
}

impl Mistakes {
    pub(super) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            shown: Vec::new(),
            not_shown: 0,
        }
    }

    pub(super) fn add(&mut self, place: Place, path: &Path<'_>, wrong: Wrong) {
        if self.is_full() {
            self.not_shown += 1;
            return;
        }
        self.shown.push(Mistake {
            place,
            path: path.to_string(),
            what: wrong.what,
            remedy: wrong.remedy,
        });
    }

    /// True once more mistakes are only counted: advice that is dear to find is not worth it then.
    pub(super) fn is_full(&self) -> bool {
        self.shown.len() >= SHOWN_MAX
    }

    /// The value if nothing is wrong, else what is, in the order of the text.
    pub(super) fn or_else_this<T>(mut self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.shown.is_empty() => Ok(value),
            _ => {
                debug_assert!(!self.shown.is_empty(), "nothing was said about a bad value");
                self.shown.sort_by_key(|mistake| mistake.place);
                Err(self)
            }
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for mistake in &self.shown {
            f.write_str(separator)?;
            separator = "\n";
            match mistake.place {
                Place::Argument(option) => f.write_str(option)?,
                Place::Text { line, column } => write!(f, "{}:{line}:{column}", self.file)?,
            }
            write!(f, ": {mistake}")?;
        }
        if self.not_shown > 0 {
            write!(f, "\n{}: and {} more", self.file, self.not_shown)?;
        }
        Ok(())
    }
}

/// The mistake without its place.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An option says where; the path is one that the user never wrote.
        if !self.path.is_empty() && matches!(self.place, Place::Text { .. }) {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}, {}", self.what, self.remedy)
    }
}

impl std::error::Error for Mistakes {}

/// The file's bytes as text.
pub(super) fn text<'t>(file: &str, bytes: &'t [u8]) -> Result<&'t str, Mistakes> {
    std::str::from_utf8(bytes).map_err(|error| {
        let (good, bad) = bytes.split_at(error.valid_up_to());
        let line_start = good
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let number = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
        let place = Place::Text {
            line: number(good.iter().filter(|byte| **byte == b'\n').count()),
            column: number(String::from_utf8_lossy(&good[line_start..]).chars().count()),
        };
        let what = format!("the byte 0x{:02x} is not UTF-8", bad[0]);
        let mut mistakes = Mistakes::new(file);
        mistakes.add(
            place,
            &Path::Root,
            Wrong::new(what, "save the file as UTF-8"),
        );
        mistakes
    })
}

/// The user's own words, in backticks: shortened, and with nothing in them that a terminal obeys.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", plain(text))
}

/// The user's own words without the backticks.
pub(super) fn plain(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(QUOTED_MAX)
        .flat_map(|character| match character {
            // Quotes and backslashes are harmless, and clearer as they were written.
            '\'' | '"' | '\\' => character.to_string().chars().collect::<Vec<_>>(),
            _ => character.escape_debug().collect(),
        })
        .collect();
    if text.chars().nth(QUOTED_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The name that was probably meant; upper and lower case make no difference.
pub(super) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Advice is not worth comparing everything that a hostile file may define: the work is the
    // product of the lengths, for each name.
    const BYTES_MAX: usize = 40;
    const NAMES_MAX: usize = 1000;
    if word.len() > BYTES_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let tolerance = (word.chars().count() / 3).max(1);
    let (distance, name) = names
        .take(NAMES_MAX)
        .filter(|name| name.len() <= BYTES_MAX)
        .map(|name| {
            (
                strsim::damerau_levenshtein(&word, &name.to_lowercase()),
                name,
            )
        })
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= tolerance).then_some(name)
}

/// The one name that `word` is the beginning of, such as `password` of `password_file`.
fn begun<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    const BYTES_MIN: usize = 4;
    let mut begun = names.iter().filter(|name| name.starts_with(word));
    let first = begun.next().filter(|_| word.len() >= BYTES_MIN)?;
    begun.next().is_none().then_some(*first)
}

/// What to write instead of a word that is not one of `names`: the nearest, else any of them.
pub(super) fn write_one_of(word: &str, names: &[&str]) -> String {
    let meant = nearest(word, names.iter().copied()).or_else(|| begun(word, names));
    match (meant, names) {
        (Some(name), _) => format!("write {name}"),
        (None, [name]) => format!("write {name}"),
        (None, _) => format!("write one of {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes_at(lines: impl Iterator<Item = u32>) -> Mistakes {
        let mut mistakes = Mistakes::new("x.yaml");
        for line in lines {
            let place = Place::Text { line, column: 3 };
            mistakes.add(place, &Path::Root, Wrong::new("a", "b"));
        }
        mistakes.or_else_this(Some(())).unwrap_err()
    }

    #[test]
    fn mistakes_are_printed_in_the_order_of_the_text() {
        let printed = mistakes_at([9, 2].into_iter()).to_string();
        assert_eq!(printed, "x.yaml:2:3: a, b\nx.yaml:9:3: a, b");
    }

    #[test]
    fn beyond_a_hundred_mistakes_are_only_counted() {
        let printed = mistakes_at(1..=1000).to_string();
        assert_eq!(printed.lines().count(), SHOWN_MAX + 1);
        assert!(printed.ends_with("\nx.yaml: and 900 more"), "{printed}");
    }

    #[test]
    fn the_users_words_cannot_steer_a_terminal() {
        assert_eq!(quoted("a\u{1b}[31m\n"), "`a\\u{1b}[31m\\n`");
        assert_eq!(quoted("it's \"x\""), "`it's \"x\"`");
        assert_eq!(quoted(&"x".repeat(61)), format!("`{}...`", "x".repeat(60)));
        assert_eq!(quoted(&"x".repeat(60)), format!("`{}`", "x".repeat(60)));
    }

    #[test]
    fn the_beginning_of_one_name_is_enough() {
        let names = ["password_file", "port", "path", "least_time", "least_load"];
        assert_eq!(write_one_of("password", &names), "write password_file");
        for word in ["p", "pas", "least", "files_of_passwords"] {
            let told = write_one_of(word, &names);
            assert!(told.starts_with("write one of "), "{word}: {told}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["bind", "pool", "idle_timeout"];
        let near = |word| nearest(word, names.into_iter());
        assert_eq!(near("idletimeout"), Some("idle_timeout"));
        assert_eq!(near("bnid"), Some("bind"));
        assert_eq!(near("POOL"), Some("pool"));
        assert_eq!(near("tls"), None);
        assert_eq!(near(&"x".repeat(1000)), None);
    }
}
