//! Sends contents: the intent first, the bytes of one open file, and then what both agree on.
//!
//! While some are under way, what came of those before them becomes durable, and what is intended
//! after them: the server need not wait for our disk.

use std::panic::resume_unwind;
use std::slice::Chunks;
use std::thread;

use super::super::plan::{Action, Step};
use super::super::planted::{Bug, planted};
use super::super::ports::{Clock, Drive, Fs, RemoteError, Rng, Upload, Written};
use super::super::state::{Effect, Intended, Intent, State, StateError};
use super::failure::Failure;
use super::intents::answered;
use super::{Engine, TickError};

/// Contents that are sent together, and what is recorded for them.
#[derive(Default)]
struct Batch<'a> {
    steps: Vec<&'a Step>,
    intents: Vec<Intent>,
}

/// What became of one of them: it could not be opened, or the server has answered.
type Sent = Result<Result<Written, RemoteError>, Failure>;

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    pub(super) fn apply_sends(&mut self, steps: &[Step]) -> Result<(), TickError> {
        let mut chunks = steps.chunks(self.settings.uploads);
        let mut batch = self.next_batch(&mut chunks);
        self.state.intend(&batch.intents)?;
        // What came of the batch before: durable before what is intended after this one.
        let mut effects = Vec::new();
        while !batch.steps.is_empty() {
            let following = self.next_batch(&mut chunks);
            let sent = self.send_batch(&batch, &effects, &following.intents)?;
            let halt;
            (effects, halt) = self.judge_sent(batch, sent)?;
            if halt.is_some() || self.may_not_write() {
                for intent in &following.intents {
                    // It was begun before, perhaps: the next try goes on with it.
                    self.note_broken_off(intent);
                    effects.push(answered(intent));
                }
                self.record(&effects)?;
                return halt.map_or(Ok(()), Err);
            }
            batch = following;
        }
        self.record(&effects)
    }

    /// The next that can be sent now, if there are any, and what is to be recorded before it.
    fn next_batch<'a>(&mut self, chunks: &mut Chunks<'a, Step>) -> Batch<'a> {
        let mut batch = Batch::default();
        while batch.steps.is_empty() && !self.may_not_write() && !self.out_of_time() {
            let Some(chunk) = chunks.next() else { break };
            for step in chunk {
                if self.passes_over(step) {
                    continue;
                }
                let Action::Send { content, stat, expect } = &step.action else { continue };
                let wrong = planted(Bug::OperationIdOfPath);
                let operation_id =
                    if wrong { step.path.to_string() } else { self.id_of_upload(step) };
                let (content, stat, expect) = (*content, *stat, expect.clone());
                let what = Intended::Send { content, stat, expect };
                batch.intents.push(Intent { operation_id, path: step.path.clone(), what });
                batch.steps.push(step);
            }
        }
        batch
    }

    /// Sends a batch. Meanwhile the effects become durable, and then the intents.
    fn send_batch(
        &mut self,
        batch: &Batch<'_>,
        effects: &[Effect],
        intents: &[Intent],
    ) -> Result<Vec<Sent>, TickError> {
        let (fs, drive, state) = (&self.fs, &self.drive, &mut self.state);
        let mut sent: Vec<Option<Sent>> = Vec::with_capacity(batch.steps.len());
        let mut uploads = Vec::with_capacity(batch.steps.len());
        for (step, intent) in batch.steps.iter().zip(&batch.intents) {
            let Intended::Send { content, stat, expect } = &intent.what else { continue };
            match fs.open(&step.path, stat) {
                Ok(source) => {
                    sent.push(None);
                    uploads.push(Upload {
                        operation_id: intent.operation_id.clone(),
                        path: step.path.clone(),
                        content: *content,
                        expect: expect.clone(),
                        source,
                    });
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    if failure.is_stop() {
                        return Err(TickError::Stopped);
                    }
                    if let Failure::Halt(error) = failure {
                        state.commit(effects)?;
                        return Err(error);
                    }
                    sent.push(Some(Err(failure)));
                }
            }
        }
        let answers = thread::scope(|scope| {
            let to_record = !(effects.is_empty() && intents.is_empty());
            let recording = to_record.then(|| scope.spawn(|| record(state, effects, intents)));
            let answers = if uploads.is_empty() { Vec::new() } else { drive.send(uploads) };
            let recorded = recording.map_or(Ok(()), |recording| {
                recording.join().unwrap_or_else(|panic| resume_unwind(panic))
            });
            recorded.map(|()| answers)
        })?;
        let mut answers = answers.into_iter().map(Ok);
        Ok(sent.into_iter().filter_map(|failed| failed.or_else(|| answers.next())).collect())
    }

    /// What is to be recorded of a batch, and what ends the tick. An intent whose answer is lost
    /// stays, to be asked again.
    fn judge_sent(
        &mut self,
        batch: Batch<'_>,
        sent: Vec<Sent>,
    ) -> Result<(Vec<Effect>, Option<TickError>), TickError> {
        let (mut answers, mut failures) = (Vec::new(), Vec::new());
        for ((step, intent), sent) in batch.steps.into_iter().zip(batch.intents).zip(sent) {
            match sent {
                Ok(answer) => answers.push((step, intent, answer)),
                Err(failure) => failures.push((step, intent, failure)),
            }
        }
        let (mut effects, halt) = self.judge(answers)?;
        for (step, intent, failure) in failures {
            effects.push(answered(&intent));
            self.failed(step, failure);
        }
        self.note_learnt(&effects);
        Ok((effects, halt))
    }
}

fn record(state: &mut State, effects: &[Effect], intents: &[Intent]) -> Result<(), StateError> {
    state.commit(effects)?;
    state.intend(intents)
}
