//! The protocol over one socket after the other: two channels, heartbeats, tokens. Pure: frames,
//! tokens and time come in, [`Output`]s go out.

use std::collections::VecDeque;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::tokens::same;
use super::channel::{Channel, Refusal};
use super::{Event, State, Topic};
use crate::model::{GatewayId, Job, JobId, JobStatus, TeamId};
use crate::phoenix::{Frame, Version};

const HEARTBEAT_EVERY: Duration = Duration::from_secs(25);
/// Frames that cannot be read ask for a poll this often at most.
const UNCLEAR_EVERY: Duration = Duration::from_secs(1);
/// After a token could not be had.
const TOKEN_PAUSE: Duration = Duration::from_secs(4);
const SOCKET_TOPIC: &str = "phoenix";

/// What is to be done.
#[derive(Debug)]
pub(super) enum Output {
    /// Send this text message; it may hold a token.
    Send(SecretString),
    /// Tell.
    Tell(Event),
    /// Get a token that lives for a while and is not this one, then call [`Link::token`] or
    /// [`Link::no_token`].
    Token(Option<SecretString>),
    /// Drop the connection at once, for this reason, and call [`Link::disconnected`].
    Drop(&'static str),
}

#[derive(Debug)]
struct Beat {
    due: Instant,
    /// Reference of the one that is not answered.
    awaited: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    gateway: GatewayId,
    team: TeamId,
    inserts: Channel,
    updates: Channel,
    /// `None` while there is no socket.
    beat: Option<Beat>,
    references: u64,
    out: VecDeque<Output>,
    told: State,
    /// The backend's refusal was told.
    unavailable: bool,
    trouble: Option<String>,
    unclear_at: Option<Instant>,
    rng: fastrand::Rng,
}

impl Link {
    pub(super) fn new(now: Instant, gateway: GatewayId, team: TeamId, rng: fastrand::Rng) -> Self {
        Self {
            gateway,
            team,
            inserts: Channel::new(now),
            updates: Channel::new(now),
            beat: None,
            references: 0,
            out: VecDeque::new(),
            told: State::Disconnected,
            unavailable: false,
            trouble: None,
            unclear_at: None,
            rng,
        }
    }

    /// When a socket is of use: not before a channel may be joined.
    pub(super) fn wants_socket_at(&self) -> Option<Instant> {
        [&self.inserts, &self.updates].into_iter().filter_map(Channel::deadline).min()
    }

    /// A socket was made.
    pub(super) fn connected(&mut self, now: Instant) {
        self.beat = Some(Beat { due: now + HEARTBEAT_EVERY, awaited: None });
        self.out.push_back(Output::Tell(Event::Connected));
        self.tick(now);
    }

    /// The socket is gone, or none could be made.
    pub(super) fn disconnected(&mut self, now: Instant, why: Option<String>) {
        self.beat = None;
        self.out.retain(|output| matches!(output, Output::Tell(_)));
        self.inserts.disconnected(now);
        self.updates.disconnected(now);
        self.trouble = why.or(self.trouble.take());
        self.tell_state();
    }

    /// The backend refuses the socket for good.
    pub(super) fn refused(&mut self, now: Instant, why: String) {
        self.inserts.refuse(now);
        self.updates.refuse(now);
        self.unavailable(why);
        self.tell_state();
    }

    /// Whatever waits is tried now.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.inserts.hurry(now);
        self.updates.hurry(now);
    }

    /// The token in force: what waited for one is joined, and what has another one gets it.
    pub(super) fn token(&mut self, now: Instant, token: &SecretString) {
        for topic in [Topic::Inserts, Topic::Updates] {
            if self.channel(topic).wants_token() {
                self.join(now, topic, token);
            } else if self.channel(topic).token().is_some_and(|held| !same(held, token)) {
                self.push_token(topic, token);
            }
        }
        self.tell_state();
    }

    /// None could be had.
    pub(super) fn no_token(&mut self, now: Instant) {
        let at = now + TOKEN_PAUSE;
        self.inserts.no_token(at);
        self.updates.no_token(at);
    }

