//! The session: access and refresh token, rotated without loss.
//!
//! A refresh token works once, but the parent of the live token may be used again and returns the
//! live pair. Hence: one refresher per process (`flight`) and per machine (the store's lock), the
//! store is read again under the lock, a new pair is saved before it is used, and after a lost
//! answer the same token is sent again. A kill at any point leaves a usable pair in the store.
//!
//! Only a handful of codes end a session; everything else is a reason to wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::Answer;
use super::http::{Call, Limits};
use super::refusal::{asking_for, is_from_the_future, is_refused, terminal_code};
use super::retry::{Backoff, jitter};
use super::tokens::{Claims, same};
use super::{BackendError, Endpoint, Http, TokenStore, Tokens};
use crate::clock::{Clock, Moment};
use crate::config::LockError;

/// A saved access token with less to live is refreshed at start.
const MARGIN_AT_START: Duration = Duration::from_secs(90);
/// While running, a token with less to live is refreshed.
const MARGIN: Duration = Duration::from_mins(2);
/// A token that is "issued in the future" by the server's own skew is tried again so often.
const SKEW_ATTEMPTS: u32 = 3;
/// Chosen token, our own when a chosen one was refused, and a newer one of the store.
const REFRESH_ATTEMPTS: usize = 3;

/// What `status` says of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// Not checked with the backend yet.
    Unchecked,
    /// In order.
    Valid,
    /// The last refresh failed for a passing reason (its text).
    Retrying(String),
    /// Over for good (the terminal code).
    Ended(String),
}

/// Cheap to clone through `Arc`; single flight.
#[derive(Debug)]
pub struct Session {
    http: Http,
    endpoint: Endpoint,
    store: Arc<dyn TokenStore>,
    held: Mutex<Held>,
    /// Held over the whole of a refresh, so that there is one at a time.
    flight: tokio::sync::Mutex<()>,
    /// Counts new access tokens.
    rotations: watch::Sender<u64>,
}

#[derive(Debug)]
struct Held {
    tokens: Tokens,
    /// When the access token expires; unknown for a loaded one until the server's time is known.
    expires: Option<Moment>,
    /// The store could not take `tokens`: what it holds instead is their parent.
    unsaved_parent: Option<SecretString>,
    state: SessionState,
    backoff: Backoff,
    /// The last refresh failed.
    failure: Option<Failure>,
    /// Counts refreshes that ended, well or not.
    refreshes: u64,
}

#[derive(Debug)]
struct Failure {
    error: BackendError,
    /// The backend is not asked again before.
    until: Moment,
}

/// What to do after the store was read.
enum Choice {
    /// The store held a pair that is good for a while; it is in use now.
    Adopted,
    /// Refresh with this token.
    Send(SecretString),
}

impl Session {
    /// Loads the saved tokens; no network. Reads a file.
    pub fn new(
        http: Http,
        endpoint: Endpoint,
        store: Arc<dyn TokenStore>,
    ) -> Result<Self, BackendError> {
        let tokens = store
            .load()
            .map_err(|error| BackendError::TokenStore(error.into()))?
            .ok_or_else(|| BackendError::Unsendable("no tokens are saved: pair first".into()))?;
        let held = Held {
            tokens,
            expires: None,
            unsaved_parent: None,
            state: SessionState::Unchecked,
            backoff: Backoff::new(),
            failure: None,
            refreshes: 0,
        };
        let flight = tokio::sync::Mutex::new(());
        let rotations = watch::Sender::new(0);
        Ok(Self { http, endpoint, store, held: Mutex::new(held), flight, rotations })
    }

    /// At start: refreshes when less than 90 s are left, else checks with `GET /auth/v1/user`.
    ///
    /// A refused token is refreshed once, whose outcome decides. Transient errors are the caller's
    /// to wait out: call again.
    pub async fn authenticate(&self) -> Result<(), BackendError> {
        let access = self.living_token()?;
        if self.life_at_start(&access).await?.is_some_and(|life| life < MARGIN_AT_START) {
            return self.refresh_if_current(&access).await;
        }
        match self.check_user(&access).await {
            Ok(()) => {}
            Err(error) if is_refused(&error) => return self.refresh_if_current(&access).await,
            Err(error) => return Err(error),
        }
        // The answer told the server's time: what looked alive may be about to end.
        let life = self.life(&access);
        {
            let mut held = self.held();
            if same(&held.tokens.access, &access) {
                held.expires = life.map(|life| self.clock().now().after(life));
                held.state = SessionState::Valid;
            }
        }
        match life {
            Some(life) if life < MARGIN_AT_START => self.refresh_if_current(&access).await,
            _ => Ok(()),
        }
    }

