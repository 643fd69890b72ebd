//! A managed VM's identity: taken from its bootstrap token, and not a person's to change.

use std::time::Duration;

use data_encoding::HEXLOWER;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::args::{Mode, StartArgs};
use super::context::Context;
use super::failure::{Exit, Failure};
use super::instance::Instance;
use super::{age, asynchronous, audit};
use crate::backend::retry::Backoff;
use crate::backend::{BackendError, Bootstrap, Endpoint, Http, exchange_vm_bootstrap_token};
use crate::config::{ConfigStore, Purpose, SavedConfig, Settings, Source};

/// How long a VM tries to get its identity.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between two tries, unless the backend asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// What a gateway is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On a host of its own.
    Host,
    /// In a managed VM.
    Guest,
}

/// What is to be done about the identity before the start.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is there.
    Go(Kind),
    /// The token is to be exchanged for it.
    Exchange,
}

/// Refuses what is not for a person in a managed VM. A config that cannot be read is the command's
/// own to complain about.
pub(crate) fn refuse(context: &Context, what: &str, why: &str) -> Result<(), Failure> {
    let Ok(paths) = context.paths(Purpose::Look) else { return Ok(()) };
    let saved = ConfigStore::new(paths).load().unwrap_or_default();
    match saved.vm_id() {
        Some(id) => {
            Err(Failure::new(format!("{what} is not for managed VMs (this is VM {id})")).hint(why))
        }
        None => Ok(()),
    }
}

/// Gets a managed VM its identity, where it has to. Gives what the gateway is, and whether another
/// one runs already.
pub(crate) fn prepare(
    context: &Context,
    settings: &Settings,
    args: &StartArgs,
) -> Result<(Kind, Option<Instance>), Failure> {
    let saved = context.saved(settings)?;
    let token = settings.guest.bootstrap_token.as_ref();
    let token = token.map(|token| token_hash(token.value.expose_secret()));
    let force = settings.guest.bootstrap_force.value;
    let kind = match step(&saved, token.as_deref(), force, args.mode)? {
        Step::Go(kind) => kind,
        Step::Exchange => Kind::Guest,
    };
    if kind == Kind::Guest && args.daemon {
        return Err(Failure::new("a gateway in a managed VM runs in the foreground")
            .hint("leave --daemon out: the VM's own supervisor keeps it running"));
    }
    let Some(hash) = token.filter(|token| {
        matches!(step(&saved, Some(token.as_str()), force, args.mode), Ok(Step::Exchange))
    }) else {
        return Ok((kind, None));
    };
    let instance = Instance::find(&settings.paths);
    if instance.is_running() {
        return Ok((kind, Some(instance)));
    }
    bootstrap(context, settings, &saved, &hash)?;
    Ok((kind, None))
}

/// Decides by the config, the token's hash, whether it is forced, and the mode.
fn step(
    saved: &SavedConfig,
    token: Option<&str>,
    force: bool,
    mode: Mode,
) -> Result<Step, Failure> {
    let used = saved.guest_value("bootstrapTokenSha256").and_then(Value::as_str);
    let is_paired = saved.is_paired();
    match (saved.vm_id().filter(|_| is_paired), token) {
        // Used by this VM already: it was started with the same environment once more.
        (Some(_), Some(token)) if used == Some(token) => Ok(Step::Go(Kind::Guest)),
        (Some(_), Some(_)) if force => Ok(Step::Exchange),
        (Some(id), Some(_)) if used.is_some() => Err(Failure::new(format!(
            "the config holds the identity of VM {id}, which another bootstrap token gave it"
        ))
        .hint(
            "is this a copy of that VM's disk? PANORAMA_VM_BOOTSTRAP_FORCE=1 replaces the \
             identity by the token's, without the token it stays",
        )),
        (Some(_), _) => Ok(Step::Go(Kind::Guest)),
        (None, Some(_)) if is_paired && !force => Err(by_a_person("the bootstrap token")),
        (None, Some(_)) => Ok(Step::Exchange),
        (None, None) if mode == Mode::Local => Ok(Step::Go(Kind::Host)),
        (None, None) if is_paired => Err(by_a_person("managed mode")),
        (None, None) => Err(Failure::new("this VM has no identity yet")
            .exit(Exit::NotPaired)
            .hint("set PANORAMA_VM_BOOTSTRAP_TOKEN to the token that was minted for it")),
    }
}

