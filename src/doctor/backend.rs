//! The backend: each part of it, its clock, the session, and realtime.

use std::time::Duration;

use futures_util::future::join;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::time::Instant;

use super::{Check, timed};
use crate::backend::{Api, BackendError, Endpoint, Http, Part, clock_ahead, reach, realtime};

/// The backend's `Date` tells whole seconds, and answers travel. What is beyond confuses readers of
/// times; the gateway itself goes by the backend's clock.
const SKEW: Duration = Duration::from_secs(30);
const UNREACHABLE: &str =
    "check the network and the backend's URL (`panorama-gateway config show`)";
const POLLING: &str = "jobs are found by polling, some seconds later; see that proxies and \
                       firewalls let WebSockets through";

/// Each part, and the clock; all are asked at the same time. Writes nothing there.
pub async fn parts(http: &Http, endpoint: &Endpoint) -> Vec<Check> {
    let (auth, rest, functions) = tokio::join!(
        timed(part(http, endpoint, Part::Auth)),
        timed(part(http, endpoint, Part::Rest)),
        timed(part(http, endpoint, Part::Functions)),
    );
    vec![auth, rest, functions, clock(http)]
}

async fn part(http: &Http, endpoint: &Endpoint, part: Part) -> Check {
    let id = match part {
        Part::Auth => "auth",
        Part::Rest => "rest",
        Part::Functions => "functions",
    };
    match reach(http, endpoint, part).await {
        Ok(()) => Check::ok(id, "it answers"),
        Err(error) => Check::fail(id, error.report(), hint(&error)),
    }
}

fn hint(error: &BackendError) -> &'static str {
    match error {
        BackendError::Unreachable(_) | BackendError::TimedOut(_) => UNREACHABLE,
        BackendError::Status { status: 401 | 403, .. } | BackendError::Unsendable(_) => {
            "check the backend's URL and anon key (`panorama-gateway config show`)"
        }
        BackendError::Status { status: 429 | 500.., .. } => {
            "the backend is in trouble: try again later"
        }
        BackendError::Status { .. } | BackendError::Contract(_) | BackendError::TooLarge(_) => {
            "check that the URL is that of a Panorama backend (`panorama-gateway config show`)"
        }
        BackendError::SessionEnded(_) => "pair again: `panorama-gateway pair <CODE>`",
        BackendError::TokenStore(_) => {
            "see what keeps the config file from being written (`panorama-gateway status -v`)"
        }
    }
}

fn clock(http: &Http) -> Check {
    const ID: &str = "clock";
    let Some(ahead) = clock_ahead(http) else {
        return Check::warn(ID, "the backend did not tell its time", UNREACHABLE);
    };
    skew(ahead.as_secs())
}

/// `ahead`: seconds, negative when this machine's clock is behind.
fn skew(ahead: i64) -> Check {
    const ID: &str = "clock";
    let (off, way) = (ahead.unsigned_abs(), if ahead < 0 { "behind" } else { "ahead of" });
    if off <= SKEW.as_secs() {
        return Check::ok(ID, "in step with the backend's");
    }
    let detail = format!("{off} s {way} the backend's");
    Check::warn(ID, detail, "set this machine's clock, by NTP for instance")
}

/// The session, by asking who it belongs to. Whether a token may be rotated is up to the session.
pub async fn session(api: &Api) -> Check {
    let began = Instant::now();
    let check = match api.session().authenticate().await {
        Ok(()) => Check::ok("session", "valid"),
        Err(error) => Check::fail("session", error.report(), hint(&error)),
    };
    check.took(began.elapsed())
}

/// Realtime can be connected to.
pub async fn handshake(endpoint: &Endpoint) -> Check {
    timed(async {
        match realtime::connect(endpoint, Matcher::from_env()).await {
            Ok(_) => Check::ok("realtime", "it takes connections"),
            Err(why) => Check::warn("realtime", why, POLLING),
        }
    })
    .await
}

/// Realtime can be connected to, and joined with the session's token as it is.
pub async fn handshake_and_join(api: &Api) -> Vec<Check> {
    let began = Instant::now();
    let connected = realtime::connect(api.endpoint(), Matcher::from_env()).await;
    let took = began.elapsed();
    let connection = match connected {
        Ok(connection) => connection,
        Err(why) => return vec![Check::warn("realtime", why, POLLING).took(took)],
    };
    let connects = Check::ok("realtime", "it takes connections").took(took);
    let token = api.session().access_token();
    let joined = timed(async {
        match connection.join(&token, api.gateway().clone(), api.team().clone()).await {
            Ok(()) => Check::ok("realtime_join", "new jobs are told"),
            Err(why) => Check::warn("realtime_join", why, POLLING),
        }
    });
    vec![connects, joined.await]
}

/// Everything about the backend of a paired gateway.
pub async fn all(api: &Api) -> Vec<Check> {
    let (mut checks, session) = join(parts(api.http(), api.endpoint()), session(api)).await;
    checks.push(session);
    checks.extend(handshake_and_join(api).await);
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_clock_that_is_far_off_is_a_warning() {
        for (ahead, status, detail) in [
            (0, Status::Ok, "in step with the backend's"),
            (-30, Status::Ok, "in step with the backend's"),
            (31, Status::Warn, "31 s ahead of the backend's"),
            (-3600, Status::Warn, "3600 s behind the backend's"),
        ] {
            let check = skew(ahead);
            assert_eq!((check.status, check.detail.as_str()), (status, detail));
        }
    }
}
