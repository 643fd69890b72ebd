//! Asks again for what was asked before a crash or a lost answer, by the same operation ids.

use super::super::model::{Base, Kind};
use super::super::plan::{Action, Step};
use super::super::planted::{Bug, planted};
use super::super::ports::{Clock, Drive, Fs, Recall, RemoteError, Rng, What, Write, Written};
use super::super::state::{Effect, Intended, Intent};
use super::failure::Failure;
use super::{BrokenOff, Engine, TickError, WORTH_RESUMING};

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    /// An answer that comes now is as good as one that came then: disk and server did agree on it at
    /// that moment, and what has happened since is for the planner to see. To drop an intent is
    /// always safe: what the server did for it is told by the feed.
    pub(super) fn replay_intents(&mut self) -> Result<(), TickError> {
        let intents = self.state.intents()?;
        if intents.is_empty() {
            return Ok(());
        }
        if planted(Bug::ForgetsIntents) {
            return self.record(&intents.iter().map(answered).collect::<Vec<_>>());
        }
        self.idle = None;
        let (writes, sends): (Vec<_>, Vec<_>) = intents
            .into_iter()
            .map(|intent| (write_of(&intent), intent))
            .partition(|(write, _)| write.is_some());
        for chunk in writes.chunks(self.settings.batch) {
            let asked: Vec<Write> = chunk.iter().filter_map(|(write, _)| write.clone()).collect();
            let answers = self.drive.apply(&asked);
            let answers = answers.into_iter().map(|answer| answer.map(Some));
            self.take_recalled(chunk.iter().map(|(_, intent)| intent).zip(answers).collect())?;
        }
        for chunk in sends.chunks(self.settings.batch) {
            let asked: Vec<Recall> =
                chunk.iter().filter_map(|(_, intent)| recall_of(intent)).collect();
            let answers = self.drive.recall(&asked);
            self.take_recalled(chunk.iter().map(|(_, intent)| intent).zip(answers).collect())?;
        }
        Ok(())
    }

    fn take_recalled(
        &mut self,
        answers: Vec<(&Intent, Result<Option<Written>, RemoteError>)>,
    ) -> Result<(), TickError> {
        let mut effects = Vec::new();
        let mut halt = None;
        for (intent, answer) in answers {
            match answer.map_err(Failure::from) {
                Ok(Some(written)) => {
                    self.now.done.recalled += 1;
                    effects.extend(effects_of(intent, &written, true));
                }
                Ok(None) => {
                    self.note_broken_off(intent);
                    effects.push(answered(intent));
                }
                Err(failure) if failure.is_stop() => return Err(TickError::Stopped),
                Err(Failure::Halt(error)) => halt = Some(error),
                Err(Failure::Unavailable { message, retry_after }) => {
                    halt.get_or_insert_with(|| self.unavailable(message, retry_after));
                }
                Err(
                    Failure::Stale(_) | Failure::Refused(_) | Failure::Full(_) | Failure::ReadOnly,
                ) => {
                    effects.push(answered(intent));
                }
            }
        }
        self.record(&effects)?;
        halt.map_or(Ok(()), Err)
    }

    /// The server has not taken it, and may have a part of it: the next try goes on from there.
    pub(super) fn note_broken_off(&mut self, intent: &Intent) {
        let Intended::Send { content, expect, .. } = &intent.what else { return };
        if content.size >= WORTH_RESUMING {
            let operation_id = intent.operation_id.clone();
            let broken_off = BrokenOff { operation_id, content: *content, expect: expect.clone() };
            self.broken_off.insert(intent.path.clone(), broken_off);
        }
    }

    /// The id under which this was begun before, or a new one.
    pub(super) fn id_of_upload(&mut self, step: &Step) -> String {
        if let Action::Send { content, expect, .. } = &step.action
            && let Some(before) = self.broken_off.remove(&step.path)
            && (&before.content, &before.expect) == (content, expect)
        {
            return before.operation_id;
        }
        self.operation_id()
    }

    /// Makes effects durable.
    pub(super) fn record(&mut self, effects: &[Effect]) -> Result<(), TickError> {
        self.note_learnt(effects);
        Ok(self.state.commit(effects)?)
    }

    /// Effects on the remote tree can make clear what was not.
    pub(super) fn note_learnt(&mut self, effects: &[Effect]) {
        let learnt = |effect: &Effect| matches!(effect, Effect::Learn { .. } | Effect::Gone { .. });
        if effects.iter().any(learnt) {
            self.unclear = None;
        }
    }

    /// A new name for something that the server is asked to do.
    pub(super) fn operation_id(&mut self) -> String {
        format!("{:016x}{:016x}", self.rng.bits(), self.rng.bits())
    }
}

/// What is asked for an intent; `None`: contents are sent.
pub(super) fn write_of(intent: &Intent) -> Option<Write> {
    let path = intent.path.clone();
    let what = match intent.what.clone() {
        Intended::Send { .. } => return None,
        Intended::MakeDirectory { .. } => What::MakeDirectory { path },
        Intended::Delete { id, version } => What::Delete { path, id, version },
        Intended::RemoveDirectory { id } => What::RemoveDirectory { path, id },
        Intended::Move { to, remote, .. } => {
            What::Move { from: path, to, id: remote.id, version: remote.version }
        }
    };
    Some(Write { operation_id: intent.operation_id.clone(), what })
}

/// What is asked for an intent that sends contents.
fn recall_of(intent: &Intent) -> Option<Recall> {
    let Intended::Send { content, expect, .. } = &intent.what else { return None };
    Some(Recall {
        operation_id: intent.operation_id.clone(),
        path: intent.path.clone(),
        content: *content,
        expect: expect.clone(),
    })
}

pub(super) fn answered(intent: &Intent) -> Effect {
    Effect::Answered { operation_id: intent.operation_id.clone() }
}

/// What an answer makes of base and remote rows. When the server tells something else than was asked
/// for, only that is learnt, and the two have not agreed on anything.
pub(super) fn effects_of(intent: &Intent, written: &Written, racy: bool) -> Vec<Effect> {
    let mut effects = vec![answered(intent)];
    let sequence = written.sequence;
    if let Some(entry) = &written.entry {
        effects.push(Effect::Learn { entry: entry.clone(), sequence });
    }
    let agree = |path, kind, stat| {
        let entry = written.entry.as_ref()?;
        let as_asked = super::super::path::RelPath::parse(&entry.path).as_ref() == Ok(path)
            && entry.remote.kind == kind;
        let base = Base { remote: entry.remote.clone(), stat: Some(stat) };
        as_asked.then(|| Effect::Agree { path: path.clone(), base, racy })
    };
    match &intent.what {
        Intended::Send { content, stat, .. } => {
            effects.extend(agree(&intent.path, Kind::File(*content), *stat));
        }
        Intended::MakeDirectory { stat } => {
            effects.extend(agree(&intent.path, Kind::Directory, *stat));
        }
        Intended::Delete { id, .. } | Intended::RemoveDirectory { id } => {
            if written.entry.is_none() {
                effects.push(Effect::Gone { id: id.clone(), sequence });
                effects.push(Effect::Forget { path: intent.path.clone() });
            }
        }
        Intended::Move { to, remote, stat } => {
            if let Some(agreed) = agree(to, remote.kind, *stat) {
                effects.push(Effect::Forget { path: intent.path.clone() });
                effects.push(agreed);
            }
        }
    }
    effects
}
