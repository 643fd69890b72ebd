//! Phoenix frames: what a realtime socket carries, in both versions of the protocol.
//!
//! Version 1.0.0 writes objects, version 2.0.0 arrays
//! `[join_ref, ref, topic, event, payload]`. The names are those of Phoenix' own clients.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `vsn` of a socket's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `1.0.0`, which is also meant when none is given.
    V1,
    /// `2.0.0`.
    V2,
}

impl Version {
    /// `None` for a version that nobody speaks.
    pub fn parse(vsn: Option<&str>) -> Option<Self> {
        match vsn {
            None | Some("" | "1.0.0") => Some(Self::V1),
            Some("2.0.0") => Some(Self::V2),
            Some(_) => None,
        }
    }
}

/// One message, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<P = Value> {
    /// `ref` of the join that this belongs to.
    pub join_ref: Option<String>,
    /// Names a request; its reply carries the same.
    pub reference: Option<String>,
    /// `phoenix`, or `realtime:<name>`.
    pub topic: String,
    /// E.g. `phx_join`.
    pub event: String,
    /// What it says.
    pub payload: P,
}

/// Why a text is no frame.
#[derive(Debug, thiserror::Error)]
#[error("not a frame of the realtime protocol")]
pub struct FrameError(#[from] serde_json::Error);

#[derive(Serialize, Deserialize)]
struct Array<T, P>(Option<T>, Option<T>, T, T, P);

#[derive(Serialize)]
struct SentObject<'a, P> {
    topic: &'a str,
    event: &'a str,
    payload: &'a P,
    #[serde(rename = "ref")]
    reference: Option<&'a str>,
}

#[derive(Deserialize)]
struct ReadObject {
    topic: String,
    event: String,
    payload: Value,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    join_ref: Option<String>,
}

impl Frame {
    /// Reads a text message.
    pub fn decode(version: Version, text: &str) -> Result<Self, FrameError> {
        Ok(match version {
            Version::V1 => {
                // Derived readers take arrays for structs; this version does not.
                let object: Map<String, Value> = serde_json::from_str(text)?;
                let read: ReadObject = serde_json::from_value(Value::Object(object))?;
                let ReadObject { topic, event, payload, reference, join_ref } = read;
                Self { join_ref, reference, topic, event, payload }
            }
            Version::V2 => {
                let Array(join_ref, reference, topic, event, payload) =
                    serde_json::from_str::<Array<String, Value>>(text)?;
                Self { join_ref, reference, topic, event, payload }
            }
        })
    }
}

impl<P: Serialize> Frame<P> {
    /// The text message. Version 1 has no place for `join_ref` in what servers send.
    pub fn encode(&self, version: Version) -> Result<String, FrameError> {
        let (join_ref, reference) = (self.join_ref.as_deref(), self.reference.as_deref());
        let (topic, event) = (self.topic.as_str(), self.event.as_str());
        let payload = &self.payload;
        Ok(match version {
            Version::V1 => serde_json::to_string(&SentObject { topic, event, payload, reference })?,
            Version::V2 => {
                serde_json::to_string(&Array(join_ref, reference, topic, event, payload))?
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn frame() -> Frame {
        Frame {
            join_ref: Some("1".into()),
            reference: None,
            topic: "realtime:a".into(),
            event: "phx_join".into(),
            payload: json!({"a": [1]}),
        }
    }

    #[test]
    fn version_2_is_an_array() {
        let text = frame().encode(Version::V2).unwrap();
        assert_eq!(text, r#"["1",null,"realtime:a","phx_join",{"a":[1]}]"#);
        assert_eq!(Frame::decode(Version::V2, &text).unwrap(), frame());
    }

    #[test]
    fn version_1_is_an_object_without_join_ref_from_servers() {
        let text = frame().encode(Version::V1).unwrap();
        let expected =
            r#"{"topic":"realtime:a","event":"phx_join","payload":{"a":[1]},"ref":null}"#;
        assert_eq!(text, expected);
        let sent = r#"{"topic":"t","event":"e","payload":{},"ref":"2","join_ref":"1"}"#;
        let read = Frame::decode(Version::V1, sent).unwrap();
        assert_eq!(read.join_ref.as_deref(), Some("1"));
        assert_eq!(read.reference.as_deref(), Some("2"));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "{}", "[]", "[1,2,3,4,5]", r#"["1","2","t","e"]"#, "null"] {
            assert!(Frame::decode(Version::V2, text).is_err(), "{text}");
            assert!(Frame::decode(Version::V1, text).is_err(), "{text}");
        }
    }

    #[test]
    fn versions_by_name() {
        assert_eq!(Version::parse(None), Some(Version::V1));
        assert_eq!(Version::parse(Some("2.0.0")), Some(Version::V2));
        assert_eq!(Version::parse(Some("3.0.0")), None);
    }
}
