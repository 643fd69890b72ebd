//! Placeholders for secrets in a command's environment. Pure: what was asked for and what was
//! answered in, verdict out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

/// More variables than that are a mistake.
const MOST: usize = 100;
const PREFIX: &str = "pano_sec_";
const DIGITS: usize = 36;

/// A row of the backend's answer.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "fields of the wire")]
pub struct Placeholder {
    pub env_name: String,
    pub secret_name: String,
    pub placeholder: String,
}

/// Without the placeholder.
impl std::fmt::Debug for Placeholder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={:?}", self.env_name, self.secret_name)
    }
}

/// What a job asks for: the name of a secret for each variable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretEnv {
    wanted: BTreeMap<String, String>,
}

impl SecretEnv {
    /// Of a job's payload. The error is for people.
    pub fn of(payload: &Map<String, Value>) -> Result<Self, String> {
        let wanted = match payload.get("secret_env") {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Object(wanted)) => wanted,
            Some(_) => return Err("secret_env is not an object".to_owned()),
        };
        if wanted.len() > MOST {
            return Err(format!("secret_env names more than {MOST} variables"));
        }
        let entry = |(name, secret): (&String, &Value)| {
            if !is_variable(name) {
                return Err(format!("secret_env: {name:?} cannot name a variable"));
            }
            match secret.as_str().filter(|secret| !secret.trim().is_empty()) {
                Some(secret) => Ok((name.clone(), secret.to_owned())),
                None => Err(format!("secret_env: {name} does not name a secret")),
            }
        };
        Ok(Self { wanted: wanted.iter().map(entry).collect::<Result<_, _>>()? })
    }

    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The variables, if the answer holds exactly what was asked for, once each. The error is for
    /// people and holds no placeholder.
    pub fn resolve(&self, answer: Vec<Placeholder>) -> Result<Vec<(String, String)>, String> {
        let mut found = BTreeMap::new();
        let mut used: BTreeMap<String, String> = BTreeMap::new();
        for Placeholder { env_name, secret_name, placeholder } in answer {
            if self.wanted.get(&env_name) != Some(&secret_name) {
                return Err("the backend gave a secret that was not asked for".to_owned());
            }
            if !is_placeholder(&placeholder) {
                return Err(format!("the backend gave no placeholder for {env_name}"));
            }
            let of = used.entry(placeholder.clone()).or_insert_with(|| secret_name.clone());
            if *of != secret_name {
                return Err("the backend gave one placeholder for two secrets".to_owned());
            }
            if found.insert(env_name.clone(), placeholder).is_some() {
                return Err(format!("the backend gave two placeholders for {env_name}"));
            }
        }
        let missing: BTreeSet<_> =
            self.wanted.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            let names: Vec<_> = missing.into_iter().collect();
            return Err(format!("the backend has no secret for {}", names.join(", ")));
        }
        Ok(found.into_iter().collect())
    }
}

/// As shells know them, and none of those that the gateway sets itself.
fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !matches!(name, "PANORAMA_RUN_ID" | "TMPDIR" | "TMP" | "TEMP" | "HOME" | "PATH")
}

fn is_placeholder(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == DIGITS
            && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(value: Value) -> Result<SecretEnv, String> {
        SecretEnv::of(&Map::from_iter([("secret_env".to_owned(), value)]))
    }

    fn row(env: &str, secret: &str, placeholder: &str) -> Placeholder {
        Placeholder {
            env_name: env.into(),
            secret_name: secret.into(),
            placeholder: placeholder.into(),
        }
    }

    fn good(digit: char) -> String {
        format!("pano_sec_{}", digit.to_string().repeat(36))
    }

    #[test]
    fn names_of_variables_and_secrets_are_checked() {
        for nothing in [json!(null), json!({})] {
            assert!(asked(nothing).unwrap().is_empty());
        }
        assert!(SecretEnv::of(&Map::new()).unwrap().is_empty());
        assert!(!asked(json!({"KEY": "deploy", "_k2": "deploy"})).unwrap().is_empty());
        let many: Map<_, _> = (0..=MOST).map(|at| (format!("V{at}"), json!("s"))).collect();
        for (bad, why) in [
            (json!(["KEY"]), "not an object"),
            (json!({"": "s"}), "cannot name"),
            (json!({"1A": "s"}), "cannot name"),
            (json!({"A=B": "s"}), "cannot name"),
            (json!({"A\u{0}": "s"}), "cannot name"),
            (json!({"PATH": "s"}), "cannot name"),
            (json!({"KEY": 7}), "does not name a secret"),
            (json!({"KEY": " "}), "does not name a secret"),
            (Value::Object(many), "more than"),
        ] {
            let error = asked(bad.clone()).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn an_answer_is_taken_only_if_it_is_exactly_what_was_asked_for() {
        let asked = asked(json!({"A": "first", "B": "second"})).unwrap();
        let (first, second) = (good('a'), good('0'));
        let a = || row("A", "first", &good('a'));
        let b = || row("B", "second", &good('0'));
        assert_eq!(
            asked.resolve(vec![b(), a()]).unwrap(),
            [("A".to_owned(), first.clone()), ("B".to_owned(), second)]
        );
        let bad_forms = [
            format!("{first}0"),
            first[..44].to_owned(),
            first.to_uppercase(),
            first.replace("pano_sec_", "pano_key_"),
            format!("{}\n", &first[..44]),
            String::new(),
        ];
        let mut refused: Vec<(Vec<Placeholder>, &str)> = bad_forms
            .iter()
            .map(|form| (vec![row("A", "first", form), b()], "no placeholder for A"))
            .collect();
        refused.extend([
            (vec![a()], "no secret for B"),
            (vec![], "no secret for A, B"),
            (vec![a(), b(), a()], "two placeholders for A"),
            (vec![a(), b(), row("C", "third", &good('1'))], "not asked for"),
            (vec![a(), row("B", "first", &good('0'))], "not asked for"),
            (vec![a(), row("B", "second", &first)], "one placeholder for two"),
        ]);
        for (answer, why) in refused {
            let error = asked.resolve(answer).unwrap_err();
            assert!(error.contains(why), "{error}, not {why}");
            assert!(!error.contains("pano_sec_"), "{error}");
        }
    }
}
