//! One connection, or one join, to see whether that works.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::client::proxy::matcher::Matcher;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::Event;
use super::link::{Link, Output};
use super::socket::{Dialer, Socket};
use crate::backend::Endpoint;
use crate::model::{GatewayId, TeamId};

/// Joining, from the open connection to the backend's word that it tells of new jobs.
const JOIN_LIMIT: Duration = Duration::from_secs(15);
/// Leaving is a courtesy.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// An open connection that is used once.
pub struct Connection(Socket);

/// Sockets have no `Debug` of use.
impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

/// Makes a connection; through these proxies, unless the backend is on loopback. The error is one
/// line.
pub async fn connect(endpoint: &Endpoint, proxies: Matcher) -> Result<Connection, String> {
    let dialer = Dialer::new(endpoint, proxies).map_err(|error| error.to_string())?;
    dialer.dial().await.map(Connection).map_err(|error| error.to_string())
}

impl Connection {
    /// Joins the gateway's channels with this access token, and leaves once the backend says that
    /// it tells of new jobs. The error is one line.
    pub async fn join(
        mut self,
        access: &SecretString,
        gateway: GatewayId,
        team: TeamId,
    ) -> Result<(), String> {
        let mut link = Link::new(Instant::now(), gateway, team, fastrand::Rng::new());
        let mut trouble = None;
        let joined = timeout(JOIN_LIMIT, pump(&mut link, &mut self.0, access, &mut trouble)).await;
        let Ok(joined) = joined else {
            let silent = format!("no answer within {} seconds", JOIN_LIMIT.as_secs());
            return Err(trouble.unwrap_or(silent));
        };
        // Whether it was heard does not matter.
        let _ = timeout(LEAVE_LIMIT, self.0.close(None)).await;
        joined
    }
}

/// Until new jobs are told. What went wrong on the way, and may pass, is left in `trouble`.
async fn pump(
    link: &mut Link,
    socket: &mut Socket,
    access: &SecretString,
    trouble: &mut Option<String>,
) -> Result<(), String> {
    link.connected(Instant::now());
    loop {
        while let Some(output) = link.next_output() {
            match output {
                Output::Send(text) => {
                    let message = Message::text(text.expose_secret());
                    socket.send(message).await.map_err(|error| error.to_string())?;
                }
                Output::Token(None) => link.token(Instant::now(), access),
                Output::Token(Some(_)) => {
                    return Err("the backend does not take the access token".to_owned());
                }
                Output::Drop(why) => return Err(why.to_owned()),
                Output::Tell(Event::Unavailable(why)) => return Err(why),
                Output::Tell(Event::State(_, Some(why))) => *trouble = Some(why),
                Output::Tell(_) => {}
            }
        }
        if link.is_ready() {
            return Ok(());
        }
        let deadline = link.deadline();
        tokio::select! {
            // Cancel safe, each arm: a stream and a timer.
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => link.received(Instant::now(), text.as_str()),
                Some(Ok(Message::Close(_))) | None => {
                    let closed = || "the backend closed the connection".to_owned();
                    return Err(trouble.take().unwrap_or_else(closed));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            },
            () = sleep_until(deadline.unwrap_or_else(|| Instant::now() + JOIN_LIMIT)) => {
                link.tick(Instant::now());
            }
        }
    }
}
