//! Aligned columns: as wide as their contents where there is room, else without the columns that
//! matter least, else with the longest texts cut.
//!
//! Knows nothing of what stands in it.

use std::borrow::Cow;

use super::figures::plain;
use super::output::{Paper, Tone};

/// Between columns, and where that is too wide.
const GAPS: [usize; 2] = [2, 1];

/// What stands for the rest of a text that was cut.
const CUT: &str = "..";

/// What a column does where there is not enough room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Yield {
    /// Nothing.
    Never,
    /// It goes away, the lowest number first, where cutting is not enough.
    Goes(u8),
    /// Its texts are cut, down to so many characters.
    Shrinks(usize),
}

/// One column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    title: Cow<'static, str>,
    is_number: bool,
    gives_way: Yield,
}

impl Column {
    /// Aligned at the left.
    pub(super) const fn text(title: &'static str, gives_way: Yield) -> Self {
        Self {
            title: Cow::Borrowed(title),
            is_number: false,
            gives_way,
        }
    }

    /// The same with a title that is known only now.
    pub(super) fn titled(title: &str, gives_way: Yield) -> Self {
        Self {
            title: Cow::Owned(title.to_owned()),
            is_number: false,
            gives_way,
        }
    }

    /// Aligned at the right.
    pub(super) const fn number(title: &'static str, gives_way: Yield) -> Self {
        Self {
            title: Cow::Borrowed(title),
            is_number: true,
            gives_way,
        }
    }
}

/// What stands where a row and a column meet.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn toned(text: &str, tone: Tone) -> Self {
        Self {
            text: plain(text),
            tone,
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text.as_ref(), Tone::Plain)
    }
}

#[derive(Clone, Debug)]
enum Row {
    Cells(Vec<Cell>),
    /// Across all columns.
    Line(Cell),
}

/// How wide everything is, in characters.
#[derive(Clone, Debug)]
struct Plan {
    /// Of each column; `None` where it is not shown.
    widths: Vec<Option<usize>>,
    /// Between two columns.
    gap: usize,
}

impl Plan {
    fn total(&self) -> usize {
        let shown = self.widths.iter().flatten();
        let gaps = shown.clone().count().saturating_sub(1) * self.gap;
        shown.sum::<usize>() + gaps
    }
}

