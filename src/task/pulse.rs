//! Tells whether loops still turn: each answers questions between its rounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// So many questions may lie unanswered before a loop counts as hung: one that was just asked, and
/// one that a slow round has delayed.
const PATIENCE: u64 = 2;

/// Asks the loops. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pulse {
    questions: watch::Sender<u64>,
    loops: Arc<Mutex<Vec<Arc<Answers>>>>,
}

#[derive(Debug)]
struct Answers {
    name: &'static str,
    last: AtomicU64,
}

/// A loop's part; one that is dropped is no longer asked.
#[derive(Debug)]
pub struct Beat {
    questions: watch::Receiver<u64>,
    answers: Arc<Answers>,
    pulse: Pulse,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { questions: watch::Sender::new(0), loops: Arc::default() }
    }
}

impl Pulse {
    /// For a loop that waits for [`Beat::asked`] in each of its rounds.
    pub fn beat(&self, name: &'static str) -> Beat {
        let questions = self.questions.subscribe();
        let answers = Arc::new(Answers { name, last: AtomicU64::new(*questions.borrow()) });
        self.loops().push(Arc::clone(&answers));
        Beat { questions, answers, pulse: self.clone() }
    }

    /// Asks every loop.
    pub fn ask(&self) {
        self.questions.send_modify(|asked| *asked += 1);
    }

    /// The loops that have left too many questions unanswered.
    pub fn hung(&self) -> Vec<&'static str> {
        let asked = *self.questions.borrow();
        let is_hung =
            |answers: &Answers| asked - answers.last.load(Ordering::SeqCst).min(asked) > PATIENCE;
        self.loops().iter().filter(|one| is_hung(one)).map(|one| one.name).collect()
    }

    fn loops(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Answers>>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Beat {
    /// Waits for a question and answers it. Cancel safe.
    pub async fn asked(&mut self) {
        if self.questions.changed().await.is_err() {
            // Nobody asks any more. The pulse that is kept here makes it impossible.
            std::future::pending::<()>().await;
        }
        let asked = *self.questions.borrow_and_update();
        self.answers.last.store(asked, Ordering::SeqCst);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.pulse.loops().retain(|one| !Arc::ptr_eq(one, &self.answers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_no_longer_answers_is_named_until_it_does() {
        let pulse = Pulse::default();
        let (mut lively, mut slow) = (pulse.beat("lively"), pulse.beat("slow"));
        for asked in 1..=4 {
            pulse.ask();
            lively.asked().await;
            let hung = if asked > PATIENCE { vec!["slow"] } else { vec![] };
            assert_eq!(pulse.hung(), hung, "after {asked} questions");
        }
        slow.asked().await;
        assert!(pulse.hung().is_empty());
    }

    #[tokio::test]
    async fn a_loop_that_has_ended_is_not_missed_and_a_new_one_owes_nothing() {
        let pulse = Pulse::default();
        let gone = pulse.beat("gone");
        (0..9).for_each(|_| pulse.ask());
        let _young = pulse.beat("young");
        assert_eq!(pulse.hung(), ["gone"]);
        drop(gone);
        assert!(pulse.hung().is_empty());
    }
}
