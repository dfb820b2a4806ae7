//! Text to [`Node`]: the only file that knows the YAML library, and the only one that meets hostile
//! text. What comes out is bounded in depth and in size, aliases counted as often as they are used.
//!
//! The parser's events are read rather than serde's derived types, because serde stops at the first
//! mistake and knows no place for most of them; here one run finds all, each at its character.
//!
//! YAML 1.2: `off`, `no` and `0o17` are texts like any other, quoted or not. Refused, because they
//! would be ignored or surprise: tags, directives, several documents, keys that are no texts.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::mistake::{Mistakes, Place, Wrong, quoted};
use super::tree::{Key, Kind, Node, Path};

/// The deepest key, `pools.web.servers[2].weight`, is at 5; more is a slip or an attack.
const DEPTH_MAX: usize = 32;

/// Bytes of the tree: six times what 1,000 pools of 10 servers take with every key written out, and
/// enough for 100,000 servers with a name, an address and a weight.
const TREE_BYTES_MAX: usize = 64 << 20;

/// What a value costs besides its text.
const NODE_BYTES: usize = size_of::<(Key, Node)>();

/// The longest text that any key takes, escapes resolved.
const TEXT_BYTES_MAX: usize = 8 << 10;

const QUOTED_IPV6: &str = "write the IPv6 address in double quotes, such as \"[::1]:80\"";

const QUOTED_STAR: &str = "write what begins with * in double quotes, as \"*.example.com\"";

/// Reads one YAML document. `None` where it cannot be understood as a whole; what else is wrong with
/// it is noted and left out of the tree.
pub(super) fn parse(text: &str, mistakes: &mut Mistakes) -> Option<Node> {
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        disallow_directives: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut builder = Builder::new(mistakes);
    for event in Parser::new_from_str_with_options(text, options) {
        let taken = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(syntax_error(text, &error)),
        };
        if let Err((place, wrong)) = taken {
            mistakes.add(place, &Path::Root, wrong);
            return None;
        }
    }
    let nothing = Node {
        place: Place::START,
        kind: Kind::Nothing,
    };
    Some(builder.root.unwrap_or(nothing))
}

/// A place and what is wrong there, where nothing can be read any more.
type Fatal = (Place, Wrong);

/// A list or a map whose end has not come yet.
#[derive(Debug)]
struct Open {
    place: Place,
    anchor: usize,
    items: Items,
    /// Of the tree, when it began: what an alias to it costs.
    bytes_before: usize,
    /// One of its keys was noted as a mistake.
    lost_a_key: bool,
}

#[derive(Debug)]
enum Items {
    List(Vec<Node>),
    Map(Vec<(Key, Node)>, Pending),
}

/// Where a map is between a key and its value.
#[derive(Debug)]
enum Pending {
    /// The next value is a key.
    Key,
    /// The next value is this key's.
    Value(Key),
    /// The next value's key was noted as a mistake.
    Nobody,
}

#[derive(Debug)]
struct Builder<'m> {
    mistakes: &'m mut Mistakes,
    open: Vec<Open>,
    root: Option<Node>,
    /// Complete values by the parser's number for their anchor, and what each costs.
    anchored: HashMap<usize, (Node, usize)>,
    bytes: usize,
}

