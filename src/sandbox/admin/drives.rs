//! Drives: make them, see what is in them, say who may use them, take one back to an earlier state.
//! What is in them changes by the same requests as a VM's.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::AdminError;
use super::{Answer, Created, Id, Input, Params, gateways};
use crate::model::GatewayId;
use crate::sandbox::access::DriveToken;
use crate::sandbox::app::Shared;
use crate::sandbox::drives::{self, Failure, Minted, NewDrive, status};

impl From<Failure> for AdminError {
    fn from(failure: Failure) -> Self {
        let refused = failure.told();
        let code = match serde_json::to_value(refused.code) {
            Ok(Value::String(code)) => code,
            _ => "internal".to_owned(),
        };
        Self::new(status(refused.code), code, refused.message)
    }
}

/// All of the team, by name.
pub(super) async fn list(State(app): State<Shared>) -> Answer {
    let team = app.team_id.clone();
    let listed = app
        .store
        .read(move |connection| Ok::<_, AdminError>(drives::list(connection, team.as_str())?));
    Ok(Json(Value::Array(listed.await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    name: String,
    access: Option<String>,
}

/// A new one.
pub(super) async fn create(State(app): State<Shared>, Input(new): Input<New>) -> Created {
    let team = app.team_id.clone();
    let access = new.access.unwrap_or_else(|| "write".to_owned());
    let new = NewDrive { name: new.name, access };
    let made = app.store.write(move |write| drives::create(write.tx, team.as_str(), &new));
    Ok((StatusCode::CREATED, Json(made.await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Below {
    #[serde(default)]
    path: String,
    #[serde(default)]
    after: String,
}

/// `{entry, entries, has_more}`: what is at `path`, and what is below it, by path, after `after`.
pub(super) async fn entries(
    State(app): State<Shared>,
    Id(id): Id,
    Params(below): Params<Below>,
) -> Answer {
    let team = app.team_id.clone();
    let (entry, entries, has_more) = app
        .store
        .read(move |connection| {
            drives::entries(connection, team.as_str(), &id, (&below.path, &below.after))
        })
        .await?;
    Ok(Json(json!({"entry": entry, "entries": entries, "has_more": has_more})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    gateway_id: String,
    access: String,
}

/// Says what one gateway may do: `none`, `read` or `write`.
pub(super) async fn set_access(
    State(app): State<Shared>,
    Id(id): Id,
    Input(grant): Input<Grant>,
) -> Answer {
    let team = app.team_id.clone();
    app.store
        .write(move |write| {
            let gateway = gateways::choose(write.tx, &team, Some(&grant.gateway_id))?;
            drives::set_access(write.tx, team.as_str(), &id, (&gateway, &grant.access))?;
            let answer = json!({"drive_id": id, "gateway_id": gateway, "access": grant.access});
            Ok::<_, AdminError>(Json(answer))
        })
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    sequence: Option<u64>,
}

/// Takes a drive back to how it was at `sequence`, or leaves it as it is; a new epoch either way.
pub(super) async fn restore(
    State(app): State<Shared>,
    Id(id): Id,
    Input(back): Input<Back>,
) -> Answer {
    let team = app.team_id.clone();
    let restored = app.store.write(move |write| {
        let restored = drives::restore(write.tx, team.as_str(), &id, back.sequence)?;
        let head = restored.head_sequence;
        let answer = json!({"drive_id": id, "epoch": restored.epoch, "head_sequence": head});
        Ok::<_, AdminError>(Json(answer))
    });
    let answer = restored.await?;
    app.storage.contents.remove_released();
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    gateway_id: Option<String>,
    vm_id: Option<String>,
}

/// A drive token for a gateway of the team.
pub(super) async fn make_token(State(app): State<Shared>, Input(new): Input<NewToken>) -> Created {
    let team = app.team_id.clone();
    let named = new.gateway_id;
    let gateway = app
        .store
        .read(move |connection| gateways::choose(connection, &team, named.as_deref()))
        .await?;
    let token = DriveToken {
        gateway_id: GatewayId::new(gateway),
        team_id: app.team_id.clone(),
        vm_id: new.vm_id,
    };
    let Minted { token: text, expires_at } = drives::mint_token(&app, &token);
    let answer = json!({"gateway_id": token.gateway_id, "token": text, "expires_at": expires_at});
    Ok((StatusCode::CREATED, Json(answer)))
}

/// What a VM may ask for, for the operator: the body is the action without `client_key`.
pub(super) async fn sync(State(app): State<Shared>, request: Request) -> Response {
    drives::handle_operator(&app, request).await
}
