//! The headers that shape an answer: `Prefer`, `Accept`, `Range`, the profiles, `Content-Type`.

use http::{HeaderMap, Method, header};

use super::error::RestError;

/// What a write gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Give {
    #[default]
    Minimal,
    HeadersOnly,
    Representation,
}

/// What an insert does with rows that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    Merge,
    Ignore,
}

/// `Prefer`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Preferences {
    pub(super) give: Give,
    /// `exact`; `planned` and `estimated` are answered exactly.
    pub(super) count: bool,
    pub(super) resolution: Option<Resolution>,
    /// Missing columns of bulk inserts get their defaults, not NULL.
    pub(super) missing_default: bool,
    pub(super) max_affected: Option<u64>,
    /// For `Preference-Applied`.
    pub(super) applied: Vec<&'static str>,
}

impl Preferences {
    /// Reads all `Prefer` headers. One that is not known is refused: to ignore, say, `tx=rollback`
    /// would do what was not asked for.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, RestError> {
        let mut preferences = Self::default();
        for value in headers.get_all("prefer") {
            let value = value.to_str().map_err(|_| unknown("not ASCII"))?;
            for token in value.split(',').map(str::trim).filter(|token| !token.is_empty()) {
                preferences.set(token)?;
            }
        }
        Ok(preferences)
    }

    fn set(&mut self, token: &str) -> Result<(), RestError> {
        let known = match token {
            "return=minimal" => {
                self.give = Give::Minimal;
                "return=minimal"
            }
            "return=headers-only" => {
                self.give = Give::HeadersOnly;
                "return=headers-only"
            }
            "return=representation" => {
                self.give = Give::Representation;
                "return=representation"
            }
            "count=exact" | "count=planned" | "count=estimated" => {
                self.count = true;
                "count=exact"
            }
            "resolution=merge-duplicates" => {
                self.resolution = Some(Resolution::Merge);
                "resolution=merge-duplicates"
            }
            "resolution=ignore-duplicates" => {
                self.resolution = Some(Resolution::Ignore);
                "resolution=ignore-duplicates"
            }
            "missing=default" => {
                self.missing_default = true;
                "missing=default"
            }
            "missing=null" => {
                self.missing_default = false;
                "missing=null"
            }
            "handling=strict" => "handling=strict",
            "handling=lenient" => "handling=lenient",
            "tx=commit" => "tx=commit",
            _ => {
                let most = token.strip_prefix("max-affected=").and_then(|most| most.parse().ok());
                self.max_affected = Some(most.ok_or_else(|| unknown(token))?);
                return Ok(());
            }
        };
        self.applied.push(known);
        Ok(())
    }
}

fn unknown(token: &str) -> RestError {
    RestError::new("PGRST122", "Invalid preferences given")
        .details(format!("Invalid preferences: {token}"))
}

/// The form of the body that the client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Array,
    /// Exactly one row.
    Object,
}

/// `Accept`: the first type that is served here.
pub(super) fn accepted(headers: &HeaderMap) -> Result<Form, RestError> {
    let mut refused = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        let value = value.to_str().unwrap_or_default();
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let plain = parts.all(|part| part.starts_with("q=") || part.starts_with("charset="));
            match &*name {
                "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" if plain => {
                    return Ok(Form::Object);
                }
                "application/json"
                | "application/*"
                | "*/*"
                | "application/vnd.pgrst.array+json"
                | "application/vnd.pgrst.array"
                    if plain =>
                {
                    return Ok(Form::Array);
                }
                _ => refused.push(range.trim().to_owned()),
            }
        }
    }
    if refused.is_empty() {
        return Ok(Form::Array);
    }
    let message = format!("None of these media types are available: {}", refused.join(", "));
    Err(RestError::new("PGRST107", message))
}

/// The profiles name a schema: there is but `public`.
pub(super) fn check_profile(headers: &HeaderMap, method: &Method) -> Result<(), RestError> {
    let reads = *method == Method::GET || *method == Method::HEAD;
    let name = if reads { "accept-profile" } else { "content-profile" };
    match headers.get(name) {
        Some(value) if value.as_bytes() != b"public" => {
            let schema = String::from_utf8_lossy(value.as_bytes()).into_owned();
            Err(RestError::new("PGRST106", format!("Invalid schema: {schema}"))
                .hint("Only the following schemas are exposed: public"))
        }
        _ => Ok(()),
    }
}

/// Bodies are JSON.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), RestError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().unwrap_or_default();
    let name = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(
        &*name,
        "application/json"
            | "application/vnd.pgrst.object+json"
            | "application/vnd.pgrst.array+json"
    ) {
        return Ok(());
    }
    Err(RestError::new("PGRST102", format!("Content-Type not acceptable: {value}")))
}

/// `Range: first-last`, inclusive, the last optional. Gives offset and limit.
pub(super) fn range(headers: &HeaderMap) -> Result<(u64, Option<u64>), RestError> {
    let Some(value) = headers.get(header::RANGE) else { return Ok((0, None)) };
    let refuse = |details: &str| {
        RestError::new("PGRST103", "Requested range not satisfiable").details(details)
    };
    let text = value.to_str().unwrap_or_default();
    let text = text.strip_prefix("items=").unwrap_or(text);
    let malformed = || refuse("a Range is first-last, e.g. 0-24");
    let (first, last) = text.split_once('-').ok_or_else(malformed)?;
    let first: u64 = first.parse().map_err(|_| malformed())?;
    if last.is_empty() {
        return Ok((first, None));
    }
    let last: u64 = last.parse().map_err(|_| malformed())?;
    if last < first {
        return Err(refuse(
            "The lower boundary must be lower than or equal to the upper boundary in the Range \
             header.",
        ));
    }
    Ok((first, Some((last - first).saturating_add(1))))
}
