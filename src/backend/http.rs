//! The one HTTP client of the process, made when first needed: sends one call, within its limits of
//! time and size.
//!
//! HTTP/1.1 with kept connections. Redirects are never followed: they would carry credentials to an
//! address that nobody configured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};

use super::BackendError;
use super::answer::{Answer, FUNCTION_FIELDS, TABLE_FIELDS};
use super::clock::ServerClock;
use crate::clock::Clock;

/// Connecting, name resolution included.
const CONNECT: Duration = Duration::from_secs(4);
/// Shorter than what proxies and servers keep idle connections for, longer than the heartbeat's
/// interval: a poll is often under way when one is due, so that it needs a connection of its own.
const IDLE: Duration = Duration::from_secs(45);
/// What was sent and is not acknowledged for so long is given up, and the call is made anew: after a
/// network that was away, the system would try again ever more rarely. Linux only.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// Ten jobs, a poll and a heartbeat at once.
const IDLE_CONNECTIONS: usize = 12;

/// Where the backend is.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Base URL without trailing slash.
    pub url: String,
    /// `apikey`.
    pub anon_key: SecretString,
}

impl Endpoint {
    /// Whether both are the same backend, spoken to with the same key.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        use secrecy::ExposeSecret as _;
        self.url == other.url && self.anon_key.expose_secret() == other.anon_key.expose_secret()
    }

    /// The address of `path`, which may carry a query.
    pub(super) fn join(&self, path: &str) -> Result<Url, BackendError> {
        let text = format!("{}/{path}", self.url.trim_end_matches('/'));
        let url = Url::parse(&text).map_err(|error| {
            BackendError::Unsendable(format!("{:?} is not a URL: {error}", self.url))
        })?;
        if matches!(url.scheme(), "http" | "https") && url.has_host() {
            Ok(url)
        } else {
            Err(BackendError::Unsendable(format!("{:?} is not an http or https URL", self.url)))
        }
    }
}

/// How long a call may take and how large its answer may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first byte sent to the last one read.
    pub(super) time: Duration,
    /// Of the answer's body.
    pub(super) bytes: u64,
}

impl Limits {
    /// Exchanging a pairing code.
    pub(super) const PAIRING: Self = Self { time: Duration::from_secs(30), bytes: 1 << 20 };
    /// Auth.
    pub(super) const AUTH: Self = Self { time: Duration::from_secs(20), bytes: 1 << 20 };
    /// Tables and heartbeats.
    pub(super) const REST: Self = Self { time: Duration::from_secs(20), bytes: 64 << 20 };
    /// The end of a subagent's run.
    pub(super) const FINALISE: Self = Self { time: Duration::from_mins(1), bytes: 64 << 20 };
}

/// One request. It can be sent again: the body is shared.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) limits: Limits,
    /// Sending it twice does no harm: repeated at once when the connection broke before an answer
    /// (an idle connection that the other side had given up).
    pub(super) repeatable: bool,
    /// What must not show up in an error, even when the backend echoes it.
    pub(super) secrets: Vec<SecretString>,
    /// Where an error answer has its text, first to last.
    pub(super) error_fields: &'static [&'static str],
}

/// Without headers and body, which hold secrets and results.
impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

impl Call {
    /// A GET.
    pub(super) fn get(url: Url, limits: Limits) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: None,
            limits,
            repeatable: true,
            secrets: Vec::new(),
            error_fields: TABLE_FIELDS,
        }
    }

    /// A POST of a JSON body.
    pub(super) fn post(url: Url, body: String, limits: Limits) -> Self {
        let mut call = Self::get(url, limits);
        call.method = Method::POST;
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        call.body = Some(body.into());
        call.repeatable = false;
        call
    }

    /// A POST to the edge function `name`.
    pub(super) fn function(
        endpoint: &Endpoint,
        name: &str,
        body: String,
        limits: Limits,
    ) -> Result<Self, BackendError> {
        let mut call = Self::post(endpoint.join(&format!("functions/v1/{name}"))?, body, limits);
        call.error_fields = FUNCTION_FIELDS;
        Ok(call)
    }

    /// Puts `apikey` and `Authorization: Bearer` on it, in place of earlier ones.
    pub(super) fn authorize(
        &mut self,
        endpoint: &Endpoint,
        bearer: &SecretString,
    ) -> Result<(), BackendError> {
        let key = secret_value("the anon key", endpoint.anon_key.expose_secret())?;
        let bearer_text = format!("Bearer {}", bearer.expose_secret());
        let authorization = secret_value("the access token", &bearer_text)?;
        self.headers.insert(HeaderName::from_static("apikey"), key);
        self.headers.insert(AUTHORIZATION, authorization);
        self.secrets.push(bearer.clone());
        Ok(())
    }
}

fn secret_value(what: &str, text: &str) -> Result<HeaderValue, BackendError> {
    // Only visible ASCII: a blank or a control character in a key is a damaged copy of it.
    let key = text.strip_prefix("Bearer ").unwrap_or(text);
    let unusable = || {
        BackendError::Unsendable(format!(
            "{what} is empty or holds other characters than visible ASCII"
        ))
    };
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unusable());
    }
    let mut value = HeaderValue::from_str(text).map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The client. Cheap to clone; all clones share connections, counter and clock.
#[derive(Debug, Clone)]
pub struct Http {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    url: Url,
    client: Mutex<reqwest::Client>,
    sent: AtomicU64,
    clock: ServerClock,
}

impl Http {
    /// Makes the client: rustls with the platform's roots, connect limit 4 s, proxies of the
    /// environment except for a loopback backend.
    ///
    /// Fails for a URL or key that no request can be made of, and where the platform has no root
    /// certificates (a plain-http loopback backend needs none).
    pub fn new(endpoint: &Endpoint) -> anyhow::Result<Self> {
        Self::with_clock(endpoint, Clock::system())
    }

