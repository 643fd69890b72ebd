//! Whose token it is, and what that one may do with which drive.

use axum::http::request::Parts;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::{Failure, Refused};
use super::feed;
use super::tree::{DriveRow, unsigned};
use crate::drive_sync::wire::{Access, Action, Code, Drive};
use crate::model::TeamId;
use crate::sandbox::access::{AccessError, Bearer, DriveToken, Identity};
use crate::sandbox::app::{App, now_micros, wire_time};
use crate::sandbox::credentials;
use crate::sandbox::rules::{Rule, Rules};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// A gateway, with its drive token, which ends then (seconds since 1970).
    Gateway(DriveToken, i64),
    /// The operator of this control plane.
    Operator,
}

/// What is wanted of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
}

/// A new drive token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Minted {
    pub(in crate::sandbox) token: String,
    /// Wire time.
    pub(in crate::sandbox) expires_at: String,
}

/// A drive token for a gateway of a team, e.g. that of a VM. What it opens is looked up when it is
/// used: it says who its bearer is, not what they may do.
pub(in crate::sandbox) fn mint_token(app: &App, token: &DriveToken) -> Minted {
    let now = now_micros().div_euclid(1_000_000);
    let lifetime = app.drives.limits.token_lifetime.as_secs();
    let lifetime = i64::try_from(lifetime).unwrap_or(i64::MAX);
    Minted {
        token: app.access.mint_drive(token, now, lifetime),
        expires_at: wire_time(now.saturating_add(lifetime).saturating_mul(1_000_000)),
    }
}

/// Another one for the bearer of this one.
pub(super) fn renew(app: &App, who: &Who) -> Result<Minted, Refused> {
    match who {
        Who::Gateway(token, _) => Ok(mint_token(app, token)),
        Who::Operator => Err(Refused::invalid("the operator has no drive token")),
    }
}

/// The gateway behind a request, by what it has shown; it must still be paired.
#[derive(Debug)]
pub(super) struct Shown {
    who: Who,
    /// The access token of its session, which is good for a new drive token and nothing else.
    is_session: bool,
}

impl Shown {
    /// Who that is for this request.
    pub(super) fn for_action(self, action: &Action, rules: Rules) -> Result<Who, Refused> {
        let is_enough =
            !self.is_session || matches!(action, Action::Renew) || !rules.hold(Rule::DriveKind);
        if is_enough { Ok(self.who) } else { Err(no_drive_token()) }
    }
}

fn no_drive_token() -> Refused {
    Refused::new(Code::Unauthorized, "the bearer is no drive token")
}

/// Looks at what a request shows.
pub(super) async fn of_token(app: &App, parts: &Parts) -> Result<Shown, Failure> {
    let refuse = |message: &str| Refused::new(Code::Unauthorized, message);
    let token = credentials::bearer(&parts.headers)
        .ok_or_else(|| refuse("this needs a drive token as bearer"))?;
    let (bearer, term) = app.access.claims(token).map_err(|_| no_drive_token())?;
    let (mut token, is_session) = match bearer {
        Bearer::Drive(token) => (token, false),
        Bearer::Session(identity) => {
            let Identity { gateway_id, team_id, .. } = identity;
            (DriveToken { gateway_id, team_id, vm_id: None }, true)
        }
    };
    app.access.check(term, now_micros().div_euclid(1_000_000), 0).map_err(|error| match error {
        AccessError::Expired => {
            Refused::new(Code::TokenExpired, "the drive token has ended: get a new one")
        }
        AccessError::Invalid | AccessError::NotYet => refuse("the drive token is not in force"),
    })?;
    let (gateway, of_team) = (token.gateway_id.clone(), token.team_id.clone());
    let paired = app.store.read(move |connection| {
        let paired = connection
            .prepare_cached(
                "SELECT gateway.vm_id FROM team_gateways AS gateway
                 JOIN sessions ON sessions.gateway_id = gateway.id
                 WHERE gateway.id = ?1 AND gateway.team_id = ?2 AND sessions.ended_at IS NULL
                 LIMIT 1",
            )?
            .query_row([gateway.as_str(), of_team.as_str()], |row| row.get::<_, Option<String>>(0))
            .optional()?;
        Ok::<_, Failure>(paired)
    });
    match paired.await? {
        Some(vm_id) if is_session => token.vm_id = vm_id,
        None if app.rules.hold(Rule::DrivePaired) => {
            return Err(refuse("the gateway of the drive token is no longer paired").into());
        }
        Some(_) | None => {}
    }
    Ok(Shown { who: Who::Gateway(token, term.until), is_session })
}

