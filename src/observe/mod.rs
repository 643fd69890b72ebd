//! Logging, redaction and metrics.

pub mod logging;
mod metrics;
mod redact;
mod rotate;

pub use metrics::JobMetrics;
pub use redact::Redactor;