fn by_a_person(what: &str) -> Failure {
    Failure::new(format!("a person paired this gateway; {what} is for managed VMs")).hint(
        "start it without --mode managed and without a token, or `panorama-gateway unpair` it first",
    )
}

/// What the config keeps of a token.
fn token_hash(token: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(token.trim()))
}

/// Exchanges the token and saves what it was exchanged for.
///
/// The key under which it is asked for is saved first. So whoever lost the answer, or was killed
/// before it was saved, has it again; and where nothing can be saved, no token is used up.
fn bootstrap(
    context: &Context,
    settings: &Settings,
    saved: &SavedConfig,
    hash: &str,
) -> Result<(), Failure> {
    let Some(token) = &settings.guest.bootstrap_token else { return Ok(()) };
    let (url, anon_key) = settings.backend(Purpose::Start)?;
    let endpoint = Endpoint { url, anon_key };
    let device_name = device_name(settings);
    let store = ConfigStore::new(settings.paths.clone());
    let key = key(&store, saved)
        .map_err(|failure| failure.context("the VM's identity could not be saved"))?;
    let http = Http::new(&endpoint)?;
    let exchanged = asynchronous::short(async {
        let attempt = async || {
            exchange_vm_bootstrap_token(&http, &endpoint, &token.value, &device_name, &key).await
        };
        until(PATIENCE, attempt, |error, pause| tell(context, error, pause)).await
    })?;
    let got = exchanged.map_err(refused)?;
    for secret in [&got.pairing.tokens.access, &got.pairing.tokens.refresh] {
        context.redactor.add_secret(secret.expose_secret());
    }
    if let Some((token, _)) = &got.drive_sync {
        context.redactor.add_secret(token.expose_secret());
    }
    store.update(|saved| keep(saved, &endpoint, &device_name, hash, &got)).map_err(|error| {
        Failure::from(error).context(
            "the token was exchanged, but the identity could not be saved; start again to have it",
        )
    })?;
    let about = json!({
        "gateway_id": got.pairing.gateway_id, "team_id": got.pairing.team_id,
        "vm_id": got.vm_id, "generation": got.generation, "device_name": device_name,
        "backend": endpoint.url,
    });
    audit::tell(context, &settings.paths, "vm_bootstrapped", about);
    context.ui.out(&format!(
        "VM {} is gateway {}, team {}.",
        got.vm_id, got.pairing.gateway_id, got.pairing.team_id
    ))?;
    Ok(())
}

/// A flag, the VM's own variable, else as on any host.
fn device_name(settings: &Settings) -> String {
    let general = &settings.device_name;
    match (&general.source, &settings.guest.device_name) {
        (Source::Flag(_), _) | (_, None) => general.value.clone(),
        (_, Some(name)) => name.value.clone(),
    }
}

/// The key of an exchange that did not come to its end, else a new one; saved.
fn key(store: &ConfigStore, saved: &SavedConfig) -> Result<String, Failure> {
    const FIELD: &str = "bootstrapKey";
    if let Some(key) = saved.guest_value(FIELD).and_then(Value::as_str) {
        // Whether it can still be written shows now, not when the token is used up.
        crate::fs::check_writable_dir(&store.paths().dir)?;
        return Ok(key.to_owned());
    }
    let key = uuid::Uuid::new_v4().to_string();
    store.update(|saved| saved.set_within("vmGuest", FIELD, key.as_str()))?;
    Ok(key)
}

