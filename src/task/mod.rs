//! Owned tasks: a [`Group`] is the only place that spawns, and nothing outlives it.
//!
//! Each task has a name, a child of the group's cancellation token, and an owner that learns how it
//! ended, panics included. Dropping a group aborts what is left of it.

mod pulse;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub use self::pulse::{Beat, Pulse};

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It returned.
    Returned,
    /// It panicked; the text of the panic.
    Panicked(String),
    /// It was aborted because the budget of a shutdown ran out.
    Aborted,
}

/// A task that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The name that it was spawned under.
    pub name: String,
    /// How.
    pub ending: Ending,
}

/// Tasks with one owner.
#[derive(Debug)]
pub struct Group {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
}

impl Group {
    /// A group whose tasks stop when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, tasks: JoinSet::new(), names: HashMap::new() }
    }

    /// Starts a task. It gets a child token and must return soon after that is cancelled.
    pub fn spawn<F, T>(&mut self, name: impl Into<String>, task: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future<Output = ()> + Send + 'static,
    {
        let handle = self.tasks.spawn(task(self.stop.child_token()));
        self.names.insert(handle.id(), name.into());
    }

    /// How many tasks have not been seen to end.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// True when every task was seen to end.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The next task that ended, or `None` when there is none left. Cancel safe.
    pub async fn next(&mut self) -> Option<Ended> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => (id, Ok(())),
            Err(error) => (error.id(), Err(error)),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        Some(Ended { name, ending: result.map_or_else(ending_of, |()| Ending::Returned) })
    }

    /// Cancels the token, waits for all tasks at most `budget`, aborts the rest. Returns how each
    /// that was still running ended.
    pub async fn stop(mut self, budget: Duration) -> Vec<Ended> {
        self.stop.cancel();
        let mut ended = Vec::new();
        let all = async {
            while let Some(end) = self.next().await {
                ended.push(end);
            }
        };
        if tokio::time::timeout(budget, all).await.is_err() {
            self.tasks.abort_all();
            while let Some(end) = self.next().await {
                ended.push(end);
            }
        }
        ended
    }
}

fn ending_of(error: JoinError) -> Ending {
    match error.try_into_panic() {
        Ok(panic) => Ending::Panicked(panic_text(panic.as_ref())),
        Err(_) => Ending::Aborted,
    }
}

/// Runs a future to its end; a panic inside becomes the text of the panic. The future is not polled
/// again after it, so broken state inside it is never seen.
pub async fn catch_panic<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(panic_text(panic.as_ref()))),
    })
    .await
}

/// The text that a panic carried.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_reaches_the_owner() {
        let mut group = Group::new(CancellationToken::new());
        group.spawn("bad", |_| async { panic!("broken") });
        let ended = group.next().await.unwrap();
        assert_eq!(ended, Ended { name: "bad".into(), ending: Ending::Panicked("broken".into()) });
        assert!(group.is_empty());
    }

    #[tokio::test]
    async fn catch_panic_gives_the_text_or_the_value() {
        assert_eq!(catch_panic(async { 7 }).await, Ok(7));
        let name = "job";
        let broken = catch_panic(async { panic!("{name} broke") }).await;
        assert_eq!(broken.map(|(): ()| 0), Err("job broke".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_ignores_the_token_is_aborted_after_the_budget() {
        let mut group = Group::new(CancellationToken::new());
        group.spawn("polite", |stop| async move { stop.cancelled().await });
        group.spawn("deaf", |_| std::future::pending());
        let mut ended = group.stop(Duration::from_secs(2)).await;
        ended.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(ended[0].ending, Ending::Aborted);
        assert_eq!(ended[1].ending, Ending::Returned);
    }
}
