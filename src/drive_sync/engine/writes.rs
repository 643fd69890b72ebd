//! Makes, removes and moves entries at the server.

use super::super::plan::{Action, Step};
use super::super::ports::{Clock, Drive, Fs, FsError, RemoteError, Rng, Write, Written};
use super::super::state::{Effect, Intended, Intent};
use super::failure::Failure;
use super::intents::{answered, effects_of, write_of};
use super::{Engine, TickError};

/// A step, what is recorded for it, and what the server said.
pub(super) type Answer<'a> = (&'a Step, Intent, Result<Written, RemoteError>);

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    /// The intents are on the disk before the server is asked.
    pub(super) fn apply_writes(&mut self, steps: &[Step]) -> Result<(), TickError> {
        for chunk in steps.chunks(self.settings.batch) {
            if self.may_not_write() || self.out_of_time() {
                return Ok(());
            }
            let mut asked: Vec<(&Step, Intent, Write)> = Vec::with_capacity(chunk.len());
            for step in chunk {
                if self.passes_over(step) {
                    continue;
                }
                match self.moved_for_good(step).map_err(Failure::from) {
                    Ok(()) => {}
                    Err(Failure::Halt(error)) => return Err(error),
                    Err(failure) => {
                        self.failed(step, failure);
                        continue;
                    }
                }
                let Some(what) = intended(&step.action) else { continue };
                let operation_id = self.operation_id();
                let intent = Intent { operation_id, path: step.path.clone(), what };
                if let Some(write) = write_of(&intent) {
                    asked.push((step, intent, write));
                }
            }
            if asked.is_empty() {
                continue;
            }
            let (asked, writes): (Vec<_>, Vec<_>) =
                asked.into_iter().map(|(step, intent, write)| ((step, intent), write)).unzip();
            let intents: Vec<Intent> = asked.iter().map(|(_, intent)| intent.clone()).collect();
            self.state.intend(&intents)?;
            let answers = self.drive.apply(&writes);
            let answers = asked.into_iter().zip(answers);
            self.take_answers(
                answers.map(|((step, intent), answer)| (step, intent, answer)).collect(),
            )?;
        }
        Ok(())
    }

    /// A rename that is not on the disk for good may be undone by a loss of power.
    fn moved_for_good(&self, step: &Step) -> Result<(), FsError> {
        let Action::MoveRemote { to, remote, stat } = &step.action else { return Ok(()) };
        if remote.kind.is_directory() { Ok(()) } else { self.check_durable(to, stat) }
    }

    /// Records all answers at once.
    fn take_answers(&mut self, answers: Vec<Answer<'_>>) -> Result<(), TickError> {
        let (effects, halt) = self.judge(answers)?;
        self.record(&effects)?;
        halt.map_or(Ok(()), Err)
    }

    /// What is to be recorded for answers, and what ends the tick after that. An intent whose answer
    /// is lost stays, to be asked again.
    pub(super) fn judge(
        &mut self,
        answers: Vec<Answer<'_>>,
    ) -> Result<(Vec<Effect>, Option<TickError>), TickError> {
        let mut effects: Vec<Effect> = Vec::new();
        let mut halt = None;
        for (step, intent, answer) in answers {
            match answer.map_err(Failure::from) {
                Ok(written) => {
                    let racy = self.is_racy(step);
                    effects.extend(effects_of(&intent, &written, racy));
                    self.count(step);
                    self.troubles.cured(&step.path);
                }
                Err(failure) if failure.is_stop() => return Err(TickError::Stopped),
                Err(Failure::Halt(error)) => {
                    halt.get_or_insert(error);
                }
                Err(Failure::Unavailable { message, retry_after }) => {
                    if halt.is_none() {
                        halt = Some(self.unavailable(message, retry_after));
                    }
                }
                Err(
                    failure @ (Failure::Stale(_)
                    | Failure::Refused(_)
                    | Failure::Full(_)
                    | Failure::ReadOnly),
                ) => {
                    effects.push(answered(&intent));
                    self.failed(step, failure);
                }
            }
        }
        Ok((effects, halt))
    }
}

fn intended(action: &Action) -> Option<Intended> {
    match action.clone() {
        Action::MakeRemoteDirectory { stat } => Some(Intended::MakeDirectory { stat }),
        Action::DeleteRemote { id, version } => Some(Intended::Delete { id, version }),
        Action::RemoveRemoteDirectory { id } => Some(Intended::RemoveDirectory { id }),
        Action::MoveRemote { to, remote, stat } => Some(Intended::Move { to, remote, stat }),
        Action::Adopt { .. }
        | Action::Forget
        | Action::SetAside { .. }
        | Action::MoveLocal { .. }
        | Action::MakeLocalDirectory { .. }
        | Action::Fetch { .. }
        | Action::DeleteLocal { .. }
        | Action::RemoveLocalDirectory
        | Action::Send { .. } => None,
    }
}
