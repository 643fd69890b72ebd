//! `sandbox submit model-run`.

use std::io::Read;

use serde_json::{Map, Value, json};

use super::args::ModelRunArgs;
use super::outcome::{self, text};
use super::{client, submit};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::table;
use crate::model::JobStatus;
use crate::sandbox::client::NewJob;

/// More than a control plane takes as a payload.
const LONGEST_INPUT: u64 = 16 << 20;

/// Submits the job, and waits for the answer when asked to.
pub(super) async fn submit(context: &Context, args: &ModelRunArgs) -> Outcome {
    let prompt = prompt(args.prompt.as_deref())?;
    let schema = args.schema.as_deref().map(schema).transpose()?;
    let client = client(context, &args.submit.common).await?;
    let job = NewJob {
        gateway_id: args.submit.gateway.clone(),
        job_type: "model_run".to_owned(),
        payload: payload(args, &prompt, schema),
        ..NewJob::default()
    };
    let row = client.submit_job(&job).await?;
    if !args.submit.wait {
        return submit::print(context, &args.submit, &row);
    }
    let row = outcome::follow(&client, &context.ui, row).await?;
    tell(context, args, &row)
}

fn payload(args: &ModelRunArgs, prompt: &str, schema: Option<Value>) -> Map<String, Value> {
    let mut payload = Map::new();
    let mut set = |name: &str, value: Value| {
        payload.insert(name.to_owned(), value);
    };
    set("prompt", json!(prompt));
    set("model", json!(args.model));
    match schema {
        Some(schema) => set("json_schema", schema),
        None => set("output_format", json!("text")),
    }
    for (name, value) in [
        ("provider", args.provider.map(|id| json!(id.as_str()))),
        ("append_system_prompt", args.system.as_ref().map(|text| json!(text))),
        ("reasoning_effort", args.effort.as_ref().map(|word| json!(word))),
        ("timeout_ms", args.timeout_ms.map(|limit| json!(limit))),
    ] {
        if let Some(value) = value {
            set(name, value);
        }
    }
    payload
}

/// The prompt that was given, else what comes on stdin.
pub(super) fn prompt(given: Option<&str>) -> Result<String, Failure> {
    let prompt = match given {
        Some("-") | None => {
            let mut text = String::new();
            std::io::stdin().lock().take(LONGEST_INPUT).read_to_string(&mut text).map_err(
                |error| Failure::new("could not read the prompt").cause(error.to_string()),
            )?;
            text
        }
        Some(prompt) => prompt.to_owned(),
    };
    if prompt.trim().is_empty() {
        return Err(Failure::usage("there is no prompt").hint("give it as an argument or on stdin"));
    }
    Ok(prompt)
}

/// What begins with a brace is the schema itself, everything else names its file.
fn schema(given: &str) -> Result<Value, Failure> {
    let wrong = |error: serde_json::Error| {
        Failure::usage("the schema is not a JSON object").cause(error.to_string())
    };
    if given.trim_start().starts_with('{') {
        return serde_json::from_str::<Map<String, Value>>(given).map(Value::Object).map_err(wrong);
    }
    let mut contents = Vec::new();
    std::fs::File::open(given)
        .and_then(|file| file.take(LONGEST_INPUT).read_to_end(&mut contents))
        .map_err(|error| {
            Failure::usage(format!("could not read the schema {given}")).cause(error.to_string())
        })?;
    serde_json::from_slice::<Map<String, Value>>(&contents).map(Value::Object).map_err(wrong)
}

/// Prints the answer: a text as it is, an object as JSON; with `--json` the whole row.
fn tell(context: &Context, args: &ModelRunArgs, job: &Value) -> Outcome {
    let completed = job["status"] == JobStatus::Completed.as_str();
    if args.submit.common.json {
        context.ui.out(&table::json(job))?;
        return Ok(if completed { Exit::Done } else { Exit::Failed });
    }
    if !completed {
        return Err(outcome::no_result(job));
    }
    let result = &job["result"];
    for error in result["schema_errors"].as_array().into_iter().flatten() {
        let (path, message) = (text(error, "path"), text(error, "message"));
        context.ui.warn(&format!("the answer does not match the schema at {path:?}: {message}"));
    }
    if args.schema.is_none() {
        context.ui.out(text(&result["output"], "text"))?;
    } else {
        context.ui.out(&table::json(&result["output"]))?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ModelRunArgs,
    }

    fn payload_of(words: &[&str]) -> Value {
        let line = Line::parse_from([&["x"], words].concat());
        let schema = line.args.schema.as_deref().map(|given| schema(given).unwrap());
        Value::Object(payload(&line.args, &prompt(line.args.prompt.as_deref()).unwrap(), schema))
    }

    #[test]
    fn options_become_the_payload() {
        assert_eq!(
            payload_of(&["Say hi."]),
            json!({"prompt": "Say hi.", "model": "__default__", "output_format": "text"})
        );
        let words = [
            "--model",
            "gpt-9",
            "--provider",
            "claude",
            "--schema",
            r#"{"type": "object"}"#,
            "--system",
            "Be brief.",
            "--effort",
            "low",
            "--timeout",
            "5000",
            "Say hi.",
        ];
        assert_eq!(
            payload_of(&words),
            json!({
                "prompt": "Say hi.", "model": "gpt-9", "provider": "claude_code",
                "json_schema": {"type": "object"}, "append_system_prompt": "Be brief.",
                "reasoning_effort": "low", "timeout_ms": 5000,
            })
        );
    }

    #[test]
    fn a_schema_may_stand_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("schema.json");
        std::fs::write(&file, r#"{"type": "object"}"#).unwrap();
        assert_eq!(schema(file.to_str().unwrap()).unwrap(), json!({"type": "object"}));
        std::fs::write(&file, "[]").unwrap();
        assert!(schema(file.to_str().unwrap()).is_err());
        assert!(schema("{").is_err());
        assert!(schema("/nowhere").is_err());
    }
}
