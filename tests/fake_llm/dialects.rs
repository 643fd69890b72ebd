//! The three APIs: what their requests say, how their answers are written.

use std::ops::Range;

use serde_json::{Value, json};

use super::script::{Answer, Plan, Turn, schema_in};

/// Tokens that every answer is said to have cost.
const USED: (u32, u32) = (100, 20);

/// An API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `POST /v1/messages`.
    Anthropic,
    /// `POST /v1/responses`.
    OpenAi,
    /// `POST /v1beta/models/M:generateContent` and `:streamGenerateContent`.
    Gemini,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) enum Written {
    Json(Value),
    /// Events with their names, and where among them the pieces of the answer are.
    Events {
        events: Vec<(Option<&'static str>, Value)>,
        pieces: Range<usize>,
    },
}

impl Dialect {
    /// By the path of a request.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            _ if path.ends_with("/v1/messages") => Some(Self::Anthropic),
            _ if path.ends_with("/responses") => Some(Self::OpenAi),
            _ if path.ends_with(":generateContent") => Some(Self::Gemini),
            _ if path.ends_with(":streamGenerateContent") => Some(Self::Gemini),
            _ => None,
        }
    }

    pub(crate) fn turn(self, body: &Value) -> Turn {
        match self {
            Self::Anthropic => anthropic_turn(body),
            Self::OpenAi => openai_turn(body),
            Self::Gemini => gemini_turn(body),
        }
    }

    /// The answer to the request `number`.
    pub(crate) fn write(self, path: &str, body: &Value, plan: &Plan, number: usize) -> Written {
        let streams = body["stream"] == true || path.ends_with(":streamGenerateContent");
        match self {
            Self::Anthropic => anthropic(body, plan, number, streams),
            Self::OpenAi => openai(body, plan, number, streams),
            Self::Gemini => gemini(path, plan, number, streams),
        }
    }

    /// The body of an HTTP error.
    pub(crate) fn error(self, status: u16) -> Value {
        let message = format!("fake error {status}");
        let name = |names: [&'static str; 4]| match status {
            401 => names[0],
            429 => names[1],
            500.. => names[2],
            _ => names[3],
        };
        match self {
            Self::Anthropic => {
                let kind = name([
                    "authentication_error",
                    "rate_limit_error",
                    "api_error",
                    "invalid_request_error",
                ]);
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
            Self::OpenAi => {
                let kind = name([
                    "invalid_api_key",
                    "rate_limit_exceeded",
                    "server_error",
                    "invalid_request_error",
                ]);
                json!({"error": {"message": message, "type": kind, "param": null, "code": kind}})
            }
            Self::Gemini => {
                let kind =
                    name(["UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "INTERNAL", "INVALID_ARGUMENT"]);
                json!({"error": {"code": status, "message": message, "status": kind}})
            }
        }
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The blocks of a message, which may be a plain text.
fn blocks(content: &Value) -> Vec<Value> {
    match content.as_str() {
        Some(text) => vec![json!({"type": "text", "text": text})],
        None => array(content).to_vec(),
    }
}

/// The texts of a message, put together.
fn text_of(content: &Value) -> String {
    blocks(content).iter().filter_map(|block| block["text"].as_str()).collect()
}

/// The names of tools; those that the API itself has are named by their type.
fn names(tools: &[Value]) -> Vec<String> {
    let name = |tool: &Value| tool["name"].as_str().or(tool["type"].as_str()).map(str::to_owned);
    tools.iter().filter_map(name).collect()
}

/// What a CLI adds in the user's name.
fn is_added(text: &str) -> bool {
    const STARTS: [&str; 7] = [
        "<system-reminder>",
        "<environment_context>",
        "<user_instructions>",
        "<permissions",
        "# AGENTS.md",
        "<skills",
        "<session_context>",
    ];
    STARTS.iter().any(|start| text.trim_start().starts_with(start))
}

fn anthropic_turn(body: &Value) -> Turn {
    let mut turn = Turn { usual_shell: "Bash", ..Turn::default() };
    for message in array(&body["messages"]).iter().filter(|message| message["role"] == "user") {
        for block in blocks(&message["content"]) {
            match (block["type"].as_str(), block["text"].as_str()) {
                (Some("text"), Some(text)) if !is_added(text) => turn.said(text),
                (Some("tool_result"), _) => turn.tool_answered(text_of(&block["content"])),
                _ => {}
            }
        }
    }
    let answers = |tool: &&Value| tool["name"] == "StructuredOutput";
    let tools = array(&body["tools"]);
    turn.tools = names(tools);
    let tool = tools.iter().find(answers);
    turn.answer_tool = tool.map(|tool| tool["input_schema"].clone());
    turn
}

fn openai_turn(body: &Value) -> Turn {
    let mut turn = Turn { usual_shell: "exec_command", ..Turn::default() };
    for item in array(&body["input"]) {
        if item["type"].as_str().is_some_and(|kind| kind.ends_with("_call_output")) {
            turn.tool_answered(text_of(&item["output"]));
        } else if item["role"] == "user" {
            let text = text_of(&item["content"]);
            if !is_added(&text) {
                turn.said(&text);
            }
        }
    }
    let format = &body["text"]["format"];
    turn.schema = (format["type"] == "json_schema").then(|| format["schema"].clone());
    turn.tools = names(array(&body["tools"]));
    turn
}

fn gemini_turn(body: &Value) -> Turn {
    let mut turn = Turn { usual_shell: "run_shell_command", ..Turn::default() };
    for content in array(&body["contents"]).iter().filter(|content| content["role"] != "model") {
        for part in array(&content["parts"]) {
            match part["text"].as_str() {
                Some(text) if !is_added(text) => turn.said(text),
                Some(_) => {}
                None => {
                    let answer = &part["functionResponse"]["response"];
                    if answer.is_object() {
                        let said = answer["output"].as_str().or(answer["error"].as_str());
                        turn.tool_answered(said.map_or(answer.to_string(), str::to_owned));
                    }
                }
            }
        }
    }
    let config = &body["generationConfig"];
    let given =
        ["responseJsonSchema", "responseSchema"].into_iter().find_map(|name| config.get(name));
    let told = || {
        let parts = array(&body["systemInstruction"]["parts"]).iter();
        schema_in(&parts.filter_map(|part| part["text"].as_str()).collect::<String>())
    };
    turn.schema_by_api = given.is_some();
    turn.schema = given.cloned().or_else(told);
    let lists = array(&body["tools"]).iter().map(|list| &list["functionDeclarations"]);
    turn.tools = lists.flat_map(|list| names(array(list))).collect();
    turn
}

/// A text in pieces, as models send it: in so many, else in two or more.
fn pieces(text: &str, count: Option<usize>) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let size = match count {
        Some(count) => chars.len().div_ceil(count).max(1),
        None => chars.len().div_ceil(2).clamp(1, 4000),
    };
    chars.chunks(size).map(|piece| piece.iter().collect()).collect()
}

fn anthropic(body: &Value, plan: &Plan, number: usize, streams: bool) -> Written {
    let (input, output) = USED;
    let (block, empty, deltas, stop) = match &plan.answer {
        Answer::Text(text) => (
            json!({"type": "text", "text": text}),
            json!({"type": "text", "text": ""}),
            pieces(text, plan.slow)
                .iter()
                .map(|text| json!({"type": "text_delta", "text": text}))
                .collect(),
            "end_turn",
        ),
        Answer::Call { tool, input } => {
            let call = |input: &Value| {
                let id = format!("toolu_{number}");
                json!({"type": "tool_use", "id": id, "name": tool, "input": input})
            };
            let delta = json!({"type": "input_json_delta", "partial_json": input.to_string()});
            (call(input), call(&json!({})), vec![delta], "tool_use")
        }
    };
    let usage = |output: u32| json!({"input_tokens": input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": output});
    let message = |content: Value, stop: Option<&str>, output: u32| {
        json!({
            "id": format!("msg_{number}"), "type": "message", "role": "assistant",
            "model": body["model"], "content": content, "stop_reason": stop,
            "stop_sequence": null, "usage": usage(output),
        })
    };
    if !streams {
        return Written::Json(message(json!([block]), Some(stop), output));
    }
    let start = json!({"message": message(json!([]), None, 1)});
    let delta =
        json!({"delta": {"stop_reason": stop, "stop_sequence": null}, "usage": usage(output)});
    let mut events = vec![
        ("message_start", start),
        ("content_block_start", json!({"index": 0, "content_block": empty})),
    ];
    let block = |delta: &Value| ("content_block_delta", json!({"index": 0, "delta": delta}));
    events.extend(deltas.iter().map(block));
    events.push(("content_block_stop", json!({"index": 0})));
    events.push(("message_delta", delta));
    events.push(("message_stop", json!({})));
    named(events, 2..2 + deltas.len())
}

/// Events that carry their names inside as well.
fn named(events: Vec<(&'static str, Value)>, pieces: Range<usize>) -> Written {
    let event = |(name, mut data): (&'static str, Value)| {
        data["type"] = name.into();
        (Some(name), data)
    };
    Written::Events { events: events.into_iter().map(event).collect(), pieces }
}

fn openai(body: &Value, plan: &Plan, number: usize, streams: bool) -> Written {
    let (input, output) = USED;
    let (whole, steps, count) = match &plan.answer {
        Answer::Text(text) => openai_text(text, plan.slow, number),
        Answer::Call { tool, input } => openai_call(tool, input, number),
    };
    let response = |status: &str, output: Value| {
        json!({
            "id": format!("resp_{number}"), "object": "response", "created_at": 1,
            "status": status, "model": body["model"], "output": output,
        })
    };
    let mut done = response("completed", json!([whole]));
    done["usage"] = json!({
        "input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input + output,
    });
    if !streams {
        return Written::Json(done);
    }
    let start = response("in_progress", json!([]));
    let mut events = vec![("response.created", json!({"response": start}))];
    events.extend(steps);
    events.push(("response.output_item.done", json!({"output_index": 0, "item": whole})));
    events.push(("response.completed", json!({"response": done})));
    for (number, (_, data)) in events.iter_mut().enumerate() {
        data["sequence_number"] = number.into();
    }
    // After the start of the response, of the item, and of its part.
    named(events, 3..3 + count)
}

/// An item, the events of its coming, and how many pieces are among them.
type Coming = (Value, Vec<(&'static str, Value)>, usize);

fn openai_text(text: &str, slow: Option<usize>, number: usize) -> Coming {
    let id = format!("msg_{number}");
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let item = |status: &str, content: Value| json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": content});
    let here = |mut data: Value| {
        data["item_id"] = id.clone().into();
        data["output_index"] = 0.into();
        data["content_index"] = 0.into();
        data
    };
    let start = json!({"output_index": 0, "item": item("in_progress", json!([]))});
    let mut events = vec![
        ("response.output_item.added", start),
        ("response.content_part.added", here(json!({"part": part("")}))),
    ];
    let pieces = pieces(text, slow);
    let delta = |text: &String| ("response.output_text.delta", here(json!({"delta": text})));
    events.extend(pieces.iter().map(delta));
    events.push(("response.output_text.done", here(json!({"text": text}))));
    events.push(("response.content_part.done", here(json!({"part": part(text)}))));
    (item("completed", json!([part(text)])), events, pieces.len())
}

fn openai_call(tool: &str, input: &Value, number: usize) -> Coming {
    let id = format!("fc_{number}");
    let item = |status: &str, arguments: &str| {
        json!({
            "type": "function_call", "id": id, "status": status,
            "call_id": format!("call_{number}"), "name": tool, "arguments": arguments,
        })
    };
    let arguments = input.to_string();
    let here = |name: &str| json!({"item_id": id, "output_index": 0, name: arguments});
    let start = json!({"output_index": 0, "item": item("in_progress", "")});
    let events = vec![
        ("response.output_item.added", start),
        ("response.function_call_arguments.delta", here("delta")),
        ("response.function_call_arguments.done", here("arguments")),
    ];
    (item("completed", &arguments), events, 1)
}

fn gemini(path: &str, plan: &Plan, number: usize, streams: bool) -> Written {
    let (input, output) = USED;
    let model = path.rsplit('/').next().and_then(|name| name.split(':').next());
    let chunk = |part: &Value, last: bool| {
        let mut chunk = json!({
            "candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}],
            "modelVersion": model, "responseId": format!("fake-{number}"),
            "usageMetadata": {"promptTokenCount": input, "totalTokenCount": input},
        });
        if last {
            chunk["candidates"][0]["finishReason"] = "STOP".into();
            chunk["usageMetadata"]["candidatesTokenCount"] = output.into();
            chunk["usageMetadata"]["totalTokenCount"] = (input + output).into();
        }
        chunk
    };
    let (whole, parts) = match &plan.answer {
        Answer::Text(text) => {
            let part = |text: &String| json!({"text": text});
            (part(text), pieces(text, plan.slow).iter().map(part).collect())
        }
        Answer::Call { tool, input } => {
            let part = json!({"functionCall": {"name": tool, "args": input}});
            (part.clone(), vec![part])
        }
    };
    if !streams {
        return Written::Json(chunk(&whole, true));
    }
    let last = parts.len().saturating_sub(1);
    let events = parts.iter().enumerate().map(|(at, part)| (None, chunk(part, at == last)));
    Written::Events { events: events.collect(), pieces: 0..parts.len() }
}
