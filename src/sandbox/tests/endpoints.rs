//! The rows of the matrix that are about everything but tables.

use serde_json::{Value, json};

use super::seed::row_in;
use super::world::{
    CODE, Expect, OLD_CODE, OLD_VM_TOKEN, OTHER_TEAM, OWNER, Probe, RUN, SIBLING, STRANGER,
    SUBAGENT, USED_CODE, USED_VM_TOKEN, VM_TOKEN, Who, World,
};
use super::{drives, realtime, storage};
use crate::sandbox::store::schema::Schema;
use crate::sandbox::{self, functions, routes};

/// Rows beyond one for each route: the same request where one thing is otherwise.
pub(super) const VARIATIONS: [&str; 24] = [
    "any route under a foreign Host",
    "any admin route from a foreign page",
    "POST /auth/v1/token, a token long used",
    "POST /auth/v1/token, the session ended",
    "GET /auth/v1/user, the session ended",
    "GET /auth/v1/user, a token of tomorrow",
    "POST /auth/v1/logout, the session ended",
    "GET /rest/v1/, tables that REST does not show",
    "POST /functions/v1/exchange-gateway-pairing-code, a used code",
    "POST /functions/v1/exchange-gateway-pairing-code, an expired code",
    "POST /functions/v1/exchange-gateway-pairing-code, after ten wrong ones",
    "POST /functions/v1/exchange-vm-bootstrap-token, a used token",
    "POST /functions/v1/exchange-vm-bootstrap-token, an expired token",
    "POST /functions/v1/finalize-gateway-subagent-run, again",
    "POST /functions/v1/finalize-gateway-subagent-run, again but failed",
    "POST /functions/v1/finalize-gateway-subagent-run, of another subagent",
    "POST /functions/v1/finalize-gateway-subagent-run, the subagent given to the sibling",
    "POST /functions/v1/finalize-gateway-subagent-run, the run moved to another team",
    "POST /functions/v1/set-gateway-full-control, a gateway of another team",
    "POST /functions/v1/set-gateway-full-control from a foreign page",
    "POST /rest/v1/rpc/resolve_secret_placeholders_for_job, a job that is over",
    "GET /realtime/v1/websocket, a wrong key",
    realtime::EXPIRES,
    realtime::RENEWED,
];

/// What makes a `GET` the handshake of a websocket.
const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
];

/// A row for everything that is served.
pub(super) fn rows() -> Vec<String> {
    let mut rows = plain_rows();
    rows.extend(VARIATIONS.map(str::to_owned));
    rows.extend(storage::variations());
    rows.extend(drives::variations());
    rows
}

/// One for each route; those that stand for many are taken apart.
fn plain_rows() -> Vec<String> {
    let taken_apart = |route: String| match route.as_str() {
        // And tables, which have rows of their own.
        "ANY /rest/v1/{*path}" => {
            let schema = Schema::built_in();
            schema.functions().map(|f| format!("POST /rest/v1/rpc/{}", f.name)).collect()
        }
        "ANY /functions/v1/{name}" => {
            functions::NAMES.iter().map(|name| format!("POST /functions/v1/{name}")).collect()
        }
        "ANY /storage/v1/{*path}" => sandbox::storage::listed(),
        _ => vec![route],
    };
    routes::listed().into_iter().flat_map(taken_apart).collect()
}

/// The requests of one cell; `None`: no such row.
pub(super) fn probes(world: &World, row: &str, who: Who) -> Option<Vec<Probe>> {
    let areas = [storage::probes, drives::probes];
    if let Some(probes) = areas.into_iter().find_map(|area| area(world, row, who)) {
        return Some(probes);
    }
    let probe = match row {
        "any route under a foreign Host" => {
            return Some(everywhere(world, "", ("host", "evil.example"), who));
        }
        "any admin route from a foreign page" => {
            return Some(everywhere(world, "/admin/", ("origin", "http://evil.example"), who));
        }
        "GET /rest/v1/, tables that REST does not show" => {
            let hidden = [
                "teams",
                "sessions",
                "refresh_tokens",
                "pairing_codes",
                "vms",
                "vm_tokens",
                "secrets",
                "sqlite_master",
                "job_secret_placeholders",
                "contents",
                "drives",
                "drive_changes",
                "drive_versions",
                "drive_uploads",
                "nothing",
            ];
            let get = |table| Probe::get(format!("/rest/v1/{table}"), Expect::Answer);
            return Some(hidden.into_iter().map(get).collect());
        }
        _ => {
            let (path, variation) = match row.split_once(", ") {
                Some((path, variation)) => (path, variation),
                None => (row, ""),
            };
            let (path, header) = match path.strip_suffix(" from a foreign page") {
                Some(path) => (path, Some(("origin", "http://evil.example"))),
                None => (path, None),
            };
            let mut probe = plain(world, path, variation, who)?;
            probe.headers.extend(header);
            probe
        }
    };
    Some(vec![probe])
}

