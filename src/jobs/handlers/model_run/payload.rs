//! What a `model_run` asks for. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::providers::{Effort, Format, ModelRequest, ProviderId, schema};

const DEFAULT_LIMIT: Duration = Duration::from_secs(110);
/// As a model's name: whichever the CLI takes by itself.
const DEFAULT_MODEL: &str = "__default__";

/// A checked payload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) provider: ProviderId,
    pub(super) request: ModelRequest,
}

/// Reads a payload; the error says what is wrong with it.
pub(super) fn parse(payload: &Map<String, Value>) -> Result<Asked, String> {
    let prompt = text(payload, "prompt").ok_or("prompt is missing")?;
    let model = text(payload, "model").ok_or("model is missing")?;
    Ok(Asked {
        provider: ProviderId::of_request(text(payload, "provider"), model),
        request: ModelRequest {
            prompt: prompt.to_owned(),
            model: (model != DEFAULT_MODEL).then(|| model.to_owned()),
            format: format(payload)?,
            system: text(payload, "append_system_prompt").map(str::to_owned),
            effort: text(payload, "reasoning_effort").and_then(effort),
            time_limit: limit(payload.get("timeout_ms")),
        },
    })
}

/// A text that says something, as it came.
fn text<'a>(payload: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    payload.get(name)?.as_str().filter(|text| !text.trim().is_empty())
}

fn format(payload: &Map<String, Value>) -> Result<Format, String> {
    if text(payload, "output_format") == Some("text") {
        return Ok(Format::Text);
    }
    match payload.get("json_schema") {
        None | Some(Value::Null) => {
            Err("json_schema is missing (only output_format \"text\" needs none)".to_owned())
        }
        Some(given @ Value::Object(schema)) => {
            // What a CLI would refuse or, worse, ignore.
            schema::check(given).map_err(|error| error.to_string())?;
            Ok(Format::Json { schema: schema.clone() })
        }
        Some(_) => Err("json_schema is not a JSON object".to_owned()),
    }
}

fn effort(word: &str) -> Option<Effort> {
    [Effort::Low, Effort::Medium, Effort::High].into_iter().find(|effort| effort.as_str() == word)
}

/// A positive number of milliseconds, else the default; parts of one count as one.
fn limit(value: Option<&Value>) -> Duration {
    let millis = value.and_then(Value::as_f64).filter(|millis| *millis > 0.0);
    millis
        .and_then(|millis| Duration::try_from_secs_f64((millis / 1_000.0).max(0.001)).ok())
        .unwrap_or(DEFAULT_LIMIT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(payload: &Value) -> Result<Asked, String> {
        parse(payload.as_object().unwrap())
    }

    #[test]
    fn all_fields() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let asked = parsed(&json!({
            "prompt": " hi\n", "model": "openai/gpt-9", "json_schema": schema,
            "append_system_prompt": "Be brief.", "reasoning_effort": "high", "timeout_ms": 5000,
        }));
        assert_eq!(
            asked,
            Ok(Asked {
                provider: ProviderId::Codex,
                request: ModelRequest {
                    prompt: " hi\n".to_owned(),
                    model: Some("openai/gpt-9".to_owned()),
                    format: Format::Json { schema: schema.as_object().unwrap().clone() },
                    system: Some("Be brief.".to_owned()),
                    effort: Some(Effort::High),
                    time_limit: Duration::from_secs(5),
                },
            })
        );
    }

    #[test]
    fn the_least_that_works() {
        let asked =
            parsed(&json!({"prompt": "hi", "model": "__default__", "output_format": "text"}));
        let asked = asked.unwrap();
        assert_eq!((asked.provider, asked.request.model), (ProviderId::ClaudeCode, None));
        assert_eq!(asked.request.format, Format::Text);
        assert_eq!((asked.request.system, asked.request.effort), (None, None));
        assert_eq!(asked.request.time_limit, Duration::from_secs(110));
    }

    #[test]
    fn the_provider_is_named_or_follows_from_the_model() {
        for (provider, model, id) in [
            (json!("gemini"), "gpt-5", ProviderId::Gemini),
            (json!("claude_code"), "gpt-5", ProviderId::ClaudeCode),
            (json!("mistral"), "gpt-5", ProviderId::Codex),
            (json!(null), "gemini-3", ProviderId::Gemini),
            (json!(7), "sonnet", ProviderId::ClaudeCode),
        ] {
            let payload = json!({
                "prompt": "hi", "model": model, "output_format": "text", "provider": provider,
            });
            assert_eq!(parsed(&payload).unwrap().provider, id, "{payload}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let schema = json!({"type": "object"});
        for (payload, word) in [
            (json!({"model": "m", "json_schema": schema}), "prompt is missing"),
            (json!({"prompt": " \n", "model": "m", "json_schema": schema}), "prompt is missing"),
            (json!({"prompt": ["hi"], "model": "m", "json_schema": schema}), "prompt is missing"),
            (json!({"prompt": "hi", "json_schema": schema}), "model is missing"),
            (json!({"prompt": "hi", "model": "m"}), "json_schema is missing"),
            (json!({"prompt": "hi", "model": "m", "json_schema": null}), "json_schema is missing"),
            (
                json!({"prompt": "hi", "model": "m", "output_format": "xml"}),
                "json_schema is missing",
            ),
            (json!({"prompt": "hi", "model": "m", "json_schema": "{}"}), "not a JSON object"),
            (json!({"prompt": "hi", "model": "m", "json_schema": []}), "not a JSON object"),
            (
                json!({"prompt": "hi", "model": "m", "json_schema": {"type": "array"}}),
                "must ask for an object",
            ),
        ] {
            let message = parsed(&payload).unwrap_err();
            assert!(message.contains(word), "{payload}: {message}");
        }
    }

    #[test]
    fn time_limits_are_positive() {
        for (value, millis) in [
            (json!(1500), 1_500),
            (json!(0.2), 1),
            (json!(0), 110_000),
            (json!(-1), 110_000),
            (json!("5000"), 110_000),
            (json!(1e300), 110_000),
            (json!(null), 110_000),
        ] {
            assert_eq!(limit(Some(&value)), Duration::from_millis(millis), "{value}");
        }
    }
}
