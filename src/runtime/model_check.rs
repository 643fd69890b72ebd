//! tmp
use crate::jobs::Host;
use crate::providers::health::CheckReport;
use crate::providers::{Check, Failure, Installed, Provider};
use std::sync::Arc;
pub(super) struct ModelCheck {
    host: Arc<Host>,
}
impl ModelCheck {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}
impl Check for ModelCheck {
    async fn check(&self, _p: &dyn Provider, _i: &Installed) -> Result<CheckReport, Failure> {
        let _ = &self.host;
        Ok(CheckReport::default())
    }
}
