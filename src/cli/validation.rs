//! The full validation of all providers, before people's eyes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::failure::Failure;
use super::progress;
use crate::backend::{
    Api, BackendError, BorrowedTokens, Endpoint, Http, RedactedTokens, Session, TokenStore,
};
use crate::config::{ConfigStore, Paths, SavedConfig, Settings};
use crate::doctor::providers::{Validation, verdict, version};
use crate::fs::ensure_private_dir;
use crate::guest::Guest;
use crate::model::{GatewayId, TeamId};
use crate::providers::{Asker, ModelCheck, ProviderId, Roster, Standing, Standings};
use crate::runtime::validation::{Occasion, record};

/// How long a backend that does not take events is tried.
const RECORD_LIMIT: Duration = Duration::from_secs(10);

/// Validates all providers at the same time; `line` is what stdout is told of each.
pub(crate) async fn run(
    context: &Context,
    settings: &Settings,
    line: impl Fn(ProviderId, &Standing) -> Option<String>,
) -> Result<Standings, Failure> {
    // A machine without files of ours is left without.
    let fresh = if settings.paths.dir.exists() { None } else { Some(tempfile::tempdir()?) };
    let paths = fresh.as_ref().map_or_else(|| settings.paths.clone(), |dir| in_dir(dir.path()));
    ensure_private_dir(&paths.tmp())?;
    let (environment, umask) = (&settings.environment, context.caller_umask);
    let (redactor, store) = (context.redactor.clone(), ConfigStore::new(paths.clone()));
    let guest = Guest::to_look(&store.load().unwrap_or_default(), &settings.guest);
    let validation = Validation {
        settings,
        asker: Asker::in_guest(environment, &paths.tmp(), umask, guest.clone()),
        check: ModelCheck::new(store, redactor.clone(), environment.clone(), umask).in_guest(guest),
        roster: Arc::new(Roster::new(redactor)),
    };
    let works = ProviderId::ALL.map(|id| {
        let validation = &validation;
        (format!("{}: asking it to answer", id.title()), async move {
            (id, Box::pin(validation.one(id)).await)
        })
    });
    let all =
        Box::pin(progress::in_order(&context.ui, works, |(id, standing)| line(*id, standing)))
            .await?;
    Ok(all.into_iter().collect())
}

fn in_dir(dir: &Path) -> Paths {
    Paths::in_dir(&dir.join("gateway"))
}

/// `Claude Code  2.1.197  healthy (1.2 s, claude-sonnet-5)`.
pub(crate) fn line(id: ProviderId, standing: &Standing) -> String {
    let hint = crate::doctor::providers::check(id, standing).hint;
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    let version = version(standing).map(|version| format!("{version}  ")).unwrap_or_default();
    format!("{:<13}{version}{}{hint}", id.title(), verdict(id, standing))
}

/// Tells the team of those that are not healthy; a backend that does not take that is not waited
/// for.
pub(crate) async fn tell(context: &Context, api: &Api, occasion: Occasion, found: &Standings) {
    let told = record(api, &context.redactor, occasion, found);
    if tokio::time::timeout(RECORD_LIMIT, told).await.is_err() {
        context.ui.note("the backend was not told of the providers: it does not answer");
    }
}

/// Whose the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// Ours: they are refreshed when need be.
    Ours,
    /// A running gateway's: they are used as they are.
    Borrowed,
}

/// The backend as the saved identity sees it. Reads the config.
pub(crate) fn api(
    context: &Context,
    paths: &Paths,
    saved: &SavedConfig,
    endpoint: Endpoint,
    http: Http,
    tokens: Tokens,
) -> Result<Api, BackendError> {
    let store = RedactedTokens::new(ConfigStore::new(paths.clone()), context.redactor.clone());
    let store: Arc<dyn TokenStore> = match tokens {
        Tokens::Ours => Arc::new(store),
        Tokens::Borrowed => Arc::new(BorrowedTokens(store)),
    };
    let session = Session::new(http.clone(), endpoint.clone(), store)?;
    let text = |name| saved.text(name).unwrap_or_default().to_owned();
    let (gateway, team) = (GatewayId::new(text("gatewayId")), TeamId::new(text("teamId")));
    Ok(Api::new(http, endpoint, Arc::new(session), gateway, team))
}

/// After pairing: shows how the providers are, and tells the team of those that are not healthy,
/// unless a running gateway will. Nothing here undoes a pairing.
pub(crate) async fn after_pairing(
    context: &Context,
    settings: &Settings,
    saved: &SavedConfig,
    endpoint: Endpoint,
    gateway_runs: bool,
) -> io::Result<()> {
    let shown = run(context, settings, |id, standing| Some(line(id, standing))).await;
    let found = match shown {
        Ok(found) => found,
        Err(failure) => {
            context.ui.warn("paired, but the providers could not be validated");
            context.ui.err(&failure.render(context.options.verbose, context.ui.colour_on_stderr()));
            return Ok(());
        }
    };
    if gateway_runs || found.values().all(|standing| standing.health.is_ready()) {
        return Ok(());
    }
    let api = Http::new(&endpoint)
        .map_err(Failure::from)
        .and_then(|http| Ok(api(context, &settings.paths, saved, endpoint, http, Tokens::Ours)?));
    match api {
        Ok(api) => tell(context, &api, Occasion::Pairing, &found).await,
        Err(failure) => context.ui.note(&failure.message),
    }
    Ok(())
}