    /// Refreshes when less than 120 s are left, and saves what could not be saved before; called
    /// every 30 s and after a wake.
    pub async fn keep_fresh(&self) -> Result<(), BackendError> {
        let access = self.living_token()?;
        self.save_unsaved().await;
        let expires = self.held().expires;
        let life = expires.map(|end| self.clock().left(end)).or_else(|| self.life(&access));
        match life {
            Some(life) if life < MARGIN => self.refresh_if_current(&access).await,
            _ => Ok(()),
        }
    }

    /// Forces one refresh unless the current token is not `stale` any more (single flight).
    ///
    /// Callers that waited for a refresh share its outcome. After an error answer the backend is
    /// left alone for a while, during which the same error is returned.
    pub async fn refresh_if_current(&self, stale: &SecretString) -> Result<(), BackendError> {
        let before = self.held().refreshes;
        let _flight = self.flight.lock().await;
        {
            let held = self.held();
            if !same(&held.tokens.access, stale) {
                return Ok(());
            }
            if let SessionState::Ended(code) = &held.state {
                return Err(BackendError::SessionEnded(code.clone()));
            }
            if let Some(failure) = &held.failure {
                let wait = self.clock().left(failure.until);
                if held.refreshes != before || !wait.is_zero() {
                    return Err(asking_for(wait, failure.error.clone()));
                }
            }
        }
        let result = self.rotate().await;
        self.settle(result)
    }

    /// The access token to send now.
    pub fn access_token(&self) -> SecretString {
        self.held().tokens.access.clone()
    }

    /// Changes with each new access token.
    pub fn rotations(&self) -> watch::Receiver<u64> {
        self.rotations.subscribe()
    }

    /// How it is.
    pub fn state(&self) -> SessionState {
        self.held().state.clone()
    }

    /// How many refreshes ended so far, well or not.
    pub fn refreshes(&self) -> u64 {
        self.held().refreshes
    }

