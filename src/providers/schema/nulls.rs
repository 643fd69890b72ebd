//! Takes out of an answer the nulls that stand for properties left out.
//!
//! Such a null is one at a property that the caller's schema leaves optional and does not let be
//! null. Where branches disagree, those that the rest of the object contradicts do not count, and
//! a null that any other one takes is the model's answer and stays.

use serde_json::{Map, Value};

use super::look::{accepts_null, in_place, list, property, requires};

/// Schemas that are looked at for one answer; past that, nulls stay.
const STEPS: usize = 5_000_000;

/// Removes them, by the schema as it was before it was made strict.
pub(super) fn remove(root: &Value, answer: &mut Value) {
    visit(root, &[root], answer, &mut STEPS.clone(), &|root, nodes, object| {
        object.retain(|name, value| !value.is_null() || !stands_for_nothing(root, nodes, name));
    });
}

/// Puts null wherever [`remove`] would take it for a property left out.
#[cfg(test)]
pub(super) fn add(root: &Value, answer: &mut Value) {
    visit(root, &[root], answer, &mut STEPS.clone(), &|root, nodes, object| {
        let names = nodes.iter().filter_map(|node| node.get("properties")?.as_object());
        for name in names.flat_map(Map::keys) {
            if !object.contains_key(name) && stands_for_nothing(root, nodes, name) {
                object.insert(name.clone(), Value::Null);
            }
        }
    });
}

type Change<'c> = &'c dyn Fn(&Value, &[&Map<String, Value>], &mut Map<String, Value>);

/// Changes every object of a value, with the schemas that speak of it.
fn visit(
    root: &Value,
    schemas: &[&Value],
    value: &mut Value,
    steps: &mut usize,
    change: Change<'_>,
) {
    let mut nodes = in_place(root, schemas);
    let Some(left) = steps.checked_sub(nodes.len() + 1) else { return };
    *steps = left;
    match value {
        Value::Object(object) => {
            nodes.retain(|node| fits(node, object));
            change(root, &nodes, object);
            for (name, child) in object.iter_mut().filter(|(_, child)| holds_objects(child)) {
                let below: Vec<_> = nodes.iter().filter_map(|node| property(node, name)).collect();
                if !below.is_empty() {
                    visit(root, &below, child, steps, change);
                }
            }
        }
        Value::Array(items) => {
            for (index, child) in items.iter_mut().enumerate() {
                let below: Vec<_> = nodes.iter().filter_map(|node| item(node, index)).collect();
                if holds_objects(child) && !below.is_empty() {
                    visit(root, &below, child, steps, change);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn holds_objects(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// The schema of an array's item.
fn item(node: &Map<String, Value>, index: usize) -> Option<&Value> {
    match node.get("items") {
        Some(Value::Array(items)) => items.get(index),
        items => list(node, "prefixItems").get(index).or(items),
    }
}

fn stands_for_nothing(root: &Value, nodes: &[&Map<String, Value>], name: &str) -> bool {
    let mut optional = false;
    for node in nodes {
        let Some(schema) = property(node, name) else { continue };
        if accepts_null(root, schema) {
            return false;
        }
        optional |= !requires(node, name);
    }
    optional
}

/// Whether an object may be what a schema describes, by the types and constants of what it holds.
/// Nulls do not count, so that adding and removing them changes nothing.
fn fits(node: &Map<String, Value>, object: &Map<String, Value>) -> bool {
    let no_properties = Map::new();
    let properties = node.get("properties").and_then(Value::as_object).unwrap_or(&no_properties);
    is_of(node.get("type"), "object")
        && properties.iter().all(|(name, schema)| {
            object.get(name).is_none_or(|value| value.is_null() || may_be(schema, value))
        })
}

fn may_be(schema: &Value, value: &Value) -> bool {
    let kind = match value {
        Value::Null | Value::Number(_) => return true,
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let scalar = !holds_objects(value);
    is_of(schema.get("type"), kind)
        && (!scalar || schema.get("const").is_none_or(|constant| constant == value))
        && (!scalar
            || schema.get("enum").and_then(Value::as_array).is_none_or(|all| all.contains(value)))
}

fn is_of(kinds: Option<&Value>, kind: &str) -> bool {
    match kinds {
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        Some(one) => one == kind,
        None => true,
    }
}