    /// A text message came in.
    pub(super) fn received(&mut self, now: Instant, text: &str) {
        let Ok(frame) = Frame::decode(Version::V2, text) else {
            tracing::debug!(length = text.len(), "realtime sent what is no frame");
            self.unclear(now);
            return;
        };
        if frame.topic == SOCKET_TOPIC {
            if let Some(beat) = &mut self.beat
                && frame.event == "phx_reply"
                && frame.reference == beat.awaited
            {
                beat.awaited = None;
            }
            return;
        }
        let Some(topic) = self.topic_of(&frame.topic) else { return };
        let Some(reference) = self.channel(topic).reference() else { return };
        // What belongs to an earlier join is not about this one.
        if frame.join_ref.as_deref().is_some_and(|stale| stale != reference) {
            return;
        }
        let own = frame.reference.as_deref() == Some(reference);
        match frame.event.as_str() {
            "phx_reply" => self.reply(now, topic, own, &frame.payload),
            "phx_close" | "phx_error" if own || frame.reference.is_none() => {
                self.trouble = Some(format!("the backend closed the channel ({})", frame.event));
                self.channel_and_rng(topic, |channel, rng| channel.closed(now, rng));
            }
            "system" => self.system(now, topic, &frame.payload),
            "postgres_changes" => self.change(now, topic, frame.payload),
            _ => {}
        }
        self.settle(now);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        for topic in [Topic::Inserts, Topic::Updates] {
            if self.channel(topic).is_overdue(now) {
                self.trouble = Some("the backend did not subscribe in time".to_owned());
                self.channel_and_rng(topic, |channel, rng| channel.failed(now, None, rng));
            }
        }
        self.beat(now);
        self.settle(now);
    }

