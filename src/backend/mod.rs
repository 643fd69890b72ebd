//! The team's Supabase backend: session, tables, edge functions, over one HTTP client.
//!
//! Each call is one attempt (a 401 triggers one refresh and one repeat); callers decide about
//! repeating by [`BackendError`] and [`retry`].

mod answer;
mod api;
mod bootstrap;
mod clock;
mod error;
mod http;
mod jobs;
pub mod json;
mod pairing;
mod reach;
pub mod realtime;
mod refusal;
mod rest;
pub mod retry;
mod session;
mod subagents;
mod tokens;

pub use api::{Api, ControlState, GatewayEvent};
pub use bootstrap::{Bootstrap, exchange_vm_bootstrap_token};
pub use error::BackendError;
pub use http::{Endpoint, Http};
pub use jobs::{Claim, Completion, Confirmation, PageKey};
pub use pairing::{Pairing, exchange_pairing_code};
pub use reach::{BorrowedTokens, Part, clock_ahead, reach};
pub use session::{Session, SessionState};
pub use subagents::{Finalization, Finalized};
pub use tokens::{RedactedTokens, TokenStore, Tokens};
