//! The backend's URL and key, checked before anything is sent to it.

use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::{Purpose, Settings};
use crate::config::ConfigError;
use crate::config::layers::Source;

/// What an error shows in place of something that may be a secret.
const NOT_SHOWN: &str = "(not shown)";
/// No host name is longer.
const LONGEST_SHOWN: usize = 253;

impl Settings {
    /// URL (no trailing slash) and key of the backend, or the error that names what to set. A plain
    /// `http://` URL off loopback is refused for [`Purpose::Pair`] unless allowed.
    pub fn backend(&self, purpose: Purpose) -> Result<(String, SecretString), ConfigError> {
        let url = self
            .supabase_url
            .as_ref()
            .ok_or(ConfigError::NoBackend { missing: "the Supabase URL" })?;
        let key =
            self.anon_key.as_ref().ok_or(ConfigError::NoBackend { missing: "the anon key" })?;
        let parsed = parse(&url.value).map_err(|reason| ConfigError::Value {
            name: label(&url.source, "supabaseUrl", "the built-in Supabase URL"),
            value: shown(&url.value),
            reason: reason.to_owned(),
        })?;
        let trimmed = parsed.as_str().trim_end_matches('/').to_owned();
        self.check_tokens_stay(purpose, &parsed)?;
        if purpose == Purpose::Pair && is_insecure(&parsed) && !self.allow_insecure.value {
            return Err(ConfigError::Insecure { url: trimmed });
        }
        // It goes into headers, and nothing that has no place there may reach them.
        if !key.value.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::Value {
                name: label(&key.source, "supabaseAnonKey", "the built-in anon key"),
                value: NOT_SHOWN.to_owned(),
                reason: "a key is one word of letters, digits and punctuation".to_owned(),
            });
        }
        Ok((trimmed, key.value.clone()))
    }

    /// Tokens of one backend are of no use to another, and an env file is easily one that came with
    /// a repository: only a flag or a variable of the process may send them elsewhere.
    fn check_tokens_stay(&self, purpose: Purpose, url: &Url) -> Result<(), ConfigError> {
        let source = self.supabase_url.as_ref().map(|url| &url.source);
        let (Purpose::Start, Some(Source::EnvFile(name, path)), Some(paired)) =
            (purpose, source, &self.paired_url)
        else {
            return Ok(());
        };
        if parse(paired).is_ok_and(|paired| is_same(&paired, url)) {
            return Ok(());
        }
        Err(ConfigError::OtherBackend { name, path: path.clone(), paired: shown(paired) })
    }

    /// Says that tokens travel in the clear, where that is let pass.
    pub(super) fn warn_if_insecure(&mut self, purpose: Purpose) {
        let Some(url) = self.supabase_url.as_ref() else { return };
        let refused = purpose == Purpose::Pair && !self.allow_insecure.value;
        if let Ok(url) = parse(&url.value)
            && is_insecure(&url)
            && !refused
        {
            self.warnings.push(format!(
                "the backend {} is not encrypted: tokens and jobs can be read on the way",
                url.as_str().trim_end_matches('/')
            ));
        }
    }
}

fn parse(text: &str) -> Result<Url, &'static str> {
    let url =
        Url::parse(text).map_err(|_| "it is not a URL such as https://example.supabase.co")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it must begin with https:// (or http:// on this machine)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not hold a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must not hold a ? or #");
    }
    Ok(url)
}

fn is_same(one: &Url, other: &Url) -> bool {
    one.as_str().trim_end_matches('/') == other.as_str().trim_end_matches('/')
}

fn is_insecure(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !loopback
}

fn label(source: &Source, saved: &str, built_in: &str) -> String {
    match source {
        Source::Saved => format!("{saved} in gateway.json"),
        Source::Default => built_in.to_owned(),
        Source::Flag(_) | Source::Variable(_) | Source::EnvFile(..) => source.to_string(),
    }
}

/// A URL as an error may show it: people paste keys into the wrong place.
pub(super) fn shown(url: &str) -> String {
    let looks_like_a_key = url.starts_with("eyJ") || url.starts_with("sb_");
    let holds_more = url.contains(['@', '?', '#']);
    if looks_like_a_key || holds_more || url.len() > LONGEST_SHOWN {
        NOT_SHOWN.to_owned()
    } else {
        url.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_off_this_machine_is_insecure() {
        let insecure = |text: &str| is_insecure(&parse(text).unwrap());
        for safe in [
            "https://example.com",
            "http://localhost:54321",
            "http://LOCALHOST",
            "http://api.localhost",
            "http://127.0.0.1",
            "http://127.9.9.9:1",
            "http://[::1]:8000",
        ] {
            assert!(!insecure(safe), "{safe}");
        }
        for unsafe_url in [
            "http://example.com",
            "http://localhost.example.com",
            "http://notlocalhost",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://[fe80::1]",
        ] {
            assert!(insecure(unsafe_url), "{unsafe_url}");
        }
    }

    #[test]
    fn what_is_no_backend_url_is_refused() {
        for bad in [
            "example.com",
            "localhost:54321",
            "ftp://example.com",
            "https://",
            "https://user:pw@example.com",
            "https://user@example.com",
            "https://example.com/?a=b",
            "https://example.com/#a",
            "eyJhbGciOi.eyJ.sig",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_show_a_host_and_hide_what_may_be_a_secret() {
        assert_eq!(shown("localhost:54321"), "localhost:54321");
        for secret in
            ["eyJhbGciOi.eyJ.sig", "sb_publishable_x", "https://u:p@host", "https://h/?key=x"]
        {
            assert_eq!(shown(secret), NOT_SHOWN);
        }
    }
}