/// The plain request of every row, with one header more.
fn everywhere(
    world: &World,
    part: &str,
    header: (&'static str, &'static str),
    who: Who,
) -> Vec<Probe> {
    let rows = plain_rows().into_iter().filter(|row| row.contains(part));
    let of_row = |row: String| {
        let areas = [storage::probes, drives::probes];
        let of_area = areas.into_iter().find_map(|area| area(world, &row, who));
        of_area.unwrap_or_else(|| plain(world, &row, "", who).into_iter().collect())
    };
    let mut probes: Vec<Probe> = rows.flat_map(of_row).collect();
    for probe in &mut probes {
        probe.headers.push(header);
    }
    probes
}

fn wrote(table: &'static str) -> (&'static str, Option<String>) {
    (table, None)
}

fn plain(world: &World, row: &str, variation: &str, who: Who) -> Option<Probe> {
    let ended = |probe| Probe {
        before: (variation == "the session ended")
            .then(|| "UPDATE main.sessions SET ended_at = 1".to_owned()),
        ..probe
    };
    Some(match row {
        "GET /healthz" | "GET /auth/v1/health" | "GET /auth/v1/.well-known/jwks.json" => {
            Probe::get(row.strip_prefix("GET ")?, Expect::Answer)
        }
        "POST /auth/v1/token" => {
            let old = variation == "a token long used";
            let token = &world.refresh[if old { 0 } else { 2 }];
            ended(Probe::post(
                "/auth/v1/token?grant_type=refresh_token",
                json!({"refresh_token": token}),
                Expect::Writes(vec![wrote("refresh_tokens"), wrote("refresh_tokens")]),
            ))
        }
        "GET /auth/v1/user" => {
            let is_early = variation == "a token of tomorrow";
            let probe = Probe::get("/auth/v1/user", Expect::Shows(who.gateway()));
            ended(Probe { is_early, ..probe })
        }
        "POST /auth/v1/logout" => {
            let expect = Expect::Writes(vec![wrote("refresh_tokens"), wrote("sessions")]);
            ended(Probe::post("/auth/v1/logout", json!({}), expect))
        }
        "GET /realtime/v1/websocket" => {
            let mut headers = HANDSHAKE.to_vec();
            headers.extend((variation == "a wrong key").then_some(("apikey", "wrong")));
            Probe { headers, ..Probe::get("/realtime/v1/websocket", Expect::Answer) }
        }
        "ANY /rest/v1/" => Probe::get("/rest/v1/", Expect::Answer),
        "POST /rest/v1/rpc/resolve_secret_placeholders_for_job" => {
            let state = if variation.is_empty() { "running" } else { "completed" };
            let body = json!({"p_job_id": row_in("gateway_jobs", state)});
            Probe::post(row.strip_prefix("POST ")?, body, Expect::Shows("pano_sec_1"))
        }
        _ if row.contains(" /functions/v1/") => function(row, variation, who)?,
        _ if row.contains(" /admin/v1/") => admin(row)?,
        _ => return None,
    })
}

