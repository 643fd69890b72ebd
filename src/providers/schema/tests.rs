//! Schemas: what is made of them, what is refused, and how answers fare.

mod checks;
mod round_trip;

use serde_json::{Value, json};

use super::*;

fn strictly(schema: &Value) -> Value {
    strict(schema).unwrap()
}

/// A schema nested this deep, of objects within objects, of lists, or of branches. Values are
/// moved: `json!` would copy each level's, with recursion of its own.
fn nested(levels: usize, by: &str) -> Value {
    let object = |fields: Vec<(&str, Value)>| -> Value {
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    (0..levels).fold(json!({"type": "string"}), |inner, _| match by {
        "properties" => {
            object(vec![("type", "object".into()), ("properties", object(vec![("a", inner)]))])
        }
        "items" => object(vec![("type", "array".into()), ("items", inner)]),
        _ => object(vec![("anyOf", vec![inner].into())]),
    })
}

#[test]
fn objects_are_closed_and_their_properties_required() {
    assert_eq!(
        strictly(&json!({
            "type": "object",
            "properties": {
                "must": {"type": "string"},
                "may": {"type": "integer", "minimum": 0},
                "either": {"type": ["string", "number"]},
                "null_too": {"type": ["string", "null"]},
                "one_of": {"type": "string", "enum": ["a", "b"]},
                "only": {"const": 1},
                "any": true,
                "never": false,
                "inner": {"type": "object", "properties": {"x": {"type": "string"}}},
                "named": {"$ref": "#/$defs/thing"}
            },
            "required": ["must"],
            "additionalProperties": true,
            "$defs": {"thing": {"type": "object", "properties": {"t": {"type": "boolean"}}}}
        })),
        json!({
            "type": "object",
            "properties": {
                "must": {"type": "string"},
                "may": {"type": ["integer", "null"], "minimum": 0},
                "either": {"type": ["string", "number", "null"]},
                "null_too": {"type": ["string", "null"]},
                "one_of": {"type": ["string", "null"], "enum": ["a", "b", null]},
                "only": {"anyOf": [{"const": 1}, {"type": "null"}]},
                "any": true,
                "never": {"anyOf": [false, {"type": "null"}]},
                "inner": {
                    "type": ["object", "null"],
                    "properties": {"x": {"type": ["string", "null"]}},
                    "additionalProperties": false,
                    "required": ["x"]
                },
                "named": {"anyOf": [{"$ref": "#/$defs/thing"}, {"type": "null"}]}
            },
            "required": [
                "must", "may", "either", "null_too", "one_of", "only", "any", "never", "inner", "named"
            ],
            "additionalProperties": false,
            "$defs": {
                "thing": {
                    "type": "object",
                    "properties": {"t": {"type": ["boolean", "null"]}},
                    "additionalProperties": false,
                    "required": ["t"]
                }
            }
        })
    );
}

#[test]
fn objects_are_closed_wherever_they_are() {
    let open = json!({"type": "object", "properties": {"x": {"type": "string"}}});
    let closed = strictly(&open);
    assert_eq!(closed["additionalProperties"], false);
    for (schema, pointer) in [
        (json!({"items": open}), "/items"),
        (json!({"items": [open]}), "/items/0"),
        (json!({"prefixItems": [true, open]}), "/prefixItems/1"),
        (json!({"anyOf": [open]}), "/anyOf/0"),
        (json!({"oneOf": [open]}), "/oneOf/0"),
        (json!({"allOf": [open]}), "/allOf/0"),
        (json!({"definitions": {"d": open}}), "/definitions/d"),
        (json!({"items": {"anyOf": [{"items": open}]}}), "/items/anyOf/0/items"),
    ] {
        assert_eq!(strictly(&schema).pointer(pointer), Some(&closed), "{pointer}");
    }
    let value = json!({"enum": [{"properties": {"x": 1}}], "default": {"type": "object"}});
    assert_eq!(strictly(&value), value, "values are no schemas");
    assert_eq!(strictly(&json!({"properties": {}}))["type"], "object");
}

#[test]
fn nulls_that_stand_for_nothing_are_removed() {
    let schema = json!({
        "type": "object",
        "properties": {
            "may": {"type": "string"},
            "null_too": {"type": ["string", "null"]},
            "must": {"type": "string"},
            "list": {"type": "array", "items": {"$ref": "#/$defs/thing"}},
            "pair": {"anyOf": [
                {"type": "object", "properties": {"kind": {"const": "a"}, "v": {"type": "string"}}},
                {"type": "object", "properties": {"kind": {"const": "b"}, "v": {"type": "null"}}}
            ]}
        },
        "required": ["must", "list"],
        "$defs": {"thing": {
            "type": "object",
            "properties": {"t": {"type": "string"}, "next": {"$ref": "#/$defs/thing"}}
        }}
    });
    let clean = |answer: Value| restored(&schema, answer);
    assert_eq!(
        clean(json!({"may": null, "null_too": null, "must": null, "other": null})),
        json!({"null_too": null, "must": null, "other": null})
    );
    assert_eq!(
        clean(json!({"list": [{"t": null, "next": {"t": "x", "next": null}}, null]})),
        json!({"list": [{"next": {"t": "x"}}, null]})
    );
    assert_eq!(clean(json!({"pair": {"kind": "a", "v": null}})), json!({"pair": {"kind": "a"}}));
    let kept = json!({"pair": {"kind": "b", "v": null}});
    assert_eq!(clean(kept.clone()), kept);
}

#[test]
fn arguments_travel_as_a_text() {
    let schema = json!({
        "type": "object",
        "properties": {"name": {"enum": ["read"]}, "args": {"type": "object"}},
        "required": ["name", "args"]
    });
    let sent = reshaped(&schema);
    assert!(sent.note.is_some());
    assert_eq!(sent.schema["required"], json!(["name", "args_json"]));
    assert_eq!(sent.schema["properties"]["args_json"]["type"], "string");
    assert_eq!(sent.schema["properties"].as_object().unwrap().len(), 2);
    for (answer, wanted) in [
        (
            json!({"name": "read", "args_json": "{\"a\":1}"}),
            json!({"name": "read", "args": {"a": 1}}),
        ),
        (json!({"name": "read", "argsJson": "[1]"}), json!({"name": "read", "args": [1]})),
        (json!({"name": "read", "args_json": ""}), json!({"name": "read", "args": {}})),
        (json!({"name": "read", "args_json": {"a": 1}}), json!({"name": "read", "args": {"a": 1}})),
        (json!({"args": 1, "args_json": "2"}), json!({"args": 1, "args_json": "2"})),
        (json!({"args_json": "{no"}), json!({"args_json": "{no"})),
    ] {
        assert_eq!(restored(&schema, answer.clone()), wanted, "{answer}");
    }
    let other = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    assert_eq!(reshaped(&other), Reshaped { schema: other.clone(), note: None });
    let untouched = json!({"name": "x", "args_json": "{}"});
    assert_eq!(restored(&other, untouched.clone()), untouched);
}

#[test]
fn only_objects_can_be_asked_for() {
    for schema in [
        json!({"type": "object"}),
        json!({"type": ["object"], "properties": {}}),
        json!({"properties": {"a": true}}),
    ] {
        assert_eq!(check(&schema), Ok(()), "{schema}");
    }
    for (schema, reason) in [
        (json!(true), "a boolean"),
        (json!([]), "not an object"),
        (json!(null), "not an object"),
        (json!({}), "neither"),
        (json!({"type": "array"}), "type is \"array\""),
        (json!({"type": ["object", "null"]}), "type is [\"object\",\"null\"]"),
        (json!({"type": "nonsense"}), "type is \"nonsense\""),
        (json!({"type": 5, "properties": {}}), "type is 5"),
        (json!({"type": "object", "anyOf": []}), "`anyOf`"),
        (json!({"oneOf": [], "type": "object"}), "`oneOf`"),
        (json!({"$ref": "#/$defs/a"}), "`$ref`"),
        (json!({"enum": [{}]}), "`enum`"),
    ] {
        let error = check(&schema).unwrap_err().to_string();
        assert!(error.contains(reason), "{schema}: {error}");
    }
}

#[test]
fn schemas_past_the_bounds_are_refused() {
    for by in ["properties", "items", "anyOf"] {
        let levels = if by == "items" { MAX_DEPTH - 3 } else { MAX_DEPTH / 2 - 2 };
        let deepest = nested(levels, by);
        let made = strict(&deepest).unwrap();
        assert_eq!(strict(&made).unwrap(), made, "{by}");
        assert!(restored(&deepest, json!({"a": null})).is_object());
        assert_eq!(strict(&nested(levels + 3, by)), Err(SchemaError::TooDeep), "{by}");
        assert_eq!(check(&nested(MAX_DEPTH, by)), Err(SchemaError::TooDeep), "{by}");
    }
    let long = json!({"type": "object", "description": "x".repeat(MAX_BYTES)});
    assert_eq!(strict(&long), Err(SchemaError::TooLong));
    let wide: Value = (0..60_000).map(|_| "x".repeat(100)).collect();
    assert_eq!(check(&json!({"type": "object", "examples": wide})), Err(SchemaError::TooLong));
}

#[test]
fn large_schemas_are_handled_in_no_time() {
    let many: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (format!("p{n}"), json!({"$ref": "#/$defs/d"}))).collect();
    let schema = json!({"type": "object", "properties": many, "$defs": {"d": {"type": "string"}}});
    let made = strict(&schema).unwrap();
    assert_eq!(made["required"].as_array().unwrap().len(), 20_000);
    let nulls: Value = (0..20_000)
        .map(|n| (format!("p{n}"), Value::Null))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(restored(&schema, nulls), json!({}));
}
