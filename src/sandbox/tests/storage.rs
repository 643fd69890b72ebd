//! The rows of the matrix that are about storage: one for each operation that it serves, and the
//! same requests where one thing is otherwise.

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::world::{Body, Expect, Files, OTHER_TEAM, Probe, Who, World};
use crate::sandbox::app::now_micros;
use crate::sandbox::auth::sha256_hex;
use crate::sandbox::jwt::Signer;
use crate::sandbox::storage;
use crate::sandbox::store::schema::Bucket;

/// Bytes.
const MOST: usize = 64;
const FILES: &str = "files";
pub(super) static BUCKETS: [Bucket; 2] = [
    Bucket { name: FILES, max_object_bytes: Some(MOST as u64) },
    Bucket { name: "more", max_object_bytes: None },
];
/// What is not among them.
const UNLISTED: &str = "nowhere";

/// Objects: of another team or not, bucket, name, content.
pub(super) const OBJECTS: [(bool, &str, &str, &str); 4] = [
    (false, FILES, KEPT, KEPT_TEXT),
    (false, FILES, "d/other", "the team's other"),
    (false, "more", KEPT, "the team's in another bucket"),
    (true, FILES, "d/theirs", "another team's"),
];
const KEPT: &str = "d/kept";
const KEPT_TEXT: &str = "the team's own";
const NEW: &str = "d/new";
const NEW_TEXT: &str = "something new";

const POST: &str = "POST /storage/v1/object/{bucket}/{name}";
const READ: &str = "GET /storage/v1/object/{bucket}/{name}";
const READ_URL: &str = "GET /storage/v1/object/sign/{bucket}/{name}";
const STORE_URL: &str = "PUT /storage/v1/object/upload/sign/{bucket}/{name}";
const SESSIONS: &str = "any storage request of a session, a bucket that is not listed";
const URLS: &str = "any signed URL, a bucket that is not listed";
const TOO_LARGE: &str = "larger than the bucket takes";
const ENDED: &str = "the session ended";
const WHAT_IS_THERE: &str = "what is there";

const OF_UPLOADS: [&str; 3] = [WHAT_IS_THERE, "what is there with x-upsert", TOO_LARGE];
const OF_URLS: [&str; 5] =
    ["of another name", "of another bucket", "expired", "forged", "an access token"];
const OF_READ_URLS: [&str; 1] = ["made to store"];
const OF_STORE_URLS: [&str; 4] =
    ["made to read", TOO_LARGE, WHAT_IS_THERE, "what is there and made to replace it"];

/// Rows beyond one for each operation.
pub(super) fn variations() -> Vec<String> {
    let of = |row: &'static str, words: &'static [&'static str]| {
        words.iter().map(move |variation| format!("{row}, {variation}"))
    };
    of(POST, &OF_UPLOADS)
        .chain(of(READ, &[ENDED]))
        .chain(of(READ_URL, &OF_URLS))
        .chain(of(READ_URL, &OF_READ_URLS))
        .chain(of(STORE_URL, &OF_URLS))
        .chain(of(STORE_URL, &OF_STORE_URLS))
        .chain([SESSIONS.to_owned(), URLS.to_owned()])
        .collect()
}

/// The requests of one cell; `None`: no such row.
pub(super) fn probes(world: &World, row: &str, who: Who) -> Option<Vec<Probe>> {
    if row == SESSIONS || row == URLS {
        let is_wanted = |listed: &&String| {
            // An answer to HEAD does not say why.
            is_by_url(listed) == (row == URLS) && !listed.starts_with("HEAD")
        };
        let all = storage::listed();
        let unlisted = all.iter().filter(is_wanted).map(|listed| {
            let purpose = if listed == STORE_URL { "storage-upload" } else { "storage-download" };
            let token = Token { bucket: UNLISTED, ..Token::new(purpose, NEW) };
            let probe = request(world, listed, (UNLISTED, NEW), &token.signed(world))?;
            Some(Probe { expect: Expect::Answer, ..probe })
        });
        return unlisted.collect();
    }
    let (row, variation) = row.split_once(", ").unwrap_or((row, ""));
    if !storage::listed().iter().any(|listed| listed == row) {
        return None;
    }
    let name = match (row, variation) {
        (POST | STORE_URL, "" | TOO_LARGE) => NEW,
        (STORE_URL, _) if !variation.starts_with(WHAT_IS_THERE) => NEW,
        ("POST /storage/v1/object/upload/sign/{bucket}/{name}", _) => NEW,
        _ => KEPT,
    };
    let url_token = token_of(world, row, variation, name, who);
    let mut probe = request(world, row, (FILES, name), &url_token)?;
    if variation.ends_with("x-upsert") {
        probe.headers.push(("x-upsert", "true"));
    }
    if variation == ENDED {
        probe.before = Some("UPDATE main.sessions SET ended_at = 1".to_owned());
    }
    if variation == TOO_LARGE {
        return Some(too_large(&probe));
    }
    Some(vec![probe])
}

fn is_by_url(row: &str) -> bool {
    row == STORE_URL || (row.contains("/object/sign/") && !row.starts_with("POST"))
}

