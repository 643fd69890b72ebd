//! The channels of one socket: frames in, frames out. Pure.
//!
//! The rules are Phoenix': a frame for a channel that is not joined is answered with "unmatched
//! topic", one with another join's `join_ref` is dropped, a second join of a topic closes the first
//! one. Settings for broadcast and presence are accepted and mean nothing, and so are their pushes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::event::Event;
use super::join::{self, Binding, BindingError};
use super::token::{Grant, TokenError};
use crate::phoenix::{Frame, Version};
use crate::sandbox::rules::{Rule, Rules};
use crate::sandbox::store::schema::Schema;

/// Channels of a socket at most.
const MOST_CHANNELS: usize = 100;
/// Bytes of the joins in force at most: what a socket can make us keep.
const MOST_BYTES: usize = 1024 * 1024;
const PREFIX: &str = "realtime:";

/// Reads a token, now.
pub(super) type ReadToken<'a> = &'a dyn Fn(&str) -> Result<Grant, TokenError>;

/// All channels of one socket.
#[derive(Debug)]
pub(super) struct Channels {
    schema: Arc<Schema>,
    rules: Rules,
    joined: BTreeMap<String, Channel>,
}

#[derive(Debug)]
struct Channel {
    join_ref: Option<String>,
    grant: Grant,
    /// Empty when the subscription was refused, or when none was asked for.
    bindings: Vec<Binding>,
    /// How large its join was.
    bytes: usize,
}

/// Payload of `postgres_changes`.
#[derive(Serialize)]
struct Told<'a> {
    ids: Vec<u32>,
    data: &'a RawValue,
}

impl Channels {
    /// None yet.
    pub(super) fn new(schema: Arc<Schema>, rules: Rules) -> Self {
        Self { schema, rules, joined: BTreeMap::new() }
    }