fn keep(
    saved: &mut SavedConfig,
    endpoint: &Endpoint,
    device_name: &str,
    hash: &str,
    got: &Bootstrap,
) {
    saved.set("supabaseUrl", endpoint.url.as_str());
    saved.set("supabaseAnonKey", endpoint.anon_key.expose_secret());
    saved.set("accessToken", got.pairing.tokens.access.expose_secret());
    saved.set("refreshToken", got.pairing.tokens.refresh.expose_secret());
    saved.set("gatewayId", got.pairing.gateway_id.as_str());
    saved.set("teamId", got.pairing.team_id.as_str());
    saved.set("deviceName", device_name);
    // The VM is the boundary.
    saved.set("full_control_enabled", true);
    saved.set_within("vmGuest", "vmId", got.vm_id.as_str());
    saved.set_within("vmGuest", "generation", got.generation.clone());
    saved.set_within("vmGuest", "bootstrapTokenSha256", hash);
    saved.remove_within("vmGuest", "bootstrapKey");
    saved.remove_within("vmGuest", "driveSync");
    if let Some((token, expires_at)) = &got.drive_sync {
        let sync = json!({"token": token.expose_secret(), "expiresAt": expires_at});
        saved.set_within("vmGuest", "driveSync", sync);
    }
}

/// Tries until it works, until an error that no waiting mends, or until the time is over.
async fn until<T>(
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, BackendError>,
    mut failed: impl FnMut(&BackendError, Duration),
) -> Result<T, BackendError> {
    let end = Instant::now() + limit;
    let mut backoff = Backoff::new();
    loop {
        let error = match attempt().await {
            Ok(got) => return Ok(got),
            Err(error) => error,
        };
        let pause = backoff.after_within(&error, LONGEST_PAUSE);
        if !error.is_transient() || Instant::now() + pause > end {
            return Err(error);
        }
        failed(&error, pause);
        tokio::time::sleep(pause).await;
    }
}

fn tell(context: &Context, error: &BackendError, pause: Duration) {
    let pause = age::millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    let why = error.report();
    context.ui.note(&format!("no identity for this VM yet ({why}); trying again in {pause}"));
}

