//! What goes over the wire to a backend, and what every kind of answer does to the gateway.
#![expect(unreachable_pub, reason = "the helpers' modules are private")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]
#![expect(clippy::match_bool, reason = "a fake's two answers stand side by side")]

mod calls;
mod context;
mod fake;
mod hostile;
mod keeping;
mod pairing;
mod realtime;
mod refreshing;
