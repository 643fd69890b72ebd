//! Any schema: making it strict twice changes nothing more, and an answer survives the way there
//! and back.

use proptest::prelude::*;
use serde_json::Map;

use super::super::nulls;
use super::*;

/// A schema and an answer that is valid under it.
fn pair() -> impl Strategy<Value = (Value, Value)> {
    let leaf = prop_oneof![
        "[a-c]{0,3}".prop_map(|text| (json!({"type": "string"}), json!(text))),
        (-9..9).prop_map(|number| (json!({"type": "integer"}), json!(number))),
        (-9..9).prop_map(|number| (json!({"type": ["number", "string"]}), json!(number))),
        any::<bool>().prop_map(|flag| (json!({"type": "boolean"}), json!(flag))),
        Just((json!({"type": ["string", "null"]}), Value::Null)),
        Just((json!({"type": "string", "enum": ["a", "b"]}), json!("b"))),
        Just((json!({"enum": ["a", null]}), Value::Null)),
        Just((json!({"const": {"k": null}}), json!({"k": null}))),
        Just((json!(true), json!({"free": null}))),
        Just((json!({}), Value::Null)),
        Just((json!({"$ref": "#/$defs/thing"}), json!({"next": {"text": "x"}}))),
        Just((json!({"$ref": "#/$defs/thing"}), json!({}))),
        Just((json!({"anyOf": [{"$ref": "#/$defs/thing"}, {"type": "null"}]}), Value::Null)),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            object(inner.clone()),
            object(inner.clone()),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(|items| {
                let (schemas, values): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                (json!({"type": "array", "prefixItems": schemas}), json!(values))
            }),
            (inner.clone(), 0..3_usize).prop_map(|((schema, value), count)| {
                (json!({"type": "array", "items": schema}), json!(vec![value; count]))
            }),
            (inner.clone(), inner.clone(), any::<bool>()).prop_map(|(one, other, turned)| {
                let list = if turned { [other.0, one.0] } else { [one.0, other.0] };
                (json!({"anyOf": list}), one.1)
            }),
            inner.prop_map(|(schema, value)| (json!({"allOf": [schema]}), value)),
        ]
    })
}

fn object(
    inner: impl Strategy<Value = (Value, Value)> + Clone,
) -> impl Strategy<Value = (Value, Value)> {
    let property = ("[a-d]", inner, any::<bool>(), any::<bool>());
    proptest::collection::vec(property, 0..4).prop_map(|properties| {
        let (mut schemas, mut values, mut required) = (Map::new(), Map::new(), Vec::new());
        for (name, (schema, value), must, there) in properties {
            if schemas.insert(name.clone(), schema).is_some() {
                // The name came before: what was chosen for it no longer holds.
                values.remove(&name);
                required.retain(|other| *other != name);
            }
            if must || there {
                values.insert(name.clone(), value);
            }
            if must {
                required.push(name);
            }
        }
        let schema = json!({"type": "object", "properties": schemas, "required": required});
        (schema, Value::Object(values))
    })
}

fn rooted() -> impl Strategy<Value = (Value, Value)> {
    let thing = json!({"type": "object", "properties": {
        "text": {"type": "string"},
        "next": {"$ref": "#/$defs/thing"}
    }});
    pair().prop_map(move |(schema, value)| {
        let schema = json!({
            "type": "object",
            "properties": {"top": schema},
            "$defs": {"thing": thing}
        });
        (schema, json!({"top": value}))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn strict_schemas_stay_as_they_are((schema, _) in rooted()) {
        let once = strict(&schema).unwrap();
        prop_assert_eq!(strict(&once).unwrap(), once);
    }

    #[test]
    fn answers_come_out_as_they_were((schema, answer) in rooted()) {
        prop_assert_eq!(schema_errors(&schema, &answer), vec![]);
        let mut with_nulls = answer.clone();
        nulls::add(&schema, &mut with_nulls);
        prop_assert_eq!(restored(&schema, with_nulls), answer);
    }

    #[test]
    fn any_json_can_be_handled(schema in any_json(), answer in any_json()) {
        let _ = check(&schema);
        let once = strict(&schema).unwrap();
        prop_assert_eq!(strict(&once).unwrap(), once);
        let _ = restored(&schema, answer.clone());
        let _ = schema_errors(&schema, &answer);
    }
}

/// JSON that is full of the keywords of schemas, in the wrong places too.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("type"),
        Just("properties"),
        Just("required"),
        Just("items"),
        Just("anyOf"),
        Just("allOf"),
        Just("$ref"),
        Just("$defs"),
        Just("enum"),
        Just("const"),
        Just("args"),
        Just("name"),
        Just("not"),
        Just("additionalProperties"),
        Just("$id"),
        Just("pattern"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        Just(json!("object")),
        Just(json!("#")),
        Just(json!("#/properties/name")),
        Just(json!("null")),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..5).prop_map(|fields| {
                fields.into_iter().map(|(word, value)| (word.to_owned(), value)).collect()
            }),
        ]
    })
}
