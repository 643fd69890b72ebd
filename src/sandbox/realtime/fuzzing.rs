//! What a fuzzer sees of the channels (`--cfg fuzzing` only).

use std::sync::Arc;

use serde_json::json;

use super::channels::Channels;
use super::event::Event;
use super::token::{Grant, TokenError};
use crate::model::{GatewayId, TeamId};
use crate::phoenix::{Frame, Version};
use crate::sandbox::Caller;
use crate::sandbox::rules::Rules;
use crate::sandbox::store::schema::Schema;
use crate::sandbox::store::{Change, ChangeKind};

/// One socket, without the socket.
#[derive(Debug)]
pub struct Session {
    version: Version,
    channels: Channels,
    event: Event,
}

impl Session {
    /// Nothing is joined yet.
    pub fn new(version: Version) -> Self {
        let schema = Arc::new(Schema::built_in());
        let row = json!({"id": "j", "team_id": "t", "status": "queued", "attempt": 1});
        let change = Change { table: "gateway_jobs", kind: ChangeKind::Insert, row, old: None };
        let jobs = schema.table("gateway_jobs");
        let table = jobs.unwrap_or_else(|| unreachable!("it is built in"));
        let event = Event::new(Arc::new(change), table, String::new());
        Self { version, channels: Channels::new(schema, Rules::default()), event }
    }

    /// The answers to a text; `None` when it is no frame. The token `good` is taken.
    pub fn receive(&mut self, text: &str) -> Option<Vec<Frame>> {
        let frame = Frame::decode(self.version, text).ok()?;
        Some(self.channels.receive(frame, text.len(), &read))
    }

    /// The messages about a change of a job.
    pub fn change(&self) -> Vec<String> {
        self.channels.deliver(&self.event, self.version)
    }

    /// What is said when every token expires.
    pub fn expire(&mut self) -> Vec<Frame> {
        let out = self.channels.expire(i64::MAX);
        assert_eq!(self.channels.next_expiry(), None);
        out
    }
}

fn read(token: &str) -> Result<Grant, TokenError> {
    if token != "good" {
        return Err(TokenError::Malformed);
    }
    let caller = Caller::Gateway {
        user_id: "u".to_owned(),
        session_id: "s".to_owned(),
        gateway_id: GatewayId::new("g"),
        team_id: TeamId::new("t"),
    };
    Ok(Grant { caller, expires_at: Some(0) })
}
