//! What the stand-in answers: read from control words in the last thing that the user said.
//!
//! Without control words it answers `echo: <what the user said>`, or the smallest instance of the
//! schema that was asked for with that text in its strings. Anywhere in the text:
//!
//! - `[[json {…}]]`: this object, by the CLI's tool for structured answers where it has one
//! - `[[jsontext {…}]]`: this object as plain text, even so
//! - `[[say TEXT]]`: this text
//! - `[[sleep S]]`: seconds before the first byte
//! - `[[hang]]`: never an answer
//! - `[[slow N]]`: a text in N pieces, 100 ms before each
//! - `[[drop]]`: half an answer, then the connection is cut
//! - `[[tool bash COMMAND]]`: a call of the CLI's shell tool; once its answer has come, the text of
//!   `[[say …]]`, else `tool said: <its answer>`. A text at once where the CLI offers no such tool
//! - `[[forcetool bash COMMAND]]`: the same, but for a CLI that offers no such tool as well
//! - `[[error CODE]]`, `[[error CODE N]]`: this HTTP status, always or for the first N requests;
//!   `[[error CODE N S]]`: with a `retry-after` of so many seconds
//! - `[[sticky]]`: whatever is said later, this text is the one that counts

use std::time::Duration;

use serde_json::{Map, Value, json};

const WORDS: [&str; 11] = [
    "json",
    "jsontext",
    "say",
    "sleep",
    "hang",
    "slow",
    "drop",
    "tool",
    "forcetool",
    "error",
    "sticky",
];

/// The tools that run commands, as CLIs name them.
const SHELLS: [&str; 5] = ["Bash", "exec_command", "shell_command", "shell", "run_shell_command"];

/// What a request says, whichever API it speaks.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// The last thing that the user said.
    pub(crate) user: String,
    /// What a tool answered after it.
    pub(crate) tool_said: Option<String>,
    /// The tools that the CLI offers.
    pub(crate) tools: Vec<String>,
    /// How a CLI of this API names its shell tool when it offers one.
    pub(crate) usual_shell: &'static str,
    /// The schema of the tool for structured answers, where the CLI has one.
    pub(crate) answer_tool: Option<Value>,
    /// The schema of the answer, where the API takes one.
    pub(crate) schema: Option<Value>,
    /// The API itself was given it.
    pub(crate) schema_by_api: bool,
}

impl Turn {
    /// The user said something more.
    pub(crate) fn said(&mut self, text: &str) {
        if !self.user.contains("[[sticky]]") {
            text.clone_into(&mut self.user);
            self.tool_said = None;
        }
    }

    /// A tool answered.
    pub(crate) fn tool_answered(&mut self, text: String) {
        if !self.user.contains("[[sticky]]") {
            self.tool_said = Some(text);
        }
    }

    fn after_tool(&self) -> bool {
        self.tool_said.is_some()
    }
}

/// What the model says.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Text(String),
    /// A call of a tool.
    Call {
        tool: String,
        input: Value,
    },
}

/// An HTTP error.
#[derive(Debug, PartialEq)]
pub(crate) struct Trouble {
    pub(crate) status: u16,
    /// For how many requests; `None`: for all.
    pub(crate) most: Option<usize>,
    /// Seconds, for the header.
    pub(crate) retry_after: Option<u32>,
}

/// What happens to a request.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) pause: Duration,
    pub(crate) hang: bool,
    pub(crate) cut: bool,
    /// In how many pieces a text comes, slowly.
    pub(crate) slow: Option<usize>,
    pub(crate) error: Option<Trouble>,
    pub(crate) answer: Answer,
}

impl Plan {
    pub(crate) fn of(turn: &Turn) -> Self {
        let word = |name| control(&turn.user, name);
        let error = word("error").map(|argument| {
            let mut numbers = argument.split_whitespace().map(|number| number.parse().unwrap());
            let status = u16::try_from(numbers.next().unwrap()).unwrap();
            let most = numbers.next().map(|most: u32| usize::try_from(most).unwrap());
            Trouble { status, most, retry_after: numbers.next() }
        });
        Self {
            pause: Duration::from_secs_f64(word("sleep").map_or(0.0, |text| text.parse().unwrap())),
            hang: word("hang").is_some(),
            cut: word("drop").is_some(),
            slow: word("slow").map(|text| text.parse().unwrap()),
            error,
            answer: answer(turn),
        }
    }
}