    /// Sends a call with the access token. A 401 triggers one refresh and one repeat; a token that
    /// is "issued in the future" is repeated as it is after a short wait. 2xx answers only.
    pub(super) async fn send(&self, mut call: Call) -> Result<Answer, BackendError> {
        let (mut skewed, mut refreshed) = (0, false);
        loop {
            let access = self.access_token();
            call.authorize(&self.endpoint, &access)?;
            let error = match self.http.send(&call).await?.success(&call) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if is_from_the_future(&error) && skewed < SKEW_ATTEMPTS {
                skewed += 1;
                wait_out_skew().await;
            } else if error.status() == Some(401) && is_refused(&error) && !refreshed {
                refreshed = true;
                self.refresh_if_current(&access).await?;
            } else {
                return Err(error);
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self) -> &Clock {
        self.http.clock().local()
    }

    fn living_token(&self) -> Result<SecretString, BackendError> {
        let held = self.held();
        match &held.state {
            SessionState::Ended(code) => Err(BackendError::SessionEnded(code.clone())),
            SessionState::Unchecked | SessionState::Valid | SessionState::Retrying(_) => {
                Ok(held.tokens.access.clone())
            }
        }
    }

    /// What an access token has left by the server's clock, or by ours while that is unknown.
    fn life(&self, access: &SecretString) -> Option<Duration> {
        let expires = Claims::of(access).expires?;
        Some(self.clock().left(self.http.clock().moment_of(expires)))
    }

    /// Like [`Self::life`]; but before a token is taken for dead the server is asked what time it
    /// is, because a local clock that runs fast would have every start rotate the session.
    async fn life_at_start(&self, access: &SecretString) -> Result<Option<Duration>, BackendError> {
        let life = self.life(access);
        let looks_dead = life.is_some_and(|life| life < MARGIN_AT_START);
        if looks_dead && self.http.clock().heard().is_none() {
            let mut call = self.auth_call("auth/v1/health", None)?;
            call.authorize(&self.endpoint, &self.endpoint.anon_key)?;
            // Whatever the answer is, its `Date` is what we came for.
            self.http.send(&call).await?;
            return Ok(self.life(access));
        }
        Ok(life)
    }

    async fn check_user(&self, access: &SecretString) -> Result<(), BackendError> {
        let mut call = self.auth_call("auth/v1/user", None)?;
        call.authorize(&self.endpoint, access)?;
        for _ in 0..SKEW_ATTEMPTS {
            match self.http.send(&call).await?.success(&call) {
                Err(error) if is_from_the_future(&error) => wait_out_skew().await,
                result => return is_object(&result?),
            }
        }
        is_object(&self.http.send(&call).await?.success(&call)?)
    }

    fn auth_call(&self, path: &str, body: Option<String>) -> Result<Call, BackendError> {
        let url = self.endpoint.join(path)?;
        let mut call = match body {
            Some(body) => Call::post(url, body, Limits::AUTH),
            None => Call::get(url, Limits::AUTH),
        };
        let version = reqwest::header::HeaderValue::from_static("2024-01-01");
        call.headers.insert("x-supabase-api-version", version);
        Ok(call)
    }

    /// One refresh, under the machine's lock.
    async fn rotate(&self) -> Result<(), BackendError> {
        let _machine = self.lock_machine().await?;
        let own = self.held().tokens.refresh.clone();
        let mut tried: Vec<SecretString> = Vec::new();
        let mut refusal = None;
        while tried.len() < REFRESH_ATTEMPTS {
            // Read again after every refusal too: somebody may have saved a newer token meanwhile.
            let chosen = match self.choose(refusal.is_some()).await? {
                Choice::Adopted => return Ok(()),
                Choice::Send(token) => token,
            };
            let untried = |token: &&SecretString| !tried.iter().any(|old| same(old, token));
            let Some(token) = [&chosen, &own].into_iter().find(untried).cloned() else { break };
            match self.exchange(&token).await {
                Ok((tokens, expires)) => {
                    self.take(tokens, expires, token).await;
                    return Ok(());
                }
                Err(error) => match terminal_code(&error) {
                    Some(code) => refusal = Some(code),
                    None => return Err(error),
                },
            }
            tried.push(token);
        }
        Err(BackendError::SessionEnded(refusal.unwrap_or_default()))
    }

    /// Notes how a refresh ended.
    fn settle(&self, result: Result<(), BackendError>) -> Result<(), BackendError> {
        let mut held = self.held();
        held.refreshes += 1;
        let Err(error) = result else {
            held.state = SessionState::Valid;
            held.failure = None;
            held.backoff.reset();
            return Ok(());
        };
        if let BackendError::SessionEnded(code) = &error {
            tracing::error!(code, "the pairing was revoked: pair this gateway again");
            held.state = SessionState::Ended(code.clone());
            return Err(error);
        }
        held.state = SessionState::Retrying(error.report());
        // A backend that answers is spared; one that cannot be reached may be back any second.
        let wait = match error.status() {
            Some(_) => held.backoff.after(&error),
            None => Duration::ZERO,
        };
        let error = asking_for(wait, error);
        held.failure =
            Some(Failure { error: error.clone(), until: self.clock().now().after(wait) });
        Err(error)
    }

    /// Reads the store and decides which token to send. After a refusal a store that cannot be
    /// read is an error: it may hold the newer token that makes the refusal meaningless.
    async fn choose(&self, refused: bool) -> Result<Choice, BackendError> {
        self.save_unsaved().await;
        let saved = match self.in_store(TokenStore::load).await {
            Err(error) if refused => return Err(BackendError::TokenStore(error.into())),
            Err(error) => {
                // The identity in memory is good; a damaged file is no reason to lose it.
                tracing::warn!(error = %format!("{error:#}"), "could not read the saved tokens");
                None
            }
            Ok(saved) => saved,
        };
        let (held, unsaved_parent) = {
            let held = self.held();
            (held.tokens.clone(), held.unsaved_parent.clone())
        };
        if let Some(parent) = unsaved_parent {
            // Never refresh from a token that only memory knows: a kill would lose its child. The
            // saved parent may be used again and returns the live pair.
            return Ok(Choice::Send(parent));
        }
        let Some(saved) = saved.filter(|saved| !same(&saved.refresh, &held.refresh)) else {
            return Ok(Choice::Send(held.refresh));
        };
        if Claims::of(&saved.access).subject != Claims::of(&held.access).subject {
            // Paired anew meanwhile: that identity is not ours to use or to touch.
            return Ok(Choice::Send(held.refresh));
        }
        let life = self.life(&saved.access);
        let mut now = self.held();
        now.expires = life.map(|life| self.clock().now().after(life));
        now.tokens = saved.clone();
        now.unsaved_parent = None;
        drop(now);
        self.rotations.send_modify(|count| *count += 1);
        if life.is_some_and(|life| life >= MARGIN) && !same(&saved.access, &held.access) {
            tracing::debug!("took over tokens that another process had refreshed");
            return Ok(Choice::Adopted);
        }
        Ok(Choice::Send(saved.refresh))
    }

    /// `POST /auth/v1/token`. The same token may be sent again after a lost answer.
    async fn exchange(
        &self,
        refresh: &SecretString,
    ) -> Result<(Tokens, Option<Moment>), BackendError> {
        let body = json!({"refresh_token": refresh.expose_secret()}).to_string();
        let mut call = self.auth_call("auth/v1/token?grant_type=refresh_token", Some(body))?;
        call.repeatable = true;
        call.secrets.push(refresh.clone());
        call.authorize(&self.endpoint, &self.endpoint.anon_key)?;
        let answer = self.http.send(&call).await?.success(&call)?;
        let pair = answer.json()?;
        let field = |name: &str| {
            pair.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or_else(
                || BackendError::Contract(format!("{name} is missing ({})", answer.describe())),
            )
        };
        let tokens = Tokens {
            access: field("access_token")?.into(),
            refresh: field("refresh_token")?.into(),
        };
        // Refuses a token that no header can carry before it is saved.
        call.authorize(&self.endpoint, &tokens.access)
            .map_err(|error| BackendError::Contract(error.to_string()))?;
        let life = pair.get("expires_in").and_then(Value::as_u64).map(Duration::from_secs);
        let expires = match life {
            Some(life) => Some(answer.received.after(life)),
            None => self.life(&tokens.access).map(|life| self.clock().now().after(life)),
        };
        Ok((tokens, expires))
    }

    /// Saves a new pair, then uses it. A store that fails (a full disk) does not cost the session:
    /// the parent that it holds may be used again.
    async fn take(&self, tokens: Tokens, expires: Option<Moment>, sent: SecretString) {
        let parent = self.held().unsaved_parent.clone().unwrap_or(sent);
        let saved = self.save(&tokens, &parent).await;
        let mut held = self.held();
        held.tokens = tokens;
        held.expires = expires;
        held.unsaved_parent = (!saved).then_some(parent);
        drop(held);
        self.rotations.send_modify(|count| *count += 1);
    }

    async fn save_unsaved(&self) {
        let (tokens, parent) = {
            let held = self.held();
            (held.tokens.clone(), held.unsaved_parent.clone())
        };
        let Some(parent) = parent else { return };
        if self.save(&tokens, &parent).await {
            let mut held = self.held();
            if same(&held.tokens.refresh, &tokens.refresh) {
                held.unsaved_parent = None;
                tracing::info!("the session's tokens are saved again");
            }
        }
    }

    /// False when the store could not take the pair; true when it did, or is somebody else's now.
    async fn save(&self, tokens: &Tokens, parent: &SecretString) -> bool {
        let (tokens, parent) = (tokens.clone(), parent.clone());
        match self.in_store(move |store| store.save(&tokens, &parent)).await {
            Ok(true) => true,
            Ok(false) => {
                tracing::info!("the saved identity was replaced; this session goes on unsaved");
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "could not save the session's tokens; trying again later");
                false
            }
        }
    }

    async fn lock_machine(&self) -> Result<Option<Box<dyn std::any::Any + Send>>, BackendError> {
        match self.in_store(TokenStore::lock_refresh).await {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if matches!(error.downcast_ref(), Some(LockError::Held)) => {
                Err(BackendError::TokenStore(error.into()))
            }
            Err(error) => {
                // A full or read-only disk: the reuse rule for parents makes this safe enough.
                let error = format!("{error:#}");
                tracing::warn!(error, "refreshing the session without the machine's lock");
                Ok(None)
            }
        }
    }

    async fn in_store<T: Send + 'static>(
        &self,
        task: impl FnOnce(&dyn TokenStore) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || task(store.as_ref())).await?
    }
}

async fn wait_out_skew() {
    tokio::time::sleep(jitter(Duration::from_secs(1), Duration::from_secs(5))).await;
}

fn is_object(answer: &Answer) -> Result<(), BackendError> {
    if answer.json()?.is_object() {
        return Ok(());
    }
    Err(BackendError::Contract(format!("the user is not an object ({})", answer.describe())))
}
