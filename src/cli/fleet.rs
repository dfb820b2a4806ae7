//! `evenkeel status --node`: several evenkeels side by side. First how each is, then each server with a
//! column for each node, then what they have not in common.
//!
//! Asks over TCP, at the read-only side of others; the admin socket of this machine has no part in it.

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value, json};

use super::figures::{plain, seconds};
use super::output::{Paper, Tone, print, print_json};
use super::table::{Cell, Column, Table, Yield};
use crate::admin::fleet::{Comparison, Node, Row, Seen, Told, View, ask_all};

const NODE_COLUMNS: &[Column] = &[
    Column::text("NODE", Yield::Shrinks(16)),
    Column::text("VERSION", Yield::Goes(2)),
    Column::text("STATE", Yield::Never),
    Column::number("UP", Yield::Goes(3)),
    Column::number("WORKERS", Yield::Goes(1)),
    Column::number("ACTIVE", Yield::Never),
    Column::number("TOTAL", Yield::Goes(4)),
];

/// What marks a cell that is not as most of its row: colour is not the only sign.
const ODD: &str = "! ";

/// Shows them once; those that answer even where others do not.
///
/// # Errors
/// Where one of them has told nothing.
pub(super) fn fleet(nodes: &[Node], is_json: bool) -> anyhow::Result<()> {
    let nodes = distinct(nodes);
    let answers = ask_all(&nodes).context("cannot ask anybody")?;
    let answers: Vec<Result<Value, String>> = answers
        .into_iter()
        .map(|answer| answer.map_err(|error| error.to_string()))
        .collect();
    if is_json {
        print_json(&as_json(&nodes, &answers))?;
    }
    let view = |answer: &Result<Value, String>| answer.as_ref().map(View::of).map_err(Clone::clone);
    let told = nodes.iter().zip(&answers).map(|(node, answer)| Told {
        name: node.to_string(),
        view: view(answer),
    });
    let told: Vec<_> = told.collect();
    if !is_json {
        print(&shown(&told, Paper::standard()))?;
    }
    verdict(&told)
}

/// Each once, in the order in which they were asked for.
fn distinct(nodes: &[Node]) -> Vec<Node> {
    let mut distinct: Vec<Node> = Vec::new();
    for node in nodes {
        if !distinct.contains(node) {
            distinct.push(node.clone());
        }
    }
    distinct
}

fn as_json(nodes: &[Node], answers: &[Result<Value, String>]) -> Value {
    let value = |answer: &Result<Value, String>| match answer {
        Ok(status) => status.clone(),
        Err(error) => json!({ "error": error }),
    };
    let each = nodes.iter().zip(answers);
    let by_name: Map<String, Value> = each
        .map(|(node, answer)| (node.to_string(), value(answer)))
        .collect();
    json!({ "nodes": by_name })
}

/// A failure where one of them has told nothing; why is on standard output already, but for one alone.
fn verdict(told: &[Told]) -> anyhow::Result<()> {
    let reason = |node: &Told| node.view.as_ref().err().cloned();
    let silent: Vec<_> = told
        .iter()
        .filter_map(|node| Some((&*node.name, reason(node)?)))
        .collect();
    match silent.as_slice() {
        [] => Ok(()),
        [(name, reason)] => Err(anyhow!("{name}: {}", plain(reason))),
        many => {
            let names: Vec<_> = many.iter().map(|(name, _)| *name).collect();
            let (count, all, names) = (many.len(), told.len(), names.join(", "));
            Err(anyhow!(
                "{count} of {all} nodes have told nothing: {names}: why stands with each above"
            ))
        }
    }
}

fn shown(told: &[Told], paper: Paper) -> String {
    let comparison = Comparison::of(told);
    let mut text = nodes(told).shown(paper);
    if told.iter().any(|node| node.view.is_ok()) {
        text.push('\n');
        text.push_str(&servers(told, &comparison).shown(paper));
    }
    if has_odd(&comparison) {
        let note = "! is not as most of the nodes have it";
        text.push_str(&format!("\n{}\n", paper.paint(Tone::Warning, note)));
    }
    if !comparison.differences.is_empty() {
        text.push_str(&format!("\n{}\n", paper.paint(Tone::Strong, "DIFFERENCES")));
    }
    for line in &comparison.differences {
        text.push_str(&format!("{}\n", plain(line)));
    }
    text
}

fn nodes(told: &[Told]) -> Table {
    let mut table = Table::new(NODE_COLUMNS);
    for node in told {
        match &node.view {
            Ok(view) => {
                table.row(node_cells(&node.name, view));
                for reason in view.reasons.iter().filter(|_| !view.is_ready) {
                    table.line(&format!("  {reason}"), Tone::Bad);
                }
            }
            Err(error) => {
                let mut cells = vec![Cell::default(); NODE_COLUMNS.len()];
                cells[0] = (&node.name).into();
                cells[2] = Cell::toned("no answer", Tone::Bad);
                table.row(cells);
                table.line(&format!("  {error}"), Tone::Bad);
            }
        }
    }
    table
}

fn node_cells(name: &str, view: &View) -> Vec<Cell> {
    let tone = match view.standing() {
        "ready" => Tone::Good,
        "left" => Tone::Aside,
        "not ready" => Tone::Bad,
        _ => Tone::Warning,
    };
    let workers = view.workers.map(|workers| workers.to_string());
    vec![
        name.into(),
        (&view.version).into(),
        Cell::toned(view.standing(), tone),
        seconds(view.uptime_seconds).into(),
        workers.unwrap_or_default().into(),
        view.active.to_string().into(),
        view.total.to_string().into(),
    ]
}

