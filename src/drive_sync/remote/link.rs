//! Requests to the drives' function, and the token that opens it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use reqwest::{Body, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::ports::RemoteError;
use super::super::wire::{Action, ErrorBody, FUNCTION, Hello, PROTOCOL, Renewed, Request};
use super::answer;

/// Of one answer in JSON.
const LARGEST: usize = 64 << 20;
/// Handed over at a time: so much has to be taken before our patience ends.
pub(super) const PIECE: usize = 64 << 10;
/// What may stand in buffers between us and the server.
const BUFFERED_KIB: u32 = 8 << 10;
/// So many times our patience may pass until full buffers are empty,
const PATIENCE_FOR_BUFFERS: u32 = 8;
/// and until they take more: the system waits for a third of them to be empty.
const PATIENCE_FOR_A_THIRD: u32 = 3;

/// The way to the drives of this machine. Clones share the token.
#[derive(Debug, Clone)]
pub struct Link {
    pub(super) client: reqwest::Client,
    backend: Url,
    anon_key: SecretString,
    client_key: String,
    token: Arc<Mutex<SecretString>>,
    /// Held by the one that gets a new token.
    renewing: Arc<tokio::sync::Mutex<()>>,
    runtime: Arc<OwnRuntime>,
    stop: CancellationToken,
    /// A call that makes no progress for so long is given up.
    pub(super) patience: Duration,
    /// Gives a new token when the old one is not accepted any more.
    session: Option<SessionToken>,
    /// Is given each new token.
    keep: Option<KeepToken>,
}

/// The connections run on the thread that waits for them, and only while it does: what comes is taken
/// from the same memory again and again, and no thread has to wake another one up.
#[derive(Debug)]
struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // Not by waiting: that may not be done everywhere.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Reads the access token of the gateway's own session.
#[derive(Clone)]
pub struct SessionToken(pub Arc<dyn Fn() -> SecretString + Send + Sync>);

/// Keeps a new token, so that a restart finds it.
#[derive(Clone)]
pub struct KeepToken(pub Arc<dyn Fn(&Renewed) + Send + Sync>);

impl fmt::Debug for SessionToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionToken")
    }
}

impl fmt::Debug for KeepToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeepToken")
    }
}

