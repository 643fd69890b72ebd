//! The realtime supervisor: what the backend tells becomes offers, looks at rows, and polls.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events;
use super::identity::Identity;
use super::session;
use super::shared::Login;
use crate::backend::GatewayEvent;
use crate::backend::realtime::{Event, State, Topic};
use crate::jobs::{News, Offer};
use crate::model::{JobId, time};
use crate::task::Group;

/// Events under way. A gateway that is behind lets the socket wait.
const EVENTS: usize = 64;
/// How long an event for the backend may hold up the end.
const EVENT_BUDGET: Duration = Duration::from_secs(1);

/// Keeps realtime until `stop`, draining included: cancels still matter then.
pub(super) async fn run(identity: Arc<Identity>, stop: CancellationToken) {
    let shared = &identity.shared;
    let mut login = shared.login.subscribe();
    tokio::select! {
        // Cancel safe: a watch.
        _ = login.wait_for(|login| *login != Login::Unknown) => {}
        () = stop.cancelled() => return,
    }
    let client = match identity.api.realtime(Matcher::from_env()) {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(%error, "no realtime; jobs are found by polling");
            return stop.cancelled().await;
        }
    };
    let (tell, mut events) = mpsc::channel(EVENTS);
    let mut reports = Group::new(stop.child_token());
    let heard = async {
        while let Some(event) = events.recv().await {
            hear(&identity, &mut reports, event).await;
        }
    };
    let (woken, back) = (shared.woken.subscribe(), shared.back.subscribe());
    tokio::join!(client.run(tell, woken, back, stop.clone()), heard);
    reports.stop(EVENT_BUDGET).await;
    note_state(&identity, State::Disconnected, None);
}

async fn hear(identity: &Arc<Identity>, reports: &mut Group, event: Event) {
    let shared = &identity.shared;
    match event {
        Event::State(state, why) => note_state(identity, state, why.as_deref()),
        Event::Connected => {
            if shared.notes().realtime.connected() {
                shared.poll_soon();
            }
        }
        Event::Subscribed(Topic::Inserts) => shared.poll_soon(),
        Event::Subscribed(Topic::Updates) => send(identity, News::MayHaveChanged).await,
        Event::Queued { row, since } => {
            if let Some(id) = row.get("id").and_then(Value::as_str) {
                shared.deliveries().told(JobId::new(id));
            }
            send(identity, News::Queued(Offer { rows: vec![row], seen_at: since })).await;
        }
        Event::NotRunning(id) => send(identity, News::NotRunning(id)).await,
        Event::Unclear => {
            // Which job it was about is not known: none is held against the channel.
            shared.deliveries().excuse(identity.api.server_time());
            shared.poll_soon();
        }
        Event::Unavailable(why) => {
            let why = identity.host.redactor.text(&why);
            tracing::warn!(why, "the backend refuses realtime; jobs are found by polling");
            let own = Arc::clone(identity);
            reports.spawn("realtime event", move |stop| async move {
                tokio::select! {
                    // Cancel safe: an event that was not recorded is one line less there.
                    () = report_unavailable(&own, why) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Event::SessionFailed(error) => session::note_ended(shared, &error),
    }
}

async fn send(identity: &Identity, news: News) {
    let controller = identity.shared.news.borrow().clone();
    if let Some(controller) = controller {
        // A controller that is being started again finds out by polling.
        let _ = controller.send(news).await;
    }
}

fn note_state(identity: &Identity, state: State, why: Option<&str>) {
    let shared = &identity.shared;
    let why = why.map(|why| identity.host.redactor.text(why));
    if state == State::Ready {
        shared.deliveries().begin(identity.api.server_time());
        tracing::info!("realtime is ready");
    } else {
        shared.deliveries().end();
        tracing::debug!(?state, why, "realtime is not ready");
    }
    let mut notes = shared.notes();
    if state != State::Ready && notes.realtime.is_ready() {
        tracing::info!(why, "realtime is lost for now; jobs are found by polling");
    }
    notes.realtime.change(state, why, time::now_wire());
}

async fn report_unavailable(identity: &Identity, why: String) {
    let event = GatewayEvent {
        provider: None,
        level: "warn",
        code: Some("realtime_unavailable"),
        message: format!("The backend refuses realtime; jobs are found by polling: {why}"),
        details: Map::from_iter([("reason".to_owned(), Value::from(why))]),
    };
    events::record(identity, event).await;
}
