//! Logging, the audit log, and redaction.

pub mod audit;
pub mod logging;
mod redact;
pub(crate) mod rotate;

pub use audit::Audit;
pub use redact::Redactor;
