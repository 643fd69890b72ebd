//! The rows of the matrix that are about drives.

use reqwest::Method;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::world::{Body, Expect, OTHER_TEAM, OWNER, Probe, SIBLING, Who, World};
use crate::sandbox::app::now_micros;
use crate::sandbox::auth::sha256_hex;
use crate::sandbox::drives::{DriveUrls, Purpose};
use crate::sandbox::jwt::Signer;
use crate::sandbox::rules::Rules;

const SYNC: &str = "POST /functions/v1/vm-drive-sync";
const GET: &str = "GET /drives/v1/contents/{version}";
const PUT: &str = "PUT /drives/v1/uploads/{upload}/{part}";

/// The owner may write, the sibling read.
pub(super) const OWNED: &str = "00000000-0000-4000-8000-000000000d01";
/// All of the team may write.
const TEAMS: &str = "00000000-0000-4000-8000-000000000d02";
/// The owner's alone.
const ALONE: &str = "00000000-0000-4000-8000-000000000d03";
/// Another team's; all of that may write.
const OTHERS: &str = "00000000-0000-4000-8000-000000000d04";
/// Uploads: of a content that another drive has; of another drive; of a new content.
const UPLOADS: [(&str, i64, &str); 3] =
    [("upload-known", 1, "content of 2"), ("upload-other", 2, "of 2"), ("upload-new", 1, "sent")];

/// What stands behind the comma.
const OF_SYNC: [&str; 10] = [
    "a new drive token",
    "a drive token",
    "a drive token, a drive for the team",
    "a drive token, a drive for the owner alone",
    "a drive token, a write where the sibling may only read",
    "a drive token, a version of another drive",
    "a drive token, a content of another drive",
    "a drive token, an upload of another drive",
    "a drive token, the session ended",
    "a drive token, renewed",
];
const OF_URLS: [&str; 4] = ["of another one", "expired", "forged", "made for the other purpose"];

/// Rows beyond one for each route.
pub(super) fn variations() -> Vec<String> {
    let of = |row: &'static str, words: &'static [&'static str]| {
        words.iter().map(move |variation| format!("{row}, {variation}"))
    };
    of(SYNC, &OF_SYNC).chain(of(GET, &OF_URLS)).chain(of(PUT, &OF_URLS)).collect()
}

/// Drives, an entry in each, uploads.
pub(super) fn seed(database: &Connection, team: &str) {
    let now = now_micros();
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| database.execute(sql, values).unwrap();
    let drives = [
        (OWNED, team, "none"),
        (TEAMS, team, "write"),
        (ALONE, team, "none"),
        (OTHERS, OTHER_TEAM, "write"),
    ];
    for (number, (id, team, access)) in (1_i64..).zip(drives) {
        run(
            "INSERT INTO drives (number, id, team_id, name, slug, epoch, head, default_access,
                 created_at) VALUES (?1, ?2, ?3, ?2, ?2, 'e', 1, ?4, ?5)",
            params![number, id, team, access, now],
        );
        let content = format!("content of {number}");
        let (hash, size) = (sha256_hex(&content), i64::try_from(content.len()).unwrap());
        run(
            "INSERT INTO contents (sha256, size, holders, version, bytes)
             VALUES (?1, ?2, 1, 1, ?3)",
            params![hash, size, content.as_bytes()],
        );
        let (entry, version) = (format!("entry-{number}"), format!("version-{number}"));
        run(
            "INSERT INTO drive_versions VALUES (?1, ?2, ?3, 1, ?4, ?5, 'text/plain', ?6, NULL)",
            params![version, number, entry, hash, size, now],
        );
        run(
            "INSERT INTO drive_changes (drive, sequence, change, entry_id, path, entry_type,
                 version_id, sha256, size, mime_type, operation_id, created_at)
             VALUES (?1, 1, 'upsert', ?2, 'f', 'file', ?3, ?4, ?5, 'text/plain', 'o', ?6)",
            params![number, entry, version, hash, size, now],
        );
    }
    for (number, gateway, access) in
        [(1_i64, OWNER, "write"), (1, SIBLING, "read"), (3, OWNER, "write")]
    {
        run("INSERT INTO drive_access VALUES (?1, ?2, ?3)", params![number, gateway, access]);
    }
    for (id, drive, content) in UPLOADS {
        let file = json!({
            "path": id, "size_bytes": content.len(), "content_sha256": sha256_hex(content),
            "expected_version_id": null, "operation_id": id,
        });
        run(
            "INSERT INTO drive_uploads VALUES (?1, ?2, ?1, 'f', ?3, ?4, ?5, ?6)",
            params![
                id,
                drive,
                file.to_string(),
                i64::try_from(content.len()).unwrap(),
                sha256_hex(content),
                i64::MAX
            ],
        );
    }
}

