//! What a refused auth call means for the session. Pure.

use std::time::Duration;

use super::BackendError;

/// The refresh answers after which only pairing again helps.
const TERMINAL: [&str; 6] = [
    "refresh_token_not_found",
    "refresh_token_already_used",
    "session_not_found",
    "session_expired",
    "user_banned",
    "validation_failed",
];

/// The token was not taken. A missing or wrong `apikey` is answered by 401 too, and no refresh
/// helps against that.
pub(super) fn is_refused(error: &BackendError) -> bool {
    let BackendError::Status { status: 401 | 403, message, .. } = error else { return false };
    let message = message.to_ascii_lowercase();
    !message.contains("invalid api key") && !message.contains("no api key")
}

/// The server's machines disagree about the time: the token is good in a moment.
pub(super) fn is_from_the_future(error: &BackendError) -> bool {
    let BackendError::Status { status: 401 | 403, message, .. } = error else { return false };
    let message = message.to_ascii_lowercase();
    message.contains("future") || message.contains("used before issued")
}

/// The code by which a session is over for good, if this is such an answer.
pub(super) fn terminal_code(error: &BackendError) -> Option<String> {
    let BackendError::Status { status: 400..=499, code: Some(code), .. } = error else {
        return None;
    };
    let ends = !error.is_transient() && TERMINAL.contains(&code.as_str());
    ends.then(|| code.clone())
}

/// Callers wait as long as the session itself will.
pub(super) fn asking_for(wait: Duration, mut error: BackendError) -> BackendError {
    if let BackendError::Status { retry_after, .. } = &mut error
        && !wait.is_zero()
    {
        *retry_after = Some(wait);
    }
    error
}
