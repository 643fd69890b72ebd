//! How much work it is to check a value against a schema, found out by a dry run with a bound.
//!
//! A schema of a few lines can refer to itself for ever, or double its work with every level.

use serde_json::{Map, Value};

use super::look::{BRANCHES, list, target};

/// Schemas applied, and names compared, in one check: for any answer, and more for each value.
const MAX_STEPS: (usize, usize) = (300_000, 4);
/// Schemas applied within each other.
const MAX_NESTING: usize = 200;

/// Whether the check of an answer of so many values ends in reasonable time; else why not.
pub(super) fn check(schema: &Value, answer: &Value, values: usize) -> Result<(), &'static str> {
    let steps = values.saturating_mul(MAX_STEPS.1).saturating_add(MAX_STEPS.0);
    Run { root: schema, steps }.apply(schema, answer, 0)
}

struct Run<'a> {
    root: &'a Value,
    steps: usize,
}

impl Run<'_> {
    fn apply(&mut self, schema: &Value, value: &Value, nesting: usize) -> Result<(), &'static str> {
        let Value::Object(node) = schema else { return self.pay(1) };
        if nesting > MAX_NESTING {
            return Err("its references nest without end");
        }
        if nesting > 0 && node.get("$id").is_some_and(Value::is_string) {
            return Err("it holds a schema with an `$id` of its own");
        }
        if ["$dynamicRef", "$recursiveRef"].iter().any(|word| node.contains_key(*word)) {
            return Err("it refers to itself dynamically");
        }
        self.pay(1 + width(node))?;
        // What was evaluated is found out by applying the branches once more.
        let again =
            node.contains_key("unevaluatedProperties") || node.contains_key("unevaluatedItems");
        for _ in 0..=usize::from(again) {
            self.same_value(node, value, nesting)?;
        }
        match value {
            Value::Object(object) => self.properties(node, object, nesting),
            Value::Array(items) => self.items(node, items, nesting),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }

    fn same_value(
        &mut self,
        node: &Map<String, Value>,
        value: &Value,
        nesting: usize,
    ) -> Result<(), &'static str> {
        let branches = BRANCHES.iter().flat_map(|word| list(node, word));
        let single = ["not", "if", "then", "else"].iter().filter_map(|word| node.get(*word));
        let dependent = ["dependentSchemas", "dependencies"].iter();
        let dependent = dependent.filter_map(|word| node.get(*word)?.as_object());
        let all = branches.chain(single).chain(dependent.flat_map(Map::values));
        for schema in all.chain(target(self.root, node)) {
            self.apply(schema, value, nesting + 1)?;
        }
        Ok(())
    }

    fn properties(
        &mut self,
        node: &Map<String, Value>,
        object: &Map<String, Value>,
        nesting: usize,
    ) -> Result<(), &'static str> {
        let named = |word: &str| node.get(word).and_then(Value::as_object);
        let others = ["additionalProperties", "unevaluatedProperties", "propertyNames"];
        let others: Vec<_> = others.iter().filter_map(|word| node.get(*word)).collect();
        for (name, value) in object {
            let own = named("properties").and_then(|properties| properties.get(name));
            let patterns = named("patternProperties").into_iter().flat_map(Map::values);
            for schema in own.into_iter().chain(patterns).chain(others.iter().copied()) {
                self.apply(schema, value, nesting + 1)?;
            }
        }
        Ok(())
    }

    fn items(
        &mut self,
        node: &Map<String, Value>,
        items: &[Value],
        nesting: usize,
    ) -> Result<(), &'static str> {
        let every = ["items", "additionalItems", "unevaluatedItems", "contains"];
        let every: Vec<_> =
            every.iter().filter_map(|word| node.get(*word)).filter(|all| !all.is_array()).collect();
        for (index, value) in items.iter().enumerate() {
            let own = [list(node, "prefixItems"), list(node, "items")];
            let own = own.into_iter().filter_map(|schemas| schemas.get(index));
            for schema in own.chain(every.iter().copied()) {
                self.apply(schema, value, nesting + 1)?;
            }
        }
        Ok(())
    }

    fn pay(&mut self, steps: usize) -> Result<(), &'static str> {
        self.steps = self.steps.checked_sub(steps).ok_or("it takes too many steps")?;
        Ok(())
    }
}

/// Names and values that one application compares.
fn width(node: &Map<String, Value>) -> usize {
    let named = node.get("properties").and_then(Value::as_object).map_or(0, Map::len);
    named + list(node, "required").len() + list(node, "enum").len()
}