/// Rows under the titles of their columns.
#[derive(Clone, Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// A cell for each column.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(Row::Cells(cells));
    }

    /// A text that belongs to no column.
    pub(super) fn line(&mut self, text: &str, tone: Tone) {
        self.rows.push(Row::Line(Cell::toned(text, tone)));
    }

    /// All lines, each with its end.
    pub(super) fn shown(&self, paper: Paper) -> String {
        let plan = self.plan(paper.width);
        let titles = self.columns.iter();
        let titles: Vec<_> = titles
            .map(|column| Cell::toned(&column.title, Tone::Strong))
            .collect();
        let mut shown = self.joined(&titles, &plan, paper);
        for row in &self.rows {
            match row {
                Row::Cells(cells) => shown.push_str(&self.joined(cells, &plan, paper)),
                Row::Line(cell) => {
                    shown.push_str(&paper.paint(cell.tone, &cell.text));
                    shown.push('\n');
                }
            }
        }
        shown
    }

    /// First the gaps yield, then columns go, then texts are cut by as much as there is too much.
    fn plan(&self, room: Option<usize>) -> Plan {
        let widest = (0..self.columns.len()).map(|at| Some(self.widest(at)));
        let mut plan = Plan {
            widths: widest.collect(),
            gap: GAPS[0],
        };
        let Some(room) = room.filter(|room| plan.total() > *room) else {
            return plan;
        };
        plan.gap = GAPS[1];
        for at in self.going() {
            if self.shrunk(plan.clone(), 0).total() > room {
                plan.widths[at] = None;
            }
        }
        self.shrunk(plan, room)
    }

    /// Columns that may go, the first to go first.
    fn going(&self) -> Vec<usize> {
        let mut going = Vec::new();
        for (at, column) in self.columns.iter().enumerate() {
            if let Yield::Goes(order) = column.gives_way {
                going.push((order, at));
            }
        }
        going.sort_unstable();
        going.into_iter().map(|(_, at)| at).collect()
    }

    /// With texts cut as far as they need to be, and may be.
    fn shrunk(&self, mut plan: Plan, room: usize) -> Plan {
        // The last first: notes stand there, and names at the front.
        for (at, column) in self.columns.iter().enumerate().rev() {
            if let (Yield::Shrinks(least), Some(width)) = (column.gives_way, plan.widths[at]) {
                let excess = plan.total().saturating_sub(room);
                let cut = width.saturating_sub(excess).max(least.min(width));
                plan.widths[at] = Some(cut);
            }
        }
        plan
    }

    fn widest(&self, at: usize) -> usize {
        let texts = self.rows.iter().filter_map(|row| match row {
            Row::Cells(cells) => cells.get(at).map(|cell| length(&cell.text)),
            Row::Line(_) => None,
        });
        texts
            .max()
            .unwrap_or(0)
            .max(length(&self.columns[at].title))
    }

    fn joined(&self, cells: &[Cell], plan: &Plan, paper: Paper) -> String {
        let mut line = String::new();
        // Blanks are written only before something: no line ends with them.
        let mut blanks = String::new();
        for ((cell, column), width) in cells.iter().zip(&self.columns).zip(&plan.widths) {
            let Some(width) = *width else {
                continue;
            };
            let text = cut(&cell.text, width);
            let padding = " ".repeat(width - length(&text));
            if column.is_number {
                blanks.push_str(&padding);
            }
            if !text.is_empty() {
                line.push_str(&blanks);
                line.push_str(&paper.paint(cell.tone, &text));
                blanks.clear();
            }
            if !column.is_number {
                blanks.push_str(&padding);
            }
            blanks.push_str(&" ".repeat(plan.gap));
        }
        line.push('\n');
        line
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// The beginning, where it is longer than `room` characters.
pub(super) fn cut(text: &str, room: usize) -> String {
    if length(text) <= room {
        return text.to_owned();
    }
    let mark: String = CUT.chars().take(room).collect();
    let kept = text.chars().take(room - length(&mark));
    kept.chain(mark.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(&[
            Column::text("NAME", Yield::Shrinks(4)),
            Column::text("ADDRESS", Yield::Goes(1)),
            Column::number("COUNT", Yield::Never),
            Column::text("WHY", Yield::Shrinks(5)),
        ]);
        table.line("a heading that is longer than the table", Tone::Plain);
        table.row(
            ["long-name", "127.0.0.1:80", "7", "because"]
                .map(Cell::from)
                .to_vec(),
        );
        table.row(["b", "", "1000000", ""].map(Cell::from).to_vec());
        table
    }

    fn lines(width: Option<usize>) -> Vec<String> {
        let paper = Paper {
            width,
            ..Paper::default()
        };
        let shown = example().shown(paper);
        shown.lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        assert_eq!(
            lines(None),
            [
                "NAME       ADDRESS         COUNT  WHY",
                "a heading that is longer than the table",
                "long-name  127.0.0.1:80        7  because",
                "b                        1000000",
            ]
        );
    }

    #[test]
    fn gaps_and_texts_yield_before_a_column_goes() {
        assert_eq!(lines(Some(41)), lines(None));
        assert_eq!(lines(Some(40))[2], "long-name 127.0.0.1:80       7 because");
        assert_eq!(lines(Some(37))[2], "long-name 127.0.0.1:80       7 beca..");
        assert_eq!(lines(Some(31))[2], "lo.. 127.0.0.1:80       7 bec..");
        assert_eq!(lines(Some(29))[2], "long-name       7 because");
    }

    #[test]
    fn nothing_gets_shorter_than_it_may() {
        assert_eq!(lines(Some(1))[2], "lo..       7 bec..");
        assert_eq!(cut("abc", 1), ".");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn cells_cannot_steer_a_terminal() {
        let mut table = Table::new(&[Column::text("X", Yield::Never)]);
        table.row(vec![Cell::from("a\u{1b}[2J")]);
        assert!(!table.shown(Paper::default()).contains('\u{1b}'));
    }
}