impl Who {
    /// When its token ends; the operator's does not.
    pub(super) fn token_ends(&self) -> String {
        match self {
            Self::Gateway(_, until) => wire_time(until.saturating_mul(1_000_000)),
            Self::Operator => wire_time(i64::MAX),
        }
    }

    fn team<'a>(&'a self, operators: &'a TeamId) -> &'a TeamId {
        match self {
            Self::Gateway(token, _) => &token.team_id,
            Self::Operator => operators,
        }
    }

    /// What it may do with a drive of its team.
    fn access(
        &self,
        connection: &Connection,
        drive: i64,
        rules: Rules,
    ) -> rusqlite::Result<Option<Access>> {
        let Self::Gateway(token, _) = self else { return Ok(Some(Access::Write)) };
        let word: Option<String> = connection
            .prepare_cached(
                "SELECT coalesce(
                     (SELECT access FROM drive_access WHERE drive = ?1 AND gateway_id = ?2),
                     (SELECT default_access FROM drives WHERE number = ?1))",
            )?
            .query_row(params![drive, token.gateway_id.as_str()], |row| row.get(0))
            .optional()?
            .flatten();
        Ok(match word.as_deref() {
            Some("write") => Some(Access::Write),
            Some("read") => Some(Access::Read),
            _ if rules.hold(Rule::DriveAccess) => None,
            _ => Some(Access::Read),
        })
    }
}

/// A drive, if that one may do that with it. One that it may not even read is as unknown as none.
pub(super) fn drive(
    connection: &Connection,
    who: &Who,
    operators: &TeamId,
    drive_id: &str,
    right: Right,
    rules: Rules,
) -> Result<DriveRow, Failure> {
    let team = Some(who.team(operators).as_str()).filter(|_| rules.hold(Rule::DriveTeam));
    let drive = feed::find_drive(connection, team, drive_id)?.ok_or_else(Refused::no_drive)?;
    let access = who.access(connection, drive.number, rules)?.ok_or_else(Refused::no_drive)?;
    if right == Right::Write && access == Access::Read && rules.hold(Rule::DriveReadOnly) {
        return Err(Refused::new(Code::ReadOnly, "this token may only read that drive").into());
    }
    Ok(drive)
}

/// The drives that one may use, by name.
pub(super) fn visible(
    connection: &Connection,
    who: &Who,
    operators: &TeamId,
    rules: Rules,
) -> rusqlite::Result<Vec<Drive>> {
    let team = Some(who.team(operators).as_str()).filter(|_| rules.hold(Rule::DriveTeam));
    let mut statement = connection.prepare_cached(
        "SELECT number, id, name, slug, head, epoch FROM drives
         WHERE ?1 IS NULL OR team_id = ?1 ORDER BY name, slug",
    )?;
    let mut rows = statement.query([team])?;
    let mut drives = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(access) = who.access(connection, row.get(0)?, rules)? else { continue };
        drives.push(Drive {
            drive_id: row.get(1)?,
            name: row.get(2)?,
            slug: row.get(3)?,
            access,
            head_sequence: unsigned(row.get(4)?),
            epoch: row.get(5)?,
        });
    }
    Ok(drives)
}
