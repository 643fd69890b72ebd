//! Keeps a socket to the backend for as long as it runs, and tells what comes over it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::client::proxy::matcher::Matcher;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::Event;
use super::link::{Link, Output};
use super::pace::{Outcome, Pace};
use super::socket::{DialError, Dialer, Socket};
use crate::backend::{BackendError, Endpoint, Session};
use crate::model::{GatewayId, TeamId};

/// A connection that does not take a small frame for so long is dead.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// Leaving is a courtesy.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

type TokenFetch<'a> = Pin<Box<dyn Future<Output = Result<SecretString, BackendError>> + Send + 'a>>;

/// See the module.
#[derive(Debug)]
pub struct Client {
    dialer: Dialer,
    session: Arc<Session>,
    gateway: GatewayId,
    team: TeamId,
}

/// How a connection, or the attempt to make one, ended.
enum End {
    /// Not by us; why.
    Broken(Outcome, String),
    /// The backend refuses; why.
    Refused(String),
    /// Everything is to be tried at once.
    Woken,
    /// The session is over.
    SessionEnded,
    /// By us.
    Stopped,
}

/// What lasts from one connection to the next.
struct Run {
    link: Link,
    pace: Pace,
    events: mpsc::Sender<Event>,
    wake: watch::Receiver<u64>,
    back: watch::Receiver<u64>,
    stop: CancellationToken,
    rng: fastrand::Rng,
}

impl Client {
    /// For this gateway; through these proxies, unless the backend is on loopback.
    pub fn new(
        endpoint: &Endpoint,
        session: Arc<Session>,
        gateway: GatewayId,
        team: TeamId,
        proxies: Matcher,
    ) -> Result<Self, BackendError> {
        Ok(Self { dialer: Dialer::new(endpoint, proxies)?, session, gateway, team })
    }

    /// Runs until `stop`, or until nobody takes the events any more. A change of `wake` drops the
    /// connection and makes a new one at once; one of `back` says that the backend can be reached
    /// again, and ends a wait for that.
    pub async fn run(
        &self,
        events: mpsc::Sender<Event>,
        wake: watch::Receiver<u64>,
        back: watch::Receiver<u64>,
        stop: CancellationToken,
    ) {
        let now = Instant::now();
        let (gateway, team) = (self.gateway.clone(), self.team.clone());
        let link = Link::new(now, gateway, team, fastrand::Rng::new());
        let rng = fastrand::Rng::new();
        let mut run = Run { link, pace: Pace::default(), events, wake, back, stop, rng };
        loop {
            let end = self.connection(&mut run).await;
            let now = Instant::now();
            let mut next = now;
            let mut asked_for_time = false;
            match end {
                End::Stopped => return,
                End::SessionEnded => {
                    run.link.disconnected(now, Some("the pairing was revoked".to_owned()));
                    run.tell_all().await;
                    return run.stop.cancelled().await;
                }
                End::Woken => {
                    tracing::debug!("realtime is connected anew");
                    run.link.disconnected(now, None);
                    run.link.hurry(now);
                }
                End::Refused(why) => {
                    run.link.disconnected(now, None);
                    run.link.refused(now, why);
                }
                End::Broken(outcome, why) => {
                    let pause = run.pace.after(outcome, now, &mut run.rng);
                    tracing::debug!(why, pause_ms = pause.as_millis(), "no realtime connection");
                    next = now + pause;
                    asked_for_time = outcome == Outcome::Limited;
                    run.link.disconnected(now, Some(why));
                }
            }
            if !run.tell_all().await || !run.wait(next, asked_for_time).await {
                return;
            }
        }
    }

    /// One connection from attempt to end.
    async fn connection(&self, run: &mut Run) -> End {
        let made = tokio::select! {
            // Cancel safe: a refresh that is dropped is one whose answer was lost, and a half-made
            // connection is of no use to anybody.
            made = self.connect() => made,
            Ok(()) = run.wake.changed() => return End::Woken,
            () = run.stop.cancelled() => return End::Stopped,
        };
        let mut socket = match made {
            Ok(socket) => socket,
            Err(Unmade::Session(error)) => {
                let (ended, why) = (error.ends_session(), error.to_string());
                if !run.tell(Event::SessionFailed(error)).await {
                    return End::Stopped;
                }
                return if ended {
                    End::SessionEnded
                } else {
                    End::Broken(Outcome::OutOfReach, why)
                };
            }
            Err(Unmade::Socket(error)) => {
                let why = error.to_string();
                return match error {
                    DialError::Refused { .. } => End::Refused(why),
                    DialError::Limited => End::Broken(Outcome::Limited, why),
                    DialError::Unwell(_) | DialError::OutOfReach(_) => {
                        End::Broken(Outcome::OutOfReach, why)
                    }
                };
            }
        };
        run.link.connected(Instant::now());
        let end = self.pump(run, &mut socket).await;
        if matches!(end, End::Stopped) {
            run.link.leave();
            // Whether it was heard does not matter.
            let _ = timeout(LEAVE_LIMIT, leave(&mut run.link, &mut socket)).await;
        }
        end
    }

    async fn connect(&self) -> Result<Socket, Unmade> {
        self.session.keep_fresh().await.map_err(Unmade::Session)?;
        self.dialer.dial().await.map_err(Unmade::Socket)
    }

