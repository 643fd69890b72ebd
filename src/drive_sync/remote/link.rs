//! One request at a time to the drives' function, and the token that opens it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::ports::RemoteError;
use super::super::wire::{Action, ErrorBody, FUNCTION, Hello, PROTOCOL, Renewed, Request};
use super::answer;

/// Of one answer in JSON.
const LARGEST: usize = 64 << 20;

/// The way to the drives of this machine. Clones share the token.
#[derive(Debug, Clone)]
pub struct Link {
    pub(super) client: reqwest::Client,
    backend: Url,
    anon_key: SecretString,
    client_key: String,
    token: Arc<Mutex<SecretString>>,
    runtime: tokio::runtime::Handle,
    stop: CancellationToken,
    /// A call that makes no progress for so long is given up.
    pub(super) patience: Duration,
}

impl Link {
    /// A link that ends with `stop`. To be used outside the runtime's own tasks: its calls block.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of them are needed, each is of its own kind"
    )]
    pub fn new(
        client: reqwest::Client,
        backend: Url,
        anon_key: SecretString,
        client_key: String,
        token: SecretString,
        runtime: tokio::runtime::Handle,
        stop: CancellationToken,
        patience: Duration,
    ) -> Self {
        let token = Arc::new(Mutex::new(token));
        Self { client, backend, anon_key, client_key, token, runtime, stop, patience }
    }

    /// The drives that this machine may use.
    pub fn hello(&self) -> Result<Hello, RemoteError> {
        self.call(Action::Hello { protocol: PROTOCOL })
    }

    /// A new token, used from here on.
    pub fn renew(&self) -> Result<Renewed, RemoteError> {
        let renewed: Renewed = self.call(Action::Renew)?;
        self.use_token(renewed.token.clone().into());
        Ok(renewed)
    }

    /// From here on this token is used.
    pub fn use_token(&self, token: SecretString) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    pub(super) fn call<T: DeserializeOwned>(&self, action: Action) -> Result<T, RemoteError> {
        self.wait(self.ask(action))
    }

    /// The same as a part of something that is waited for.
    pub(super) async fn ask<T: DeserializeOwned>(&self, action: Action) -> Result<T, RemoteError> {
        let request = Request { client_key: self.client_key.clone(), action };
        let url = self.url(&format!("functions/v1/{FUNCTION}"))?;
        let send = self.client.post(url).headers(self.headers()?).json(&request).send();
        drop(request);
        let response = self.patiently(send).await?.map_err(unreachable)?;
        read(self, response).await
    }

    /// Runs something that belongs to one call of the engine; the end of the engine ends it.
    pub(super) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        // A runtime that has ended by then has no timers any more.
        if self.stop.is_cancelled() {
            return Err(RemoteError::Stopped);
        }
        self.runtime.block_on(async {
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
        timeout(self.patience, step).await.map_err(|_| RemoteError::Unavailable {
            message: format!("nothing came for {} s", self.patience.as_secs()),
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

    fn headers(&self) -> Result<HeaderMap, RemoteError> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
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

/// Not reached, or lost on the way.
pub(super) fn unreachable(error: reqwest::Error) -> RemoteError {
    let error = anyhow::Error::new(error.without_url());
    RemoteError::Unavailable { message: format!("{error:#}"), retry_after: None }
}

async fn read<T: DeserializeOwned>(link: &Link, mut response: Response) -> Result<T, RemoteError> {
    let status = response.status();
    let retry_after = retry_after(&response);
    let mut body = Vec::new();
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
