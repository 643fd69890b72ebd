//! The contents of `gateway.json`: identity, tokens, toggle. Unknown fields are kept.

use serde_json::{Map, Value};

/// The version of the file's format that this program writes. A file without one is as old as the
/// first, and so is one that another implementation wrote.
pub(super) const FORMAT: u64 = 1;
const FORMAT_FIELD: &str = "configVersion";

/// The contents of `gateway.json` (camelCase on disk). Fields that this version does not know stay
/// where they are.
#[derive(Clone, Default, PartialEq)]
pub struct SavedConfig {
    fields: Map<String, Value>,
}

impl std::fmt::Debug for SavedConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedConfig").field("keys", &self.fields.keys()).finish()
    }
}

/// Why bytes are no `gateway.json` of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It does not parse: where and why, without anything of its contents.
    Damaged(String),
    /// Its format is newer than this program.
    Newer(u64),
}

impl SavedConfig {
    /// A text field (`supabaseUrl`, `supabaseAnonKey`, `accessToken`, `refreshToken`, `gatewayId`,
    /// `teamId`, `deviceName`); empty or of another type is absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// Any field, e.g. `vmGuest` or `providerHealth`.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// `full_control_enabled`, false when absent.
    pub fn full_control(&self) -> bool {
        self.fields.get("full_control_enabled").and_then(Value::as_bool).unwrap_or(false)
    }

    /// The machine's provisioning has named it a managed guest.
    pub fn is_guest(&self) -> bool {
        self.vm_id().is_some()
    }

    /// A field of `vmGuest`.
    pub fn guest_value(&self, name: &str) -> Option<&Value> {
        self.value("vmGuest")?.get(name)
    }

    /// `vmGuest.vmId`, where there is one.
    pub fn vm_id(&self) -> Option<&str> {
        self.guest_value("vmId")?.as_str().filter(|id| !id.is_empty())
    }

    /// Sets a field.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Sets a field of an object field (`vmGuest`, `providerHealth`) and keeps the object's other
    /// fields; the object is made when there is none.
    pub fn set_within(&mut self, object: &str, name: &str, value: impl Into<Value>) {
        let field = self.fields.entry(object).or_insert(Value::Null);
        if !field.is_object() {
            *field = Value::Object(Map::new());
        }
        if let Some(fields) = field.as_object_mut() {
            fields.insert(name.to_owned(), value.into());
        }
    }

    /// Removes a field of an object field.
    pub fn remove_within(&mut self, object: &str, name: &str) {
        if let Some(Value::Object(fields)) = self.fields.get_mut(object) {
            fields.shift_remove(name);
        }
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) {
        self.fields.shift_remove(name);
    }

    /// Every secret in it that must not be shown: tokens (of drive sync, too) and the backend's key.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        ["accessToken", "refreshToken", "supabaseAnonKey"]
            .into_iter()
            .filter_map(|name| self.text(name))
            .chain(self.guest_value("driveSync").and_then(|sync| sync.get("token")?.as_str()))
            .chain(self.value("driveSync").and_then(|sync| sync.get("token")?.as_str()))
    }

    /// Paired: gateway id, team id, access and refresh token are all there.
    pub fn is_paired(&self) -> bool {
        ["gatewayId", "teamId", "accessToken", "refreshToken"]
            .iter()
            .all(|name| self.text(name).is_some())
    }

    /// Reads the file's bytes: none and `null` are the empty config.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // Only a position and a category: the text itself may be a token.
        let value = serde_json::from_slice(bytes)
            .map_err(|error| Unreadable::Damaged(format!("not JSON, {error}")))?;
        let fields = match value {
            Value::Null => Map::new(),
            Value::Object(fields) => fields,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(Unreadable::Damaged("not a JSON object at line 1 column 1".to_owned()));
            }
        };
        match fields.get(FORMAT_FIELD).and_then(Value::as_u64) {
            Some(format) if format > FORMAT => Err(Unreadable::Newer(format)),
            Some(_) | None => Ok(Self { fields }),
        }
    }

    /// The file's bytes, marked with the format.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut fields = self.fields.clone();
        fields.insert(FORMAT_FIELD.to_owned(), FORMAT.into());
        format!("{:#}\n", Value::Object(fields)).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(value: &Value) -> SavedConfig {
        SavedConfig::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn nothing_and_null_are_empty() {
        for bytes in ["", " \n", "null", " null\n", "{}"] {
            assert_eq!(
                SavedConfig::parse(bytes.as_bytes()),
                Ok(SavedConfig::default()),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn damage_is_named_by_its_place_and_never_quoted() {
        let damaged: [&[u8]; 7] = [
            b"{",
            b"{\"accessToken\": \"hush",
            b"{\"accessToken\": \"hush\"\n, hush}",
            b"\"hush\"",
            b"[1]",
            b"\xff\xfe",
            b"{\"a\": \"\xff hush\"}",
        ];
        for bytes in damaged {
            let Err(Unreadable::Damaged(reason)) = SavedConfig::parse(bytes) else {
                panic!("{:?} was read", String::from_utf8_lossy(bytes));
            };
            assert!(reason.contains("line") && reason.contains("column"), "{reason}");
            assert!(!reason.contains("hush"), "{reason}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_and_an_older_one_read() {
        let newer = json!({ "configVersion": FORMAT + 1 }).to_string();
        assert_eq!(SavedConfig::parse(newer.as_bytes()), Err(Unreadable::Newer(FORMAT + 1)));
        assert_eq!(parsed(&json!({ "teamId": "t" })).text("teamId"), Some("t"));
    }

    #[test]
    fn fields_of_the_wrong_type_are_absent() {
        let config = parsed(&json!({
            "gatewayId": 7, "teamId": "", "full_control_enabled": "true"
        }));
        assert_eq!((config.text("gatewayId"), config.text("teamId")), (None, None));
        assert!(!config.full_control());
    }

    #[test]
    fn paired_takes_all_four() {
        let mut config = SavedConfig::default();
        for name in ["gatewayId", "teamId", "accessToken", "refreshToken"] {
            assert!(!config.is_paired());
            config.set(name, "x");
        }
        assert!(config.is_paired());
        config.remove("refreshToken");
        assert!(!config.is_paired());
    }

    #[test]
    fn setting_within_keeps_the_rest() {
        let mut config = parsed(&json!({ "vmGuest": { "vmId": "v", "egress": [1] } }));
        config.set_within("vmGuest", "generation", 2);
        config.set_within("providerHealth", "codex", json!({ "status": "healthy" }));
        assert_eq!(
            config.value("vmGuest"),
            Some(&json!({ "vmId": "v", "egress": [1], "generation": 2 }))
        );
        assert_eq!(
            config.value("providerHealth"),
            Some(&json!({ "codex": { "status": "healthy" } }))
        );
    }

    #[test]
    fn what_is_written_again_stays_the_same() {
        let number = "8.8888833333333e+46";
        let config = SavedConfig::parse(format!("{{\"other\": {number}}}").as_bytes()).unwrap();
        let written = String::from_utf8(config.to_bytes()).unwrap();
        assert!(written.contains(number), "{written}");
    }

    #[test]
    fn debug_output_shows_no_value() {
        let config = parsed(&json!({ "accessToken": "hush" }));
        let shown = format!("{config:?}");
        assert!(shown.contains("accessToken") && !shown.contains("hush"), "{shown}");
    }
}
