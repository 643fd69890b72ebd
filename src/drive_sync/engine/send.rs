//! Sends contents: the intent first, the bytes of one open file, and then what both agree on.

use super::super::plan::{Action, Step};
use super::super::planted::{Bug, planted};
use super::super::ports::{Clock, Drive, Fs, Rng, Upload};
use super::super::state::{Intended, Intent};
use super::failure::Failure;
use super::{Engine, TickError};

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    pub(super) fn apply_sends(&mut self, steps: &[Step]) -> Result<(), TickError> {
        for chunk in steps.chunks(self.settings.uploads) {
            if self.may_not_write() || self.out_of_time() {
                return Ok(());
            }
            let due: Vec<&Step> = chunk.iter().filter(|step| !self.passes_over(step)).collect();
            self.send_batch(&due)?;
        }
        Ok(())
    }

    fn send_batch(&mut self, steps: &[&Step]) -> Result<(), TickError> {
        let id = |step: &&Step| {
            let wrong = planted(Bug::OperationIdOfPath);
            if wrong { step.path.to_string() } else { self.id_of_upload(step) }
        };
        let ids: Vec<String> = steps.iter().map(id).collect();
        let mut failures = Vec::new();
        let mut asked = Vec::new();
        let mut uploads = Vec::new();
        for (step, operation_id) in steps.iter().copied().zip(ids) {
            let Action::Send { content, stat, expect } = &step.action else { continue };
            match self.fs.open(&step.path, stat).map_err(Failure::from) {
                Ok(source) => {
                    let (content, expect) = (*content, expect.clone());
                    let path = step.path.clone();
                    let what = Intended::Send { content, stat: *stat, expect: expect.clone() };
                    let intent =
                        Intent { operation_id: operation_id.clone(), path: path.clone(), what };
                    asked.push((step, intent));
                    uploads.push(Upload { operation_id, path, content, expect, source });
                }
                Err(Failure::Halt(error)) => return Err(error),
                Err(failure) => failures.push((step, failure)),
            }
        }
        let intents: Vec<Intent> = asked.iter().map(|(_, intent)| intent.clone()).collect();
        self.state.intend(&intents)?;
        let answers = if intents.is_empty() {
            drop(uploads);
            Vec::new()
        } else {
            self.drive.send(uploads)
        };
        let answers = asked.into_iter().zip(answers);
        self.take_answers(
            answers.map(|((step, intent), answer)| (step, intent, answer)).collect(),
        )?;
        for (step, failure) in failures {
            self.failed(step, failure);
        }
        Ok(())
    }
}