impl Link {
    /// A link that ends with `stop`. To be used outside of any runtime's tasks: its calls block.
    /// `client` must be nobody else's: its connections rest while no call is under way.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub fn new(
        client: reqwest::Client,
        backend: Url,
        anon_key: SecretString,
        client_key: String,
        token: SecretString,
        stop: CancellationToken,
        patience: Duration,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let runtime = Arc::new(OwnRuntime(Some(runtime)));
        let token = Arc::new(Mutex::new(token));
        let renewing = Arc::default();
        let (session, keep) = (None, None);
        Ok(Self {
            client,
            backend,
            anon_key,
            client_key,
            token,
            renewing,
            runtime,
            stop,
            patience,
            session,
            keep,
        })
    }

    /// The same link with what gives a new token when the old one has ended, and what keeps new ones.
    #[must_use]
    pub fn with_keys(self, session: Option<SessionToken>, keep: Option<KeepToken>) -> Self {
        Self { session, keep, ..self }
    }

    /// The drives that this machine may use.
    pub fn hello(&self) -> Result<Hello, RemoteError> {
        self.call(Action::Hello { protocol: PROTOCOL })
    }

    /// A new token, used from here on.
    pub fn renew(&self) -> Result<Renewed, RemoteError> {
        let renewed: Renewed = self.call(Action::Renew)?;
        self.take_up(&renewed);
        Ok(renewed)
    }

    fn take_up(&self, renewed: &Renewed) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = renewed.token.clone().into();
        if let Some(KeepToken(keep)) = &self.keep {
            keep(renewed);
        }
    }

    pub(super) fn call<T: DeserializeOwned>(&self, action: Action) -> Result<T, RemoteError> {
        self.wait(self.ask(action))
    }

    /// The same as a part of something that is waited for.
    pub(super) async fn ask<T: DeserializeOwned>(&self, action: Action) -> Result<T, RemoteError> {
        let body = self.body_of(action)?;
        let token = self.own_token();
        match self.post(&token, body.clone()).await {
            // The machine may have slept for longer than the token lasted.
            Err(RemoteError::TokenRefused { message }) => {
                self.open_anew(&token, &message).await?;
                self.post(&self.own_token(), body).await
            }
            answer => answer,
        }
    }

    fn body_of(&self, action: Action) -> Result<Bytes, RemoteError> {
        let mut body = Vec::with_capacity(action.length());
        let request = Request { client_key: self.client_key.clone(), action };
        serde_json::to_writer(&mut body, &request).map_err(|error| {
            RemoteError::Local(format!("a request could not be written: {error}"))
        })?;
        Ok(body.into())
    }

    /// Gets a new token by the gateway's session; what was refused had no effect. Of several that are
    /// refused at the same time the first gets it for all of them.
    async fn open_anew(&self, refused: &SecretString, why: &str) -> Result<(), RemoteError> {
        let Some(SessionToken(session)) = &self.session else {
            return Err(RemoteError::TokenRefused { message: why.to_owned() });
        };
        let _turn = self.renewing.lock().await;
        if self.own_token().expose_secret() != refused.expose_secret() {
            return Ok(());
        }
        let body = self.body_of(Action::Renew)?;
        let renewed = self.post::<Renewed>(&session(), body).await.map_err(|error| {
            let message = format!("{why}; the gateway's session gives no other one: {error}");
            RemoteError::TokenRefused { message }
        })?;
        tracing::info!("the drives' token was not accepted any more; the session gave a new one");
        self.take_up(&renewed);
        Ok(())
    }

    async fn post<T: DeserializeOwned>(
        &self,
        token: &SecretString,
        body: Bytes,
    ) -> Result<T, RemoteError> {
        let url = self.url(&format!("functions/v1/{FUNCTION}"))?;
        let pieces = pieces_of(body.clone());
        let request = self
            .client
            .post(url)
            .headers(self.headers(token)?)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, body.len());
        let response = self.with_body(request, body.len() as u64, pieces).await?;
        read(self, response).await
    }

    /// Sends a body piece by piece and takes the answer. It is given up when no piece is taken for
    /// as long as our patience lasts; what was taken before may stand in buffers on its way, so that
    /// a long body gets more of it, and its answer most.
    pub(super) async fn with_body(
        &self,
        request: RequestBuilder,
        length: u64,
        mut pieces: impl FnMut() -> Result<Option<Bytes>, RemoteError>,
    ) -> Result<Response, RemoteError> {
        let (give, taken) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = stream::unfold(taken, |mut taken| async move {
            taken.recv().await.map(|piece| (piece, taken))
        });
        let answer = request.body(Body::wrap_stream(body)).send();
        let feed = async {
            let mut handed_over = 0;
            while let Some(piece) = pieces()? {
                let size = piece.len() as u64;
                let patience = self.patience_after(handed_over, PATIENCE_FOR_A_THIRD);
                if self.within(patience, give.send(Ok(piece))).await?.is_err() {
                    // The server has answered already; its answer tells why.
                    break;
                }
                handed_over += size;
            }
            drop(give);
            Ok::<(), RemoteError>(())
        };
        tokio::pin!(feed, answer);
        tokio::select! {
            // Dropping the feed: the server wants no more of it.
            answer = &mut answer => answer.map_err(unreachable),
            end = &mut feed => {
                end?;
                let patience = self.patience_after(length, PATIENCE_FOR_BUFFERS);
                self.within(patience, answer).await?.map_err(unreachable)
            }
        }
    }

    /// How long nothing may be seen to move after so many bytes were handed over, `more` times our
    /// patience for full buffers: that they are in a buffer does not mean that they have arrived.
    fn patience_after(&self, bytes: u64, more: u32) -> Duration {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).min(BUFFERED_KIB);
        self.patience + self.patience * more * kib / BUFFERED_KIB
    }

    fn own_token(&self) -> SecretString {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs something that belongs to one call of the engine; the end of the engine ends it.
    pub(super) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        // It is there as long as there is a link.
        let Some(runtime) = &self.runtime.0 else { return Err(RemoteError::Stopped) };
        if self.stop.is_cancelled() {
            return Err(RemoteError::Stopped);
        }
        runtime.block_on(async {
            tokio::select! {
                // Dropping the work closes its connections; a write that was on its way is repeated
                // with the same operation id.
                () = self.stop.cancelled() => Err(RemoteError::Stopped),
                result = work => result,
            }
        })
    }

    /// One step of a call.
    pub(super) async fn patiently<F: Future>(&self, step: F) -> Result<F::Output, RemoteError> {
        self.within(self.patience, step).await
    }

    async fn within<F: Future>(
        &self,
        patience: Duration,
        step: F,
    ) -> Result<F::Output, RemoteError> {
        timeout(patience, step).await.map_err(|_| RemoteError::Unavailable {
            message: format!("nothing came for {} s", patience.as_secs()),
            retry_after: None,
        })
    }

    /// An address in an answer may be relative to the backend's.
    pub(super) fn url(&self, address: &str) -> Result<Url, RemoteError> {
        let mut base = self.backend.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        base.join(address).map_err(|_| answer::broken("an address that is none"))
    }

    fn headers(&self, token: &SecretString) -> Result<HeaderMap, RemoteError> {
        let mut headers = HeaderMap::new();
        for (name, text) in [
            (AUTHORIZATION, format!("Bearer {}", token.expose_secret())),
            (reqwest::header::HeaderName::from_static("apikey"), {
                self.anon_key.expose_secret().to_owned()
            }),
        ] {
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| answer::broken("a token that no header can hold"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

/// Bytes, a piece at a time.
fn pieces_of(mut bytes: Bytes) -> impl FnMut() -> Result<Option<Bytes>, RemoteError> {
    move || {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// Not reached, or lost on the way.
pub(super) fn unreachable(error: reqwest::Error) -> RemoteError {
    let error = anyhow::Error::new(error.without_url());
    RemoteError::Unavailable { message: format!("{error:#}"), retry_after: None }
}

async fn read<T: DeserializeOwned>(link: &Link, mut response: Response) -> Result<T, RemoteError> {
    let status = response.status();
    let retry_after = retry_after(&response);
    let length = response.content_length().and_then(|length| usize::try_from(length).ok());
    let mut body = Vec::with_capacity(length.unwrap_or(0).min(LARGEST));
    while let Some(piece) = link.patiently(response.chunk()).await?.map_err(unreachable)? {
        if body.len() + piece.len() > LARGEST {
            return Err(answer::broken("it has no end"));
        }
        body.extend_from_slice(&piece);
    }
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| answer::broken(&format!("{error}")));
    }
    Err(refusal_of(status, &body, retry_after))
}

/// What an answer that is no success means; it may come from something that stands between, and
/// then says nothing about the drive.
pub(super) fn refusal_of(
    status: StatusCode,
    body: &[u8],
    retry_after: Option<Duration>,
) -> RemoteError {
    if let Ok(refused) = serde_json::from_slice::<ErrorBody>(body) {
        return answer::refusal(refused.error, retry_after);
    }
    let message = format!("the server answers with status {}", status.as_u16());
    RemoteError::Unavailable { message, retry_after }
}

/// Seconds only; the other form, a date, is used by nobody who speaks this protocol.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