    /// Answers a frame that was `bytes` long.
    pub(super) fn receive(
        &mut self,
        frame: Frame,
        bytes: usize,
        read: ReadToken<'_>,
    ) -> Vec<Frame> {
        if frame.topic == "phoenix" && frame.event == "heartbeat" {
            return vec![ok(&frame, json!({}))];
        }
        if frame.event == "phx_join" {
            return self.join(frame, bytes, read);
        }
        let Some(channel) = self.joined.get_mut(&frame.topic) else {
            return match frame.event.as_str() {
                // It was closed meanwhile.
                "phx_leave" => vec![ok(&frame, json!({}))],
                _ => vec![refused(&frame, "unmatched topic")],
            };
        };
        if frame.join_ref.is_some() && frame.join_ref != channel.join_ref {
            return Vec::new();
        }
        match frame.event.as_str() {
            "phx_leave" => {
                let Frame { ref topic, .. } = frame;
                let reply = reply(channel.join_ref.clone(), &frame, "ok", json!({}));
                let close = channel.closed(topic);
                self.joined.remove(topic);
                vec![reply, close]
            }
            "access_token" => match token_of(&frame.payload) {
                Some(token) => self.renew(&frame.topic, read(token)),
                None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn join(&mut self, frame: Frame, bytes: usize, read: ReadToken<'_>) -> Vec<Frame> {
        let Some(name) = frame.topic.strip_prefix(PREFIX) else {
            return vec![refused(&frame, "unmatched topic")];
        };
        if name.is_empty() {
            return vec![refused(&frame, "TopicNameRequired: You must provide a topic name")];
        }
        let join_ref = frame.join_ref.clone().or_else(|| frame.reference.clone());
        let mut out = Vec::new();
        if let Some(earlier) = self.joined.remove(&frame.topic) {
            out.push(earlier.closed(&frame.topic));
        }
        let refuse = |reason: &str| reply(join_ref.clone(), &frame, "error", reason_of(reason));
        let kept: usize = self.joined.values().map(|channel| channel.bytes).sum();
        if self.joined.len() >= MOST_CHANNELS || kept.saturating_add(bytes) > MOST_BYTES {
            out.push(refuse("ChannelRateLimitReached: Too many channels"));
            return out;
        }
        let grant = match token_of(&frame.payload).map_or(Ok(Grant::anonymous()), read) {
            Ok(grant) => grant,
            Err(error) => {
                out.push(refuse(&error.reason()));
                return out;
            }
        };
        let entries = match join::entries(&frame.payload) {
            Ok(entries) => entries,
            Err(error) => {
                out.push(refuse(&format!("InvalidJoinPayload: {error}")));
                return out;
            }
        };
        let echoes: Vec<Value> = entries.iter().map(|entry| join::echo(entry)).collect();
        let bindings: Result<Vec<Binding>, BindingError> =
            entries.iter().map(|entry| Binding::parse(&self.schema, entry)).collect();
        let response = json!({"postgres_changes": echoes});
        out.push(reply(join_ref.clone(), &frame, "ok", response));
        let bound = !entries.is_empty();
        let refusal = bindings.as_ref().err().cloned();
        let bindings = bindings.unwrap_or_default();
        let channel = Channel { join_ref, grant, bindings, bytes };
        match refusal {
            Some(error) => out.push(channel.unsubscribed(&frame.topic, &error)),
            None if bound => out.push(channel.subscribed(&frame.topic)),
            None => {}
        }
        self.joined.insert(frame.topic, channel);
        out
    }

    /// A new token for a channel; a bad one closes it.
    fn renew(&mut self, topic: &str, grant: Result<Grant, TokenError>) -> Vec<Frame> {
        let Some(channel) = self.joined.get_mut(topic) else { return Vec::new() };
        if !self.rules.hold(Rule::Renewal) {
            return Vec::new();
        }
        match grant {
            Ok(grant) => {
                channel.grant = grant;
                let live = !channel.bindings.is_empty();
                live.then(|| channel.subscribed(topic)).into_iter().collect()
            }
            Err(error) => {
                let out = channel.ended(topic, error);
                self.joined.remove(topic);
                out
            }
        }
    }

    /// Closes the channels whose tokens have expired at `now`, seconds since 1970.
    pub(super) fn expire(&mut self, now: i64) -> Vec<Frame> {
        let mut out = Vec::new();
        self.joined.retain(|topic, channel| match channel.grant.expires_at {
            Some(at) if at <= now && self.rules.hold(Rule::ChannelExpiry) => {
                let error = TokenError::Expired(now.saturating_sub(at));
                out.extend(channel.ended(topic, error));
                false
            }
            Some(_) | None => true,
        });
        out
    }

    /// When the next token expires, seconds since 1970.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        self.joined.values().filter_map(|channel| channel.grant.expires_at).min()
    }

    /// The messages about a change: one for each channel that wants it and may know of it.
    pub(super) fn deliver(&self, event: &Event, version: Version) -> Vec<String> {
        let may_read = |channel: &Channel| {
            event.visible_to(&channel.grant.caller) || !self.rules.hold(Rule::Reader)
        };
        let channels = self.joined.iter();
        channels
            .filter_map(|(topic, channel)| channel.told(topic, event, version, may_read))
            .collect()
    }
}

impl Channel {
    fn told(
        &self,
        topic: &str,
        event: &Event,
        version: Version,
        may_read: impl Fn(&Self) -> bool,
    ) -> Option<String> {
        let wanted = self.bindings.iter().filter(|binding| binding.wants(event));
        let mut ids: Vec<u32> = wanted.map(|binding| binding.id).collect();
        if ids.is_empty() || !may_read(self) {
            return None;
        }
        // The same entry may have been given twice.
        ids.sort_unstable();
        ids.dedup();
        let frame = Frame {
            join_ref: None,
            reference: None,
            topic: topic.to_owned(),
            event: "postgres_changes".to_owned(),
            payload: Told { ids, data: event.data()? },
        };
        frame.encode(version).ok()
    }

    fn subscribed(&self, topic: &str) -> Frame {
        self.system(topic, "postgres_changes", "ok", "Subscribed to PostgreSQL")
    }

    fn unsubscribed(&self, topic: &str, error: &BindingError) -> Frame {
        let message = format!("Unable to subscribe to changes with given parameters: {error}");
        self.system(topic, "postgres_changes", "error", &message)
    }

    /// What is said when the token ends the channel.
    fn ended(&self, topic: &str, error: TokenError) -> Vec<Frame> {
        vec![self.system(topic, "system", "error", &error.to_string()), self.closed(topic)]
    }

    fn system(&self, topic: &str, extension: &str, status: &str, message: &str) -> Frame {
        let channel = topic.strip_prefix(PREFIX).unwrap_or(topic);
        Frame {
            join_ref: self.join_ref.clone(),
            reference: None,
            topic: topic.to_owned(),
            event: "system".to_owned(),
            payload: json!({
                "extension": extension, "status": status, "message": message, "channel": channel,
            }),
        }
    }

    /// Clients ignore a close whose `ref` is another than `join_ref`.
    fn closed(&self, topic: &str) -> Frame {
        Frame {
            join_ref: self.join_ref.clone(),
            reference: self.join_ref.clone(),
            topic: topic.to_owned(),
            event: "phx_close".to_owned(),
            payload: json!({}),
        }
    }
}

/// The user's token in a payload; a missing one and a key stand for the socket's key.
fn token_of(payload: &Value) -> Option<&str> {
    let token = payload.get("access_token")?.as_str()?;
    (!token.is_empty() && !token.starts_with("sb_")).then_some(token)
}

fn ok(frame: &Frame, response: Value) -> Frame {
    reply(frame.join_ref.clone(), frame, "ok", response)
}

fn refused(frame: &Frame, reason: &str) -> Frame {
    reply(frame.join_ref.clone(), frame, "error", reason_of(reason))
}

fn reason_of(reason: &str) -> Value {
    json!({"reason": reason})
}

fn reply(join_ref: Option<String>, frame: &Frame, status: &str, response: Value) -> Frame {
    Frame {
        join_ref,
        reference: frame.reference.clone(),
        topic: frame.topic.clone(),
        event: "phx_reply".to_owned(),
        payload: Value::Object(Map::from_iter([
            ("status".to_owned(), status.into()),
            ("response".to_owned(), response),
        ])),
    }
}
