//! Questions to a schema: where a reference leads, which parts speak of one value, whether null
//! is among what it takes.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Keywords whose schemas speak of the same value.
pub(super) const BRANCHES: [&str; 3] = ["anyOf", "oneOf", "allOf"];
/// Schemas that a question about null looks at before it takes null for accepted.
const NULL_STEPS: usize = 1_000;
/// Schemas within each other, for the same question.
const NULL_DEPTH: usize = 50;

/// Where a `$ref` within the schema leads; `None`: out of it, or nowhere.
pub(super) fn target<'a>(root: &'a Value, node: &Map<String, Value>) -> Option<&'a Value> {
    root.pointer(node.get("$ref")?.as_str()?.strip_prefix('#')?)
}

/// The members of a keyword that holds a list of schemas.
pub(super) fn list<'a>(node: &'a Map<String, Value>, word: &str) -> &'a [Value] {
    node.get(word).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The schema of a property.
pub(super) fn property<'a>(node: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    node.get("properties")?.as_object()?.get(name)
}

/// Whether a property must be there.
pub(super) fn requires(node: &Map<String, Value>, name: &str) -> bool {
    list(node, "required").iter().any(|required| required == name)
}

/// These schemas and all of their branches and references: whatever may speak of the same value.
/// Each once, however often it is referred to.
pub(super) fn in_place<'a>(root: &'a Value, schemas: &[&'a Value]) -> Vec<&'a Map<String, Value>> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut todo = schemas.to_vec();
    while let Some(schema) = todo.pop() {
        let Value::Object(node) = schema else { continue };
        if !seen.insert(std::ptr::from_ref(schema)) {
            continue;
        }
        found.push(node);
        todo.extend(BRANCHES.iter().flat_map(|word| list(node, word)));
        todo.extend(target(root, node));
    }
    found
}

/// Whether null is valid under a schema. In doubt yes: then it is left alone.
pub(super) fn accepts_null(root: &Value, schema: &Value) -> bool {
    takes_null(root, schema, &mut NULL_STEPS.clone(), 0)
}

fn takes_null(root: &Value, schema: &Value, steps: &mut usize, depth: usize) -> bool {
    let node = match schema {
        Value::Object(node) => node,
        Value::Bool(always) => return *always,
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => return true,
    };
    let Some(left) = steps.checked_sub(1).filter(|_| depth < NULL_DEPTH) else {
        return true;
    };
    *steps = left;
    let mut takes = |schema: &Value| takes_null(root, schema, steps, depth + 1);
    node.get("type").is_none_or(names_null)
        && node.get("const").is_none_or(Value::is_null)
        && node.get("enum").and_then(Value::as_array).is_none_or(|list| list.contains(&Value::Null))
        && list(node, "allOf").iter().all(&mut takes)
        && ["anyOf", "oneOf"]
            .into_iter()
            .all(|word| !node.contains_key(word) || list(node, word).iter().any(&mut takes))
        && target(root, node).is_none_or(&mut takes)
}

fn names_null(kind: &Value) -> bool {
    kind == "null" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "null"))
}
