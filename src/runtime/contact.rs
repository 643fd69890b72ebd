//! What supervisors do after a call to the backend failed: how long they wait, and what they log.

use std::time::Duration;

use super::identity::Identity;
use crate::backend::BackendError;
use crate::backend::retry::Backoff;

/// A backend that was out of reach is tried again within this time: trying costs it nothing, and
/// its return is noticed within 5 s.
const LONGEST_UNREACHABLE: Duration = Duration::from_secs(3);
/// One that answers with errors is noticed to be well again within this time.
const LONGEST_UNWELL: Duration = Duration::from_secs(15);

/// The pause before the next try. A backend that asks for time gets it; one that cannot be reached
/// is tried often, because trying costs it nothing.
pub(super) fn pause(backoff: &mut Backoff, error: &BackendError) -> Duration {
    if is_out_of_reach(error) {
        return backoff.after_within(error, LONGEST_UNREACHABLE);
    }
    let pause = backoff.after(error);
    if error.asks_for_time() { pause } else { pause.min(LONGEST_UNWELL) }
}

/// No answer came at all.
pub(super) fn is_out_of_reach(error: &BackendError) -> bool {
    matches!(error, BackendError::Unreachable(_) | BackendError::TimedOut(_))
}

/// What one supervisor's calls meet.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// What was warned of since the last call that went well.
    warned: Option<String>,
}

impl Log {
    /// A call went well.
    pub(super) fn well(&mut self, identity: &Identity) {
        identity.shared.reached(true);
        self.warned = None;
    }

    /// A call failed; the error's text, safe to show. Warns of what is new, and once a minute at
    /// most for the gateway as a whole.
    pub(super) fn failed(
        &mut self,
        identity: &Identity,
        what: &'static str,
        error: &BackendError,
    ) -> String {
        identity.shared.reached(!is_out_of_reach(error));
        let text = identity.host.redactor.text(&error.to_string());
        if self.warned.as_ref() != Some(&text) && identity.api.may_warn() {
            tracing::warn!(error = %text, "{what}");
            self.warned = Some(text.clone());
        } else {
            tracing::debug!(error = %text, "{what}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backend_that_answers_is_spared() {
        let status = |status, retry_after: Option<u64>| BackendError::Status {
            status,
            code: None,
            message: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        };
        for (error, least, most) in [
            (BackendError::Unreachable("refused".into()), 1, 3),
            (BackendError::TimedOut(Duration::from_secs(20)), 1, 3),
            (status(503, None), 1, 15),
            (status(503, Some(40)), 40, 75),
            (status(429, None), 60, 75),
        ] {
            let mut backoff = Backoff::new();
            for _ in 0..100 {
                let pause = pause(&mut backoff, &error);
                assert!(pause >= Duration::from_secs(least), "{pause:?} after {error}");
                assert!(pause <= Duration::from_secs(most), "{pause:?} after {error}");
            }
        }
    }
}
