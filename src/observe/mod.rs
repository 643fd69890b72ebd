//! Logging and redaction.

pub mod logging;
mod redact;
mod rotate;

pub use redact::Redactor;
