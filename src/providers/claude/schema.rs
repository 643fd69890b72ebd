//! Which JSON schemas Claude Code takes: it ignores silently what it cannot use, and then answers
//! without a schema, so that must be found before.

use serde_json::{Map, Value, json};

use crate::providers::PlanError;

const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];
/// Keywords that hold one schema.
const ONE: [&str; 8] =
    ["additionalProperties", "items", "contains", "not", "propertyNames", "if", "then", "else"];
/// Keywords that hold a list of schemas.
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords that hold schemas by name.
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// The schema as it is sent: its top level says that it is an object.
pub(super) fn sent(schema: &Map<String, Value>) -> Result<Map<String, Value>, PlanError> {
    check(schema, "json_schema")?;
    let may_be_object = match schema.get("type") {
        None => true,
        Some(Value::Array(types)) => types.contains(&json!("object")),
        Some(kind) => kind == "object",
    };
    if !may_be_object {
        return Err(PlanError("json_schema must describe an object".to_owned()));
    }
    let mut sent = schema.clone();
    sent.insert("type".to_owned(), json!("object"));
    Ok(sent)
}

/// Deep only as far as parsed JSON can be.
fn check(schema: &Map<String, Value>, at: &str) -> Result<(), PlanError> {
    let wrong =
        |keyword: &str, wanted: &str| Err(PlanError(format!("{at}.{keyword} is not {wanted}")));
    if schema.get("type").is_some_and(|kind| !is_type(kind)) {
        return wrong("type", "a type of JSON schema");
    }
    if schema.get("required").is_some_and(|names| !is_names(names)) {
        return wrong("required", "a list of names");
    }
    if schema.get("enum").is_some_and(|values| !values.is_array()) {
        return wrong("enum", "a list");
    }
    for keyword in ONE {
        match schema.get(keyword) {
            // Drafts before 2020 have lists of schemas here.
            Some(Value::Array(items)) if keyword == "items" => check_all(items, at, keyword)?,
            Some(value) => check_value(value, &format!("{at}.{keyword}"))?,
            None => {}
        }
    }
    for keyword in LISTS {
        match schema.get(keyword) {
            Some(Value::Array(schemas)) if !schemas.is_empty() => check_all(schemas, at, keyword)?,
            Some(_) => return wrong(keyword, "a list of schemas"),
            None => {}
        }
    }
    for keyword in NAMED {
        match schema.get(keyword) {
            Some(Value::Object(schemas)) => {
                for (name, value) in schemas {
                    check_value(value, &format!("{at}.{keyword}.{name}"))?;
                }
            }
            Some(_) => return wrong(keyword, "an object of schemas"),
            None => {}
        }
    }
    Ok(())
}

fn check_all(schemas: &[Value], at: &str, keyword: &str) -> Result<(), PlanError> {
    let mut numbered = schemas.iter().enumerate();
    numbered.try_for_each(|(index, value)| check_value(value, &format!("{at}.{keyword}.{index}")))
}

fn check_value(value: &Value, at: &str) -> Result<(), PlanError> {
    match value {
        Value::Object(schema) => check(schema, at),
        Value::Bool(_) => Ok(()),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(PlanError(format!("{at} is not a schema")))
        }
    }
}

fn is_type(kind: &Value) -> bool {
    let known = |kind: &Value| kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
    match kind.as_array() {
        Some(kinds) => !kinds.is_empty() && kinds.iter().all(known),
        None => known(kind),
    }
}

fn is_names(value: &Value) -> bool {
    value.as_array().is_some_and(|names| names.iter().all(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: &Value) -> Result<Value, String> {
        let sent = sent(schema.as_object().unwrap());
        sent.map(Value::Object).map_err(|error| error.to_string())
    }

    #[test]
    fn schemas_of_objects_are_sent_as_they_are() {
        for schema in [
            json!({"type": "object"}),
            json!({"type": "object", "properties": {"type": {"type": ["string", "null"]}},
                "required": ["type"], "additionalProperties": false}),
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}, "b": true},
                "$defs": {"a": {"type": "array", "items": {"anyOf": [{"enum": [1, "x"]}]}}}}),
            json!({"type": "object", "properties": {"a": {"items": [{"type": "string"}]}}}),
        ] {
            assert_eq!(of(&schema), Ok(schema));
        }
    }

    #[test]
    fn an_unsaid_object_is_said() {
        let expected = json!({"properties": {}, "type": "object"});
        assert_eq!(of(&json!({"properties": {}})), Ok(expected));
        assert_eq!(of(&json!({"type": ["object", "null"]})), Ok(json!({"type": "object"})));
    }

    #[test]
    fn what_would_be_ignored_is_refused_with_its_place() {
        for (schema, reason) in [
            (json!({"type": "array"}), "json_schema must describe an object"),
            (json!({"type": ["string", "null"]}), "json_schema must describe an object"),
            (json!({"type": "nonsense"}), "json_schema.type is not a type of JSON schema"),
            (json!({"type": []}), "json_schema.type is not a type of JSON schema"),
            (json!({"properties": []}), "json_schema.properties is not an object of schemas"),
            (json!({"properties": {"a": "string"}}), "json_schema.properties.a is not a schema"),
            (
                json!({"properties": {"a": {"items": {"type": "text"}}}}),
                "json_schema.properties.a.items.type is not a type of JSON schema",
            ),
            (json!({"required": "a"}), "json_schema.required is not a list of names"),
            (json!({"required": [1]}), "json_schema.required is not a list of names"),
            (json!({"enum": 1}), "json_schema.enum is not a list"),
            (json!({"anyOf": []}), "json_schema.anyOf is not a list of schemas"),
            (json!({"allOf": [{}, 1]}), "json_schema.allOf.1 is not a schema"),
            (json!({"not": []}), "json_schema.not is not a schema"),
        ] {
            assert_eq!(of(&schema), Err(reason.to_owned()), "{schema}");
        }
    }
}
