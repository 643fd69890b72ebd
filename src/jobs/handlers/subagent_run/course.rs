//! A run that was accepted: its start, the CLI at work, its end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Prepared;
use super::finalise::{self, Event, Ran, Verdict};
use super::metadata::About;
use super::request::{self, Surroundings};
use super::shutdown;
use super::target::{CANCELLED, refuse};
use crate::backend::{BackendError, Finalization, Finalized};
use crate::jobs::handlers::{Finished, Host};
use crate::jobs::patience::read;
use crate::jobs::progress::Progress;
use crate::jobs::run_events::RunEvents;
use crate::jobs::stop::{JobStop, StopReason};
use crate::jobs::subagent_dirs;
use crate::model::{Job, JobStatus, time};
use crate::process::RunIds;
use crate::providers::agent::{AgentEvent, AgentFormat, AgentRequest, AgentRun, run_agent};
use crate::providers::{
    self, ErrorCode, Failure, Place, Plan, PlanRunError, Provider, Ran as Told, WorkDir,
};

/// Boxed, so that it is known to be `Send` here: the compiler cannot find that out further up.
type Running<'a> = Pin<Box<dyn Future<Output = Result<AgentRun, PlanRunError>> + Send + 'a>>;

/// From the first signal to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of events that are held until the run has ended, where none is told before: what comes
/// after that is told as it comes, so that memory is bounded.
const HELD: usize = 16 * 1024 * 1024;

/// Everything that a run needs on its way.
pub(super) struct Course<'a> {
    pub(super) host: &'a Host,
    pub(super) job: &'a Job,
    pub(super) stop: &'a JobStop,
    pub(super) progress: &'a Progress<'a>,
    pub(super) prepared: &'a Prepared,
    pub(super) events: &'a RunEvents,
}

/// How the CLI is called.
struct Call {
    provider: &'static dyn Provider,
    request: AgentRequest,
    plan: Plan,
}

