//! What the stories share: tokens, a store in memory, a paired gateway.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use panorama_gateway::backend::{Api, Endpoint, Http, Session, TokenStore, Tokens};
use panorama_gateway::model::{GatewayId, TeamId};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::fake::{Fake, Reply, json as reply, json_with};

pub const KEY: &str = "sb_publishable_key";

/// An access token that lives so long from now (by this machine's clock).
pub fn access(name: &str, life_seconds: i64) -> String {
    access_of("subject", name, life_seconds)
}

pub fn access_of(subject: &str, name: &str, life_seconds: i64) -> String {
    let expires = jiff::Timestamp::now().as_second() + life_seconds;
    let claims = json!({"exp": expires, "sub": subject, "name": name}).to_string();
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

pub fn tokens(access: &str, refresh: &str) -> Tokens {
    Tokens { access: access.into(), refresh: refresh.into() }
}

/// The answer to a refresh.
pub fn pair(access: &str, refresh: &str) -> Reply {
    reply(200, pair_body(access, refresh))
}

pub fn pair_body(access: &str, refresh: &str) -> Value {
    json!({"access_token": access, "token_type": "bearer", "expires_in": 3600,
           "expires_at": 1, "refresh_token": refresh, "user": {"id": "u"}, "more": true})
}

pub fn user() -> Reply {
    reply(200, json!({"id": "u"}))
}

pub fn auth_error(status: u16, code: &str) -> Reply {
    reply(status, json!({"code": code, "message": "no"}))
}

/// A `Date` header that is off from this machine's clock.
pub fn dated(offset_seconds: i64, status: u16, body: Value) -> Reply {
    let at = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + offset_seconds);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&at.unwrap())
        .unwrap();
    json_with(status, &format!("date: {date}\r\n"), body)
}

/// Keeps the pair in memory; can be told to fail.
#[derive(Default)]
pub struct MemoryStore {
    saved: Mutex<Option<(String, String)>>,
    pub full: AtomicBool,
    pub unreadable: AtomicBool,
    pub locks: AtomicUsize,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl MemoryStore {
    pub fn with(access: &str, refresh: &str) -> Arc<Self> {
        let store = Self::default();
        store.put(access, refresh);
        Arc::new(store)
    }

    pub fn put(&self, access: &str, refresh: &str) {
        *self.saved.lock().unwrap() = Some((access.to_owned(), refresh.to_owned()));
    }

    pub fn clear(&self) {
        *self.saved.lock().unwrap() = None;
    }

    pub fn saved(&self) -> (String, String) {
        self.saved.lock().unwrap().clone().unwrap_or_default()
    }
}

impl TokenStore for MemoryStore {
    fn load(&self) -> anyhow::Result<Option<Tokens>> {
        anyhow::ensure!(!self.unreadable.load(Ordering::SeqCst), "the disk does not answer");
        Ok(self.saved.lock().unwrap().as_ref().map(|(access, refresh)| tokens(access, refresh)))
    }

    fn save(&self, new: &Tokens, parent: &SecretString) -> anyhow::Result<bool> {
        anyhow::ensure!(!self.full.load(Ordering::SeqCst), "the disk is full");
        let mut saved = self.saved.lock().unwrap();
        let ours = saved.as_ref().is_some_and(|(_, refresh)| {
            refresh == parent.expose_secret() || refresh == new.refresh.expose_secret()
        });
        if ours {
            *saved = Some((new.access.expose_secret().into(), new.refresh.expose_secret().into()));
        }
        Ok(ours)
    }

    fn lock_refresh(&self) -> anyhow::Result<Box<dyn std::any::Any + Send>> {
        self.locks.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(()))
    }
}

pub fn endpoint(url: &str) -> Endpoint {
    Endpoint { url: url.to_owned(), anon_key: KEY.into() }
}

pub fn session(fake: &Fake, store: &Arc<MemoryStore>) -> Arc<Session> {
    let endpoint = endpoint(&fake.url);
    let http = Http::new(&endpoint).unwrap();
    let store: Arc<dyn TokenStore> = store.clone();
    Arc::new(Session::new(http, endpoint, store).unwrap())
}

/// A gateway `g` of team `t` with a session that lasts.
pub fn api(fake: &Fake) -> Api {
    api_with(fake, &MemoryStore::with("access", "refresh"))
}

pub fn api_with(fake: &Fake, store: &Arc<MemoryStore>) -> Api {
    let endpoint = endpoint(&fake.url);
    let http = Http::new(&endpoint).unwrap();
    let store: Arc<dyn TokenStore> = store.clone();
    let session = Arc::new(Session::new(http.clone(), endpoint.clone(), store).unwrap());
    Api::new(http, endpoint, session, GatewayId::new("g"), TeamId::new("t"))
}

pub fn exposed(secret: &SecretString) -> String {
    secret.expose_secret().to_owned()
}