/// The requests of one cell; `None`: no such row.
pub(super) fn probes(world: &World, row: &str, who: Who) -> Option<Vec<Probe>> {
    let (row, variation) = row.split_once(", ").unwrap_or((row, ""));
    let probe = match row {
        SYNC => sync(variation),
        GET => {
            let id = if variation == OF_URLS[0] { "version-2" } else { "version-1" };
            let token = token(world, Purpose::Download, "version-1", variation);
            Probe::get(format!("/drives/v1/contents/{id}?token={token}"), Expect::Answer)
        }
        PUT => {
            let id = if variation == OF_URLS[0] { "upload-other" } else { "upload-new" };
            let token = token(world, Purpose::Upload, "upload-new", variation);
            let path = format!("/drives/v1/uploads/{id}/1?token={token}");
            let body = Body::Bytes("text/plain", "sent".to_owned());
            let wrote = writes(&["contents", "drive_upload_parts", "files"]);
            Probe { method: Method::PUT, body, ..Probe::get(path, wrote) }
        }
        _ => admin(row)?,
    };
    let _ = who;
    Some(vec![probe])
}

fn writes(tables: &[&'static str]) -> Expect {
    Expect::Writes(tables.iter().map(|table| (*table, None)).collect())
}

/// The token of a signed URL: a good one, but for the one thing.
fn token(world: &World, purpose: Purpose, id: &str, variation: &str) -> String {
    let forger = DriveUrls::new(Signer::new(b"somebody else's"), Rules::default());
    let urls = if variation == "forged" { &forger } else { &world.server.app.drives.urls };
    let now = now_micros() / 1_000_000;
    let until = if variation == "expired" { now } else { now + 60 };
    let other = if purpose == Purpose::Upload { Purpose::Download } else { Purpose::Upload };
    urls.mint(if variation == OF_URLS[3] { other } else { purpose }, id, until)
}

fn sync(variation: &str) -> Probe {
    let is_drive = variation.starts_with("a drive token");
    let variation = variation.trim_start_matches("a drive token").trim_start_matches(", ");
    let made = || writes(&["drive_changes", "drive_operations", "drives"]);
    let (action, expect) = match variation {
        "a drive for the team" => (json!({"action": "digest", "drive_id": TEAMS}), Expect::Answer),
        "a drive for the owner alone" => {
            (json!({"action": "digest", "drive_id": ALONE}), Expect::Answer)
        }
        "a write where the sibling may only read" => (
            json!({"action": "mkdir", "drive_id": OWNED, "path": "d", "operation_id": "new"}),
            made(),
        ),
        "a version of another drive" => {
            let wanted = json!({"action": "download", "drive_id": OWNED, "entry_id": "entry-2",
                                "version_id": "version-2"});
            (wanted, Expect::Answer)
        }
        "a content of another drive" => {
            let tables = [
                "contents",
                "drive_changes",
                "drive_operations",
                "drive_uploads",
                "drive_versions",
                "drives",
            ];
            (commit("upload-known"), writes(&tables))
        }
        "an upload of another drive" => (commit("upload-other"), made()),
        "renewed" | "a new drive token" => (json!({"action": "renew"}), Expect::Answer),
        _ => (json!({"action": "hello", "protocol": 1}), Expect::Shows(OWNED)),
    };
    let mut body = action;
    body["client_key"] = json!("matrix");
    let ended = "UPDATE main.sessions SET ended_at = 1".to_owned();
    let before = (variation == "the session ended").then_some(ended);
    Probe { before, is_drive, ..Probe::post("/functions/v1/vm-drive-sync", body, expect) }
}

fn commit(upload: &str) -> Value {
    json!({"action": "commit_upload", "drive_id": OWNED, "upload_id": upload,
           "operation_id": upload})
}

fn admin(row: &str) -> Option<Probe> {
    let path = row.split_once(' ')?.1.replace("{id}", OWNED);
    Some(match row {
        "GET /admin/v1/drives" | "GET /admin/v1/drives/{id}/entries" => {
            Probe::get(path, Expect::Answer)
        }
        "POST /admin/v1/drives" => Probe::post(path, json!({"name": "New"}), writes(&["drives"])),
        "POST /admin/v1/drives/{id}/access" => {
            let body = json!({"gateway_id": SIBLING, "access": "write"});
            Probe::post(path, body, writes(&["drive_access"]))
        }
        "POST /admin/v1/drives/{id}/restore" => Probe::post(path, json!({}), writes(&["drives"])),
        "POST /admin/v1/drive-tokens" => {
            Probe::post(path, json!({"gateway_id": OWNER}), Expect::Answer)
        }
        "POST /admin/v1/drive-sync" => {
            let body = json!({"action": "mkdir", "drive_id": OWNED, "path": "d",
                              "operation_id": "new"});
            Probe::post(path, body, writes(&["drive_changes", "drive_operations", "drives"]))
        }
        _ => return None,
    })
}
