//! The one HTTP client of the process, made when first needed.

use secrecy::SecretString;

/// Where the backend is.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Base URL without trailing slash.
    pub url: String,
    /// `apikey`.
    pub anon_key: SecretString,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Http {
    _private: (),
}

impl Http {
    /// Makes the client: rustls with the platform's roots, connect limit 4 s, proxies of the
    /// environment except for a loopback backend.
    pub fn new(endpoint: &Endpoint) -> anyhow::Result<Self> {
        unimplemented!("{endpoint:?}")
    }
}
