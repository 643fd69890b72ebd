//! How long a supervisor waits after a call to the backend failed.

use std::time::Duration;

use crate::backend::BackendError;
use crate::backend::retry::Backoff;

/// A backend that was out of reach is noticed again within this time.
const LONGEST_UNREACHABLE: Duration = Duration::from_secs(4);
/// One that answers with errors is noticed to be well again within this time.
const LONGEST_UNWELL: Duration = Duration::from_secs(15);

/// The pause before the next try. A backend that asks for time gets it; one that cannot be reached
/// is tried often, because trying costs it nothing.
pub(super) fn pause(backoff: &mut Backoff, error: &BackendError) -> Duration {
    let pause = backoff.after(error);
    if error.asks_for_time() {
        pause
    } else if is_out_of_reach(error) {
        pause.min(LONGEST_UNREACHABLE)
    } else {
        pause.min(LONGEST_UNWELL)
    }
}

/// No answer came at all.
pub(super) fn is_out_of_reach(error: &BackendError) -> bool {
    matches!(error, BackendError::Unreachable(_) | BackendError::TimedOut(_))
}
