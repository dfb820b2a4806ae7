//! Lines that a program writes, gathered by a thread so that the program never waits for a test,
//! and the access log on top of them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use evenkeel::clock::Now;

use super::DEADLINE;

/// Every line so far of one output of one program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Gathered {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Starts a thread that reads `source` to its end.
    pub(crate) fn gather(source: impl Read + Send + 'static) -> Self {
        let gathering = Self::default();
        let result = gathering.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                gathering.lock().lines.push(line);
                gathering.shared.changed.notify_all();
            }
            gathering.lock().ended = true;
            gathering.shared.changed.notify_all();
        });
        result
    }

    /// A copy of what is there.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// All lines as one text, for failure messages.
    pub(crate) fn text(&self) -> String {
        self.all().join("\n")
    }

    /// Waits until `found` makes something of the lines so far; panics with `what` otherwise.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, found: impl Fn(&[String]) -> Option<T>) -> T {
        let result = self.wait_or_end(what, found);
        result.unwrap_or_else(|| panic!("the output ended without {what}:\n{}", self.text()))
    }

    /// The same; `None` where the output ends before.
    #[track_caller]
    pub(crate) fn wait_or_end<T>(
        &self,
        what: &str,
        found: impl Fn(&[String]) -> Option<T>,
    ) -> Option<T> {
        let deadline = Now::read() + DEADLINE;
        let mut gathered = self.lock();
        loop {
            if let Some(result) = found(&gathered.lines) {
                return Some(result);
            }
            let left = deadline.since(Now::read());
            if gathered.ended {
                return None;
            }
            let text = gathered.lines.join("\n");
            assert!(
                !left.is_zero(),
                "not within {DEADLINE:?}: {what}; the output was:\n{text}"
            );
            gathered = self.shared.changed.wait_timeout(gathered, left).unwrap().0;
        }
    }

    /// Waits for the first line that contains `part`.
    #[track_caller]
    pub(crate) fn wait_for(&self, part: &str) -> String {
        self.wait(part, |lines| {
            lines.iter().find(|line| line.contains(part)).cloned()
        })
    }

    /// Waits until the program closed this output.
    #[track_caller]
    pub(crate) fn wait_for_end(&self) {
        let deadline = Now::read() + DEADLINE;
        let mut gathered = self.lock();
        while !gathered.ended {
            let left = deadline.since(Now::read());
            assert!(!left.is_zero(), "the output did not end");
            gathered = self.shared.changed.wait_timeout(gathered, left).unwrap().0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        // A test that fails while it looks at the lines poisons nothing: they are only appended.
        self.shared
            .gathered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line of the access log, text or JSON.
#[derive(Clone, Debug)]
pub(crate) struct AccessLine {
    fields: HashMap<String, String>,
    text: String,
}

impl AccessLine {
    /// Reads a line; `None` where it is not an access line.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fields = if text.starts_with('{') {
            json(text)?
        } else {
            pairs(text)
        };
        let text = text.to_owned();
        fields.contains_key("end").then_some(Self { fields, text })
    }

    /// The field's text; panics where the line lacks it.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> &str {
        let value = self.fields.get(name);
        value.unwrap_or_else(|| panic!("no field {name} in: {}", self.text))
    }

    /// The field as a number.
    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> f64 {
        let value = self.field(name).parse();
        value.unwrap_or_else(|_| panic!("{name} is no number in: {}", self.text))
    }

    /// The field as a count of bytes.
    #[track_caller]
    pub(crate) fn bytes(&self, name: &str) -> u64 {
        let value = self.field(name).parse();
        value.unwrap_or_else(|_| panic!("{name} is no count in: {}", self.text))
    }

    /// Why the connection ended.
    pub(crate) fn end(&self) -> &str {
        self.field("end")
    }

    /// The line as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn pairs(text: &str) -> HashMap<String, String> {
    let pairs = text
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

fn json(text: &str) -> Option<HashMap<String, String>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let plain = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    Some(
        object
            .into_iter()
            .map(|(key, value)| (key, plain(value)))
            .collect(),
    )
}
