//! Logging, the audit log, redaction and metrics.

pub mod audit;
pub mod logging;
mod metrics;
mod redact;
pub(crate) mod rotate;

pub use audit::Audit;
pub use metrics::JobMetrics;
pub use redact::Redactor;
