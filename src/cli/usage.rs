//! Errors of usage in the shape of all errors: one line what, one line what to do.

use clap::error::ErrorKind;

use super::failure::{Exit, Failure};
use super::ui::Ui;

/// Prints help, version or the error; says how to end.
pub(crate) fn show(error: &clap::Error, ui: &Ui) -> Exit {
    let kind = error.kind();
    if kind == ErrorKind::DisplayHelp {
        let _reader_is_gone = error.print();
        return Exit::Done;
    }
    if kind == ErrorKind::DisplayVersion {
        // Behind a command, clap would name that, too.
        let _reader_is_gone = ui.out(&format!("panorama-gateway {}", crate::VERSION));
        return Exit::Done;
    }
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _reader_is_gone = error.print();
        return Exit::Usage;
    }
    let failure = failure(&error.render().to_string());
    ui.err(&failure.render(false, ui.colour_on_stderr()));
    Exit::Usage
}

/// From clap's text: its first paragraph says what, its tips and its usage say what to do.
fn failure(text: &str) -> Failure {
    let first = text.split("\n\n").next().unwrap_or_default();
    let message = first.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let tips: Vec<_> =
        text.lines().filter_map(|line| line.trim_start().strip_prefix("tip: ")).collect();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let hint = match (tips.is_empty(), usage) {
        (false, _) => tips.join("; "),
        (true, Some(usage)) => format!("usage: {usage}; --help says more"),
        (true, None) => "--help says more".to_owned(),
    };
    Failure::usage(message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_of_claps_many() {
        let text = "error: unexpected argument '--forse' found\n\n  tip: a similar argument \
                    exists: '--force'\n\nUsage: panorama-gateway stop --force\n\nFor more ...\n";
        let failure = failure(text);
        assert_eq!(failure.message, "unexpected argument '--forse' found");
        assert_eq!(failure.hint.as_deref(), Some("a similar argument exists: '--force'"));
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn without_a_tip_the_usage_helps() {
        let text = "error: the following required arguments were not provided:\n  <CODE>\n\n\
                    Usage: panorama-gateway pair <CODE>\n";
        let failure = failure(text);
        assert_eq!(failure.message, "the following required arguments were not provided: <CODE>");
        assert_eq!(
            failure.hint.as_deref(),
            Some("usage: panorama-gateway pair <CODE>; --help says more")
        );
    }
}