impl Course<'_> {
    /// From acceptance to the job's end.
    pub(super) async fn run(&self) -> Finished {
        if let Some(reason) = self.cancelled_before() {
            let now = time::now_wire();
            let (end, events) =
                finalise::cancelled_before(self.about(), &self.host.redactor, &reason, &now);
            return self.finalise(end, events).await;
        }
        let started = tokio::select! {
            // Cancel safe: a start that was written is taken back as a whole.
            started = self.start() => started,
            () = shut_down(self.stop) => return self.called_off().await,
        };
        if let Err(refusal) = started {
            return refusal;
        }
        self.tell(("run_started", self.about().started())).await;
        let call = match self.call() {
            Ok(call) => call,
            Err(reason) => return self.fail_before(&reason).await,
        };
        let attempt = json!({"phase": "attempt_started", "attempt": 1, "max_attempts": 1});
        self.tell(finalise::event("run_progress", attempt)).await;
        let ran = Ran {
            command: Some(self.command_line(&call.plan)),
            output_format: call.request.format.as_str(),
            ..Ran::default()
        };
        if let Some(reason) = self.cancel_reason() {
            return self.end(&ran, Verdict::Cancelled(reason)).await;
        }
        let mut run = self.carry_out(&call).await;
        if let Ok(run) = &mut run
            && call.request.resume != self.prepared.target.session
        {
            // That another session does not exist says nothing about the subagent's own.
            run.outcome.metadata.retain(|name, value| name != "session_id" || !value.is_null());
        }
        self.after(ran, run).await
    }

    fn about(&self) -> About<'_> {
        About { target: &self.prepared.target, full_control: &self.prepared.full_control }
    }

    async fn tell(&self, (event_type, payload): Event) {
        self.events.tell(event_type, payload).await;
    }

    /// The last events; that of a cancel comes before them.
    async fn tell_last(&self, events: Vec<Event>) {
        let target = &self.prepared.target;
        self.host.subagents.announced(&target.subagent_id, &target.run_id).await;
        for event in events {
            self.tell(event).await;
        }
    }

    /// Why the run is not even to be started.
    fn cancelled_before(&self) -> Option<String> {
        self.prepared.target.pending_cancel().or_else(|| self.cancel_reason())
    }

    /// Why the run is to be cancelled: by a cancel job, or because the job's row was.
    fn cancel_reason(&self) -> Option<String> {
        let row_ended = self.stop.reason() == Some(StopReason::RowEnded);
        self.prepared.active.reason().or_else(|| row_ended.then(|| CANCELLED.to_owned()))
    }

    /// Marks run and subagent as started; an error is the job's end.
    async fn start(&self) -> Result<(), Finished> {
        let target = &self.prepared.target;
        let (now, metadata) = (time::now_wire(), self.about().at_start());
        let of_run = json!({"started_at": now, "metadata": metadata});
        let of_subagent = json!({"status": "running", "started_at": now, "metadata": metadata});
        let api = &self.host.api;
        let run = read(self.host, || {
            api.change_running_run(&target.run_id, &target.subagent_id, &of_run)
        });
        self.must_match(run.await, "The run is no longer running")?;
        let subagent =
            read(self.host, || api.change_running_subagent(&target.subagent_id, &of_subagent));
        self.must_match(subagent.await, "The subagent is no longer running")
    }

    fn must_match(
        &self,
        matched: Result<bool, BackendError>,
        message: &str,
    ) -> Result<(), Finished> {
        let target = &self.prepared.target;
        let names = json!({"subagent_id": target.subagent_id, "run_id": target.run_id});
        match matched {
            Ok(true) => Ok(()),
            Ok(false) => Err(refuse(JobStatus::Cancelled, message, names)),
            Err(error) => {
                let why = format!("Could not start the run: {}", error.report());
                Err(refuse(JobStatus::Failed, &why, names))
            }
        }
    }

    /// How the CLI is to be called; the error is why it cannot be.
    fn call(&self) -> Result<Call, String> {
        let Prepared { target, full_control, guest, .. } = self.prepared;
        let id = target.provider;
        if let Some(reason) = &full_control.denied {
            return Err(format!("Full control was asked for and is denied: {reason}"));
        }
        let standing = self.host.providers.standing(id);
        let (Some(provider), Some(installed)) = (providers::by_id(id), &standing.installed) else {
            return Err(finalise::failure_text(id, standing.absence()));
        };
        let around = Surroundings {
            full_control: full_control.effective(),
            guest: *guest,
            live: self.host.live_events,
            continues: provider.continues_sessions(),
        };
        let request = request::build(target, around);
        match provider.agent_plan(&request, installed) {
            Ok(plan) => Ok(Call { provider, request, plan }),
            Err(error) => Err(finalise::failure_text(id, &error.to_string())),
        }
    }

    fn command_line(&self, plan: &Plan) -> String {
        self.host.redactor.command_line(&plan.program.display().to_string(), &plan.args)
    }

    /// The run fails before it was tried.
    async fn fail_before(&self, reason: &str) -> Finished {
        let error = self.host.redactor.text(reason);
        let (about, target) = (self.about(), &self.prepared.target);
        let (end, _) = finalise::run_end(
            about,
            &self.host.redactor,
            &Ran::default(),
            &Verdict::Failed(error.clone()),
            &time::now_wire(),
        );
        let body = |metadata| {
            json!({
                "status": end.final_status, "output": end.failure_output, "error": end.final_error,
                "completed_at": end.completed_at, "metadata": metadata,
            })
        };
        let (of_run, of_subagent) = (body(about.run()), body(about.over_own()));
        let written = shutdown::end_rows(self.host, target, &of_run, &of_subagent).await;
        match written {
            Ok(true) => self.tell_last(vec![finalise::failed_before(&error)]).await,
            Ok(false) => tracing::info!("the run ended otherwise before it was tried"),
            Err(error) => tracing::error!(%error, "the run's failure is not written"),
        }
        finalise::finished_before(about, &error)
    }

    /// The CLI's run in its work dir, with what it tells on the way.
    async fn carry_out(&self, call: &Call) -> Result<AgentRun, PlanRunError> {
        let target = &self.prepared.target;
        let work = self.host.work(subagent_dirs::WORK);
        let subagent = target.subagent_id.as_str();
        let place = Place {
            work,
            environment: &self.host.environment,
            umask: self.host.caller_umask,
            grace: GRACE,
            guest: self.host.guest.clone(),
        };
        let user = place.user().await?;
        let work = &place.work;
        let files = &call.plan.files;
        let dir = if call.provider.continues_sessions() {
            WorkDir::keep_as(user, work, subagent, files).await?
        } else {
            WorkDir::make_as(user, &work.join(subagent), target.run_id.as_str(), files).await?
        };
        let audit = self.progress.audit();
        audit.command(&self.command_line(&call.plan), &dir.path().display().to_string());
        audit.starts().await;
        let teller = Teller::new(self.events, &call.request);
        let reader = call.provider.agent_reader(&call.request, &call.plan);
        let cancel = CancellationToken::new();
        let started = async |ids: RunIds| {
            self.prepared.active.set_process(true);
            self.progress.run_started(&ids).await;
        };
        // Each of its futures owns what it needs, for the same reason.
        let own = teller.clone();
        let told = move |event| {
            let teller = own.clone();
            async move { teller.take(event).await }
        };
        let run: Running<'_> =
            Box::pin(run_agent(&place, &dir, &call.plan, reader, &cancel, started, told));
        let run = tokio::select! {
            run = run => run,
            // Only passes the word on.
            never = self.pass_on(&cancel) => match never {},
        };
        self.prepared.active.set_process(false);
        dir.remove().await;
        teller.let_go().await;
        run
    }

    async fn pass_on(&self, cancel: &CancellationToken) -> std::convert::Infallible {
        tokio::select! {
            // Cancel safe, each arm: a token.
            () = self.stop.token().cancelled() => {}
            () = self.prepared.active.token().cancelled() => {}
        }
        cancel.cancel();
        std::future::pending().await
    }

    /// The CLI is done, or did not come about.
    async fn after(&self, ran: Ran, run: Result<AgentRun, PlanRunError>) -> Finished {
        self.host.learn_secrets().await;
        let provider = self.prepared.target.provider;
        let (ran, outcome, was_stopped) = match run {
            Ok(run) => {
                self.progress.audit().exit(run.exit, run.ended);
                let stopped = run.ended == crate::process::Ended::Cancelled;
                (ran.of(&self.host.redactor, &run), finalise::judge(&run), stopped)
            }
            Err(error) => {
                let failure = not_run(error);
                tracing::warn!(why = failure.message, "the agent CLI could not be run");
                (ran, Err(Box::new(failure)), false)
            }
        };
        if let Some(reason) = self.cancel_reason() {
            return self.end(&ran, Verdict::Cancelled(reason)).await;
        }
        if was_stopped {
            return self.called_off().await;
        }
        let told = Told {
            provider,
            context: "subagent_run",
            job_id: self.job.id.to_string(),
            run_id: Some(self.prepared.target.run_id.to_string()),
        };
        self.host.providers.ran(told, outcome.as_ref().map(|_| ()).map_err(AsRef::as_ref));
        let verdict = match outcome {
            Ok(envelope) => Verdict::Completed(envelope),
            Err(failure) => {
                let text = finalise::failure_text(provider, &failure.message);
                Verdict::Failed(self.host.redactor.text(&text))
            }
        };
        self.end(&ran, verdict).await
    }

    /// The run's end, unless its row says by now that it was cancelled.
    async fn end(&self, ran: &Ran, verdict: Verdict) -> Finished {
        let now = time::now_wire();
        let end_of = |verdict: &Verdict| {
            finalise::run_end(self.about(), &self.host.redactor, ran, verdict, &now)
        };
        let (end, events) = end_of(&verdict);
        // Before anything is asked: what the run came to must not be lost while the backend is away.
        self.keep(&end, &events).await;
        if matches!(verdict, Verdict::Cancelled(_)) {
            return self.finalise(end, events).await;
        }
        match self.cancelled_meanwhile().await {
            Ok(Some(reason)) => {
                let (end, events) = end_of(&Verdict::Cancelled(reason));
                return self.finalise(end, events).await;
            }
            Ok(None) => {}
            Err(error) => return self.not_finalised(&error.report()),
        }
        match self.bring(&end, &events).await {
            // Between our look and our word.
            Ok(Finalized::Otherwise(status)) if status == JobStatus::Cancelled.as_str() => {
                let (end, events) = end_of(&Verdict::Cancelled(CANCELLED.to_owned()));
                self.finalise(end, events).await
            }
            told => self.conclude(told, end, events).await,
        }
    }

    /// The reason when the run's row says that it was cancelled.
    async fn cancelled_meanwhile(&self) -> Result<Option<String>, BackendError> {
        let run_id = &self.prepared.target.run_id;
        let row = read(self.host, || self.host.api.subagent_run(run_id)).await?;
        let row = row.unwrap_or_default();
        let text = |pointer: &str| row.pointer(pointer).and_then(super::target::text_of);
        let cancelled = text("/status").as_deref() == Some(JobStatus::Cancelled.as_str());
        let reason = || text("/metadata/cancel_reason").or_else(|| text("/error"));
        Ok(cancelled.then(|| reason().unwrap_or_else(|| CANCELLED.to_owned())))
    }

    async fn keep(&self, end: &Finalization, events: &[Event]) {
        if let Err(error) = self.progress.run_ended(&finalise::kept(end, events)).await {
            tracing::warn!(%error, "the end of a subagent's run is in memory only");
        }
    }

    /// Tells the backend of the end, and then of the last events.
    async fn finalise(&self, end: Finalization, events: Vec<Event>) -> Finished {
        let told = self.bring(&end, &events).await;
        self.conclude(told, end, events).await
    }

    /// Tells the backend of the end, however long it is away.
    async fn bring(&self, end: &Finalization, events: &[Event]) -> Result<Finalized, BackendError> {
        self.keep(end, events).await;
        let told = read(self.host, || self.host.api.finalize_run(end));
        let (told, ()) = tokio::join!(told, subagent_dirs::bound(self.host));
        told
    }

    async fn conclude(
        &self,
        told: Result<Finalized, BackendError>,
        end: Finalization,
        events: Vec<Event>,
    ) -> Finished {
        match told {
            Ok(Finalized::Written(stored)) => {
                self.tell_last(events).await;
                finalise::finished(end, stored)
            }
            Ok(Finalized::Otherwise(status)) => {
                self.not_finalised(&format!("the run is {status} already"))
            }
            Err(error) => self.not_finalised(&error.report()),
        }
    }

    fn not_finalised(&self, why: &str) -> Finished {
        let target = &self.prepared.target;
        let names = json!({"subagent_id": target.subagent_id, "run_id": target.run_id});
        let message = format!("The run's end was not accepted: {why}");
        refuse(JobStatus::Failed, &message, names)
    }

    /// The gateway goes and does not wait any longer.
    async fn called_off(&self) -> Finished {
        let called_off = shutdown::call_off(self.host, self.progress, &self.prepared.asked).await;
        self.tell_last(called_off.events).await;
        called_off.finished
    }
}

