//! Answers against schemas, hostile ones too.

use super::*;

fn errors(schema: &Value, output: &Value) -> Vec<(String, String)> {
    schema_errors(schema, output).into_iter().map(|one| (one.path, one.message)).collect()
}

/// The reason for which a schema is not used.
fn refusal(schema: &Value, output: &Value) -> String {
    match errors(schema, output).as_slice() {
        [(path, message)]
            if path.is_empty() && message.starts_with("the schema cannot be checked") =>
        {
            message.clone()
        }
        others => panic!("no refusal: {others:?}"),
    }
}

#[test]
fn mismatches_say_where_they_are() {
    let schema = json!({
        "type": "object",
        "properties": {"answer": {"type": "string"}, "list": {"items": {"type": "integer"}}},
        "required": ["answer", "score"]
    });
    assert_eq!(errors(&schema, &json!({"answer": "yes", "score": 1})), []);
    let mut found = errors(&schema, &json!({"answer": 5, "list": [1, "x"]}));
    found.sort();
    let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["", "/answer", "/list/1"]);
    assert!(found[0].1.contains("score"), "{found:?}");
    assert!(found[1].1.contains("string"), "{found:?}");
}

#[test]
fn mismatches_are_few_and_short() {
    let schema = json!({"additionalProperties": {"type": "integer"}});
    let output: Value = (0..100)
        .map(|n| (format!("p{n}"), "x".repeat(10_000).into()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let found = errors(&schema, &output);
    assert_eq!(found.len(), 20);
    assert!(found.iter().all(|(_, message)| message.chars().count() <= 501));
}

#[test]
fn references_that_lead_out_are_refused() {
    for there in [
        "https://example.com/schema.json",
        "http://127.0.0.1:1/s",
        "file:///etc/passwd",
        "other.json",
        "//example.com/x",
        "urn:x:y",
    ] {
        let schema = json!({"type": "object", "properties": {"a": {"$ref": there}}});
        refusal(&schema, &json!({"a": 1}));
        refusal(&json!({"$schema": there, "type": "object"}), &json!({}));
    }
    refusal(&json!({"properties": {"a": {"$ref": "#/$defs/none"}}}), &json!({"a": 1}));
}

#[test]
fn schemas_that_are_none_are_reported() {
    for schema in [
        json!({"type": "nonsense"}),
        json!({"type": "object", "required": "a"}),
        json!({"properties": {"a": {"pattern": "("}}}),
        json!([]),
        json!(5),
    ] {
        refusal(&schema, &json!({}));
    }
}

#[test]
fn schemas_without_end_are_refused() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"$id": "https://x.test/", "anyOf": [{"$id": "y", "$ref": "#"}]}),
        json!({"$recursiveRef": "#"}),
        json!({"$dynamicAnchor": "a", "$dynamicRef": "#a"}),
    ] {
        refusal(&schema, &json!({}));
    }
}

#[test]
fn schemas_that_double_their_work_are_refused() {
    let mut defs = serde_json::Map::from_iter([("d0".to_owned(), json!({"type": "object"}))]);
    for level in 1..40 {
        let below = json!({"$ref": format!("#/$defs/d{}", level - 1)});
        defs.insert(format!("d{level}"), json!({"allOf": [below, below]}));
    }
    let schema = json!({"$defs": defs, "$ref": "#/$defs/d39"});
    assert!(refusal(&schema, &json!({})).contains("steps"));
    assert!(restored(&schema, json!({"a": null})).is_object());
    let unevaluated = (0..50).fold(
        json!({"type": "object"}),
        |inner, _| json!({"unevaluatedProperties": false, "allOf": [inner]}),
    );
    assert!(refusal(&unevaluated, &json!({})).contains("steps"));
}

#[test]
fn what_nests_as_deep_as_json_is_read_can_be_checked() {
    for by in ["properties", "items", "anyOf"] {
        let levels = if by == "items" { 120 } else { 60 };
        let output = (0..levels).fold(json!("x"), |inner, _| match by {
            "properties" => json!({"a": inner}),
            "items" => json!([inner]),
            _ => inner,
        });
        assert_eq!(errors(&nested(levels, by), &output), [], "{by}");
        refusal(&nested(200, by), &output);
    }
    let tree = json!({"type": "object", "properties": {"a": {"$ref": "#"}}});
    let deep = (0..120).fold(json!({}), |inner, _| json!({"a": inner}));
    refusal(&tree, &(0..130).fold(json!({}), |inner, _| json!({"a": inner})));
    let shallow = (0..90).fold(json!({}), |inner, _| json!({"a": inner}));
    assert_eq!(errors(&tree, &shallow), []);
    refusal(&tree, &deep);
}

#[test]
fn patterns_end_in_time() {
    let schema = json!({"properties": {"a": {"pattern": "^(?=(a+)+b)(a+)+$"}}});
    let found = errors(&schema, &json!({"a": "a".repeat(5_000)}));
    assert!(!found.is_empty());
}
