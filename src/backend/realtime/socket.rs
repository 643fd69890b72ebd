//! Makes WebSocket connections: through the proxy of the environment where there is one, with the
//! same roots and TLS as the HTTP client.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls_platform_verifier::ConfigVerifierExt as _;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, http as ws_http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tower_service::Service as _;
use url::Url;

use super::super::http::{UNACKNOWLEDGED, is_loopback};
use super::super::{BackendError, Endpoint};

/// Name resolution, TCP, proxy and TLS.
const CONNECT: Duration = Duration::from_secs(4);
/// The backend delays a refusal by seconds.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A row that is larger comes without its large columns anyway.
const LARGEST_MESSAGE: usize = 4 << 20;
/// Of what a refusal says.
const LONGEST_REASON: usize = 200;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes both ways, whatever they go through.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("could not connect: {0}")]
    OutOfReach(String),
    /// It passes: the backend is not well.
    #[error("the backend answered {0}")]
    Unwell(u16),
    #[error("the backend takes no more connections now")]
    Limited,
    /// For good, as far as one can tell.
    #[error("the backend refuses the connection ({status}): {reason}")]
    Refused { status: u16, reason: String },
}

/// See the module.
pub(super) struct Dialer {
    /// `https://…` or `http://…`: what connections are made to.
    target: Uri,
    /// `wss://…?apikey=…`.
    address: Url,
    proxies: Option<Matcher>,
    /// Made when first needed: reading the platform's roots takes a while.
    tls: OnceCell<Arc<rustls::ClientConfig>>,
}

impl Dialer {
    /// For this backend. A loopback one is never asked for through a proxy.
    pub(super) fn new(endpoint: &Endpoint, proxies: Matcher) -> Result<Self, BackendError> {
        let url = endpoint.join("realtime/v1/websocket")?;
        let unusable = |what: &str| BackendError::Unsendable(format!("the URL {what}"));
        let target = url.as_str().parse().map_err(|_| unusable("cannot be used"))?;
        let proxies = (!is_loopback(&url)).then_some(proxies);
        let mut address = url;
        let scheme = if address.scheme() == "https" { "wss" } else { "ws" };
        address.set_scheme(scheme).map_err(|()| unusable("has no WebSocket form"))?;
        address
            .query_pairs_mut()
            .append_pair("apikey", endpoint.anon_key.expose_secret())
            .append_pair("vsn", "2.0.0");
        Ok(Self { target, address, proxies, tls: OnceCell::new() })
    }

