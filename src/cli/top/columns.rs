//! The columns of `top`: which of them fit, how wide they are, and what a line of them looks like.
//!
//! Knows no model: what stands in a column is handed in.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::super::figures::{bytes, bytes_per_second, per_second};
use super::super::table::cut;
use super::model::Rates;

/// What a name gets at least, and of a wide terminal a fifth; a column that would take more goes.
const NAME_WIDTH_MIN: usize = 13;

/// And at most: further apart, an eye loses the line between a name and its state.
const NAME_WIDTH_MAX: usize = 48;

/// Characters of a bar that is full.
const BAR_WIDTH: usize = 6;

/// What stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    State,
    Share,
    Weight,
    Active,
    Opened,
    Up,
    Down,
    Total,
    Failed,
}

impl Column {
    /// From left to right.
    const ALL: [Self; 9] = [
        Self::State,
        Self::Share,
        Self::Weight,
        Self::Active,
        Self::Opened,
        Self::Up,
        Self::Down,
        Self::Total,
        Self::Failed,
    ];

    /// From what matters most.
    const BY_USE: [Self; 9] = [
        Self::State,
        Self::Active,
        Self::Down,
        Self::Up,
        Self::Opened,
        Self::Share,
        Self::Failed,
        Self::Weight,
        Self::Total,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::State => "STATE",
            Self::Share => "SHARE",
            Self::Weight => "WEIGHT",
            Self::Active => "ACTIVE",
            Self::Opened => "CONN/S",
            Self::Up => "UP/S",
            Self::Down => "DOWN/S",
            Self::Total => "TOTAL",
            Self::Failed => "FAILED",
        }
    }

    /// Without the blank before it.
    const fn width(self) -> usize {
        match self {
            Self::State => "maintenance".len(),
            Self::Share => BAR_WIDTH + " 100%".len(),
            Self::Total => 8,
            _ => 6,
        }
    }

    const fn is_text(self) -> bool {
        matches!(self, Self::State | Self::Share)
    }
}

/// Columns that fit, and what is left for the name.
pub(super) struct Layout {
    columns: Vec<Column>,
    name_width: usize,
}

impl Layout {
    pub(super) fn new(width: usize) -> Self {
        let mut chosen = Vec::new();
        let mut left = width;
        let least = (width / 5).max(NAME_WIDTH_MIN);
        for column in Column::BY_USE {
            let rest = left.saturating_sub(column.width() + 1);
            if rest < least {
                break;
            }
            left = rest;
            chosen.push(column);
        }
        Self {
            columns: Column::ALL
                .into_iter()
                .filter(|column| chosen.contains(column))
                .collect(),
            name_width: left.min(NAME_WIDTH_MAX),
        }
    }

    /// A heading across the name and the columns that say nothing of a pool, then the figures.
    pub(super) fn heading<'l>(&self, name: &str, style: Style, figures: &Figures) -> Line<'l> {
        let is_figure =
            |column: &Column| !matches!(column, Column::State | Column::Share | Column::Weight);
        let (figured, bare): (Vec<_>, Vec<_>) = self.columns.iter().copied().partition(is_figure);
        let layout = Self {
            columns: figured,
            name_width: self.name_width
                + bare.iter().map(|column| column.width() + 1).sum::<usize>(),
        };
        layout.line(name, style, |column| {
            Span::styled(figures.text(column), style)
        })
    }

    /// A name, then what `text` says for each column.
    pub(super) fn line<'l>(
        &self,
        name: &str,
        style: Style,
        text: impl Fn(Column) -> Span<'l>,
    ) -> Line<'l> {
        let name = padded(name, self.name_width, true);
        let mut spans = vec![Span::styled(name, style)];
        for column in &self.columns {
            let span = text(*column);
            let content = padded(&span.content, column.width(), column.is_text());
            spans.push(Span::raw(" "));
            spans.push(Span::styled(content, span.style));
        }
        Line::from(spans)
    }
}

fn padded(text: &str, width: usize, is_text: bool) -> String {
    let text = cut(text, width);
    if is_text {
        format!("{text:<width$}")
    } else {
        format!("{text:>width$}")
    }
}

/// What pools and servers have in common.
pub(super) struct Figures {
    pub(super) active: u64,
    pub(super) rates: Rates,
    pub(super) total: u64,
    pub(super) failed: u64,
}

impl Figures {
    pub(super) fn text(&self, column: Column) -> String {
        match column {
            Column::Active => self.active.to_string(),
            Column::Opened => per_second(self.rates.opened),
            Column::Up => bytes_per_second(self.rates.upstream),
            Column::Down => bytes_per_second(self.rates.downstream),
            Column::Total => thousands(self.total),
            Column::Failed => thousands(self.failed),
            Column::State | Column::Share | Column::Weight => String::new(),
        }
    }
}

/// Exact while it fits into a column.
fn thousands(count: u64) -> String {
    if count < 1_000_000 {
        return count.to_string();
    }
    bytes(count)
}

/// `######  50%`, in blocks.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share is from 0 to 1"
)]
pub(super) fn bar(share: f64) -> String {
    let full = ((share * BAR_WIDTH as f64).round() as usize).min(BAR_WIDTH);
    let blocks = "\u{2588}".repeat(full) + &"\u{2591}".repeat(BAR_WIDTH - full);
    format!("{blocks} {:>3.0}%", share * 100.0)
}
