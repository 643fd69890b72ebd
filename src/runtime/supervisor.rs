//! A supervised task: one that panics or returns early is logged, counted and started again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::status::SupervisorState;
use crate::task::{Group, catch_panic};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// One that ran this long is in order again.
const SETTLED: Duration = Duration::from_mins(5);

/// Starts `task` under `name`, again and again until the group stops.
pub(super) fn spawn<F, T>(group: &mut Group, shared: &Arc<Shared>, name: &'static str, task: F)
where
    F: Fn(CancellationToken) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let shared = Arc::clone(shared);
    group.spawn(name, move |stop| async move {
        let mut pause = FIRST_PAUSE;
        let mut restarts = 0;
        loop {
            note(&shared, name, "running", restarts);
            let began = Instant::now();
            let outcome = catch_panic(task(stop.child_token())).await;
            if stop.is_cancelled() {
                break;
            }
            match outcome {
                Ok(()) => tracing::error!(supervisor = name, "supervisor returned early"),
                Err(panic) => tracing::error!(supervisor = name, %panic, "supervisor panicked"),
            }
            if began.elapsed() >= SETTLED {
                pause = FIRST_PAUSE;
            }
            restarts += 1;
            note(&shared, name, "waiting", restarts);
            tokio::select! {
                // Cancel safe: nothing is under way.
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        note(&shared, name, "stopped", restarts);
    });
}

fn note(shared: &Shared, name: &'static str, state: &str, restarts: u32) {
    let state = SupervisorState { name: name.to_owned(), state: state.to_owned(), restarts };
    shared.notes().supervisors.insert(name, state);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_that_panics_is_started_again_and_counted() {
        let (shared, _dir) = Shared::for_tests();
        let shared = Arc::new(shared);
        let mut group = Group::new(CancellationToken::new());
        let starts = Arc::new(AtomicU32::new(0));
        let (third, mut arrived) = tokio::sync::mpsc::channel(1);
        let counter = Arc::clone(&starts);
        spawn(&mut group, &shared, "fragile", move |stop| {
            let (counter, third) = (Arc::clone(&counter), third.clone());
            async move {
                match counter.fetch_add(1, Ordering::SeqCst) {
                    0 => panic!("first"),
                    1 => {}
                    _ => {
                        let _ = third.send(()).await;
                        stop.cancelled().await;
                    }
                }
            }
        });
        arrived.recv().await.unwrap();
        let state = shared.notes().supervisors["fragile"].clone();
        assert_eq!((state.state.as_str(), state.restarts), ("running", 2));
        let ended = group.stop(Duration::from_secs(1)).await;
        assert_eq!(ended[0].ending, crate::task::Ending::Returned);
        assert_eq!(shared.notes().supervisors["fragile"].state, "stopped");
    }
}
