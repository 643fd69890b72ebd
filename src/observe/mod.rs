//! Logging and redaction.

mod redact;

pub use redact::Redactor;