/// A request for an object, with what a good answer does.
fn request(
    world: &World,
    row: &str,
    (bucket, name): (&str, &str),
    url_token: &str,
) -> Option<Probe> {
    let (method, path) = row.split_once(' ')?;
    let mut path = path.replace("{bucket}", bucket).replace("{name}", name);
    if is_by_url(row) {
        path = format!("{path}?token={url_token}");
    }
    let seconds = json!({"expiresIn": 60});
    let (body, expect) = match (method, row.split_once("/object/")?.1) {
        ("GET", _) => (None, Expect::Shows(KEPT_TEXT)),
        ("HEAD", _) => (None, Expect::Answer),
        ("POST", "sign/{bucket}/{name}") => (Some(seconds), Expect::Signs),
        ("POST", "sign/{bucket}") => {
            (Some(json!({"expiresIn": 60, "paths": [name]})), Expect::Signs)
        }
        ("POST", "upload/sign/{bucket}/{name}") => (None, Expect::Signs),
        ("DELETE", "{bucket}") => (Some(json!({"prefixes": [name]})), removes(world)),
        ("DELETE", "{bucket}/{name}") => (None, removes(world)),
        ("POST" | "PUT", "{bucket}/{name}" | "upload/sign/{bucket}/{name}") => {
            let plain = Probe::get(path, stores(world, name));
            let body = Body::Bytes("text/plain", NEW_TEXT.into());
            return Some(Probe { method: method.parse().ok()?, body, ..plain });
        }
        _ => return None,
    };
    let method: Method = method.parse().ok()?;
    Some(Probe { method, body: body.map_or(Body::None, Body::Json), ..Probe::get(path, expect) })
}

/// The same bytes in each way: of a length that is announced or not, and in a form.
fn too_large(probe: &Probe) -> Vec<Probe> {
    let bytes = "x".repeat(MOST + 1);
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"\"; filename=\"f\"\r\n\r\n{bytes}\r\n--b--\r\n"
    );
    let bodies = [
        Body::Bytes("text/plain", bytes.clone()),
        Body::Stream(vec![bytes[..MOST].to_owned(), bytes[MOST..].to_owned()]),
        Body::Bytes("multipart/form-data; boundary=b", form),
    ];
    bodies.map(|body| Probe { body, ..probe.clone() }).to_vec()
}

fn object(team: &str, name: &str) -> (&'static str, String) {
    ("objects", format!("{team}/{FILES}/{name}"))
}

fn content(text: &str) -> [(&'static str, String); 2] {
    let hash = sha256_hex(text);
    [("contents", hash.clone()), ("files", hash)]
}

/// What storing an object writes: for the owner's team, or another's.
fn stores(world: &World, name: &str) -> Expect {
    let new = |team: &str| -> Files {
        content(NEW_TEXT).into_iter().chain([object(team, name)]).collect()
    };
    let mut of_team = new(&world.team);
    if name == KEPT {
        of_team.extend(content(KEPT_TEXT));
    }
    Expect::Files(vec![("yes", of_team), ("own", new(OTHER_TEAM))])
}

fn removes(world: &World) -> Expect {
    let all = content(KEPT_TEXT).into_iter().chain([object(&world.team, KEPT)]);
    Expect::Files(vec![("yes", all.collect())])
}

/// What a signed URL's token says. The owner's team made it.
struct Token {
    purpose: &'static str,
    bucket: &'static str,
    name: &'static str,
    lifetime: i64,
    key: Option<&'static [u8]>,
}

impl Token {
    fn new(purpose: &'static str, name: &'static str) -> Self {
        Self { purpose, bucket: FILES, name, lifetime: 60, key: None }
    }

    fn signed(&self, world: &World) -> String {
        let key = world.server.app.secrets.jwt_secret.expose_secret().as_bytes();
        let now = now_micros() / 1_000_000;
        Signer::new(self.key.unwrap_or(key)).sign(&json!({
            "kind": self.purpose,
            "team_id": world.team,
            "bucket": self.bucket,
            "name": self.name,
            "iat": now,
            "exp": now + self.lifetime,
        }))
    }
}

/// The token in the URL of a row.
fn token_of(world: &World, row: &str, variation: &str, name: &'static str, who: Who) -> String {
    let purpose = match variation {
        "made to read" => "storage-download",
        "what is there and made to replace it" => "storage-upsert",
        "made to store" => "storage-upload",
        _ if row == STORE_URL => "storage-upload",
        _ => "storage-download",
    };
    let good = Token::new(purpose, name);
    let token = match variation {
        "of another name" => Token { name: "d/other", ..good },
        "of another bucket" => Token { bucket: "more", ..good },
        "expired" => Token { lifetime: -1, ..good },
        "forged" => Token { key: Some(b"somebody else's"), ..good },
        "an access token" => return world.token(who),
        _ => good,
    };
    token.signed(world)
}

/// The team whose objects a signed URL in an answer opens.
pub(super) fn signed_team(answer: &str) -> Option<String> {
    let token = answer.split_once("?token=")?.1.split(['"', '&']).next()?;
    let claims = crate::sandbox::jwt::unverified(token).ok()?;
    claims.get("team_id").and_then(Value::as_str).map(str::to_owned)
}
