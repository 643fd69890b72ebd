//! The paired identity with all that its work needs.

use std::sync::Arc;

use anyhow::Context;

use super::{Gateway, StartError};
use crate::backend::{Api, Endpoint, Http, RedactedTokens, Session};
use crate::config::{SavedConfig, Settings, Source, Sourced};
use crate::jobs::{EventTurns, Host, Subagents, Twin};
use crate::model::{GatewayId, TeamId};
use crate::runtime::identity::Identity;
use crate::runtime::validation::Occasion;

impl Gateway {
    /// The identity that `gateway.json` holds now.
    pub(super) fn identity(&self, occasion: Occasion) -> Result<Identity, StartError> {
        let settings = &self.options.settings;
        let saved = self.config.load()?;
        if !saved.is_paired() {
            return Err(StartError::NotPaired);
        }
        let text = |name: &str| saved.text(name).unwrap_or_default().to_owned();
        saved.secrets().for_each(|secret| self.options.redactor.add_secret(secret));
        // What was resolved at the start was saved; a pairing since then brought its own backend.
        let endpoint =
            Endpoint { url: text("supabaseUrl"), anon_key: text("supabaseAnonKey").into() };
        let http = self.http(&endpoint)?;
        let store = RedactedTokens::new(self.config.clone(), self.options.redactor.clone());
        let session = Session::new(http.clone(), endpoint.clone(), Arc::new(store))
            .context("load the session")?;
        let (gateway, team) = (GatewayId::new(text("gatewayId")), TeamId::new(text("teamId")));
        let api = Api::new(http, endpoint, Arc::new(session), gateway, team);
        self.shared.notes().api = Some(api.clone());
        let host = Arc::new(Host {
            api: api.clone(),
            config: self.config.clone(),
            environment: settings.environment.clone(),
            redactor: self.options.redactor.clone(),
            polled: self.shared.polled.subscribe(),
            journal: self.shared.journal.clone(),
            audit: self.audit.clone(),
            caller_umask: self.options.caller_umask,
            providers: Arc::clone(&self.shared.providers),
            metrics: self.shared.job_metrics.clone(),
            subagents: Subagents::default(),
            event_turns: EventTurns::default(),
            twin: Twin::default(),
            guest: self.shared.guest.clone(),
            live_events: settings.live_events.value,
        });
        Ok(Identity {
            shared: Arc::clone(&self.shared),
            api,
            host,
            device_name: device_name(settings, &saved),
            image_reference: settings.guest.image_reference.as_ref().map(|it| it.value.clone()),
            is_guest: saved.is_guest(),
            occasion,
        })
    }

    /// The client that has spoken to this backend already, if there is one.
    fn http(&self, endpoint: &Endpoint) -> Result<Http, StartError> {
        match &self.http {
            Some((known, http)) if known.is_same(endpoint) => Ok(http.clone()),
            _ => Ok(Http::with_clock(endpoint, self.clock.clone()).context("make the HTTP client")?),
        }
    }
}

/// A flag, else what the pairing in force was made with.
fn device_name(settings: &Settings, saved: &SavedConfig) -> String {
    let Sourced { value, source } = &settings.device_name;
    match (source, saved.text("deviceName")) {
        (Source::Flag(_), _) | (_, None) => value.clone(),
        (_, Some(name)) => name.to_owned(),
    }
}