impl<'m> Builder<'m> {
    fn new(mistakes: &'m mut Mistakes) -> Self {
        Self {
            mistakes,
            open: Vec::new(),
            root: None,
            anchored: HashMap::new(),
            bytes: 0,
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fatal> {
        let place = place_of(span.start);
        if let Some(tag) = event.tag() {
            let what = format!("{} is a tag", quoted(&tag.original()));
            let place = span.tag_start().map_or(place, place_of);
            self.note(place, Wrong::new(what, "remove it"));
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let bytes = NODE_BYTES + text.len();
                self.spend(place, bytes)?;
                let kind = self.text(place, text.into_owned(), style);
                self.finish(Node { place, kind }, anchor, bytes)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.start(place, anchor, Items::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, _) => {
                self.start(place, anchor, Items::Map(Vec::new(), Pending::Key))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(place, anchor),
            Event::UnresolvedAlias(name) => self.unresolved(place, &name),
            Event::DocumentStart(..) if self.root.is_some() => Err((
                place,
                Wrong::new(
                    "a second document begins here",
                    "remove the --- and what follows",
                ),
            )),
            _ => Ok(()),
        }
    }

    fn text(&mut self, place: Place, text: String, style: ScalarStyle) -> Kind {
        let is_plain = matches!(style, ScalarStyle::Plain);
        if is_plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") && !self.is_at_key() {
            return Kind::Nothing;
        }
        if text.len() > TEXT_BYTES_MAX {
            let what = format!("this text has {} bytes", text.len());
            let remedy = format!("write at most {TEXT_BYTES_MAX}");
            self.note(place, Wrong::new(what, remedy));
            return Kind::Noted;
        }
        Kind::Text(text)
    }

    fn is_at_key(&self) -> bool {
        let items = self.open.last().map(|open| &open.items);
        matches!(items, Some(Items::Map(_, Pending::Key)))
    }

    fn start(&mut self, place: Place, anchor: usize, items: Items) -> Result<(), Fatal> {
        let bytes_before = self.bytes;
        self.spend(place, NODE_BYTES)?;
        self.open.push(Open {
            place,
            anchor,
            items,
            bytes_before,
            lost_a_key: false,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fatal> {
        let open = self.open.pop().expect("the parser ends only what it began");
        let kind = match open.items {
            Items::List(items) => Kind::List(items),
            // Nothing is left of it that a second message could be about.
            Items::Map(entries, _) if open.lost_a_key && entries.is_empty() => Kind::Noted,
            Items::Map(entries, _) => Kind::Map(entries),
        };
        let place = open.place;
        let bytes = self.bytes - open.bytes_before;
        self.finish(Node { place, kind }, open.anchor, bytes)
    }

    /// The value is complete: it is kept for aliases and becomes part of what is open.
    fn finish(&mut self, node: Node, anchor: usize, bytes: usize) -> Result<(), Fatal> {
        // The parser numbers anchors from 1; 0 is none.
        if anchor > 0 {
            self.spend(node.place, bytes)?;
            self.anchored.insert(anchor, (node.clone(), bytes));
        }
        self.attach(node);
        Ok(())
    }

    fn alias(&mut self, place: Place, anchor: usize) -> Result<(), Fatal> {
        let Some((node, bytes)) = self.anchored.get(&anchor) else {
            let wrong = Wrong::new("this value contains itself", "write the value");
            self.leave_out(place, wrong);
            return Ok(());
        };
        let (node, bytes) = (node.clone(), *bytes);
        self.spend(place, bytes)?;
        self.attach(node);
        Ok(())
    }

    fn unresolved(&mut self, place: Place, name: &str) -> Result<(), Fatal> {
        let is_port = |port: &str| port.parse::<u16>().is_ok();
        let ports = name.strip_prefix(':').map(|ports| ports.split('-'));
        if ports.is_some_and(|mut ports| ports.all(is_port)) {
            // `*:8080` was not meant as an alias, and whoever reads addresses knows it.
            self.spend(place, NODE_BYTES)?;
            let kind = Kind::Text(format!("*{name}"));
            self.attach(Node { place, kind });
        } else if name.starts_with([':', '.']) {
            // Nor was `*.example.com:`, where no key can be seen any more.
            let what = format!("{} has no quotes", quoted(&format!("*{name}")));
            return Err((place, Wrong::new(what, QUOTED_STAR)));
        } else {
            let what = format!("no value above has the anchor {}", quoted(name));
            let remedy = "write the value itself, or its anchor above";
            self.leave_out(place, Wrong::new(what, remedy));
        }
        Ok(())
    }

    fn attach(&mut self, node: Node) {
        let key = self.is_at_key().then(|| self.key(&node));
        if let (Some(Pending::Nobody), Some(open)) = (&key, self.open.last_mut()) {
            open.lost_a_key = true;
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map(entries, pending)) => {
                // After a value comes a key again.
                let before = std::mem::replace(pending, key.unwrap_or(Pending::Key));
                if let Pending::Value(key) = before {
                    entries.push((key, node));
                }
            }
        }
    }
}

impl Builder<'_> {
    /// A complete value has come where a key belongs.
    fn key(&mut self, node: &Node) -> Pending {
        let place = node.place;
        match &node.kind {
            Kind::Text(text) if text == "<<" => {
                let remedy = "write the keys themselves";
                self.note(place, Wrong::new("merge keys are not supported", remedy));
                Pending::Nobody
            }
            Kind::Text(text) => Pending::Value(Key {
                place,
                text: text.clone(),
            }),
            Kind::Noted => Pending::Nobody,
            Kind::Nothing | Kind::List(_) | Kind::Map(_) => {
                let remedy = if is_ipv6_address(node) {
                    QUOTED_IPV6
                } else {
                    "put it into double quotes if it is meant as text"
                };
                self.note(place, Wrong::new("a key must be a text", remedy));
                Pending::Nobody
            }
        }
    }

    fn note(&mut self, place: Place, wrong: Wrong) {
        // Where a value is in the document is not known before its key is complete; its place is.
        self.mistakes.add(place, &Path::Root, wrong);
    }

    /// Something is wrong with a value, and the rest can be read without it.
    fn leave_out(&mut self, place: Place, wrong: Wrong) {
        self.note(place, wrong);
        let kind = Kind::Noted;
        self.attach(Node { place, kind });
    }

    fn spend(&mut self, place: Place, bytes: usize) -> Result<(), Fatal> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= TREE_BYTES_MAX {
            return Ok(());
        }
        let what = "the file is too large from here on, aliases counted as often as they are used";
        Err((place, Wrong::new(what, "write less, or fewer aliases")))
    }
}

fn place_of(marker: Marker) -> Place {
    // The file's size bounds both far below 2^32.
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Place::Text {
        line: number(marker.line()),
        column: number(marker.col() + 1),
    }
}

/// What `[::1]` becomes before a colon, or `[::]`: a list, the last colon taken for the end of a key.
fn is_ipv6_address(node: &Node) -> bool {
    let Kind::List(items) = &node.kind else {
        return false;
    };
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    match items.as_slice() {
        [item] => match &item.kind {
            Kind::Text(text) => is_address(text),
            Kind::Map(entries) => entries
                .first()
                .is_some_and(|(key, _)| is_address(&format!("{}:", key.text))),
            _ => false,
        },
        _ => false,
    }
}

fn syntax_error(text: &str, error: &ScanError) -> Fatal {
    let place = place_of(*error.marker());
    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        let what = format!("this is nested more than {DEPTH_MAX} deep");
        return (place, Wrong::new(what, "write each key at its own level"));
    }
    let line = text.lines().nth(error.marker().line().saturating_sub(1));
    let line = line.unwrap_or_default().trim_start_matches(' ');
    let remedy = if has_bare_ipv6_address(line) {
        QUOTED_IPV6
    } else if line.contains("*:") || line.contains("*.") {
        QUOTED_STAR
    } else if line.starts_with('\t') {
        "indent with blanks instead of tabs"
    } else {
        match error.kind() {
            ErrorKind::UnexpectedCharacter { .. } => "remove it or put the text into double quotes",
            ErrorKind::DirectiveDisallowed => "remove the line",
            _ => "look at the indentation, quotes and brackets here",
        }
    };
    let what = format!("this is not YAML: {}", error.info());
    (place, Wrong::new(what, remedy))
}

/// `[` begins a list in YAML, so that `[::1]:80` needs quotes: everybody falls into it once.
fn has_bare_ipv6_address(line: &str) -> bool {
    let opening = line.find('[');
    opening.is_some_and(|start| {
        line[start..].contains("::") && line.contains("]:") && !line[..start].contains(['"', '\''])
    })
}
