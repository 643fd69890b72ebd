//! The full check of a provider: a model answers a small question in the form that was asked for.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::health::CheckReport;
use super::{
    Check, ErrorCode, Failure, Format, Installed, ModelRequest, Outcome, Place, PlanRun, Provider,
    run_plan,
};
use crate::config::{ConfigStore, Environment};
use crate::guest::Guest;
use crate::observe::Redactor;
use crate::process::Ended;

/// The kind of work dir that checks use.
pub const WORK: &str = "validation";
/// How long a provider may take to answer.
const LIMIT: Duration = Duration::from_secs(30);
/// From the first signal to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Clone)]
pub struct ModelCheck {
    config: ConfigStore,
    redactor: Redactor,
    environment: Environment,
    umask: u32,
    guest: Option<Guest>,
}

impl ModelCheck {
    /// CLIs get this environment and umask, as those of jobs do. Whatever stands in the config when
    /// one has answered is told to the redactor before the answer is read: it may be in it.
    pub fn new(
        config: ConfigStore,
        redactor: Redactor,
        environment: Environment,
        umask: u32,
    ) -> Self {
        Self { config, redactor, environment, umask, guest: None }
    }

    /// In a managed VM they run as that says.
    #[must_use]
    pub fn in_guest(self, guest: Option<Guest>) -> Self {
        Self { guest, ..self }
    }
}

impl Check for ModelCheck {
    async fn check(
        &self,
        provider: &dyn Provider,
        installed: &Installed,
    ) -> Result<CheckReport, Box<Failure>> {
        let request = request();
        let plan = match provider.plan(&request, installed) {
            Ok(plan) => plan,
            Err(error) => return failed(ErrorCode::InvalidRequest, &error),
        };
        let place = Place {
            work: work(&self.config, self.guest.as_ref(), WORK),
            guest: self.guest.clone(),
            environment: &self.environment,
            umask: self.umask,
            grace: GRACE,
        };
        let id = format!("{}-{}", provider.id().as_str(), uuid::Uuid::new_v4());
        let never = CancellationToken::new();
        let ran = match run_plan(&place, &id, &plan, &never, async |_| ()).await {
            Ok(ran) => ran,
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::new(error));
                return failed(ErrorCode::ProviderFailed, &why);
            }
        };
        self.config.tell_secrets(&self.redactor).await;
        judge(&ran, provider.decode(&request, &plan, &ran.left))
    }
}

/// Where work dirs of a kind lie.
pub(crate) fn work(config: &ConfigStore, guest: Option<&Guest>, kind: &str) -> PathBuf {
    guest.and_then(|guest| guest.work(kind)).unwrap_or_else(|| config.paths().work(kind))
}

fn request() -> ModelRequest {
    ModelRequest {
        prompt: "Say hi.".to_owned(),
        model: None,
        format: Format::Json { schema: schema() },
        system: None,
        effort: None,
        time_limit: LIMIT,
    }
}

/// `{message: string}`.
fn schema() -> Map<String, Value> {
    Map::from_iter([
        ("type".to_owned(), json!("object")),
        ("properties".to_owned(), json!({"message": {"type": "string"}})),
        ("required".to_owned(), json!(["message"])),
        ("additionalProperties".to_owned(), json!(false)),
    ])
}

fn judge(ran: &PlanRun, outcome: Outcome) -> Result<CheckReport, Box<Failure>> {
    match outcome {
        _ if ran.left.ended == Ended::TimeLimit => {
            let message = format!("no answer within {} seconds", LIMIT.as_secs());
            failed(ErrorCode::ProviderTimeout, &message)
        }
        Outcome::Answer(answer) if answer.output.get("message").is_some_and(Value::is_string) => {
            Ok(CheckReport { model: answer.model })
        }
        Outcome::Answer(_) => {
            let message = "it answered in another form than it was asked for";
            failed(ErrorCode::ProviderOutputInvalid, &message)
        }
        Outcome::Failure(failure) => Err(Box::new(failure)),
    }
}

fn failed(code: ErrorCode, message: &impl ToString) -> Result<CheckReport, Box<Failure>> {
    Err(Box::new(Failure { code, message: message.to_string(), summary: None }))
}
