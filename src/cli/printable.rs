//! Text of jobs, agents and backends, so that it does not steer the reader's terminal.

/// Escapes what moves the cursor, changes modes or reorders text: C0 but for tabs, DEL, C1, and the
/// controls that open or close a run of another direction. A line end is escaped too.
pub(crate) fn line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && c != '\t' { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The same for several lines; each ends as it did, with or without a carriage return.
pub(crate) fn lines(text: &str) -> String {
    let all: Vec<_> = text.split('\n').map(|each| line(without_return(each))).collect();
    all.join("\n")
}

/// A line without the carriage return of a line end of Windows.
pub(crate) fn without_return(line: &str) -> &str {
    line.strip_suffix('\r').unwrap_or(line)
}

/// JSON with the same characters as escapes: it reads as before.
pub(crate) fn json(text: &str) -> String {
    use std::fmt::Write as _;
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Line ends are layout: inside of strings they are escapes already.
        if steers(c) && c != '\n' {
            let _infallible = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_instead() {
        for (given, shown) in [
            ("plain, \tgrün 🙂", "plain, \tgrün 🙂"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("50%\r100%", "50%\\r100%"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("user\u{202e}txt.exe\u{2066}", "user\\u{202e}txt.exe\\u{2066}"),
            ("a\nb", "a\\nb"),
        ] {
            assert_eq!(line(given), shown);
        }
        assert_eq!(lines("a\r\nb\u{8}\n"), "a\nb\\u{8}\n");
    }

    proptest! {
        #[test]
        fn nothing_that_steers_gets_through(text in any::<String>()) {
            prop_assert!(!line(&text).chars().any(|c| steers(c) && c != '\t'));
            prop_assert!(!lines(&text).chars().any(|c| steers(c) && c != '\t' && c != '\n'));
        }

        #[test]
        fn json_reads_as_before(text in any::<String>(), control in prop::char::range('\0', '\u{9f}')) {
            let value = json!({"x": [format!("{text}{control}\u{202e}")]});
            for written in [value.to_string(), format!("{value:#}")] {
                let shown = json(&written);
                prop_assert!(!shown.chars().any(|c| steers(c) && c != '\n'));
                prop_assert_eq!(&serde_json::from_str::<Value>(&shown).unwrap(), &value);
            }
        }
    }
}