/// When the gateway goes; never when the job was stopped for another reason before.
pub(super) async fn shut_down(stop: &JobStop) {
    stop.token().cancelled().await;
    if stop.reason() != Some(StopReason::Shutdown) {
        std::future::pending::<()>().await;
    }
}

/// The CLI did not run, or its end is not known.
fn not_run(error: PlanRunError) -> Failure {
    let code = match &error {
        PlanRunError::Run(crate::process::RunError::Spawn { .. }) => ErrorCode::ProviderFailed,
        // Says nothing about the provider.
        PlanRunError::Run(_) | PlanRunError::WorkDir(_) | PlanRunError::Place(_) => {
            ErrorCode::ProviderUnavailable
        }
    };
    let message = format!("it could not be run: {:#}", anyhow::Error::new(error));
    Failure { code, message, summary: None }
}

/// Passes on what the CLI tells: at once, or after the run. Clones share what is held.
#[derive(Clone)]
struct Teller {
    events: RunEvents,
    /// Whether anything is told at all.
    tells: bool,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    /// `None`: nothing is held any more.
    events: Option<Vec<AgentEvent>>,
    bytes: usize,
}

impl Teller {
    fn new(events: &RunEvents, request: &AgentRequest) -> Self {
        let held = Held { events: (!request.live).then(Vec::new), bytes: 0 };
        Self {
            events: events.clone(),
            tells: request.live || request.format == AgentFormat::Stream,
            held: Arc::new(Mutex::new(held)),
        }
    }

    async fn take(&self, event: AgentEvent) {
        if self.tells {
            for event in self.due(event) {
                self.events.tell(event.kind.as_str(), event.payload).await;
            }
        }
    }

    /// What is to be told now that this has come.
    fn due(&self, event: AgentEvent) -> Vec<AgentEvent> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held { events, bytes } = &mut *held;
        let Some(waiting) = events else { return vec![event] };
        *bytes = bytes.saturating_add(size(&event));
        waiting.push(event);
        if *bytes > HELD { events.take().unwrap_or_default() } else { Vec::new() }
    }

    /// The run is over.
    async fn let_go(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).events.take();
        for event in held.into_iter().flatten() {
            self.events.tell(event.kind.as_str(), event.payload).await;
        }
    }
}

/// Roughly its bytes in memory.
fn size(event: &AgentEvent) -> usize {
    fn of(value: &Value) -> usize {
        let inside = match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(of).sum(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| name.len() + of(value)).sum()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        };
        inside + size_of::<Value>()
    }
    event.payload.iter().map(|(name, value)| name.len() + of(value)).sum()
}
