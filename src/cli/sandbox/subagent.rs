//! `sandbox submit subagent`.

use serde_json::{Map, Value, json};

use super::args::SubagentArgs;
use super::outcome::{self, text};
use super::{client, follow, model_run, submit};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::{printable, table};
use crate::providers::ProviderId;
use crate::sandbox::client::{NewRun, NewSubagent};

/// Starts a subagent or goes on with one; shows the conversation or waits for the answer when asked
/// to.
pub(super) async fn submit(context: &Context, args: &SubagentArgs) -> Outcome {
    let prompt = model_run::prompt(args.prompt.as_deref())?;
    let client = client(context, &args.submit.common).await?;
    let started = if let Some(id) = &args.continued {
        client.continue_subagent(id, &NewRun { prompt, config: config(args) }).await?
    } else {
        let provider = args.kind.unwrap_or(ProviderId::ClaudeCode);
        let subagent = NewSubagent {
            gateway_id: args.submit.gateway.clone(),
            subagent_type: format!("{}_gateway", provider.as_str()),
            prompt,
            config: config(args),
        };
        client.create_subagent(&subagent).await?
    };
    let (subagent, run_id) = (text(&started.subagent, "id"), text(&started.run, "id"));
    let common = &args.submit.common;
    if !common.json {
        let number = &started.run["run_sequence"];
        context.ui.note(&format!("Subagent {subagent}, run {number}."));
    }
    if args.follow {
        return follow::conversation(context, &client, started.job, run_id, common).await;
    }
    if args.submit.wait {
        let job = outcome::follow(&client, &context.ui, started.job).await?;
        return tell(context, &job, common.json);
    }
    submit::print(context, &args.submit, &started.job)
}

/// Only what was asked for: the rest is the gateway's, or stays as it was.
fn config(args: &SubagentArgs) -> Map<String, Value> {
    let text = |given: &Option<String>| given.as_ref().map(|text| json!(text));
    [
        ("model", text(&args.model)),
        ("full_control", args.full_control.then(|| json!(true))),
        ("output_format", text(&args.output_format)),
        ("allowed_tools", (!args.allowed_tools.is_empty()).then(|| json!(args.allowed_tools))),
        ("append_system_prompt", text(&args.system)),
        ("timeout_ms", args.timeout_ms.map(|limit| json!(limit))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// Prints the answer: a text as it is, anything else as JSON; with `--json` the whole row.
fn tell(context: &Context, job: &Value, json: bool) -> Outcome {
    let exit = follow::exit(job, None);
    if json {
        context.ui.out(&table::json(job))?;
        return Ok(exit);
    }
    if exit != Exit::Done {
        return Err(follow::no_answer(job, exit));
    }
    let answer = &job["result"]["output"]["content"];
    let shown = answer.as_str().map_or_else(|| table::json(answer), printable::lines);
    context.ui.out(&shown)?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SubagentArgs,
    }

    fn parse(words: &[&str]) -> Result<SubagentArgs, clap::Error> {
        Line::try_parse_from([&["x"], words].concat()).map(|line| line.args)
    }

    #[test]
    fn options_become_the_config() {
        let args = parse(&["Do it."]).unwrap();
        assert_eq!(Value::Object(config(&args)), json!({}));
        assert_eq!((args.kind, args.prompt.as_deref()), (None, Some("Do it.")));
        let args = parse(&[
            "--type",
            "gemini",
            "--model",
            "pro",
            "--full-control",
            "--output-format",
            "stream-json",
            "--allowed-tools",
            "Bash,Read",
            "--system",
            "Be brief.",
            "--timeout",
            "5000",
            "-",
        ])
        .unwrap();
        assert_eq!(args.kind, Some(ProviderId::Gemini));
        assert_eq!(
            Value::Object(config(&args)),
            json!({
                "model": "pro", "full_control": true, "output_format": "stream-json",
                "allowed_tools": ["Bash", "Read"], "append_system_prompt": "Be brief.",
                "timeout_ms": 5000,
            })
        );
    }

    #[test]
    fn a_subagent_that_goes_on_keeps_its_type_and_gateway() {
        assert!(parse(&["--continue", "s", "Go on."]).is_ok());
        assert!(parse(&["--continue", "s", "--type", "codex", "Go on."]).is_err());
        assert!(parse(&["--continue", "s", "--gateway", "g", "Go on."]).is_err());
        assert!(parse(&["--wait", "--follow", "Go on."]).is_err());
        assert!(parse(&["--output-format", "xml", "Go on."]).is_err());
    }
}
