//! `completions`.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::context::Context;
use super::failure::{Exit, Outcome};

/// Runs the command.
pub(crate) fn run(context: &Context, args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "panorama-gateway", &mut script);
    context.ui.out_raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