fn refused(error: BackendError) -> Failure {
    let transient = error.is_transient();
    let failure = Failure::from(error).exit(Exit::Failed);
    if transient {
        let minutes = PATIENCE.as_secs() / 60;
        return failure.context(format!("this VM got no identity within {minutes} minutes"));
    }
    failure.context("this VM was given no identity").hint(
        "a bootstrap token works once and for a while: have a new one minted for this VM, and \
         check that it is for this backend",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(hash: Option<&str>) -> SavedConfig {
        let mut saved = person();
        saved.set_within("vmGuest", "vmId", "vm-1");
        if let Some(hash) = hash {
            saved.set_within("vmGuest", "bootstrapTokenSha256", hash);
        }
        saved
    }

    fn person() -> SavedConfig {
        let mut saved = SavedConfig::default();
        for name in ["gatewayId", "teamId", "accessToken", "refreshToken"] {
            saved.set(name, "x");
        }
        saved
    }

    #[test]
    fn config_token_force_and_mode_decide() {
        let mut unpaired_guest = guest(Some("a"));
        unpaired_guest.remove("refreshToken");
        let empty = SavedConfig::default();
        let go = |kind| Ok(Step::Go(kind));
        for (saved, token, force, mode, wanted) in [
            (&empty, None, false, Mode::Local, go(Kind::Host)),
            (&empty, None, true, Mode::Managed, Err("no identity yet")),
            (&empty, Some("a"), false, Mode::Local, Ok(Step::Exchange)),
            (&empty, Some("a"), false, Mode::Managed, Ok(Step::Exchange)),
            (&person(), None, false, Mode::Local, go(Kind::Host)),
            (&person(), None, false, Mode::Managed, Err("a person paired")),
            (&person(), Some("a"), false, Mode::Managed, Err("a person paired")),
            (&person(), Some("a"), true, Mode::Managed, Ok(Step::Exchange)),
            (&guest(Some("a")), None, false, Mode::Local, go(Kind::Guest)),
            (&guest(Some("a")), Some("a"), false, Mode::Managed, go(Kind::Guest)),
            (&guest(Some("a")), Some("a"), true, Mode::Managed, go(Kind::Guest)),
            (&guest(Some("a")), Some("b"), false, Mode::Managed, Err("identity of VM vm-1")),
            (&guest(Some("a")), Some("b"), true, Mode::Managed, Ok(Step::Exchange)),
            (&guest(None), Some("b"), false, Mode::Managed, go(Kind::Guest)),
            (&unpaired_guest, Some("a"), false, Mode::Managed, Ok(Step::Exchange)),
        ] {
            let seen = step(saved, token, force, mode);
            match (seen, wanted) {
                (Ok(seen), Ok(wanted)) => assert_eq!(seen, wanted),
                (Err(failure), Err(part)) => {
                    assert!(failure.message.contains(part), "{failure:?}");
                    assert!(failure.hint.is_some(), "{failure:?}");
                }
                (seen, wanted) => panic!("{saved:?} {token:?} {force}: {seen:?}, not {wanted:?}"),
            }
        }
    }

    fn answered(status: u16) -> BackendError {
        BackendError::Status { status, code: None, message: String::new(), retry_after: None }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_for_ten_minutes_and_no_longer() {
        let began = Instant::now();
        let mut tries = 0;
        let attempt = async || {
            tries += 1;
            Err::<(), _>(answered(503))
        };
        let mut longest = Duration::ZERO;
        let ended = until(PATIENCE, attempt, |_, pause| longest = longest.max(pause)).await;
        assert_eq!(ended.unwrap_err().status(), Some(503));
        let took = began.elapsed();
        assert!(took > Duration::from_mins(9) && took <= PATIENCE, "{took:?}");
        assert!((30..600).contains(&tries) && longest <= LONGEST_PAUSE, "{tries} {longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_waiting_mends_ends_it_at_once() {
        let began = Instant::now();
        let ended = until(PATIENCE, async || Err::<(), _>(answered(410)), |_, _| ()).await;
        assert_eq!(ended.unwrap_err().status(), Some(410));
        assert_eq!(began.elapsed(), Duration::ZERO);
        let mut answers = [Err(answered(500)), Ok(7)].into_iter();
        let ended = until(PATIENCE, async || answers.next().unwrap(), |_, _| ()).await;
        assert_eq!(ended.unwrap(), 7);
    }

    #[test]
    fn what_is_kept_makes_a_guest_and_forgets_nothing_else() {
        let mut saved = SavedConfig::default();
        saved.set_within("vmGuest", "bootstrapKey", "k");
        saved.set_within("vmGuest", "egress", json!([1]));
        saved.set_within("vmGuest", "driveSync", json!({"token": "old"}));
        let endpoint = Endpoint { url: "http://127.0.0.1:1".into(), anon_key: "key".into() };
        let mut got = Bootstrap {
            pairing: crate::backend::Pairing {
                gateway_id: crate::model::GatewayId::new("g"),
                team_id: crate::model::TeamId::new("t"),
                tokens: crate::backend::Tokens { access: "a".into(), refresh: "r".into() },
            },
            vm_id: "vm-1".into(),
            generation: Value::Null,
            drive_sync: None,
        };
        keep(&mut saved, &endpoint, "box", "hash", &got);
        let wanted = json!({
            "egress": [1], "vmId": "vm-1", "generation": null, "bootstrapTokenSha256": "hash",
        });
        assert_eq!(saved.value("vmGuest"), Some(&wanted));
        assert!(saved.is_paired() && saved.full_control() && saved.is_guest());
        got.drive_sync = Some(("hush".into(), "2026-01-01T00:00:00Z".into()));
        keep(&mut saved, &endpoint, "box", "hash", &got);
        let sync = json!({"token": "hush", "expiresAt": "2026-01-01T00:00:00Z"});
        assert_eq!(saved.guest_value("driveSync"), Some(&sync));
        assert!(saved.secrets().any(|secret| secret == "hush"));
    }
}