fn function(row: &str, variation: &str, who: Who) -> Option<Probe> {
    let path = row.strip_prefix("POST ")?;
    let (body, expect) = match path.strip_prefix("/functions/v1/")? {
        "exchange-gateway-pairing-code" => {
            let code = match variation {
                "a used code" => USED_CODE,
                "an expired code" => OLD_CODE,
                _ => CODE,
            };
            let tables = ["pairing_codes", "refresh_tokens", "sessions", "team_gateways"];
            let body = json!({"code": code, "device_name": "box"});
            (body, Expect::Writes(tables.map(wrote).to_vec()))
        }
        "exchange-vm-bootstrap-token" => {
            let token = match variation {
                "a used token" => USED_VM_TOKEN,
                "an expired token" => OLD_VM_TOKEN,
                _ => VM_TOKEN,
            };
            let tables = ["refresh_tokens", "sessions", "team_gateways", "vm_tokens", "vms"];
            let body =
                json!({"bootstrap_token": token, "device_name": "box", "gateway_version": "1"});
            (body, Expect::Writes(tables.map(wrote).to_vec()))
        }
        "gateway-heartbeat" => {
            let body = json!({"status": "ready", "device_name": "box",
                              "capabilities": {"schema_version": "v1"}});
            let own = ("team_gateways", Some(who.gateway().to_owned()));
            (body, Expect::Writes(vec![own]))
        }
        "finalize-gateway-subagent-run" => finalize(variation),
        "set-gateway-full-control" => {
            let other = variation == "a gateway of another team";
            let id = if other { STRANGER } else { OWNER };
            let body = json!({"gateway_id": id, "enabled": true});
            (body, Expect::Writes(vec![("team_gateways", Some(id.to_owned()))]))
        }
        _ => return None,
    };
    let before = match variation {
        "the subagent given to the sibling" => {
            Some(format!("UPDATE main.subagents SET gateway_id = '{SIBLING}'"))
        }
        "the run moved to another team" => {
            Some(format!("UPDATE main.subagent_runs SET team_id = '{OTHER_TEAM}'"))
        }
        _ => None,
    };
    let guesses = if variation == "after ten wrong ones" { 10 } else { 0 };
    Some(Probe { before, guesses, ..Probe::post(path, body, expect) })
}

fn finalize(variation: &str) -> (Value, Expect) {
    let envelope = json!({"schema_version": 1, "content": "done", "content_type": "text"});
    let (run, subagent) = match variation {
        "again" | "again but failed" => (row_in("subagent_runs", "completed"), SUBAGENT.to_owned()),
        "of another subagent" => (RUN.to_owned(), row_in("subagents", "idle")),
        _ => (RUN.to_owned(), SUBAGENT.to_owned()),
    };
    let mut body = json!({"subagent_id": subagent, "run_id": run, "final_status": "completed",
                          "output": envelope, "failure_output": null, "final_error": null});
    if variation == "again but failed" {
        body = json!({"subagent_id": subagent, "run_id": run, "final_status": "failed",
                      "failure_output": envelope, "final_error": "it broke"});
    }
    let rows = vec![("subagent_runs", Some(run)), ("subagents", Some(subagent))];
    (body, Expect::Writes(rows))
}

fn admin(row: &str) -> Option<Probe> {
    let (method, path) = row.split_once(' ')?;
    let id = match path {
        // One that may go on.
        "/admin/v1/subagents/{id}/runs" => row_in("subagents", "idle"),
        _ if path.contains("/subagents/") => SUBAGENT.to_owned(),
        _ if path.contains("/subagent-runs/") => RUN.to_owned(),
        _ => row_in("gateway_jobs", "running"),
    };
    let path = path.replace("{id}", &id);
    if method == "GET" {
        return Some(Probe::get(path, Expect::Answer));
    }
    let (body, tables): (_, &[&str]) = match row.strip_prefix("POST /admin/v1/")? {
        "pairing-codes" => (json!({}), &["pairing_codes"]),
        "full-control" => (json!({"gateway_id": OWNER, "enabled": true}), &["team_gateways"]),
        "jobs" => (json!({"gateway_id": OWNER, "job_type": "diagnostic"}), &["gateway_jobs"]),
        "jobs/{id}/cancel" => (json!({}), &["gateway_jobs"]),
        "subagents" => {
            let body = json!({"gateway_id": OWNER, "subagent_type": "codex_gateway",
                              "prompt": "do it"});
            (body, &["gateway_jobs", "subagent_runs", "subagents"])
        }
        "subagents/{id}/runs" => {
            (json!({"prompt": "go on"}), &["gateway_jobs", "subagent_runs", "subagents"])
        }
        "subagents/{id}/cancel" => (json!({}), &["gateway_jobs", "subagent_runs"]),
        "resources" => {
            let body = json!({"gateway_id": OWNER, "resource_type": "remote_shell",
                              "max_access_level": "execute"});
            (body, &["team_resources"])
        }
        "vm-tokens" => (json!({}), &["vm_tokens", "vms"]),
        "secrets" => (json!({"name": "new"}), &["secrets"]),
        "secrets/remove" => (json!({"name": "known"}), &["secrets"]),
        _ => return None,
    };
    let rows = tables.iter().map(|table| wrote(table)).collect();
    Some(Probe::post(path, body, Expect::Writes(rows)))
}
