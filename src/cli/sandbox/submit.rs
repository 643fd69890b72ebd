//! `sandbox submit …`.

use serde_json::{Map, Value, json};

use super::args::{DiagnosticArgs, ShellExecArgs, SubmitCommon};
use super::outcome::{self, text};
use super::{client, team};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Outcome};
use crate::cli::table;
use crate::sandbox::AdminClient;
use crate::sandbox::client::NewJob;

/// `submit shell-exec`.
pub(super) async fn shell_exec(context: &Context, args: &ShellExecArgs) -> Outcome {
    let client = client(context, &args.submit.common).await?;
    let gateway = team::choose_gateway(&client, args.submit.gateway.as_deref()).await?;
    let resource = if let Some(id) = &args.resource_id {
        id.clone()
    } else {
        let (id, made) = team::remote_shell(&client, &gateway).await?;
        if made {
            context.ui.note(&format!("made the remote-shell resource {id} for the gateway"));
        }
        id
    };
    let mut job = shell_job(&gateway, &resource, &shell_line(&args.command), args.timeout_ms);
    if !args.secret_env.is_empty() {
        job.payload.insert("secret_env".to_owned(), secret_env(&args.secret_env));
    }
    submit(context, &client, &args.submit, &job).await
}

/// `submit diagnostic`.
pub(super) async fn diagnostic(context: &Context, args: &DiagnosticArgs) -> Outcome {
    let client = client(context, &args.submit.common).await?;
    let mut payload = Map::new();
    if args.validate {
        payload.insert("validate".to_owned(), json!(true));
    }
    let job = NewJob {
        gateway_id: args.submit.gateway.clone(),
        job_type: "diagnostic".to_owned(),
        payload,
        ..NewJob::default()
    };
    submit(context, &client, &args.submit, &job).await
}

/// A `shell_exec` job.
pub(super) fn shell_job(
    gateway: &str,
    resource: &str,
    command: &str,
    timeout_ms: Option<u64>,
) -> NewJob {
    let mut payload = Map::new();
    payload.insert("resource_id".to_owned(), json!(resource));
    payload.insert("command".to_owned(), json!(command));
    if let Some(limit) = timeout_ms {
        payload.insert("timeout_ms".to_owned(), json!(limit));
    }
    NewJob {
        gateway_id: Some(gateway.to_owned()),
        job_type: "shell_exec".to_owned(),
        payload,
        ..NewJob::default()
    }
}

/// Variables and the names of their secrets, as a job asks for them.
fn secret_env(pairs: &[(String, String)]) -> Value {
    pairs.iter().map(|(variable, secret)| (variable.clone(), json!(secret))).collect()
}

async fn submit(
    context: &Context,
    client: &AdminClient,
    args: &SubmitCommon,
    job: &NewJob,
) -> Outcome {
    let row = client.submit_job(job).await?;
    if args.wait {
        let row = outcome::follow(client, &context.ui, row).await?;
        return outcome::tell(&context.ui, &row, args.common.json);
    }
    print(context, args, &row)
}

/// Says that the job is queued.
pub(super) fn print(context: &Context, args: &SubmitCommon, row: &Value) -> Outcome {
    if args.common.json {
        context.ui.out(&table::json(row))?;
    } else {
        let id = text(row, "id");
        context.ui.out(&format!("Job {id} is {}.", text(row, "status")))?;
        context.ui.note(&format!("`panorama-gateway sandbox job {id} --follow` waits for it"));
    }
    Ok(Exit::Done)
}

/// One word is a line of shell already; several are quoted, so that they arrive as they were given.
fn shell_line(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

/// A word as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> String {
        shell_line(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_arrive_as_they_were_given() {
        assert_eq!(line(&["echo hello; exit 3"]), "echo hello; exit 3");
        assert_eq!(line(&["sh", "-c", "exit 3"]), "sh -c 'exit 3'");
        assert_eq!(line(&["echo", "it's", "", "$HOME"]), r"echo 'it'\''s' '' '$HOME'");
        assert_eq!(line(&["ls", "-l", "/tmp/a.txt"]), "ls -l /tmp/a.txt");
    }

    #[test]
    fn the_payload_of_a_shell_job() {
        let job = shell_job("g", "r", "true", Some(5));
        assert_eq!(
            Value::Object(job.payload),
            json!({"resource_id": "r", "command": "true", "timeout_ms": 5})
        );
        let pair = |variable: &str, secret: &str| (variable.to_owned(), secret.to_owned());
        assert_eq!(
            secret_env(&[pair("KEY", "deploy-key"), pair("TOKEN", "a=b")]),
            json!({"KEY": "deploy-key", "TOKEN": "a=b"})
        );
    }
}
