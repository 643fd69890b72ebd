//! Tables and JSON as commands print them.

use comfy_table::{Table, presets};
use serde_json::Value;

use super::printable;

/// Columns under headings, without lines; blanks at the ends of lines are left out.
pub(crate) fn text<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Indented JSON; what is in it does not steer a terminal.
pub(crate) fn json(value: &Value) -> String {
    printable::json(&format!("{value:#}"))
}

/// The same on one line.
pub(crate) fn json_line(value: &Value) -> String {
    printable::json(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let rows = vec![["a".into(), "long value".into()], ["bcd".into(), String::new()]];
        assert_eq!(text(["X", "Y"], rows), "X    Y\na    long value\nbcd");
    }
}