    /// Connects and upgrades. Cancel safe: what was begun is dropped.
    pub(super) async fn dial(&self) -> Result<Socket, DialError> {
        let stream = tokio::time::timeout(CONNECT, self.connect())
            .await
            .map_err(|_| DialError::OutOfReach(format!("no connection within {CONNECT:?}")))?
            .map_err(|error| DialError::OutOfReach(chain(error.as_ref())))?;
        let request = self.request().map_err(|error| DialError::OutOfReach(error.to_string()))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(LARGEST_MESSAGE))
            .max_frame_size(Some(LARGEST_MESSAGE));
        let upgrade = client_async_with_config(request, stream, Some(config));
        match tokio::time::timeout(HANDSHAKE, upgrade).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(error)) => Err(refusal(error)),
            Err(_) => Err(DialError::OutOfReach(format!("no answer within {HANDSHAKE:?}"))),
        }
    }

    fn request(&self) -> Result<ws_http::Request<()>, tungstenite::Error> {
        let mut request = self.address.as_str().into_client_request()?;
        let agent = concat!("panorama-gateway/", env!("CARGO_PKG_VERSION"));
        let agent = ws_http::HeaderValue::from_static(agent);
        request.headers_mut().insert(ws_http::header::USER_AGENT, agent);
        Ok(request)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, BoxError> {
        let proxy = self.proxies.as_ref().and_then(|proxies| proxies.intercept(&self.target));
        let secure = self.target.scheme_str() == Some("https");
        let first_hop = proxy.as_ref().map_or(&self.target, |proxy| proxy.uri());
        let tls = if secure || first_hop.scheme_str() == Some("https") {
            self.tls().await?
        } else {
            without_roots()?
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let mut connector = HttpsConnectorBuilder::new()
            .with_tls_config(rustls::ClientConfig::clone(&tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let Some(proxy) = proxy else {
            return Ok(Box::new(TokioIo::new(connector.call(self.target.clone()).await?)));
        };
        if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            return Err("the proxy speaks neither http nor https".into());
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let stream = TokioIo::new(tunnel.call(self.target.clone()).await?);
        if !secure {
            return Ok(Box::new(stream));
        }
        let host = self.target.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = rustls::pki_types::ServerName::try_from(host)?;
        Ok(Box::new(TlsConnector::from(tls).connect(name, stream).await?))
    }

    async fn tls(&self) -> Result<Arc<rustls::ClientConfig>, BoxError> {
        let make = || async {
            let read = || rustls::ClientConfig::with_platform_verifier();
            Ok::<_, BoxError>(Arc::new(tokio::task::spawn_blocking(read).await??))
        };
        self.tls.get_or_try_init(make).await.cloned()
    }
}

/// Where no TLS is spoken.
fn without_roots() -> Result<Arc<rustls::ClientConfig>, BoxError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What the answer to the upgrade means.
fn refusal(error: tungstenite::Error) -> DialError {
    let tungstenite::Error::Http(answer) = error else {
        return DialError::OutOfReach(error.to_string());
    };
    let status = answer.status().as_u16();
    match status {
        429 => DialError::Limited,
        400..=499 if status != 408 && status != 425 => {
            let said = answer.body().as_deref().unwrap_or_default();
            DialError::Refused { status, reason: reason(said) }
        }
        _ => DialError::Unwell(status),
    }
}

/// `error` of a JSON body, one bounded line.
fn reason(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let said = ["error", "message"].into_iter().find_map(|field| body[field].as_str());
    said.unwrap_or("no reason given")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_REASON)
        .collect()
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Without the key.
impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("target", &self.target).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(url: &str) -> Dialer {
        let endpoint = Endpoint { url: url.into(), anon_key: "key&1".into() };
        Dialer::new(&endpoint, Matcher::builder().all("http://proxy:1").build()).unwrap()
    }

    #[test]
    fn the_address_carries_key_and_version_but_no_error_or_log_does() {
        let secure = dialer("https://host.example/base/");
        let wanted = "wss://host.example/base/realtime/v1/websocket?apikey=key%261&vsn=2.0.0";
        assert_eq!(secure.address.as_str(), wanted);
        assert_eq!(dialer("http://10.0.0.1:80").address.scheme(), "ws");
        assert!(!format!("{secure:?}").contains("key"), "{secure:?}");
    }

    #[test]
    fn a_loopback_backend_knows_no_proxy() {
        assert!(dialer("http://127.0.0.1:1").proxies.is_none());
        assert!(dialer("https://localhost").proxies.is_none());
        assert!(dialer("https://host.example").proxies.is_some());
    }

    #[test]
    fn what_the_answer_to_the_upgrade_means() {
        let answer = |status: u16, body: &str| {
            let answer = ws_http::Response::builder()
                .status(status)
                .body(Some(body.as_bytes().to_vec()))
                .unwrap();
            refusal(tungstenite::Error::Http(Box::new(answer))).to_string()
        };
        for status in [401, 403, 404] {
            let said = answer(status, r#"{"error": "not\nhere"}"#);
            assert!(said.contains("refuses") && said.contains("not here"), "{said}");
        }
        assert!(answer(429, "").contains("no more connections"));
        assert_eq!(answer(503, "<html>"), "the backend answered 503");
        let lost = refusal(tungstenite::Error::ConnectionClosed).to_string();
        assert!(lost.starts_with("could not connect"), "{lost}");
    }
}