    /// Carries frames between socket and link.
    async fn pump(&self, run: &mut Run, socket: &mut Socket) -> End {
        let mut rotations = self.session.rotations();
        let mut fetch: Option<TokenFetch<'_>> = None;
        loop {
            if let Err(end) = self.carry_out(run, socket, &mut fetch).await {
                return end;
            }
            if run.link.is_ready() {
                run.pace.well();
            }
            let deadline = run.link.deadline();
            tokio::select! {
                // Cancel safe, each arm: watches, timers, a stream; the fetch is kept.
                () = run.stop.cancelled() => return End::Stopped,
                Ok(()) = run.wake.changed() => return End::Woken,
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        run.link.received(Instant::now(), text.as_str());
                    }
                    // Pings are answered by themselves; binary messages are not for us.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => {}
                    Some(Ok(Message::Close(_) | Message::Frame(_))) | None => {
                        let why = "the backend closed the connection".to_owned();
                        return End::Broken(Outcome::Lost, why);
                    }
                    Some(Err(error)) => return End::Broken(Outcome::Lost, error.to_string()),
                },
                fetched = fetched(&mut fetch) => {
                    fetch = None;
                    if let Err(end) = run.take_token(fetched).await {
                        return end;
                    }
                }
                Ok(()) = rotations.changed() => {
                    run.link.token(Instant::now(), &self.session.access_token());
                }
                () = at(deadline) => run.link.tick(Instant::now()),
            }
        }
    }

    /// Does what the link asks for.
    async fn carry_out<'a>(
        &'a self,
        run: &mut Run,
        socket: &mut Socket,
        fetch: &mut Option<TokenFetch<'a>>,
    ) -> Result<(), End> {
        while let Some(output) = run.link.next_output() {
            match output {
                Output::Send(text) => {
                    send(socket, &text).await.map_err(|why| End::Broken(Outcome::Lost, why))?;
                }
                Output::Tell(event) => {
                    if !run.tell(event).await {
                        return Err(End::Stopped);
                    }
                }
                Output::Token(refused) => {
                    fetch.get_or_insert_with(|| Box::pin(self.fresh_token(refused)));
                }
                Output::Drop(why) => return Err(End::Broken(Outcome::Lost, why.to_owned())),
            }
        }
        Ok(())
    }

    async fn fresh_token(
        &self,
        refused: Option<SecretString>,
    ) -> Result<SecretString, BackendError> {
        match refused {
            Some(refused) => self.session.refresh_if_current(&refused).await?,
            None => self.session.keep_fresh().await?,
        }
        Ok(self.session.access_token())
    }
}

/// Why there is no connection.
enum Unmade {
    Session(BackendError),
    Socket(DialError),
}

impl Run {
    /// False when nobody listens any more, or the client is to stop.
    async fn tell(&self, event: Event) -> bool {
        tokio::select! {
            // Cancel safe: an event that is not taken any more is of no use.
            sent = self.events.send(event) => sent.is_ok(),
            () = self.stop.cancelled() => false,
        }
    }

    /// What became of a wanted token.
    async fn take_token(&mut self, token: Result<SecretString, BackendError>) -> Result<(), End> {
        let error = match token {
            Ok(token) => {
                self.link.token(Instant::now(), &token);
                return Ok(());
            }
            Err(error) => error,
        };
        let ended = error.ends_session();
        self.link.no_token(Instant::now());
        if !self.tell(Event::SessionFailed(error)).await {
            return Err(End::Stopped);
        }
        if ended { Err(End::SessionEnded) } else { Ok(()) }
    }

    /// What the link has to tell while there is no socket.
    async fn tell_all(&mut self) -> bool {
        while let Some(output) = self.link.next_output() {
            if let Output::Tell(event) = output
                && !self.tell(event).await
            {
                return false;
            }
        }
        true
    }

    /// Waits until the next attempt is due: not before `next`, unless the backend is seen to be
    /// back and has not asked for time, and not before a channel may be joined. False when the
    /// client is to stop.
    async fn wait(&mut self, mut next: Instant, asked_for_time: bool) -> bool {
        loop {
            let due = self.link.wants_socket_at().map_or(next, |at| at.max(next));
            if due <= Instant::now() {
                return !self.stop.is_cancelled();
            }
            tokio::select! {
                // Cancel safe, each arm: a timer and watches.
                () = sleep_until(due) => return true,
                Ok(()) = self.wake.changed() => {
                    self.link.hurry(Instant::now());
                    return true;
                }
                Ok(()) = self.back.changed(), if !asked_for_time => {
                    self.pace.well();
                    next = Instant::now();
                }
                () = self.stop.cancelled() => return false,
            }
        }
    }
}

async fn send(socket: &mut Socket, text: &SecretString) -> Result<(), String> {
    let message = Message::text(text.expose_secret());
    match timeout(SEND_LIMIT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the connection takes nothing any more".to_owned()),
    }
}

async fn leave(link: &mut Link, socket: &mut Socket) {
    while let Some(output) = link.next_output() {
        if let Output::Send(text) = output
            && send(socket, &text).await.is_err()
        {
            return;
        }
    }
    // An error says that it is closed already.
    let _ = socket.close(None).await;
}

/// The token, once it is there; waits for ever when none was asked for.
async fn fetched(fetch: &mut Option<TokenFetch<'_>>) -> Result<SecretString, BackendError> {
    match fetch {
        Some(fetch) => fetch.await,
        None => std::future::pending().await,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