    /// When to call [`Self::tick`] while there is a socket.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let beat = self.beat.as_ref().map(|beat| beat.due);
        [beat, self.inserts.deadline(), self.updates.deadline()].into_iter().flatten().min()
    }

    /// What is to be done, in order.
    pub(super) fn next_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Leaves what is joined; the socket is closed next.
    pub(super) fn leave(&mut self) {
        self.out.clear();
        for topic in [Topic::Inserts, Topic::Updates] {
            if let Some(join_ref) = self.channel(topic).reference().map(str::to_owned) {
                self.send(Some(join_ref), self.name(topic), "phx_leave", json!({}));
            }
        }
    }

    /// True once new jobs are told.
    pub(super) fn is_ready(&self) -> bool {
        self.inserts.is_ready()
    }

    fn channel(&mut self, topic: Topic) -> &mut Channel {
        match topic {
            Topic::Inserts => &mut self.inserts,
            Topic::Updates => &mut self.updates,
        }
    }

    fn channel_and_rng(
        &mut self,
        topic: Topic,
        act: impl FnOnce(&mut Channel, &mut fastrand::Rng),
    ) {
        let channel = match topic {
            Topic::Inserts => &mut self.inserts,
            Topic::Updates => &mut self.updates,
        };
        act(channel, &mut self.rng);
    }

    fn name(&self, topic: Topic) -> String {
        match topic {
            Topic::Inserts => format!("realtime:gateway_jobs_{}", self.gateway),
            Topic::Updates => format!("realtime:gateway_jobs_{}_updates", self.gateway),
        }
    }

    fn topic_of(&self, name: &str) -> Option<Topic> {
        [Topic::Inserts, Topic::Updates].into_iter().find(|topic| self.name(*topic) == name)
    }

    /// What a channel is bound to.
    fn binding(&self, topic: Topic) -> Value {
        let (event, filter) = match topic {
            Topic::Inserts => ("INSERT", format!("team_id=eq.{}", self.team)),
            Topic::Updates => ("UPDATE", format!("gateway_id=eq.{}", self.gateway)),
        };
        json!({"event": event, "schema": "public", "table": "gateway_jobs", "filter": filter})
    }

    fn join(&mut self, now: Instant, topic: Topic, token: &SecretString) {
        let payload = json!({
            "config": {
                "broadcast": {"ack": false, "self": false},
                "presence": {"key": "", "enabled": false},
                "postgres_changes": [self.binding(topic)],
                "private": false,
            },
            "access_token": token.expose_secret(),
        });
        let reference = self.next_reference();
        self.channel(topic).join(now, reference.clone(), token.clone());
        let join_ref = Some(reference.clone());
        self.send_as(join_ref, Some(reference), self.name(topic), "phx_join", payload);
    }

    fn push_token(&mut self, topic: Topic, token: &SecretString) {
        self.channel(topic).pushed(token.clone());
        let join_ref = self.channel(topic).reference().map(str::to_owned);
        let payload = json!({"access_token": token.expose_secret()});
        self.send(join_ref, self.name(topic), "access_token", payload);
    }

    fn beat(&mut self, now: Instant) {
        let Some(beat) = &mut self.beat else { return };
        if beat.due > now {
            return;
        }
        if beat.awaited.is_some() {
            self.out.push_back(Output::Drop("a heartbeat was not answered"));
            return;
        }
        beat.due = now + HEARTBEAT_EVERY;
        let reference = self.next_reference();
        if let Some(beat) = &mut self.beat {
            beat.awaited = Some(reference.clone());
        }
        self.send_as(None, Some(reference), SOCKET_TOPIC.to_owned(), "heartbeat", json!({}));
    }

    fn reply(&mut self, now: Instant, topic: Topic, to_join: bool, payload: &Value) {
        let ok = payload["status"] == "ok";
        let reason = payload["response"]["reason"].as_str().unwrap_or("no reason given");
        if to_join && ok {
            if self.is_what_was_asked(topic, &payload["response"]["postgres_changes"]) {
                self.channel(topic).accepted();
            } else {
                self.trouble = Some("the backend bound the channel to something else".to_owned());
                let refusal = Some(Refusal::Passing);
                self.channel_and_rng(topic, |channel, rng| channel.failed(now, refusal, rng));
            }
        } else if to_join {
            self.join_refused(now, topic, reason);
        } else if !ok && reason.contains("unmatched topic") && self.channel(topic).is_answered() {
            // The backend has forgotten the channel.
            self.trouble = Some("the backend lost the channel".to_owned());
            self.channel_and_rng(topic, |channel, rng| channel.closed(now, rng));
        }
    }

    /// The echo names the one binding that was asked for. A backend that echoes nothing is judged by
    /// its readiness alone. The binding's `id` does not matter: what comes is judged by its row.
    fn is_what_was_asked(&self, topic: Topic, echo: &Value) -> bool {
        let asked = self.binding(topic);
        let same = |field: &str| echo[0][field].is_null() || echo[0][field] == asked[field];
        match echo.as_array() {
            None => true,
            Some(bindings) => {
                bindings.len() == 1 && ["event", "schema", "table", "filter"].into_iter().all(same)
            }
        }
    }

    fn join_refused(&mut self, now: Instant, topic: Topic, reason: &str) {
        let refusal = Refusal::of(reason);
        let why: String = reason.chars().take(200).collect();
        tracing::debug!(?topic, reason = why, "a channel was refused");
        self.channel_and_rng(topic, |channel, rng| channel.failed(now, Some(refusal), rng));
        if topic == Topic::Inserts {
            if refusal == Refusal::Final {
                self.unavailable(why);
            } else {
                self.trouble = Some(why);
            }
        }
    }

    fn unavailable(&mut self, why: String) {
        if !self.unavailable {
            self.unavailable = true;
            self.out.push_back(Output::Tell(Event::Unavailable(why.clone())));
        }
        self.trouble = Some(why);
    }

    fn system(&mut self, now: Instant, topic: Topic, payload: &Value) {
        let message = payload["message"].as_str().unwrap_or_default();
        let ok = payload["status"] == "ok";
        match payload["extension"].as_str() {
            Some("postgres_changes") if ok => self.subscribed(topic),
            Some("postgres_changes") => {
                self.trouble = Some(message.chars().take(200).collect());
                self.channel(topic).unready(now);
            }
            _ if !ok => self.channel(topic).complained(Refusal::of(message)),
            _ => {}
        }
    }

    fn subscribed(&mut self, topic: Topic) {
        if !self.channel(topic).ready() {
            return;
        }
        if topic == Topic::Inserts {
            self.unavailable = false;
            self.trouble = None;
        }
        self.out.push_back(Output::Tell(Event::Subscribed(topic)));
    }

    fn change(&mut self, now: Instant, topic: Topic, mut payload: Value) {
        let Some(since) = self.channel(topic).joined_at() else { return };
        let Some(data) = payload.get_mut("data").and_then(Value::as_object_mut) else {
            return self.unclear(now);
        };
        let row = data.remove("record").unwrap_or_default();
        let complete = match data.get("errors") {
            None | Some(Value::Null) => row.is_object(),
            Some(Value::Array(errors)) => errors.is_empty() && row.is_object(),
            Some(_) => false,
        };
        match topic {
            Topic::Inserts => self.inserted(now, row, complete, since),
            Topic::Updates => self.updated(&row),
        }
    }

    fn inserted(&mut self, now: Instant, row: Value, complete: bool, since: Instant) {
        // The team's other gateways get jobs too.
        if row["gateway_id"].as_str().is_some_and(|id| id != self.gateway.as_str()) {
            return;
        }
        match Job::decode(&row) {
            Ok(job) if complete => {
                if job.status == JobStatus::Queued {
                    self.out.push_back(Output::Tell(Event::Queued { row, since }));
                }
            }
            // The row itself may be in order: the poll decides.
            Ok(_) | Err(_) => self.unclear(now),
        }
    }

    /// Large columns may be missing in it; id and status never are.
    fn updated(&mut self, row: &Value) {
        let status = row["status"].as_str().and_then(JobStatus::parse);
        if let (Some(id), Some(status)) = (row["id"].as_str(), status)
            && status != JobStatus::Running
        {
            self.out.push_back(Output::Tell(Event::NotRunning(JobId::new(id))));
        }
    }

    fn unclear(&mut self, now: Instant) {
        if self.unclear_at.is_none_or(|at| now.duration_since(at) >= UNCLEAR_EVERY) {
            self.unclear_at = Some(now);
            self.out.push_back(Output::Tell(Event::Unclear));
        }
    }

    /// Asks for what is due now.
    fn settle(&mut self, now: Instant) {
        if self.beat.is_some() {
            let due = [self.inserts.take_due(now), self.updates.take_due(now)];
            // One token serves both.
            if due.iter().any(Option::is_some) {
                let refused = due.into_iter().flatten().find_map(|due| due.refused);
                self.out.push_back(Output::Token(refused));
            }
            if self.inserts.is_refused() && self.updates.is_refused() {
                self.out.push_back(Output::Drop("the backend refuses realtime"));
            }
        }
        self.tell_state();
    }

    fn tell_state(&mut self) {
        let state = if self.inserts.is_refused() {
            State::Unavailable
        } else if self.beat.is_none() {
            State::Disconnected
        } else if self.inserts.is_ready() {
            State::Ready
        } else {
            State::Joining
        };
        if state != self.told {
            self.told = state;
            self.out.push_back(Output::Tell(Event::State(state, self.trouble.clone())));
        }
    }

    fn next_reference(&mut self) -> String {
        self.references += 1;
        self.references.to_string()
    }

    fn send(&mut self, join_ref: Option<String>, topic: String, event: &str, payload: Value) {
        let reference = Some(self.next_reference());
        self.send_as(join_ref, reference, topic, event, payload);
    }

    fn send_as(
        &mut self,
        join_ref: Option<String>,
        reference: Option<String>,
        topic: String,
        event: &str,
        payload: Value,
    ) {
        let frame = Frame { join_ref, reference, topic, event: event.to_owned(), payload };
        match frame.encode(Version::V2) {
            Ok(text) => self.out.push_back(Output::Send(text.into())),
            Err(error) => tracing::error!(%error, event, "a frame cannot be written"),
        }
    }
}

#[cfg(test)]
mod tests;