fn answer(turn: &Turn) -> Answer {
    let word = |name| control(&turn.user, name);
    if let Some(call) = shell_call(turn) {
        return call;
    }
    if let Some(text) = word("jsontext").or_else(|| word("say")) {
        return Answer::Text(text.to_owned());
    }
    let echo = format!("echo: {}", without_controls(&turn.user));
    let scripted = word("json").map(str::to_owned);
    if let Some(said) =
        turn.tool_said.as_ref().filter(|_| word("tool").or(word("forcetool")).is_some())
    {
        return Answer::Text(format!("tool said: {said}"));
    }
    match (&turn.answer_tool, &turn.schema) {
        (Some(_), _) if turn.after_tool() => Answer::Text("done".to_owned()),
        (Some(schema), _) => Answer::Call {
            tool: "StructuredOutput".to_owned(),
            input: match scripted {
                Some(text) => serde_json::from_str(&text).unwrap(),
                None => smallest(schema, &echo, schema),
            },
        },
        (None, Some(schema)) => {
            Answer::Text(scripted.unwrap_or_else(|| smallest(schema, &echo, schema).to_string()))
        }
        (None, None) => Answer::Text(scripted.unwrap_or(echo)),
    }
}

/// The call that was asked for, until a tool has answered.
fn shell_call(turn: &Turn) -> Option<Answer> {
    let forced = control(&turn.user, "forcetool");
    let asked = forced.or_else(|| control(&turn.user, "tool"))?;
    // A question with a schema of its own is one of the CLI's, not the user's.
    if turn.after_tool() || turn.schema_by_api {
        return None;
    }
    let command = asked.strip_prefix("bash ").expect("only the shell can be asked for");
    let offered = SHELLS.into_iter().find(|shell| turn.tools.iter().any(|tool| tool == shell));
    let Some(shell) = offered.or_else(|| forced.map(|_| turn.usual_shell)) else {
        return Some(Answer::Text(format!("no shell among {:?}", turn.tools)));
    };
    let input = match shell {
        "Bash" => json!({"command": command, "description": "run a command"}),
        "exec_command" => json!({"cmd": command}),
        "shell" => json!({"command": ["bash", "-lc", command]}),
        _ => json!({"command": command}),
    };
    Some(Answer::Call { tool: shell.to_owned(), input })
}

/// The argument of the first `[[name …]]`; empty without one.
fn control<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let open = format!("[[{name}");
    text.match_indices(&open).find_map(|(at, _)| {
        let rest = &text[at + open.len()..];
        let argument = match rest.chars().next()? {
            ']' => rest,
            space if space.is_whitespace() => rest.trim_start(),
            _ => return None,
        };
        Some(argument[..length(argument)?].trim())
    })
}

/// How long an argument is: to the end of its JSON, else to the closing brackets.
fn length(argument: &str) -> Option<usize> {
    let mut json = serde_json::Deserializer::from_str(argument).into_iter::<Map<String, Value>>();
    match json.next() {
        Some(Ok(_)) => Some(json.byte_offset()),
        _ => argument.find("]]"),
    }
}

fn without_controls(text: &str) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some(at) = WORDS.iter().filter_map(|word| rest.find(&format!("[[{word}"))).min() {
        left.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let argument =
            inner.trim_start_matches(|char: char| char.is_ascii_lowercase()).trim_start();
        let skipped = inner.len() - argument.len();
        let Some(end) = length(argument) else { break };
        rest = inner[skipped + end..].trim_start().trim_start_matches("]]");
    }
    left.push_str(rest);
    left.trim().to_owned()
}

/// A small instance of a JSON schema, with `text` in its strings.
fn smallest(schema: &Value, text: &str, root: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return smallest(target, text, root);
    }
    let first = |name: &str| schema[name].get(0).filter(|value| !value.is_null());
    if let Some(value) = schema.get("const").or_else(|| first("enum")) {
        return value.clone();
    }
    if let Some(inner) = ["anyOf", "oneOf", "allOf"].iter().find_map(|name| first(name)) {
        return smallest(inner, text, root);
    }
    let kind = schema["type"].get(0).unwrap_or(&schema["type"]);
    let kind =
        kind.as_str().unwrap_or(if schema["properties"].is_object() { "object" } else { "" });
    match kind.to_lowercase().as_str() {
        "object" => smallest_object(schema, text, root),
        "array" => {
            let length = schema["minItems"].as_u64().unwrap_or(0);
            (0..length).map(|_| smallest(&schema["items"], text, root)).collect()
        }
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or(json!(0)),
        "boolean" => json!(false),
        "null" => Value::Null,
        _ => {
            let most = schema["maxLength"].as_u64().unwrap_or(200);
            json!(text.chars().take(usize::try_from(most).unwrap()).collect::<String>())
        }
    }
}