fn servers(told: &[Told], comparison: &Comparison<'_>) -> Table {
    let mut columns = vec![
        Column::text("POOL/SERVER", Yield::Shrinks(14)),
        Column::text("ADDRESS", Yield::Goes(1)),
    ];
    let column = |node: &Told| Column::titled(&node.name, Yield::Shrinks(12));
    columns.extend(told.iter().map(column));
    let mut table = Table::new(&columns);
    for pool in &comparison.pools {
        table.line(pool.name, Tone::Strong);
        for row in &pool.rows {
            // Said once is enough.
            let address = if row.name == row.address {
                ""
            } else {
                row.address
            };
            let mut cells = vec![format!("  {}", row.name).into(), address.into()];
            cells.extend(row.seen.iter().map(|seen| seen_cell(row, seen)));
            table.row(cells);
        }
    }
    table
}

/// The state that a node has a server in, and its connections there.
fn seen_cell(row: &Row<'_>, seen: &Seen<'_>) -> Cell {
    let mark = if row.is_odd(seen) { ODD } else { "" };
    match seen {
        Seen::Silent => "?".into(),
        Seen::Missing => Cell::toned(&format!("{mark}missing"), Tone::Bad),
        Seen::There(server) => {
            let active = server.active.map(|active| format!(" {active}"));
            let text = format!("{mark}{}{}", server.state, active.unwrap_or_default());
            Cell::toned(&text, Tone::of_state(&server.state))
        }
    }
}

fn has_odd(comparison: &Comparison<'_>) -> bool {
    let mut rows = comparison.pools.iter().flat_map(|pool| &pool.rows);
    rows.any(|row| row.seen.iter().any(|seen| row.is_odd(seen)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::tests::example;

    fn told(name: &str, view: Result<Value, &str>) -> Told {
        Told {
            name: name.to_owned(),
            view: view.map(|status| View::of(&status)).map_err(str::to_owned),
        }
    }

    fn lines(told: &[Told]) -> Vec<String> {
        let shown = shown(told, Paper::default());
        shown.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_differs_stands_out_and_the_silent_stay_in_the_table() {
        let mut other = example();
        other["version"] = json!("0.2.0");
        other["ready"] = json!(false);
        other["not_ready"] = json!(["left: evenkeel leave was asked for"]);
        other["left"] = json!(true);
        other["config"]["differs"] = json!([]);
        other["pools"]["web"]["servers"]["a"]["state"] = json!("up");
        other["pools"]["web"]["servers"]["a"]["weight"] = json!(3);
        other["pools"]["web"]["servers"]["b"] = Value::Null;
        other["pools"]["web"]["servers"]
            .as_object_mut()
            .unwrap()
            .remove("b");
        other["pools"]["db"]["algorithm"] = json!("random");
        let nodes = [
            told("lb1", Ok(example())),
            told("lb2:80", Ok(other)),
            told("lb3", Err("no answer within 3 s\u{1b}[2J")),
        ];
        assert_eq!(
            lines(&nodes),
            [
                "NODE    VERSION  STATE         UP  WORKERS  ACTIVE  TOTAL",
                "lb1     0.1.0    ready      3h12m        2      83    812",
                "lb2:80  0.2.0    left       3h12m        2      83    812",
                "  left: evenkeel leave was asked for",
                "lb3              no answer",
                "  no answer within 3 s\\u{1b}[2J",
                "",
                "POOL/SERVER       ADDRESS         lb1            lb2:80     lb3",
                "web",
                "  b               127.0.0.1:9001  up 2           ! missing  ?",
                "  a               127.0.0.1:9002  ! draining 80  up 80      ?",
                "db",
                "  127.0.0.1:9003                  down 0         down 0     ?",
                "",
                "! is not as most of the nodes have it",
                "",
                "DIFFERENCES",
                "version: 0.1.0 on lb1; 0.2.0 on lb2:80",
                "server web/b: missing on lb2:80",
                "server web/a: weight: 1 on lb1; 3 on lb2:80",
                "pool db: algorithm: least_connections on lb1; random on lb2:80",
                "lb1: runs with 1 difference from its file",
            ]
        );
    }

    #[test]
    fn nodes_that_agree_are_told_without_remarks() {
        let mut plain = example();
        plain["config"]["differs"] = json!([]);
        let nodes = [told("a", Ok(plain.clone())), told("b", Ok(plain))];
        let lines = lines(&nodes);
        assert!(!lines.iter().any(|line| line.contains('!')), "{lines:#?}");
        assert!(!lines.iter().any(|line| line == "DIFFERENCES"));
        assert!(verdict(&nodes).is_ok());
    }

    #[test]
    fn a_silent_node_is_a_failure_in_one_line() {
        let one = [told("a", Ok(example())), told("b", Err("gone\n\u{1b}x"))];
        assert_eq!(verdict(&one).unwrap_err().to_string(), "b: gone\\n\\u{1b}x");
        let many = [
            told("a", Err("x")),
            told("b", Err("y")),
            told("c", Ok(example())),
        ];
        let text = verdict(&many).unwrap_err().to_string();
        assert!(
            text.starts_with("2 of 3 nodes have told nothing: a, b"),
            "{text}"
        );
        // Nothing but the nodes is left to show.
        assert!(!lines(&many[..2]).iter().any(|line| line.contains("POOL")));
    }

    #[test]
    fn as_json_each_stands_by_its_name_in_the_order_asked() {
        let nodes: Vec<Node> = ["lb2", "lb1", "lb2"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let nodes = distinct(&nodes);
        let answers = [Ok(json!({"version": "0.1.0"})), Err("gone".to_owned())];
        assert_eq!(
            as_json(&nodes, &answers).to_string(),
            "{\"nodes\":{\"lb2\":{\"version\":\"0.1.0\"},\"lb1\":{\"error\":\"gone\"}}}"
        );
    }
}