    /// The same by another clock than the system's.
    pub fn with_clock(endpoint: &Endpoint, clock: Clock) -> anyhow::Result<Self> {
        let url = endpoint.join("")?;
        secret_value("the anon key", endpoint.anon_key.expose_secret())?;
        let client = Mutex::new(make_client(&url)?);
        let clock = ServerClock::new(clock);
        let shared = Shared { url, client, sent: AtomicU64::new(0), clock };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Uses no connection again that was made before: after a sleep the other side has long given
    /// them up. Calls under way go on.
    pub(super) async fn connect_anew(&self) {
        let url = self.shared.url.clone();
        // Reading the platform's roots takes milliseconds.
        match tokio::task::spawn_blocking(move || make_client(&url)).await {
            Ok(Ok(client)) => {
                *self.shared.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
            }
            Ok(Err(error)) => tracing::warn!(%error, "old connections stay in use"),
            Err(error) => tracing::warn!(%error, "old connections stay in use"),
        }
    }

    /// A client that shares no connections with anybody, for what is no call of the backend's own
    /// protocol: the drives.
    ///
    /// # Errors
    /// When the platform's roots cannot be read.
    pub async fn another_client(&self) -> anyhow::Result<reqwest::Client> {
        let url = self.shared.url.clone();
        tokio::task::spawn_blocking(move || make_client(&url)).await?
    }

    /// How many requests were put on the wire so far, repetitions included.
    pub fn requests_sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// The backend's clock.
    pub(super) fn clock(&self) -> &ServerClock {
        &self.shared.clock
    }

    /// Sends a call once. Any HTTP answer is `Ok`; see [`Answer::success`].
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, BackendError> {
        let answer = tokio::time::timeout(call.limits.time, self.exchange(call))
            .await
            .map_err(|_| BackendError::TimedOut(call.limits.time))??;
        if let Some(date) = answer.date() {
            self.clock().observe(answer.received, date);
        }
        Ok(answer)
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, BackendError> {
        let response = match self.execute(call).await {
            Err(error) if call.repeatable && broke_before_answer(&error) => {
                self.execute(call).await
            }
            first => first,
        };
        let response = response.map_err(unreachable)?;
        Answer::read(response, call.limits.bytes, self.clock().local()).await
    }

    async fn execute(&self, call: &Call) -> reqwest::Result<reqwest::Response> {
        let client = self.shared.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut request =
            client.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        self.shared.sent.fetch_add(1, Ordering::Relaxed);
        request.send().await
    }
}

fn make_client(url: &Url) -> anyhow::Result<reqwest::Client> {
    // An error says that a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .user_agent(concat!("panorama-gateway/", env!("CARGO_PKG_VERSION")));
    #[cfg(target_os = "linux")]
    {
        builder = builder.tcp_user_timeout(UNACKNOWLEDGED);
    }
    if is_loopback(url) {
        builder = builder.no_proxy();
        if url.scheme() == "http" {
            // No TLS will be spoken: reading the platform's roots would cost milliseconds at
            // start and megabytes for nothing.
            builder = builder.tls_certs_only([]);
        }
    }
    builder.build().context("make the HTTP client")
}

/// The error of a connection that could not be made or broke. The URL is left out: it is long.
pub(super) fn unreachable(error: reqwest::Error) -> BackendError {
    BackendError::Unreachable(Box::new(error.without_url()))
}

/// True when the request may have reached the backend although no answer came back.
pub(super) fn may_have_arrived(error: &BackendError) -> bool {
    match error {
        BackendError::Unreachable(source) => {
            !source.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect)
        }
        BackendError::TimedOut(_) | BackendError::TooLarge(_) | BackendError::Contract(_) => true,
        BackendError::Status { status, .. } => *status >= 500,
        BackendError::SessionEnded(_)
        | BackendError::TokenStore(_)
        | BackendError::Unsendable(_) => false,
    }
}

fn broke_before_answer(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, key: &str) -> Endpoint {
        Endpoint { url: url.into(), anon_key: key.into() }
    }

    #[test]
    fn unusable_urls_and_keys_are_errors() {
        for (url, key, wanted) in [
            ("http://127.0.0.1:1", "a\nb", "anon key"),
            ("http://127.0.0.1:1", "", "anon key"),
            ("http://127.0.0.1:1", "schlüssel", "anon key"),
            ("127.0.0.1:1", "key", "URL"),
            ("ftp://host", "key", "http or https"),
            ("", "key", "URL"),
        ] {
            let error = Http::new(&endpoint(url, key)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{url} {key:?}: {error}");
        }
        assert!(Http::new(&endpoint("http://127.0.0.1:1/", "sb_publishable_x")).is_ok());
    }

    #[test]
    fn loopback_is_told_by_the_host() {
        for (url, wanted) in [
            ("http://localhost:1", true),
            ("https://LOCALHOST", true),
            ("http://127.9.9.9:1", true),
            ("http://[::1]:1", true),
            ("http://127.0.0.1.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), wanted, "{url}");
        }
    }

    #[test]
    fn credentials_do_not_show_in_debug_output() {
        let endpoint = endpoint("http://127.0.0.1:1", "anon-key-1234");
        let mut call = Call::get(endpoint.join("x").unwrap(), Limits::REST);
        call.authorize(&endpoint, &"token-5678".into()).unwrap();
        let shown = format!("{:?} {endpoint:?} {:?}", call.headers, call.secrets);
        assert!(!shown.contains("1234") && !shown.contains("5678"), "{shown}");
        assert!(call.authorize(&endpoint, &"a b".into()).is_err());
    }
}