fn smallest_object(schema: &Value, text: &str, root: &Value) -> Value {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let required: Vec<&str> = match schema["required"].as_array() {
        Some(names) => names.iter().filter_map(Value::as_str).collect(),
        None => properties.keys().map(String::as_str).collect(),
    };
    let value = |name: &str| match name {
        // The Gemini CLI's choice of a model takes 1 to 100, which its schema does not say.
        "complexity_score" => json!(50),
        _ => smallest(properties.get(name).unwrap_or(&Value::Null), text, root),
    };
    required.into_iter().map(|name| (name.to_owned(), value(name))).collect::<Map<_, _>>().into()
}

/// The first schema of an object that stands in a text: what the Gemini CLI, which takes none, is
/// told by its system text.
pub(crate) fn schema_in(text: &str) -> Option<Value> {
    text.match_indices('{').find_map(|(at, _)| {
        let mut json = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        json.next()?.ok().filter(|value| value["properties"].is_object())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(user: &str, schema: Option<Value>) -> Plan {
        Plan::of(&Turn { user: user.to_owned(), schema, ..Turn::default() })
    }

    #[test]
    fn control_words_are_read_and_taken_out() {
        assert_eq!(plan("hello", None).answer, Answer::Text("echo: hello".to_owned()));
        let said = plan("x [[say a b]] y", None);
        assert_eq!(said.answer, Answer::Text("a b".to_owned()));
        let json = plan(r#"[[json {"a":[[1]]}]]"#, None);
        assert_eq!(json.answer, Answer::Text(r#"{"a":[[1]]}"#.to_owned()));
        let plan = plan("a [[error 429 2 1]][[jsonx]] b [[hang]]", None);
        let trouble = Trouble { status: 429, most: Some(2), retry_after: Some(1) };
        assert_eq!((plan.error, plan.hang), (Some(trouble), true));
        assert_eq!(without_controls(r#"a [[json {"b":"]]"}]] c [[hang]]"#), "a  c");
    }

    #[test]
    fn a_shell_is_called_once_and_its_answer_told() {
        let shell = |offered: &[&str], said: Option<&str>, user: &str| {
            answer(&Turn {
                user: user.to_owned(),
                tools: offered.iter().map(|tool| (*tool).to_owned()).collect(),
                tool_said: said.map(str::to_owned),
                usual_shell: "exec_command",
                ..Turn::default()
            })
        };
        let call = |input: Value| Answer::Call { tool: "exec_command".to_owned(), input };
        let text = |text: &str| Answer::Text(text.to_owned());
        let touch = call(json!({"cmd": "touch a; [ -f a ] && ls"}));
        let asked = "[[tool bash touch a; [ -f a ] && ls]] x";
        assert_eq!(shell(&["view", "exec_command"], None, asked), touch);
        assert_eq!(shell(&["view"], None, asked), text(r#"no shell among ["view"]"#));
        assert_eq!(shell(&["exec_command"], Some("out"), asked), text("tool said: out"));
        let forced = "[[say well]] [[forcetool bash ls]]";
        assert_eq!(shell(&["view"], None, forced), call(json!({"cmd": "ls"})));
        assert_eq!(shell(&["view"], Some("no"), forced), text("well"));
    }

    #[test]
    fn a_schema_gets_its_smallest_instance() {
        let schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": ["string", "null"]}, "b": {"enum": [3, 4]}, "c": {"type": "integer"}}});
        let answer = plan("hi", Some(schema.clone())).answer;
        assert_eq!(answer, Answer::Text(r#"{"a":"echo: hi","b":3}"#.to_owned()));
        assert_eq!(schema_in(&format!("Answer {{strictly}} by {schema}.")), Some(schema));
    }
}
